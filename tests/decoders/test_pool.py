"""Texts without labels and the default decoder."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest

from fewfit import FewShotClassifier, OffsetLogisticRegression
from fewfit.decoders.pool import learn_from_pool
from fewfit.errors import InputError, ModelWarning
from fewfit.models import FakeModel

ARRAYS = ("coef_", "intercept_", "strength_")


def planted(M=1000, seed=0, H=30, dtype=float):
    """Two Gaussians; one labelled row of each, whose position says little of the direction."""
    rng = np.random.default_rng(seed)
    apart = np.zeros(H)
    apart[0] = 2.0

    def draw(y):
        X = rng.normal(size=(len(y), H)) + np.where(y[:, None] == 1, apart, -apart)
        return X.astype(dtype), (np.eye(2)[y] + rng.normal(size=(len(y), 2))).astype(dtype)

    y = np.array([0, 1])
    (X, m), (pool, pool_m) = draw(y), draw(rng.integers(0, 2, M))
    y_new = rng.integers(0, 2, 2000)
    return X, y, m, pool, pool_m, *draw(y_new), y_new


def fit(X, y, m, pool, pool_m):
    return OffsetLogisticRegression().fit(X, y, scores=m, pool=pool, pool_scores=pool_m)


def assert_as_without(X, y, m, pool, pool_m):
    before = OffsetLogisticRegression().fit(X, y, scores=m)
    with pytest.warns(ModelWarning, match="texts without labels change nothing"):
        after = fit(X, y, m, pool, pool_m)
    assert not after.pool_used_
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_planted_gaussians_are_found(seed, dtype):
    X, y, m, pool, pool_m, X_new, m_new, y_new = planted(seed=seed, dtype=dtype)
    before = OffsetLogisticRegression().fit(X, y, scores=m).predict(X_new, scores=m_new)
    after = fit(X, y, m, pool, pool_m)
    assert after.coef_.dtype == dtype
    assert after.pool_used_
    right = (after.predict(X_new, scores=m_new) == y_new).mean()
    assert (before == y_new).mean() < 0.9
    assert right > 0.95  # the best rule there is has 0.977 on the hidden states
    direction = after.coef_[1] - after.coef_[0]
    assert direction[0] / np.linalg.norm(direction) > 0.9


def test_confidence_and_shares_of_the_classes_are_those_of_the_fit_without():
    X, y, m, pool, pool_m, *_ = planted()
    before = OffsetLogisticRegression().fit(X, y, scores=m).predict_proba(pool, scores=pool_m)
    after = fit(X, y, m, pool, pool_m).predict_proba(pool, scores=pool_m)
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-3)
    assert after.max(axis=1).mean() == pytest.approx(before.max(axis=1).mean(), abs=0.01)


def test_order_units_and_rotation_do_not_matter():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    rng = np.random.default_rng(1)
    i = rng.permutation(len(pool))
    shuffled = fit(X[::-1], y[::-1], m[::-1], pool[i], pool_m[i])
    np.testing.assert_allclose(shuffled.predict_proba(X_new, scores=m_new), want, atol=1e-8)
    scaled = fit(9 * X, y, m + 5, 9 * pool, pool_m - 3)
    np.testing.assert_allclose(scaled.predict_proba(9 * X_new, scores=m_new), want, atol=1e-8)
    Q = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))[0]
    turned = fit(X @ Q, y, m, pool @ Q, pool_m)
    np.testing.assert_allclose(turned.predict_proba(X_new @ Q, scores=m_new), want, atol=1e-8)


def test_classes_may_be_named_in_any_order():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    names = np.array(["z", "a"])[y]
    other = fit(X, names, m[:, ::-1], pool, pool_m[:, ::-1])
    got = other.predict_proba(X_new, scores=m_new[:, ::-1])
    np.testing.assert_allclose(got[:, ::-1], want, atol=1e-8)


def test_every_text_twice_says_about_the_same():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted()
    once = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    twice = fit(X, y, m, np.tile(pool, (2, 1)), np.tile(pool_m, (2, 1)))
    np.testing.assert_allclose(twice.predict_proba(X_new, scores=m_new), once, atol=0.02)


def test_every_labelled_row_twice_says_the_same():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    twice = fit(np.tile(X, (2, 1)), np.tile(y, 2), np.tile(m, (2, 1)), pool, pool_m)
    np.testing.assert_allclose(twice.predict_proba(X_new, scores=m_new), want, atol=1e-8)


@pytest.mark.parametrize("M", [1, 3, 39])
def test_few_texts_change_nothing(M):
    X, y, m, pool, pool_m, *_ = planted()
    assert_as_without(X, y, m, pool[:M], pool_m[:M])


def test_a_mixture_that_claims_much_more_than_the_fit_is_not_believed():
    """Two topics a hundred widths apart, of which the classifier is sure at 55 in 100."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 2, 500)
    pool = 0.01 * rng.normal(size=(500, 30))
    pool[:, 1] += 2 * topic - 1
    x = pool[[topic.argmin(), topic.argmax()]]
    weak = 0.1 * np.outer(2 * topic - 1, [-1, 1])
    assert learn_from_pool(pool, weak, x, np.array([0, 1])) is None
    assert learn_from_pool(pool, 20 * weak, x, np.array([0, 1])) is not None


