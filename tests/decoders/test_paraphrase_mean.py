"""The mean over paraphrases."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from fewfit.decoders import (
    ParaphraseMean,
)
from tests.conftest import task_arrays


def test_paraphrases_count_half():
    X, y, m = task_arrays()
    views = np.stack([m, m + 1, m[:, ::-1], 2 * m], axis=1)
    expected = 0.5 * m + 0.5 * (m + 1 + m[:, ::-1] + 2 * m) / 3
    decoder = ParaphraseMean().fit(X, y, scores=views)
    np.testing.assert_allclose(
        decoder.predict_proba(X, scores=views), softmax(expected, axis=1), atol=1e-12
    )
    same = np.stack([m] * 4, axis=1)
    np.testing.assert_allclose(
        decoder.predict_proba(X, scores=same), softmax(m, axis=1), atol=1e-12
    )
