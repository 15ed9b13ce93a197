"""Temperature scaling: how far held-out examples take confidence away.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, arXiv 1706.04599, section 4.2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

_LARGEST = 20.0


def find_temperature(
    proba: NDArray[np.float64], codes: NDArray[np.intp], weight: NDArray[np.float64] | None = None
) -> float:
    """Return by what log-odds are to be divided, from 1 to 20.

    It is the most probable T, given examples that the probabilities are not of the fit of, where
    before any is seen log T ~ N(0, 1), and T >= 1: so few may take confidence away, not add it.

    Parameters
    ----------
    proba : ndarray of shape (N, K)
    codes : ndarray of shape (N,)
        Positions of the examples' classes.
    weight : ndarray of shape (N,), optional
        What each example counts for.
    """
    f = np.log(np.maximum(proba, np.finfo(float).tiny))
    w = np.ones(len(codes)) if weight is None else weight

    def unlikely(u: float) -> float:
        z = f * np.exp(-u)
        return float(w @ (logsumexp(z, axis=1) - z[np.arange(len(codes)), codes])) + u**2 / 2

    found = minimize_scalar(unlikely, bounds=(0, np.log(_LARGEST)), method="bounded")
    return float(np.exp(found.x)) if found.fun < unlikely(0.0) else 1.0
