"""An example that stands there several times is one example, and is left out as one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from fewfit import FewShotClassifier, LinearProbe, OffsetLogisticRegression
from fewfit.decoders import MultiLabel, ridge
from fewfit.decoders.duplicates import distinct, same_rows
from fewfit.decoders.multi_label import _dealt, assign_folds
from tests.conftest import task_arrays


def arrays(decoder):
    return {name: getattr(decoder, name) for name in decoder.fitted_arrays}


def fitted(X, y, scores, rows, kind=OffsetLogisticRegression):
    return arrays(kind().fit(X[rows], y[rows], scores=scores[rows]))


@pytest.mark.parametrize("kind", [OffsetLogisticRegression, LinearProbe])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_copies_change_nothing(kind, dtype):
    X, y, scores = task_arrays(8)
    X, scores = X.astype(dtype), scores.astype(dtype)
    once = fitted(X, y, scores, np.arange(24), kind)
    twice = np.tile(np.arange(24), 2)
    oversampled = np.concatenate([np.arange(24), np.repeat(np.flatnonzero(y == "bee"), 7)])
    for rows in (twice, oversampled, np.repeat(np.arange(24), 3)):
        for name, array in fitted(X, y, scores, rows, kind).items():
            np.testing.assert_array_equal(array, once[name])


def test_copies_do_not_make_it_sure_of_itself():
    """Half of the task is noise: that a copy of a row is known says nothing about new rows."""
    rng = np.random.default_rng(0)
    losses = []
    for copies in (1, 2, 5):
        rng = np.random.default_rng(0)
        y = np.arange(24) % 2
        X = 0.4 * np.outer(2 * y - 1, np.eye(60)[0]) + rng.standard_normal((24, 60))
        y_new = np.arange(2000) % 2
        X_new = 0.4 * np.outer(2 * y_new - 1, np.eye(60)[0]) + rng.standard_normal((2000, 60))
        decoder = LinearProbe().fit(np.tile(X, (copies, 1)), np.tile(y, copies))
        losses.append(-np.log(decoder.predict_proba(X_new)[np.arange(2000), y_new]).mean())
    assert losses[0] == losses[1] == losses[2] < 0.8


def test_a_text_with_several_labels_is_one_text_of_their_shares():
    X, y, scores = task_arrays(8)
    more = np.concatenate([np.arange(24), [0, 0, 0, 5]])
    labels = y[more]
    labels[24:] = ["cat", "ant", "ant", "bee"]  # row 0 is an ant three times of four, a cat once

    def fit(rows):
        return OffsetLogisticRegression().fit(
            X[more][rows], labels[rows], scores=scores[more][rows]
        )

    once, thrice = fit(np.arange(28)), fit(np.tile(np.arange(28), 3))
    order = fit(np.random.default_rng(0).permutation(28))
    for name, array in arrays(once).items():
        np.testing.assert_array_equal(arrays(thrice)[name], array)
        np.testing.assert_allclose(arrays(order)[name], array, atol=1e-9)
    found = distinct(X[more], np.unique(labels, return_inverse=True)[1], scores[more])
    assert found is not None
    assert found.weight is not None
    assert found.weight[0] == 0.75
    assert found.weight.sum() == pytest.approx(24)
    p = once.predict_proba(X[:1], scores=scores[:1])[0]
    only = fit(np.arange(24)).predict_proba(X[:1], scores=scores[:1])[0]
    assert only[2] < p[2] < 0.5 < p[0] < only[0]


def test_an_answer_with_several_labels_is_left_out_whole():
    rng = np.random.default_rng(0)
    K, n = 3, 8
    y = np.repeat(np.arange(K), n)
    X, m = rng.normal(size=(K, 20))[y] + 2 * rng.normal(size=(24, 20)), rng.normal(size=(24, K))
    rows, labels = np.append(np.arange(24), [0, 0, 9]), np.append(y, [1, 2, 0])
    weight, answer = np.ones(27), rows.copy()
    weight[[0, 24, 25]], weight[[9, 26]] = 1 / 3, 1 / 2
    Z, d, _ = ridge.basis(X[rows] / 10, labels, K, 512)
    m = m[rows]
    for t in (1.0, 4.0, 16.0):
        V = ridge.minimise(Z, d, labels, m, t, None, weight)
        quick = ridge.leave_one_out(Z, labels, m, t, V, weight, answer)
        blind = ridge.leave_one_out(Z, labels, m, t, V, weight)
        for i in (0, 24, 25, 9, 26):
            total = np.bincount(labels, weight)
            left = weight * np.where(labels == labels[i], 1.0, 1 - 1 / total[labels])
            left[answer == answer[i]] = 0

            def objective(v, left=left, t=t):
                V = v.reshape(-1, K)
                p = log_softmax(m + Z @ V, axis=1)
                slope = left[:, None] * (np.exp(p) - np.eye(K)[labels])
                loss = (V**2).sum() / (2 * t) - left @ p[np.arange(27), labels]
                return loss, (Z.T @ slope + V / t).ravel()

            exact = minimize(objective, np.zeros(Z.shape[1] * K), jac=True).x.reshape(-1, K)
            f = m[i] + Z[i] @ exact
            error = np.abs(log_softmax(quick[i]) - log_softmax(f)).max()
            assert error < 0.35
            assert error < np.abs(log_softmax(blind[i]) - log_softmax(f)).max()


def test_texts_without_hidden_states_are_not_told_apart_by_their_scores():
    _, y, scores = task_arrays(8)
    nothing = np.empty((24, 0))
    scores = np.round(scores)  # a coarse server: several texts have the same
    codes = np.unique(y, return_inverse=True)[1]
    assert distinct(nothing, codes, scores) is None
    once = OffsetLogisticRegression().fit(nothing, y, scores=scores)
    twice = OffsetLogisticRegression().fit(
        np.empty((48, 0)), np.tile(y, 2), scores=np.tile(scores, (2, 1))
    )
    assert np.abs(once.intercept_ - twice.intercept_).max() > 1e-4


def test_rows_are_the_same_in_all_arrays_or_not_at_all():
    X = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert same_rows(X).tolist() == [0, 0, 0, 1]
    assert same_rows(X, np.array([[1.0], [1.0], [2.0], [1.0]])).tolist() == [0, 0, 1, 2]


def test_the_classifier_on_texts_that_stand_twice():
    texts, y = ["so good", "quite bad", "good one", "a bad one"], ["yes", "no"] * 2
    labels = {"no": "bad", "yes": "good"}

    def fit(n):
        clf = FewShotClassifier("fake", labels=labels, store=None).fit(texts * n, y * n)
        return clf.predict_proba(["good", "bad and good", "new"])

    np.testing.assert_array_equal(fit(2), fit(1))


def test_a_threshold_is_not_chosen_on_copies_of_what_was_learnt():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 40))
    own = (np.arange(30) < 7).astype(int)  # as in a table that is sorted by label
    for rows in (np.arange(30), np.tile(np.arange(30), 3), np.repeat(np.arange(30), 2)):
        y = own[rows]
        folds = assign_folds(_dealt(X[rows]), y)
        assert len({(int(i), int(fold)) for i, fold in zip(rows, folds, strict=True)}) == 30
        for fold in range(5):
            assert len(set(rows[folds == fold])) == 6
            assert len(set(rows[(folds == fold) & (y == 1)])) in (1, 2)
        order = rng.permutation(len(rows))
        np.testing.assert_array_equal(assign_folds(_dealt(X[rows[order]]), y[order]), folds[order])
    for rows in (np.repeat([0, 29], 9), [0] * 8):
        assert assign_folds(_dealt(X[rows]), own[rows]) is None, "copies are no evidence"
    Y = rng.integers(2, size=(30, 1)) * [1, 1]  # nothing to be learnt: held out, all alike
    learnt = MultiLabel(threshold="f1").fit(np.tile(X, (4, 1)), np.tile(Y, (4, 1)))
    assert (learnt.threshold_ < 0.5).all()
