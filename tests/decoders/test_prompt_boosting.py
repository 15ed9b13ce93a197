"""PromptBoosting: weak learners on tokens."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from fewfit.decoders import (
    PromptBoosting,
    prompt_boosting,
)
from fewfit.errors import InputError


def test_the_weight_of_a_learner_and_its_error_afterwards():
    assert prompt_boosting.learner_weight(0.3, 2) == pytest.approx(0.847298, abs=1e-6)
    assert prompt_boosting.learner_weight(0.3, 4) == pytest.approx(1.945910, abs=1e-6)
    assert prompt_boosting.learner_weight(0.74, 4) > 0
    w, wrong = np.full(10, 0.1), np.arange(10) < 3
    w = w * np.exp(prompt_boosting.learner_weight(0.3, 2) * wrong)
    assert w[wrong].sum() / w.sum() == pytest.approx(0.5)


def vocabulary_task(per_class: int, seed: int, lean: float = 1.5):
    """Distributions over 30 tokens; in each view token 3 k + 7 leans to class k, noisily."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), per_class)
    logits = rng.standard_normal((len(y), 3, 30))
    logits[np.arange(len(y)), :, 3 * y + 7] += lean
    return log_softmax(logits, axis=2).reshape(len(y), -1), y


def test_boosting_finds_the_tokens_and_several_prompts_beat_one():
    X, y = vocabulary_task(16, 0)
    X_test, y_test = vocabulary_task(200, 1)
    decoder = PromptBoosting(n_views=3).fit(X, y)
    clear, _ = vocabulary_task(16, 0, lean=4.0)
    found = PromptBoosting(n_views=3).fit(clear, y).tokens_[:3]
    np.testing.assert_array_equal(found, [[7, 10, 13]] * 3)
    one = PromptBoosting().fit(X[:, :30], y).score(X_test[:, :30], y_test)
    three = decoder.score(X_test, y_test)
    assert one > 0.6  # chance is 1/3
    assert three > one + 0.05


def test_a_perfect_learner_ends_the_boosting_without_an_infinity():
    X, y = vocabulary_task(4, 0)
    X = X.reshape(12, 3, 30)
    X[np.arange(12), :, 3 * y + 7] = 5
    decoder = PromptBoosting(n_views=3).fit(X.reshape(12, -1), y)
    assert len(decoder.alpha_) == 3
    assert np.isfinite(decoder.alpha_).all()
    assert decoder.score(X.reshape(12, -1), y) == 1.0
    with pytest.raises(InputError, match="90 columns are not those of 4 views"):
        PromptBoosting(n_views=4).fit(X.reshape(12, -1), y)
    with pytest.raises(InputError, match="n_rounds: "):
        PromptBoosting(n_rounds=0).fit(X.reshape(12, -1), y)


def test_too_many_combinations_are_sampled():
    candidates = [np.arange(5), np.arange(5, 10)]
    rng = np.random.RandomState(0)
    whole = prompt_boosting.combinations(candidates, 25, rng)
    assert len({tuple(c) for c in whole}) == 50  # both ways round
    assert {tuple(c[::-1]) for c in whole} == {tuple(c) for c in whole}
    some = prompt_boosting.combinations(candidates, 24, rng)
    assert some.shape == (48, 2)
    assert (some[:24, 0] < 5).all()
    assert (some[:24, 1] >= 5).all()
    three = prompt_boosting.combinations([*candidates, np.array([10])], 25, rng)
    assert len({tuple(c) for c in three}) == len(three) == 25  # of three, one way


def test_the_screening_of_tokens_in_numbers():
    p = np.array([[0.6, 0.3, 0.1, 0.0], [0.2, 0.3, 0.1, 0.4], [0.5, 0.0, 0.2, 0.3]])
    y, w = np.array([0, 0, 1]), np.array([0.25, 0.25, 0.5])
    # eq. 1 for class 0: (.15 + .05 - .25, .075 + .075 - 0, .025 + .025 - .1, 0 + .1 - .15)
    found = prompt_boosting.telling_tokens(p, y, w, 2, 3)
    assert [tokens.tolist() for tokens in found] == [[1], [0, 2, 3]]  # for class 1 they tie
    assert [t.tolist() for t in prompt_boosting.telling_tokens(p, y, w, 2, 1)] == [[1], [0]]
    # No token of its own: the one by which it stands best.
    found = prompt_boosting.telling_tokens(p[[0, 0, 0]], y, np.array([0.4, 0.4, 0.2]), 2, 2)
    assert [tokens.tolist() for tokens in found] == [[0, 1], [3]]


@pytest.mark.parametrize(("n_classes", "n"), [(2, 50), (3, 10), (4, 10), (5, 5), (6, 5)])
def test_as_many_candidates_as_the_authors_take(n_classes, n, monkeypatch):
    asked = []

    def spy(p, y, w, K, n):
        asked.append(n)
        return telling_tokens(p, y, w, K, n)

    telling_tokens = prompt_boosting.telling_tokens
    monkeypatch.setattr(prompt_boosting, "telling_tokens", spy)
    X = np.random.default_rng(0).standard_normal((2 * n_classes, 90))
    PromptBoosting(n_rounds=1).fit(X, np.arange(2 * n_classes) % n_classes)
    assert asked == [n]
    assert PromptBoosting().n_rounds == 200
    assert PromptBoosting().max_combinations == 20_000
