"""What texts without labels add to a linear classifier: a Gaussian mixture that it starts.

Symbols: x hidden state of unit length (H), f log-odds of the classifier (K), M texts without
labels, N labelled rows.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from fewfit.decoders.base import Floats
from fewfit.errors import ModelWarning

_STEP = 0.5  # what a log-odds of the mixture counts for beside one of the classifier
_SHRINK = 0.5  # of the covariance, towards a sphere of the same trace
_WORTH = 2.0  # texts without labels that a labelled row counts for
_ROUNDS = 12
_MATCHES = 30  # rounds in which the biases are fitted
_LOUD = 0.06  # least temperature that is taken to be a matter of scale
_TEXTS = 20  # least texts without labels per class


def learn_from_pool(
    pool: Floats, f: Floats, x: Floats, y: NDArray[np.intp]
) -> tuple[float, Floats, Floats] | None:
    """Fit the mixture, and decide whether it is to be believed.

    Parameters
    ----------
    pool : ndarray of shape (M, H)
        Texts without labels, of unit length.
    f : ndarray of shape (M, K)
        The classifier's log-odds of them.
    x : ndarray of shape (N, H)
        Labelled rows, of unit length.
    y : ndarray of shape (N,)
        Their classes; each class occurs.

    Returns
    -------
    scale, coef, bias : float, ndarray of shape (K, H), ndarray of shape (K,)
        ``scale * f(x) + coef @ x + bias`` are the new log-odds; None where the pool says too little
        or claims too much.
    """
    K = f.shape[1]
    if len(pool) < _TEXTS * K or not x.shape[1]:
        return None
    found = _mixture(pool, f, x, y)
    if found is None:
        return None
    coef, bias = found
    both = f + _STEP * (pool @ coef.T + bias)
    before = softmax(f, axis=1)
    scale = _temperature(both, float(before.max(axis=1).mean()))
    if scale < _LOUD:
        return None
    both = scale * both
    shift = np.zeros(K, both.dtype)
    for _ in range(_MATCHES):
        shift += np.log(before.mean(axis=0) / softmax(both + shift, axis=1).mean(axis=0))
    return scale, scale * _STEP * coef, scale * _STEP * bias + shift - shift.mean()


def warn_of_useless(M: int, K: int) -> None:
    """Say that the texts were asked about in vain."""
    warnings.warn(
        f"the {M} texts without labels change nothing: they are too few for {K} classes, or fall "
        "into groups that are not the classes",
        ModelWarning,
        stacklevel=4,
    )


def _mixture(
    pool: Floats, f: Floats, x: Floats, y: NDArray[np.intp]
) -> tuple[Floats, Floats] | None:
    """Return the linear discriminant, (K, H) and (K,), of one Gaussian a class with one covariance.

    Total covariance T = within + between, and T does not depend on who belongs where. So it is
    factorised once, and the within-class part differs from it by K directions.
    """
    K, H = f.shape[1], x.shape[1]
    total = len(pool) + _WORTH * len(x)
    centre = (pool.sum(axis=0) + _WORTH * x.sum(axis=0)) / total
    texts, rows = pool - centre, x - centre
    T = (texts.T @ texts + _WORTH * (rows.T @ rows)) / total
    size = np.trace(T) / H
    if size <= np.finfo(T.dtype).eps:
        return None
    root = cholesky((1 - _SHRINK) * T + _SHRINK * size * np.eye(H, dtype=T.dtype), lower=True)
    texts = solve_triangular(root, texts.T, lower=True).T
    rows = solve_triangular(root, rows.T, lower=True).T

    prior = log_softmax(f, axis=1)
    own = _WORTH * np.eye(K, dtype=T.dtype)[y]
    coef, bias = np.zeros((K, H), T.dtype), np.zeros(K, T.dtype)
    for _ in range(_ROUNDS):
        z = softmax(prior + _STEP * (texts @ coef.T + bias), axis=1)
        n = z.sum(axis=0) + own.sum(axis=0)
        mean = (z.T @ texts + own.T @ rows) / n[:, None]
        gram = mean @ mean.T
        inner = np.diag(total / ((1 - _SHRINK) * n)) - gram
        coef = mean + gram @ np.linalg.solve(inner, mean)
        bias = -np.einsum("kh,kh->k", coef, mean) / 2
    coef = solve_triangular(root, coef.T, lower=True, trans="T").T
    return coef, bias - coef @ centre


def _temperature(f: Floats, confidence: float) -> float:
    """Return the factor, at most 1, at which the mean confidence of f is the given one."""

    def excess(scale: float) -> float:
        return float(softmax(scale * f, axis=1).max(axis=1).mean()) - confidence

    if excess(1.0) <= 0:
        return 1.0
    return brentq(excess, 0.0, 1.0, xtol=1e-6) if excess(0.0) < 0 else 0.0
