"""The nearest class mean, by hand."""

from __future__ import annotations

import numpy as np

from fewfit.decoders import (
    NearestMean,
)
from tests.conftest import task_arrays


def test_nearest_mean_at_one_shot_is_the_nearest_neighbour():
    X, y, _ = task_arrays(1)
    new = np.random.default_rng(3).standard_normal((50, 12))
    cosine = (new / np.linalg.norm(new, axis=1)[:, None]) @ (
        X / np.linalg.norm(X, axis=1)[:, None]
    ).T
    np.testing.assert_array_equal(NearestMean().fit(X, y).predict(new), y[cosine.argmax(axis=1)])


def test_nearest_mean_in_numbers():
    X = [[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]
    decoder = NearestMean().fit(X, ["a", "b", "b"])
    np.testing.assert_allclose(decoder.c_, [[1, 0], [0.3, 0.9]])
    np.testing.assert_allclose(decoder._log_odds(np.array([[2.0, 0.0]]), None), [[0, -1.3]])
