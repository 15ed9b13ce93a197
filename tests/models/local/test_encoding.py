"""Choices side by side: each scores as the same word asked alone, and none is in another's way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewfit import Template
from fewfit.errors import InputError
from fewfit.models import TransformersModel
from fewfit.models.local import Checkpoint, Narrowed, PromptEncoder, load
from fewfit.tuning import Packer
from fewfit.tuning.choices import Encoded
from tests.hf_checkpoints import KINDS, build

TEMPLATE = Template("{text} In summary, it was {mask}.")
CHOICES = ["great", "New York", "bad", "film news"]
TEXTS = ["the movie was fun", "", "I hated it. I loved it. (really) </s> [MASK]", "fun " * 99]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in KINDS}


def encoder(checkpoints, name, **options):
    network, words = load(Checkpoint(str(checkpoints[name])), dtype="float32", device="cpu")
    return network, PromptEncoder(words, KINDS[name], name, **options)


@pytest.mark.parametrize("name", [name for name in KINDS if KINDS[name] != "seq2seq"])
def test_packed_choices_score_as_the_model_asked_about_each_word(checkpoints, name):
    """What an adapter that changes nothing must give, whatever reads the choices."""
    model = TransformersModel(checkpoints[name], space="logprob")
    asked = [TEMPLATE.render({"text": text}) for text in TEXTS]
    expected = model.observe(asked, CHOICES)
    network, words = encoder(checkpoints, name)
    found = [words.encode_choices(prompt, CHOICES, model.max_tokens) for prompt in asked]
    assert [item.truncated for item in found] == [False, False, False, True]
    mask = words.slot_id
    pack = Packer(KINDS[name], model._network._pad_id, mask_id=mask)
    batch = pack([Encoded(item.before, item.after, item.choices, 0, 0) for item in found])
    narrowed = Narrowed(network)
    with torch.inference_mode():
        output, states = narrowed(batch.inputs, *batch.at)
    log_probs = output.logits[0].log_softmax(-1)
    each = log_probs[torch.arange(len(batch.targets)), batch.targets]
    scores = torch.zeros(len(batch.example)).index_add(0, batch.choice, each)
    np.testing.assert_allclose(scores.view(len(TEXTS), -1), expected.scores, atol=3e-5)
    assert states.shape == (len(batch.targets), model.observe(asked[:1], CHOICES).hidden.shape[1])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("end", [True, False])
def test_prompt_and_choice_fit_together_and_the_template_is_whole(checkpoints, name, end):
    _, words = encoder(checkpoints, name, answers=True)
    prompt = TEMPLATE.render({"text": "really great fun " * 40})
    short = TEMPLATE.render({"text": ""})
    limit = 30
    item = words.encode_choices(prompt, CHOICES, limit, end=end)
    assert item.truncated
    longest = 0 if KINDS[name] == "seq2seq" else max(map(len, item.choices)) - 1
    masks = 1 if KINDS[name] == "masked" else 0
    n = len(item.before) + masks + len(item.after)
    assert limit - 3 <= n + longest <= limit
    blank = words.encode_choices(short, CHOICES, limit, end=end)
    assert item.after == blank.after
    assert item.before[-2:] == blank.before[-2:]
    closed = {tokens[-1] for tokens in item.choices}
    assert (closed == {words.end_id}) == (end and words.end_id is not None)


def test_an_encoder_decoder_that_answers_reads_the_prompt_up_to_the_slot(checkpoints):
    _, words = encoder(checkpoints, "t5", answers=True)
    prompt = TEMPLATE.render({"text": "the movie was fun"})
    item = words.encode_choices(prompt, ["great", "bad"], 64, end=True)
    whole = words.backend.encode("the movie was fun In summary, it was").ids
    assert item.before == whole
    assert item.after == []
    assert [words.backend.decode(tokens[:-1]) for tokens in item.choices] == ["▁great", "▁bad"]
    prompt = Template("{text} it was {mask} news").render({"text": "x"})
    with pytest.raises(InputError, match="an encoder-decoder model would never read 'news'"):
        words.encode_choices(prompt, ["great", "bad"], 64)


def test_a_template_that_leaves_no_room_for_the_choices_is_refused(checkpoints):
    _, words = encoder(checkpoints, "gpt2")
    prompt = TEMPLATE.render({"text": "fun"})
    with pytest.raises(InputError, match="tokens without any text"):
        words.encode_choices(prompt, ["great", "bad " * 30], 32)
