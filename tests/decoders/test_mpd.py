"""MPD: transport between prompts and prototypes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax

from fewfit.decoders import (
    MPD,
    mpd,
)
from fewfit.errors import InputError
from tests.conftest import task_arrays

S = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("epsilon", "diagonal", "score"),
    [(1.0, 0.334094, 0.617731), (0.1, 0.499544, 0.849362), (0.01, 0.5, 0.85)],
)
def test_transport_in_numbers(epsilon, diagonal, score):
    got, T = mpd.transport_scores(S[None], epsilon, max_iter=5000)
    np.testing.assert_allclose(
        T[0], [[diagonal, 0.5 - diagonal], [0.5 - diagonal, diagonal]], atol=1e-6
    )
    assert got[0] == pytest.approx(score, abs=1e-6)


def test_transport_falls_from_the_best_matching_to_the_mean():
    scores = [mpd.transport_scores(S[None], e)[0][0] for e in (1e-3, 0.05, 0.2, 1, 5, 1e4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.85)
    assert scores[-1] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 1.0])
def test_marginals_of_every_plan(epsilon):
    C = np.random.default_rng(0).uniform(0, 2, (40, 3, 4, 2))
    T = mpd.sinkhorn(C, epsilon, max_iter=10_000 if epsilon > 0.01 else 100)
    assert np.isfinite(T).all()
    np.testing.assert_allclose(T.sum(axis=-2), 1 / 2, atol=1e-6)
    if epsilon > 0.01:  # the smallest one is stopped before its rows are exact
        np.testing.assert_allclose(T.sum(axis=-1), 1 / 4, atol=1e-6)
    alone = mpd.sinkhorn(C[3:4], epsilon, max_iter=10_000 if epsilon > 0.01 else 100)
    np.testing.assert_array_equal(alone[0], T[3])


def test_one_prompt_and_one_prototype_are_a_cosine():
    X, y, _ = task_arrays()
    decoder = MPD(n_prototypes=1, beta=0.0, temperature=1.0, epsilon=0.7).fit(X, y)
    u = X @ decoder.W_.T
    cosine = np.einsum("nd,kd->nk", u, decoder.R_[:, 0]) / np.outer(
        np.linalg.norm(u, axis=1), np.linalg.norm(decoder.R_[:, 0], axis=1)
    )
    np.testing.assert_allclose(decoder._log_odds(X, None), cosine, atol=1e-12)


def test_one_prototype_is_the_mean_cosine_of_the_prompts_whatever_epsilon():
    X, y, _ = task_arrays(H=12)
    for epsilon in (0.01, 3.0):
        decoder = MPD(n_views=3, n_prototypes=1, temperature=1.0, epsilon=epsilon).fit(X, y)
        V = X.reshape(-1, 3, 4) @ decoder.W_.T
        V /= np.linalg.norm(V, axis=-1, keepdims=True)
        R = decoder.R_[:, 0] / np.linalg.norm(decoder.R_[:, 0], axis=1, keepdims=True)
        np.testing.assert_allclose(decoder._log_odds(X, None), (V @ R.T).mean(axis=1), atol=1e-9)


def test_neither_the_order_of_prompts_nor_of_prototypes_matters():
    X, y, _ = task_arrays(H=12)
    decoder = MPD(n_views=3, epsilon=0.05).fit(X, y)
    proba = decoder.predict_proba(X)
    swapped = X.reshape(-1, 3, 4)[:, [2, 0, 1]].reshape(-1, 12)
    np.testing.assert_allclose(decoder.predict_proba(swapped), proba, atol=1e-7)
    decoder.R_ = decoder.R_[:, [1, 2, 0]]
    np.testing.assert_allclose(decoder.predict_proba(X), proba, atol=1e-7)


def test_mpds_gradient_is_that_of_a_constant_plan():
    X, _, m = task_arrays(H=8)
    y, h = np.arange(len(X)) % 3, X.reshape(-1, 2, 4)
    rng = np.random.default_rng(1)
    start = rng.standard_normal(5 * 4 + 3 * 2 * 5)
    options = {"epsilon": 0.1, "temperature": 0.3}

    def arrays(flat):
        return flat[:20].reshape(5, 4), flat[20:].reshape(3, 2, 5)

    def unit(u):
        return u / np.linalg.norm(u, axis=-1, keepdims=True)

    W, R = arrays(start)
    T = mpd.sinkhorn(1 - mpd.cosines(unit(h @ W.T), unit(R)), 0.1)

    def loss(flat):
        W, R = arrays(flat)
        s = (T * mpd.cosines(unit(h @ W.T), unit(R))).sum(axis=(2, 3))
        return -log_softmax(s / 0.3 + m, axis=1)[np.arange(len(y)), y].mean()

    def gradient(flat):
        _, grads = mpd.loss_and_gradient(h, y, m, *arrays(flat), **options)
        return np.concatenate([g.ravel() for g in grads])

    assert check_grad(loss, gradient, start) < 1e-5
    assert mpd.loss_and_gradient(h, y, m, W, R, **options)[0] == pytest.approx(loss(start))


def test_mpd_learns_as_many_numbers_as_the_paper_says():
    X, y, _ = task_arrays(1, n_classes=2, H=3 * 1024)
    decoder = MPD(n_views=3, n_steps=1).fit(X, y)
    assert decoder.W_.size + decoder.R_.size == 131_840


def test_a_bad_prompt_does_little_harm():
    """Three views of 16 numbers, one of them noise; the noise alone is at chance."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.standard_normal((4, 2, 16))

    def draw(per_class):
        y = np.repeat(np.arange(4), per_class)
        good = centres[y] + rng.standard_normal((len(y), 2, 16))
        return good.reshape(len(y), -1), rng.standard_normal((len(y), 16)), y

    good, noise, y = draw(16)
    good_test, noise_test, y_test = draw(100)
    two = MPD(n_views=2).fit(good, y).score(good_test, y_test)
    three = MPD(n_views=3).fit(np.hstack([good, noise]), y)
    with_noise = three.score(np.hstack([good_test, noise_test]), y_test)
    alone = MPD(n_views=1).fit(noise, y).score(noise_test, y_test)
    assert two > 0.95
    assert with_noise > two - 0.05
    assert alone < 0.4


