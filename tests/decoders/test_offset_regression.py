"""The default decoder: its solver, its leave-one-out, and what it promises beside the matrix."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from fewfit import LinearProbe, OffsetLogisticRegression
from fewfit.decoders import ridge
from fewfit.decoders.offset_regression import _is_coarse


@pytest.fixture(params=[(2, 1), (3, 4), (5, 16)])
def data(request):
    K, n = request.param
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(K), n)
    X = rng.normal(size=(K, 20))[y] + rng.normal(size=(K * n, 20))
    return X, y, 2 * np.eye(K)[y] + rng.normal(size=(K * n, K))


def proba(X, y, m, X_new=None, m_new=None):
    model = OffsetLogisticRegression().fit(X, y, scores=m)
    return model.predict_proba(X if X_new is None else X_new, scores=m if m_new is None else m_new)


def test_units_of_hidden_and_scores_do_not_matter(data):
    X, y, m = data
    np.testing.assert_allclose(proba(1000 * X, y, 50 * m), proba(X, y, m), atol=1e-8)


def test_rotation_of_the_hidden_state_changes_nothing(data):
    X, y, m = data
    Q = np.linalg.qr(np.random.default_rng(1).normal(size=(20, 20)))[0]
    np.testing.assert_allclose(proba(X @ Q, y, m), proba(X, y, m), atol=1e-8)


def test_scores_alone_and_hidden_alone(data):
    X, y, m = data
    empty = np.empty((len(y), 0))
    alone = OffsetLogisticRegression().fit(empty, y, scores=m)
    assert alone.strength_ > 0
    assert (alone.predict(empty, scores=m) == y).mean() >= 0.5
    probe = OffsetLogisticRegression().fit(X, y)
    assert probe.strength_ == 0
    assert (probe.predict(X) == y).all()


def test_useless_scores_lose_their_weight_and_good_ones_keep_it():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 32)
    X = rng.normal(size=(4, 30))[y] + rng.normal(size=(128, 30))
    noise = rng.normal(size=(128, 4))
    useless = OffsetLogisticRegression().fit(X, y, scores=noise).offset_strength_
    good = OffsetLogisticRegression().fit(X, y, scores=noise + 2 * np.eye(4)[y]).offset_strength_
    assert useless < good - 0.1


def test_a_class_with_one_example():
    rng = np.random.default_rng(0)
    y = np.array([0] * 30 + [1] * 30 + [2])
    X = 3 * np.eye(3, 10)[y] + rng.normal(size=(61, 10)) / 2
    model = OffsetLogisticRegression().fit(X, y, scores=np.eye(3)[y] + rng.normal(size=(61, 3)) / 9)
    assert model.predict([[0, 0, 3.0] + [0] * 7], scores=[[0, 0, 1.0]]) == 2


def test_minimum_is_that_of_a_general_optimiser(data, monkeypatch):
    monkeypatch.setattr(ridge, "_MOVE", 1e-9)
    monkeypatch.setattr(ridge, "_STEPS", 20000)
    X, y, m = data
    K, t = m.shape[1], 4.0
    Z, d, B = ridge.basis(X, y, K, 512)
    np.testing.assert_allclose(X @ B, Z, atol=1e-9)
    np.testing.assert_allclose(Z.T @ Z, np.diag(d), atol=1e-8)

    def objective(w):  # eq. 1 in the original features
        W = w.reshape(-1, K)
        F = m + X @ W
        R = np.exp(log_softmax(F, axis=1))
        R[np.arange(len(y)), y] -= 1
        loss = (logsumexp(F, axis=1) - F[np.arange(len(y)), y]).sum() + (W**2).sum() / (2 * t)
        return loss, (X.T @ R + W / t).ravel()

    best = minimize(objective, np.zeros(20 * K), jac=True, tol=1e-12, options={"maxiter": 5000})
    V = ridge.minimise(Z, d, y, m, t)
    np.testing.assert_allclose(B @ V, best.x.reshape(-1, K), atol=1e-4)


@pytest.mark.parametrize("n", [2, 8])
def test_leave_one_out_is_near_refitting(n):
    rng = np.random.default_rng(0)
    K, N = 4, 4 * n
    y = np.repeat(np.arange(K), n)
    X, m = rng.normal(size=(K, 20))[y] + 2 * rng.normal(size=(N, 20)), rng.normal(size=(N, K))
    X /= 10  # rows of about unit length, as eq. 2 makes them
    Z, d, _ = ridge.basis(X, y, K, 512)
    for t in (1.0, 4.0, 16.0):
        f = ridge.leave_one_out(Z, y, m, t, ridge.minimise(Z, d, y, m, t))
        quick = log_softmax(f, axis=1)[np.arange(N), y].sum()
        exact = 0.0
        for i in range(N):
            left = np.where(y == y[i], 1.0, 1 - 1 / n)  # one row's worth of every class goes
            left[i] = 0

            def objective(v, left=left, t=t):
                V = v.reshape(-1, K)
                p = log_softmax(m + Z @ V, axis=1)
                slope = left[:, None] * (np.exp(p) - np.eye(K)[y])
                loss = (V**2).sum() / (2 * t) - left @ p[np.arange(N), y]
                return loss, (Z.T @ slope + V / t).ravel()

            V = minimize(objective, np.zeros(Z.shape[1] * K), jac=True).x.reshape(-1, K)
            exact += log_softmax(m[i] + Z[i] @ V)[y[i]]
        assert quick == pytest.approx(exact, rel=0.15)


def test_with_one_row_per_class_only_the_offset_is_left():
    rng = np.random.default_rng(0)
    X, m, y = rng.normal(size=(5, 20)), rng.normal(size=(5, 5)), np.arange(5)
    Z, d, _ = ridge.basis(X, y, 5, 512)
    V = ridge.minimise(Z, d, y, m, 8.0)
    np.testing.assert_allclose(ridge.leave_one_out(Z, y, m, 8.0, V), m, atol=1e-8)


def test_leave_one_out_is_fair_to_many_classes():
    rng = np.random.default_rng(0)
    K, n = 100, 4
    mean = rng.normal(size=(K, 60))
    y, new = np.repeat(np.arange(K), n), np.repeat(np.arange(K), 10)
    X, X_new = (mean[k] + 1.2 * rng.normal(size=(len(k), 60)) for k in (y, new))
    X, X_new = X / 12, X_new / 12
    Z, d, B = ridge.basis(X, y, K, 512)
    o = np.zeros((K * n, K))
    V = ridge.minimise(Z, d, y, o, 32.0)
    held_out = (ridge.leave_one_out(Z, y, o, 32.0, V).argmax(1) == y).mean()
    assert held_out == pytest.approx(((X_new @ (B @ V)).argmax(1) == new).mean(), abs=0.07)


def test_noise_as_scores_costs_little_against_no_scores():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(6, 30))
    y, new = np.repeat(np.arange(6), 8), np.repeat(np.arange(6), 50)
    X, X_new = (mean[k] + 1.5 * rng.normal(size=(len(k), 30)) for k in (y, new))
    noise, noise_new = rng.normal(size=(48, 6)), rng.normal(size=(300, 6))
    alone = OffsetLogisticRegression().fit(X, y).score(X_new, new)
    both = OffsetLogisticRegression().fit(X, y, scores=noise).predict(X_new, scores=noise_new)
    assert (both == new).mean() > alone - 0.05


def test_truncated_basis_keeps_the_class_means():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 5
    X = rng.normal(size=(5, 300))[y] + rng.normal(size=(400, 300))
    Z, d, _ = ridge.basis(X, y, 5, 40)
    assert Z.shape == (400, 40)
    np.testing.assert_allclose(Z.T @ Z, np.diag(d), atol=1e-6 * d.max())
    order = rng.permutation(400)
    again = ridge.basis(X[order], y[order], 5, 40)[1]
    np.testing.assert_allclose(again, d, rtol=1e-6)


def test_the_probe_is_the_decoder_without_an_offset(data):
    X, y, m = data
    np.testing.assert_array_equal(
        LinearProbe().fit(X, y, scores=m).predict_proba(X, scores=m),
        OffsetLogisticRegression().fit(X, y).predict_proba(X),
    )


def test_the_probe_is_as_good_as_a_cross_validated_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    rng = np.random.default_rng(0)
    gaps = []
    for n in (4, 16):
        mean = rng.normal(size=(5, 40))
        y, new = np.repeat(np.arange(5), n), np.repeat(np.arange(5), 100)
        X, X_new = (mean[k] + 2 * rng.normal(size=(len(k), 40)) for k in (y, new))
        unit, unit_new = (A / np.linalg.norm(A, axis=1, keepdims=True) for A in (X, X_new))
        regression, grid = LogisticRegression(max_iter=1000), {"C": [1, 10, 100, 1000]}
        peer = GridSearchCV(regression, grid, cv=4, scoring="neg_log_loss").fit(unit, y)
        gaps.append(
            LinearProbe().fit(X, y).score(X_new, new) - peer.best_estimator_.score(unit_new, new)
        )
    assert np.mean(gaps) > -0.02


def test_one_example_of_each_of_many_classes_is_nothing_to_warn_of():
    X = np.random.default_rng(0).standard_normal((40, 8))
    y = [f"class {k}" for k in range(40)]
    assert (OffsetLogisticRegression().fit(X, y).predict(X) == np.array(y)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_arithmetic_keeps_the_dtype_of_the_hidden_states(dtype):
    rng = np.random.default_rng(0)
    X, scores = rng.standard_normal((12, 5), dtype=dtype), rng.standard_normal((12, 3), dtype=dtype)
    decoder = OffsetLogisticRegression().fit(X, np.arange(12) % 3, scores=scores)
    assert {getattr(decoder, name).dtype for name in decoder.fitted_arrays} == {np.dtype(dtype)}
    assert decoder.predict_proba(X, scores=scores).dtype == dtype


def answered(y, right, K, rng, samples=1):
    """Scores of answers in words, some of them right."""
    n_w = np.zeros((len(y), K))
    for _ in range(samples):
        said = np.where(rng.random(len(y)) < right, y, rng.integers(0, K, len(y)))
        n_w[np.arange(len(y)), said] += 1
    return np.log((n_w + 1 / K) / (samples + 1)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("K", [2, 5])
def test_few_answers_are_seen_by_their_values(K, samples):
    rng = np.random.default_rng(0)
    y = np.arange(20 * K) % K
    coarse = answered(y, 0.5, K, rng, samples)
    fine = coarse + rng.normal(scale=0.1, size=coarse.shape).astype(np.float32)
    for scale in (1, 1e-4, 70):
        for shift in (0, rng.normal(size=K).astype(np.float32)):
            assert _is_coarse(scale * (coarse + shift))
            assert not _is_coarse(scale * (fine + shift))
    assert not _is_coarse(np.zeros_like(coarse))
    assert not _is_coarse(fine[:K])


@pytest.mark.parametrize("K", [2, 4])
def test_answers_that_are_worth_nothing_cost_little_and_good_ones_are_used(K):
    """Means over samples of 4 labels per class, with hidden states that are right in most rows."""
    found = {right: [] for right in (0.0, 0.9)}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y, new = np.arange(4 * K) % K, np.arange(400) % K
        centres = rng.standard_normal((K, 20))
        X, X_new = (1.5 * centres[c] + 2.5 * rng.standard_normal((len(c), 20)) for c in (y, new))
        alone = OffsetLogisticRegression().fit(X, y).score(X_new, new)
        for right, rows in found.items():
            scores, scores_new = answered(y, right, K, rng), answered(new, right, K, rng)
            both = OffsetLogisticRegression().fit(X, y, scores=scores)
            said = (scores_new.argmax(axis=1) == new).mean()
            p = (both.predict(X_new, scores=scores_new) == new).mean()
            rows.append((p, alone, said))
    p, alone, said = np.mean(found[0.0], axis=0)
    assert said < alone
    assert p > alone - 0.03
    p, alone, said = np.mean(found[0.9], axis=0)
    assert p > max(alone, said) - 0.02


def test_answers_alone_keep_their_say():
    """Without hidden states there is nothing else to believe."""
    rng = np.random.default_rng(1)
    y = np.arange(8) % 2
    scores = answered(y, 0.4, 2, rng)
    fitted = OffsetLogisticRegression().fit(np.empty((8, 0)), y, scores=scores)
    with mock.patch("fewfit.decoders.offset_regression._is_coarse", return_value=False):
        plain = OffsetLogisticRegression().fit(np.empty((8, 0)), y, scores=scores)
    assert fitted.strength_ == plain.strength_


@pytest.mark.parametrize(
    ("n", "H", "weight"), [(8, 20, None), (8, 20, 10.0), (8, 20, 100.0), (500, 64, None)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fit_does_not_stop_short_of_its_optimum(monkeypatch, n, H, weight, seed):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n)
    X, scores = rng.normal(size=(2 * n, H)), rng.normal(size=(2 * n, 2))
    X[:, 0] += 1.5 * y
    scores[np.arange(2 * n), y] += 1
    w = None if weight is None else np.full(2 * n, weight)
    new, new_scores = rng.normal(size=(500, H)), rng.normal(size=(500, 2))

    def proba():
        decoder = OffsetLogisticRegression().fit(X, y, scores=scores, sample_weight=w)
        return decoder.predict_proba(new, scores=new_scores)

    quick = proba()
    monkeypatch.setattr(ridge, "_MOVE", 1e-6)
    monkeypatch.setattr(ridge, "_NATS", 1e-9)
    monkeypatch.setattr(ridge, "_STEPS", 5000)
    np.testing.assert_allclose(quick, proba(), atol=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_constant_but_for_rounding_is_not_blown_up(dtype):
    rng = np.random.default_rng(0)
    h, y = rng.normal(size=64), np.repeat([0, 1], [7, 5])
    X, near = np.tile(h, (12, 1)), h + 0.01 * rng.normal(size=(20, 64))
    scores = rng.normal(size=(12, 2))
    scores[np.arange(12), y] += 1
    one = OffsetLogisticRegression().fit(X.astype(dtype), y, scores=scores.astype(dtype))
    none = OffsetLogisticRegression().fit(np.empty((12, 0), dtype), y, scores=scores.astype(dtype))
    said = one.predict_proba(near.astype(dtype), scores=np.tile(scores[:1], (20, 1)).astype(dtype))
    alone = none.predict_proba(np.empty((20, 0)), scores=np.tile(scores[:1], (20, 1)))
    np.testing.assert_allclose(said, alone, atol=0.1)
    for K in range(2, 12):  # scores that are the same for all texts
        same = np.tile(3 * rng.normal(size=K), (4 * K, 1)).astype(dtype)
        tied = same - same.mean(axis=1, keepdims=True) - same[0]
        for m in (same, tied):
            learnt = OffsetLogisticRegression().fit(
                rng.normal(size=(4 * K, 16)).astype(dtype), np.repeat(np.arange(K), 4), scores=m
            )
            assert learnt.strength_ < 10


def test_a_class_that_is_next_to_impossible_in_the_pool_keeps_its_log_odds_finite():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 10)
    k = rng.integers(0, 2, 400)
    X, pool = rng.normal(size=(30, 16)), rng.normal(size=(400, 16))
    X[:, :3] += 4 * np.eye(3)[y]
    pool[:, :3] += 4 * np.eye(3)[k]
    scores, pool_scores = 3 * rng.normal(size=(30, 3)), 3 * rng.normal(size=(400, 3))
    scores[np.arange(30), y] += 3
    pool_scores[np.arange(400), k] += 3
    pool_scores[:, 2] -= 800
    X, scores, pool, pool_scores = (a.astype(np.float32) for a in (X, scores, pool, pool_scores))
    learnt = OffsetLogisticRegression(prior="frequencies")
    learnt.fit(X, y, scores=scores, pool=pool, pool_scores=pool_scores)
    assert learnt.pool_used_
    p = learnt.predict_proba(pool, scores=pool_scores)
    assert np.isfinite(learnt.intercept_).all()
    assert (p.argmax(axis=1) == k).mean() > 0.95
