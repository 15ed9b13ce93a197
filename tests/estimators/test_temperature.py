"""How far held-out examples take confidence away."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from fewfit.decoders import DecT, LinearProbe, OffsetLogisticRegression
from fewfit.estimators.examples import fit_decoder
from fewfit.estimators.temperature import find_temperature


def drawn(temperature, n=3000, k=3, seed=0):
    rng = np.random.default_rng(seed)
    z = 4 * rng.normal(size=(n, k))
    p = softmax(z / temperature, axis=1)
    return softmax(z, axis=1), (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)


@pytest.mark.parametrize("temperature", [1.5, 3.0, 8.0])
def test_it_is_that_by_which_examples_were_drawn(temperature):
    assert find_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("temperature", [0.3, 0.7])
def test_confidence_is_never_added(temperature):
    assert find_temperature(*drawn(temperature)) == pytest.approx(1, abs=1e-4)


def test_it_is_the_most_probable_of_a_grid():
    proba, codes = drawn(2.5, n=40, seed=1)
    grid = np.exp(np.linspace(0, np.log(20), 20_001))
    z = np.log(proba)[None] / grid[:, None, None]
    likely = log_softmax(z, axis=2)[:, np.arange(40), codes].sum(axis=1) - np.log(grid) ** 2 / 2
    assert find_temperature(proba, codes) == pytest.approx(grid[likely.argmax()], rel=1e-3)


def test_few_examples_take_little_away():
    proba, codes = np.array([[0.99, 0.01]]), np.array([1])
    few = find_temperature(proba, codes)
    many = find_temperature(np.repeat(proba, 50, axis=0), np.repeat(codes, 50))
    assert 1 < few < 4 < many <= 20
    assert find_temperature(np.array([[1.0, 0.0]]), codes) <= 20


def test_a_weight_is_so_many_examples():
    proba, codes = drawn(3.0, n=30)
    weight = np.arange(30) % 3
    twice = np.repeat(np.arange(30), weight)
    weighed = find_temperature(proba, codes, weight.astype(float))
    assert weighed == pytest.approx(find_temperature(proba[twice], codes[twice]), rel=1e-4)


@pytest.mark.parametrize("decoder", [OffsetLogisticRegression(), LinearProbe()])
def test_log_odds_are_divided_and_nothing_else(decoder):
    rng = np.random.default_rng(0)
    X, scores = rng.normal(size=(12, 5)).astype(np.float32), rng.normal(size=(12, 3))
    decoder.fit(X, np.arange(12) % 3, scores=scores)
    before = decoder.predict_proba(X, scores=scores)
    decoder.temper(2.5)
    after = decoder.predict_proba(X, scores=scores)
    np.testing.assert_allclose(after, softmax(np.log(before) / 2.5, axis=1), rtol=1e-4)
    assert decoder.coef_.dtype == np.float32


def test_others_stay_as_they_are():
    rng = np.random.default_rng(0)
    X, scores = rng.normal(size=(12, 5)).astype(np.float32), rng.normal(size=(12, 3))
    decoder = DecT().fit(X, np.arange(12) % 3, scores=scores)
    assert not decoder.tempers
    before = decoder.predict_proba(X, scores=scores)
    decoder.temper(2.5)
    np.testing.assert_array_equal(decoder.predict_proba(X, scores=scores), before)


def test_a_pool_is_learnt_from_before_that():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 20)).astype(np.float32)
    y, there = np.repeat([0, 1, 2], 4), np.repeat([0, 1, 2], 100)
    X, pool = (centres[k] + 0.8 * rng.normal(size=(len(k), 20)) for k in (y, there))
    further = {"pool": pool, "pool_scores": None}
    decoder = OffsetLogisticRegression()
    found = fit_decoder(decoder, y, X, None, ["a", "b", "c"], further, temperature=3.0)
    plain = OffsetLogisticRegression().fit(X, y).adapt(pool, labelled=(X, y))
    assert found.pool_used_
    expected = softmax(np.log(plain.predict_proba(pool)) / 3, axis=1)
    np.testing.assert_allclose(found.predict_proba(pool), expected, atol=1e-5)
