"""One rule cuts a prompt, whatever spells it."""

from __future__ import annotations

import pytest

from fewfit import Template
from fewfit.models.local import Checkpoint, PromptEncoder, load
from fewfit.models.local.cutting import joined, shortened
from fewfit.prompts import Part
from fewfit.tuning.choices import ChoiceEncoder, ChoiceExample
from tests.hf_checkpoints import KINDS, build


def letters(parts):
    """Every character is a token."""
    text = joined(parts)
    return text, len(text), [(i, i + 1) for i in range(len(text))]


def pairs(parts):
    """Two characters are a token, whatever part they are of."""
    text = joined(parts)
    ends = [(i, min(i + 2, len(text))) for i in range(0, len(text), 2)]
    return text, len(ends), ends


def parts(*texts):
    return [Part("literal" if i % 2 else "field", text) for i, text in enumerate(texts)]


def test_the_longest_field_loses_its_end_until_it_fits():
    cut = parts("abcdefgh", " and ", "xyz")
    assert shortened(cut, 16, letters) == "abcdefgh and xyz"
    assert shortened(cut, 14, letters) == "abcdef and xyz"
    assert shortened(cut, 11, letters) == "abc and xyz"
    assert shortened(cut, 9, letters) == "ab and xy"


def test_where_no_text_is_left_the_template_is_whole():
    assert shortened(parts("abc", " and ", "xyz"), 5, letters) == " and "
    assert shortened(parts("abc", " and ", "xyz"), 2, letters) == " and "
    assert shortened(parts("", " and ", ""), 2, letters) == " and "


def test_tokens_that_lie_across_a_border_come_to_an_end():
    for limit in range(12):
        text = shortened(parts("abcde", " and ", "xyzuvw"), limit, pairs)
        assert " and " in text
        assert len(text) <= 2 * limit or text == " and "


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_a_tuned_model_cuts_as_a_frozen_one(name, tmp_path):
    """Where both spell a template alike, what is left of the texts is the same tokens."""
    _, words = load(Checkpoint(str(build(name, tmp_path))), dtype="float32", device="cpu")
    template = Template("{a} . {b} it was {mask}")
    prompt = template.render({"a": "the movie was fun " * 5, "b": "really great fun " * 20})
    for limit in (12, 23, 30):
        tuned = ChoiceEncoder(words, KINDS[name], max_tokens=limit)
        item = tuned.encode(ChoiceExample(prompt, ("good", "bad"), 0))
        frozen = PromptEncoder(words, KINDS[name], name, answers=True)
        same = frozen.encode([prompt], limit + (name == "bert"))[0]  # its mask is no token here
        assert item.truncated
        assert same.truncated
        assert len(item.before) + len(item.after) == limit
        assert item.before == same.ids[: len(item.before)]
