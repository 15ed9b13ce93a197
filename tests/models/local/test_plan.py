"""Words of several tokens."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit.errors import (
    InputError,
    LabelWordWarning,
)
from fewfit.models import TransformersModel
from tests.hf_checkpoints import KINDS, build
from tests.models.local.test_model import TEMPLATE, TEXTS, direct, prompts


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_words_of_several_tokens_are_scored_whole(checkpoints, name):
    folder = checkpoints[name]
    words = ["New York", "great", "New Delhi", "film news", "bad"]
    model = TransformersModel(folder, space="logprob")
    ids = model._encoder.word_ids(tuple(prompts(["x"])[0].parts), words)
    assert {len(tokens) for tokens in ids} > {1}
    found = model.observe(prompts(TEXTS), words)
    shifted = TransformersModel(folder).observe(prompts(TEXTS), words)
    for row, text in enumerate(TEXTS[:3]):
        text = TEMPLATE.replace("{text}", text)
        total = []
        for tokens in ids:
            masks = len(tokens) if KINDS[name] == "masked" else 1
            _, logits = direct(folder, name, text, continuation=tokens[:-1], masks=masks)
            log_probs = logits.log_softmax(-1)
            total.append(sum(float(log_probs[i, t]) for i, t in enumerate(tokens)))
        states, logits = direct(folder, name, text)
        np.testing.assert_allclose(found.scores[row], total, atol=3e-5)
        np.testing.assert_allclose(found.hidden[row], states[0], atol=1e-5)
        constant = float(logits[0].logsumexp(-1))
        np.testing.assert_allclose(shifted.scores[row], np.add(total, constant), atol=5e-5)
    assert found.queries == len(TEXTS)
    if KINDS[name] == "masked":
        assert np.isnan(found.label_mass).all()  # several masks are several distributions
    else:
        np.testing.assert_allclose(found.label_mass, np.exp(found.scores).sum(1), rtol=1e-4)


def test_label_mass_counts_no_probability_twice(checkpoints):
    model = TransformersModel(checkpoints["gpt2"], space="logprob")
    found = model.observe(prompts(TEXTS), ["New", "New York", "bad"])
    np.testing.assert_allclose(found.label_mass, np.exp(found.scores[:, [0, 2]]).sum(1), rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_first_token_mode_warns_of_collisions_and_refuses_when_all_collide(checkpoints, name):
    model = TransformersModel(checkpoints[name], multi_token="first")
    with pytest.warns(LabelWordWarning, match="'New York' and 'New Delhi'"):
        found = model.observe(prompts(TEXTS), ["New York", "bad", "New Delhi"])
    np.testing.assert_array_equal(found.scores[:, 0], found.scores[:, 2])
    first = TransformersModel(checkpoints[name]).observe(prompts(TEXTS), ["New", "bad"])
    np.testing.assert_allclose(found.scores[:, :2], first.scores, atol=1e-5)
    with pytest.raises(InputError, match="have the same tokens"):
        model.observe(prompts(TEXTS), ["New York", "New Delhi"])


def test_words_that_the_vocabulary_lacks_are_refused(checkpoints):
    with pytest.raises(InputError, match="'漢字' is not in the vocabulary"):
        TransformersModel(checkpoints["bert"]).observe(prompts(["x"]), ["great", "漢字"])
