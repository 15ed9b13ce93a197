"""The head for several labels: folds of its thresholds, and columns that say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit.decoders import MultiLabel


def test_thresholds_do_not_depend_on_how_the_rows_are_sorted():
    rng = np.random.default_rng(0)
    K, n, H = 5, 8, 64
    mean, y = rng.normal(size=(K, H)), np.repeat(np.arange(K), n)
    X, Y = mean[y] + rng.normal(size=(K * n, H)), np.eye(K, dtype=int)[y]
    new = np.repeat(np.arange(K), 40)
    X_new = mean[new] + rng.normal(size=(len(new), H))
    order = rng.permutation(K * n)
    sorted_, shuffled = (
        MultiLabel(threshold="f1").fit(X[rows], Y[rows]) for rows in (np.arange(K * n), order)
    )
    np.testing.assert_allclose(sorted_.threshold_, shuffled.threshold_, rtol=1e-6)
    given = sorted_.predict(X_new)
    assert (given == np.eye(K, dtype=int)[new]).all(axis=1).mean() > 0.9


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_column_that_is_constant_but_for_rounding_decides_nothing(dtype):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 6)).astype(dtype)
    X[:, 3] = 0.1
    Y = (X[:, :2] > 0).astype(int)
    learnt = MultiLabel().fit(X, Y)
    moved = X.copy()
    moved[:, 3] = 0.2
    np.testing.assert_allclose(learnt.predict_proba(moved), learnt.predict_proba(X), atol=1e-3)
