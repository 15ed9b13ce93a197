"""Golden numbers of DecT, computed by an independent implementation, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import softmax

from fewfit import DecT
from fewfit.decoders.dect import fit_projection, initial_radii, loss_and_gradient
from fewfit.errors import InputError
from tests.conftest import task_arrays

H = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-1.0, 1.0]])
Y = np.array([0, 0, 1, 1])
M = np.array([[1.0, 0.0], [0.5, 0.2], [0.0, 1.0], [0.3, 0.6]])
EYE = np.eye(2)


def fitted_by_hand(*, normalize: bool) -> DecT:
    decoder = DecT(normalize=normalize)
    arrays = {"W_": EYE, "z_": EYE, "r_": np.array([0.1, 0.2]), "lam_": np.array(0.5)}
    return decoder.restore(arrays, np.array([0, 1]))


def test_score_formula():
    h, m = np.array([[3.0, 4.0]]), np.array([[2.0, 1.0]])
    normalised = fitted_by_hand(normalize=True)
    np.testing.assert_allclose(normalised._log_odds(h, m), [[0.205573, 0.067544]], atol=1e-6)
    np.testing.assert_allclose(
        normalised.predict_proba(h, scores=m), [[0.534452, 0.465548]], atol=1e-6
    )
    raw = fitted_by_hand(normalize=False)
    np.testing.assert_allclose(raw._log_odds(h, m), [[-3.372136, -3.542641]], atol=1e-6)


def test_first_gradient():
    r = initial_radii(H, Y, 2)
    np.testing.assert_allclose(r, [0.707107, 0.707107], atol=1e-6)
    loss, du, dr = loss_and_gradient(H, Y, 0.5 * M, EYE, r, normalize=True)
    dW = du.T @ H
    assert loss == pytest.approx(0.287983, abs=1e-6)
    np.testing.assert_allclose(dW, [[-0.091567, -0.099395], [0.14483, 0.091567]], atol=1e-6)
    np.testing.assert_allclose(dr, [-0.059202, 0.059202], atol=1e-6)


@pytest.mark.parametrize(
    ("steps", "loss", "W", "r"),
    [
        (1, 0.283307, [[1.01, 0.01], [-0.01, 0.99]], [0.717107, 0.697107]),
        (30, 0.220344, [[1.23827, 0.02284], [-0.28641, 0.72660]], [0.78904, 0.62518]),
    ],
)
def test_golden_fit(steps, loss, W, r):
    got_W, got_r = fit_projection(H, Y, 0.5 * M, EYE, EYE, normalize=True, lr=0.01, n_steps=steps)
    np.testing.assert_allclose(got_W, W, atol=1e-5)
    np.testing.assert_allclose(got_r, r, atol=1e-5)
    after, _, _ = loss_and_gradient(H @ got_W.T, Y, 0.5 * M, EYE, got_r, normalize=True)
    assert after == pytest.approx(loss, abs=1e-6)
    np.testing.assert_array_equal(EYE, np.eye(2))


@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_is_the_derivative_of_the_loss(normalize):
    X, _, scores = task_arrays()
    y = np.arange(len(X)) % 3
    rng = np.random.default_rng(1)
    W, z, r = rng.standard_normal((5, 12)), rng.standard_normal((3, 5)), rng.standard_normal(3)

    def at(flat):
        u = X @ flat[:60].reshape(5, 12).T
        return loss_and_gradient(u, y, scores, z, flat[60:], normalize=normalize)

    def gradient(flat):
        _, du, dr = at(flat)
        return np.concatenate([(du.T @ X).ravel(), dr])

    start = np.concatenate([W.ravel(), r])
    assert check_grad(lambda flat: at(flat)[0], gradient, start) < 1e-5


def test_radii_are_zero_at_one_shot_and_half_the_distance_at_two():
    rng = np.random.default_rng(0)
    u = rng.standard_normal((4, 3))
    np.testing.assert_allclose(initial_radii(u[:2], np.array([0, 1]), 2), 0, atol=1e-7)
    two = initial_radii(u, np.array([0, 0, 1, 1]), 2)
    expected = [np.linalg.norm(u[0] - u[1]) / 2, np.linalg.norm(u[2] - u[3]) / 2]
    np.testing.assert_allclose(two, expected)


def test_scale_of_hidden_states_does_not_matter_at_one_shot():
    X, y, scores = task_arrays(1)
    test = np.random.default_rng(9).standard_normal((20, 12))
    some = np.zeros((20, 3))
    one = DecT().fit(X, y, scores=scores).predict_proba(test, scores=some)
    ten = DecT().fit(10 * X, y, scores=scores).predict_proba(10 * test, scores=some)
    # Adam's epsilon is not scale-free, and gradients shrink by 10: equal up to its 1e-8.
    np.testing.assert_allclose(one, ten, atol=1e-5)
    raw = DecT(normalize=False).fit(X, y, scores=scores).predict_proba(test, scores=some)
    scaled = (
        DecT(normalize=False).fit(10 * X, y, scores=scores).predict_proba(10 * test, scores=some)
    )
    assert np.abs(raw - scaled).max() > 0.01


def test_only_the_projection_and_the_radii_learn():
    X, y, scores = task_arrays(H=1024, n_classes=2)
    before = DecT(n_steps=0).fit(X, y, scores=scores)
    after = DecT().fit(X, y, scores=scores)
    np.testing.assert_array_equal(before.z_, after.z_)
    assert np.abs(before.W_ - after.W_).max() > 0.01
    assert np.abs(before.r_ - after.r_).max() > 0.01
    assert after.W_.size + after.r_.size == 131_074


def test_lambda_zero_ignores_the_model_and_a_huge_one_obeys_it():
    X, y, scores = task_arrays()
    test = np.random.default_rng(5).standard_normal((30, 12))
    m = np.random.default_rng(6).standard_normal((30, 3))
    deaf = DecT(lam=0.0).fit(X, y, scores=scores)
    np.testing.assert_array_equal(
        deaf.predict_proba(test, scores=m), deaf.predict_proba(test, scores=-m)
    )
    np.testing.assert_array_equal(
        deaf.predict_proba(test, scores=m), DecT(lam=0.0).fit(X, y).predict_proba(test)
    )
    obedient = DecT(lam=1e6).fit(X, y, scores=scores)
    np.testing.assert_array_equal(
        obedient.predict_proba(test, scores=m).argmax(axis=1), m.argmax(axis=1)
    )


def test_lambda_is_one_over_the_mean_shots():
    X, y, scores = task_arrays(4)
    assert DecT().fit(X, y, scores=scores).lam_ == 0.25
    assert DecT().fit(X[:9], y[:9], scores=scores[:9]).lam_ == pytest.approx(1 / 3)
    assert DecT(lam=0.7).fit(X, y, scores=scores).lam_ == 0.7
    for wrong in ("1/k", float("nan")):
        with pytest.raises(InputError, match="lam: "):
            DecT(lam=wrong).fit(X, y)


def test_huge_scores_do_not_overflow():
    X, y, scores = task_arrays()
    proba = DecT(lam=1.0).fit(X, y, scores=1e4 * scores).predict_proba(X, scores=1e4 * scores)
    assert np.isfinite(proba).all()


def test_a_zero_hidden_state_is_no_nan():
    X, y, scores = task_arrays()
    X[0] = 0
    assert np.isfinite(DecT().fit(X, y, scores=scores).predict_proba(X, scores=scores)).all()


@pytest.mark.parametrize(("n", "expected"), [(4, 0.955), (16, 0.995)])
def test_accuracy_on_gaussian_classes(n, expected):
    """Unit variance, means of norm 5 in 64 dimensions, 4 classes, a prior right in 62 %."""
    accuracy = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        means = rng.standard_normal((4, 64))
        means *= 5 / np.linalg.norm(means, axis=1, keepdims=True)

        def draw(per_class, means=means, rng=rng):
            y = np.repeat(np.arange(4), per_class)
            told = np.where(rng.random(len(y)) < 0.62, y, rng.integers(0, 4, len(y)))
            X = means[y] + rng.standard_normal((len(y), 64))
            return X, y, np.eye(4)[told] + 0.1 * rng.standard_normal((len(y), 4))

        X, y, m = draw(n)
        X_test, y_test, m_test = draw(250)
        decoder = DecT(random_state=seed).fit(X, y, scores=m)
        accuracy.append((decoder.predict(X_test, scores=m_test) == y_test).mean())
    assert np.mean(accuracy) > expected - 0.05


def test_seeds_decide_and_global_state_is_left_alone():
    X, y, scores = task_arrays()
    state = np.random.get_state()[1].copy()
    one, two = (DecT(random_state=3).fit(X, y, scores=scores) for _ in range(2))
    np.testing.assert_array_equal(one.W_, two.W_)
    other = DecT(random_state=4).fit(X, y, scores=scores)
    assert np.abs(one.z_ - other.z_).max() > 0.01
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_probabilities_are_the_softmax_of_the_scores():
    X, y, scores = task_arrays()
    decoder = DecT().fit(X, y, scores=scores)
    np.testing.assert_allclose(
        decoder.predict_proba(X, scores=scores),
        softmax(decoder._log_odds(X, scores), axis=1),
    )
