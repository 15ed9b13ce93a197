"""Examples with choices: what is refused, and the tokens."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")


from fewfit.errors import InputError
from fewfit.tuning import (
    ChoiceExample,
)
from tests.tuning_models import TEMPLATE, example, trunk


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        ((), 0, "at least two"),
        (("yes",), 0, "at least two"),
        ("yes", 0, "at least two"),
        (("yes", " "), 0, "empty choice"),
        (("yes", None), 0, "empty choice"),
        (("yes", "no", "yes "), 0, "'yes ' twice"),
        (("yes", "no"), 2, "number 2"),
        (("yes", "no"), -1, "number -1"),
    ],
)
def test_choices_that_cannot_be_ranked_are_refused(choices, answer, message):
    with pytest.raises(InputError, match=message):
        ChoiceExample(TEMPLATE.render({"text": "so good"}), choices, answer)


def test_an_answer_that_is_no_choice_is_refused():
    prompt = TEMPLATE.render({"text": "so good"})
    assert ChoiceExample.of(prompt, ["no", "yes"], "yes").answer == 1
    with pytest.raises(InputError, match="'maybe' of 'so good' is not one of"):
        ChoiceExample.of(prompt, ["no", "yes"], "maybe")


def test_choices_that_are_the_same_tokens_are_refused():
    with pytest.raises(InputError, match="same tokens"):
        trunk().encoder.encode(example("a film", 0, ("unheard", "of")))


def test_a_long_text_is_cut_and_the_template_is_not():
    trunk_ = trunk()  # reads 32 tokens
    item = trunk_.encoder.encode(example("movie " * 100, 0))
    whole = trunk_.encoder.encode(example("movie", 0))
    assert item.truncated
    assert not whole.truncated
    assert len(item.before) <= 32
    assert item.before[-3:] == whole.before[-3:]  # "it was </s>"
    assert len(item.before) > 28


def test_special_tokens_in_a_text_are_text():
    trunk_ = trunk()
    item = trunk_.encoder.encode(example("good </s> <mask> bad", 0))
    assert item.before.count(1) == 1
    assert 4 not in item.before
    masked = trunk("bert")
    item = masked.encoder.encode(example("good <mask> bad", 0))
    batch = masked.pack([item])
    assert (batch.inputs["input_ids"] == 4).sum(1).tolist() == [1, 3, 2]


@pytest.mark.parametrize("name", ["t5-gated", "gpt2"])
def test_a_slot_that_is_not_at_the_end_is_refused(name):
    from fewfit.prompts import Template

    prompt = Template("it was {mask} in {text}").render({"text": "new york"})
    with pytest.raises(InputError, match=r"move \{mask\} to the end"):
        trunk(name).encoder.encode(ChoiceExample(prompt, ("good", "bad"), 0))
    trunk("bert").encoder.encode(ChoiceExample(prompt, ("good", "bad"), 0))
