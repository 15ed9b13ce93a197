"""Vectors in front of a prompt, and black-box tuning, which searches for them."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit.errors import CapabilityError, InputError
from fewfit.models import FakeModel, TransformersModel
from fewfit.models.budget import BudgetedModel
from fewfit.models.optional import takes_soft_prompts
from fewfit.store import StoredModel
from tests.conftest import prompts
from tests.hf_checkpoints import build

WORDS = ["great", "bad"]


TEXTS = ["the movie was fun", "", "I hated it. I loved it.", "a film"]


MASKED = ["bert", "distilbert", "roberta"]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in [*MASKED, "gpt2", "t5"]}


@pytest.mark.parametrize("name", MASKED)
def test_the_vectors_of_words_are_these_words(checkpoints, name):
    """Embeddings in front give what the same tokens in the text give, in every row of a batch."""
    model = TransformersModel(checkpoints[name], space="logprob")
    words = "New Delhi is" if name == "roberta" else "the film is"
    ids = model._encoder.encode(prompts(words), 64)[0].ids
    tokens = model._encoder._plain(words)
    front = model._encoder.front
    assert ids[front : front + len(tokens)] == tokens
    prompted = model.with_soft_prompt(model.input_embeddings()[tokens])
    texts = [" " + text for text in ("was the film fun", "is bad", "it was a great movie")]
    if name != "roberta":
        texts = [text.strip() for text in texts]
    found = prompted.observe(prompts(*texts), WORDS)
    joined = [words + text if name == "roberta" else f"{words} {text}" for text in texts]
    expected = model.observe(prompts(*joined), WORDS)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.hidden, expected.hidden, atol=1e-5)
    np.testing.assert_array_equal(found.n_tokens, expected.n_tokens)


def test_without_vectors_it_is_the_model_itself(checkpoints):
    model = TransformersModel(checkpoints["bert"])
    before = model.observe(prompts(*TEXTS), WORDS)
    assert model.with_soft_prompt(np.empty((0, 32))) is model
    prompted = model.with_soft_prompt(np.ones((3, 32)))
    moved = prompted.observe(prompts(*TEXTS), WORDS)
    assert np.abs(moved.scores - before.scores).min() > 1e-4
    after = model.observe(prompts(*TEXTS), WORDS)
    np.testing.assert_array_equal(after.scores, before.scores)  # nothing is left behind
    assert prompted.identity != model.identity
    assert prompted.identity == model.with_soft_prompt(np.ones((3, 32))).identity
    assert prompted.identity != model.with_soft_prompt(np.ones((4, 32))).identity


def test_words_of_several_tokens_and_long_texts_leave_room_for_the_vectors(checkpoints):
    model = TransformersModel(checkpoints["bert"])
    vectors = model.input_embeddings()[[7, 8, 9]]
    found = model.with_soft_prompt(vectors).observe(prompts("fun " * 90), ["great", "sportsnews"])
    assert found.n_tokens[0] + found.scores.shape[1] <= 64 + 2
    assert np.isfinite(found.scores).all()
    assert found.status[0] == 1  # cut
    with pytest.raises(InputError, match="tokens without any text"):
        model.with_soft_prompt(np.zeros((60, 32))).observe(prompts("fun"), WORDS)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_only_masked_models_take_vectors(checkpoints, name):
    model = TransformersModel(checkpoints[name])
    assert not model.capabilities.soft_prompts
    with pytest.raises(CapabilityError, match="masked"):
        model.with_soft_prompt(np.ones((1, 32)))


def test_bad_vectors_and_other_models_are_refused(checkpoints, tmp_path):
    model = TransformersModel(checkpoints["bert"])
    with pytest.raises(InputError, match="width 32"):
        model.with_soft_prompt(np.ones((2, 5))).observe(prompts("a"), WORDS)
    for bad in (np.ones(32), np.full((1, 32), np.nan)):
        with pytest.raises(InputError, match="finite vectors"):
            model.with_soft_prompt(bad)
    with pytest.raises(CapabilityError, match="soft_prompts"):
        takes_soft_prompts(FakeModel())
    with pytest.raises(CapabilityError, match="soft_prompts"):
        StoredModel(FakeModel(), tmp_path / "store").with_soft_prompt(vectors=np.ones((1, 4)))
    budgeted = BudgetedModel(model, 5, keeps=False)
    assert not budgeted.capabilities.soft_prompts
    stored = StoredModel(model, tmp_path / "store")
    vectors = np.ones((2, 32))
    for queries in (len(TEXTS), 0):
        found = stored.with_soft_prompt(vectors).observe(prompts(*TEXTS), WORDS)
        assert found.queries == queries
    assert stored.observe(prompts(*TEXTS), WORDS).queries == len(TEXTS)