def test_the_same_text_many_times_does_no_harm():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        same = fit(X, y, m, np.tile(pool[:1], (200, 1)), np.tile(pool_m[:1], (200, 1)))
    assert np.isfinite(same.predict_proba(X_new, scores=m_new)).all()
    assert_as_without(np.tile(X[:1], (2, 1)), y, m, np.tile(X[:1], (50, 1)), pool_m[:50])


def test_without_scores_and_without_hidden_states():
    X, y, m, pool, pool_m, X_new, *_ = planted()
    probe = fit(X, y, None, pool, None)
    assert probe.strength_ == 0
    assert probe.predict_proba(X_new).shape == (2000, 2)
    assert_as_without(X[:, :0], y, m, pool[:, :0], pool_m)


def test_scores_of_several_views_are_averaged():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    views = [np.stack([s - 1, s + 1], axis=1) for s in (m, pool_m)]
    got = fit(X, y, views[0], pool, views[1]).predict_proba(X_new, scores=m_new)
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool_scores": None}, "both or none"),
        ({"pool": None}, "they need the hidden states"),
        ({"pool": np.ones((50, 3))}, r"pool: expected shape \(M, 30\)"),
        ({"pool_scores": np.ones((300, 5))}, "scores: expected shape"),
        ({"pool": np.full((300, 30), np.nan)}, "pool contains NaN"),
        ({"pool": np.empty((0, 30)), "pool_scores": np.empty((0, 2))}, "0 sample"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    X, y, m, pool, pool_m, *_ = planted(M=300)
    given = {"pool": pool, "pool_scores": pool_m, **change}
    with pytest.raises(ValueError, match=said) as caught:
        OffsetLogisticRegression().fit(X, y, scores=m, **given)
    assert isinstance(caught.value, InputError) or said in ("pool contains NaN", "0 sample")


def test_a_thousand_texts_take_no_time():
    rng = np.random.default_rng(0)
    X, pool = rng.normal(size=(4, 384)), rng.normal(size=(1000, 384))
    m, pool_m = np.eye(4), rng.normal(size=(1000, 4))
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        fit(X, np.arange(4), m, pool, pool_m)
    assert time.process_time() - start < 1.0  # about 0.1 s


def test_a_class_without_an_example_is_refused_before_anything_is_asked():
    model = FakeModel()
    classifier = FewShotClassifier(
        model, labels={"neg": "bad", "pos": "good", "meh": "so"}, store=None
    )
    with pytest.raises(InputError, match="unlabelled: class 'meh' has no example"):
        classifier.fit(["good", "bad day"], ["pos", "neg"], unlabelled=["so so"])
    assert model.queries == 0