def test_beta_obeys_or_ignores_the_model_and_the_loss_may_hold_it():
    X, y, m = task_arrays()
    obedient = MPD(beta=1e6).fit(X, y, scores=m)
    np.testing.assert_array_equal(
        obedient.predict_proba(X, scores=-m).argmax(axis=1), (-m).argmax(axis=1)
    )
    deaf = MPD(beta=0.0).fit(X, y, scores=m)
    np.testing.assert_array_equal(deaf.predict_proba(X, scores=m), MPD().fit(X, y).predict_proba(X))
    apart, joint = MPD().fit(X, y, scores=m), MPD(joint_loss=True).fit(X, y, scores=m)
    assert np.abs(apart.W_ - joint.W_).max() > 1e-4
    np.testing.assert_array_equal(apart.W_, deaf.W_)
    assert apart.beta_ == 0.25


def test_mpd_refuses_what_does_not_divide_into_views():
    X, y, m = task_arrays()
    with pytest.raises(InputError, match="12 columns are not the hidden states of 5 views"):
        MPD(n_views=5).fit(X, y)
    with pytest.raises(InputError, match="beta"):
        MPD(beta="2/n").fit(X, y)
    with pytest.raises(InputError, match="epsilon: "):
        MPD(epsilon=0.0).fit(X, y)
    two = MPD().fit(X, y, scores=np.stack([m, m], axis=1))
    assert two.n_views_ == 2
    assert two.W_.shape == (128, 6)
