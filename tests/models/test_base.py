from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.base import clone

from fewfit import FewShotClassifier, load_model
from fewfit.errors import InputError
from fewfit.models import EmbeddedEncoder, FakeModel
from tests.conftest import prompts

WORDS = ("bad", "great")


@pytest.fixture(params=["fake", "fake-logit", "fake-similarity", "fake-scores-only", "embedded"])
def model(request):
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    options = {
        "fake": {},
        "fake-logit": {"space": "logit"},
        "fake-similarity": {"space": "similarity", "batch_size": 3},
        "fake-scores-only": {"hidden_size": 0},
    }
    return FakeModel(**options[request.param])


TEXTS = ["it was great fun", "", "bad {mask}", "so so, and " * 40, "é" * 300, "日本 \0 🙂", "[SEP]"]


def test_answers_are_what_the_capabilities_promise(model):
    answers = model.observe(prompts(*TEXTS), WORDS)
    given = model.capabilities
    assert answers.space == given.scores
    assert (answers.hidden is not None) == given.hidden
    assert answers.columns == WORDS
    assert len(answers) == len(TEXTS)
    assert np.isfinite(answers.scores).all()
    assert (answers.n_tokens > 0).all()
    assert answers.queries == len(TEXTS)


def test_batched_equals_single_and_order_does_not_matter(model):
    whole = model.observe(prompts(*TEXTS), WORDS)
    backwards = model.observe(prompts(*TEXTS[::-1]), WORDS[::-1])
    np.testing.assert_allclose(backwards.scores[::-1, ::-1], whole.scores, atol=2e-6)
    for i, text in enumerate(TEXTS):
        one = model.observe(prompts(text), WORDS)
        np.testing.assert_allclose(one.scores[0], whole.scores[i], atol=2e-6)
        if whole.hidden is not None:
            np.testing.assert_allclose(one.hidden[0], whole.hidden[i], atol=2e-6)
        assert one.n_tokens[0] == whole.n_tokens[i]


def test_a_repeated_prompt_is_asked_once():
    model = FakeModel()
    answers = model.observe(prompts("a", "b", "a", "a"), WORDS)
    assert model.queries == 2
    assert answers.asked.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(answers.scores[0], answers.scores[3])


def test_progress_counts_every_distinct_prompt(model):
    seen = []
    model.observe(prompts("a", "b", "a", "c"), WORDS, progress=seen.append)
    assert sum(seen) == 3


def test_models_are_never_copied(model):
    assert copy.deepcopy(model) is model
    assert clone(FewShotClassifier(model)).model is model


def test_models_are_named_by_a_string():
    assert isinstance(load_model("embedded"), EmbeddedEncoder)
    assert load_model("fake").spec == "fake"
    model = FakeModel()
    assert load_model(model) is model
    with pytest.raises(InputError, match="'gpt-9' is not known"):
        load_model("gpt-9")
