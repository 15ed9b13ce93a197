"""What texts without labels add to a linear classifier: a Gaussian mixture that it starts.

Symbols: x hidden state of unit length (H), f log-odds of the classifier (K), M texts without
labels, N labelled rows, if they are there.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import brentq
from scipy.special import log_softmax, logsumexp, softmax

from fewfit.decoders.base import Floats
from fewfit.errors import ModelWarning

_STEP = 0.5  # what a log-odds of a mixture of texts alone counts for beside the classifier's
_SHRINK = 0.5  # of the covariance, towards a sphere of the same trace, with many texts per class
_MANY = 20  # texts per class
_WORTH = 2.0  # texts without labels that a labelled row counts for
_ROUNDS = 12
_SURER = 0.8  # power of the temperature at which the mean confidence is kept
_MATCHES = 30  # rounds in which shares are fitted
_RIGHT = 0.8  # least share of the labelled rows to which the mixture has to give their class
_ALREADY = 2  # rows to which it has, before any is seen
_LOUD = 0.06  # least temperature that is taken to be a matter of scale
_LEAST = 5  # texts per class
_TEXTS = 100  # least texts in all
_NOBODY = 1e-6  # texts at the centre in each class, for one of which the pool has none
_CHUNK = 8192  # texts of which a product is taken at once


class Labelled(NamedTuple):
    """The rows that a classifier was fitted on.

    Attributes
    ----------
    x : ndarray of shape (N, H)
        Of unit length.
    y : ndarray of shape (N,)
        Positions of their classes; not all need occur.
    weight : ndarray of shape (N,), optional
        How many rows each counts for, above 0; left out, one.
    """

    x: Floats
    y: NDArray[np.intp]
    weight: Floats | None = None

    def groups(self, K: int) -> tuple[Floats, Floats]:
        """Return the number of rows of each class (K,), and their mean (K, H), 0 without any."""
        weight = np.ones(len(self.y)) if self.weight is None else self.weight
        counts = np.bincount(self.y, weight, minlength=K).astype(self.x.dtype)
        sums = np.zeros((K, self.x.shape[1]), self.x.dtype)
        np.add.at(sums, self.y, weight.astype(self.x.dtype)[:, None] * self.x)
        return counts, sums / np.where(counts > 0, counts, 1)[:, None]


def learn_from_pool(
    pool: Floats, f: Floats, labelled: Labelled | None = None, *, keep_shares: bool = False
) -> tuple[float, Floats, Floats] | None:
    """Fit the mixture, and decide whether it is to be believed.

    Parameters
    ----------
    pool : ndarray of shape (M, H)
        Texts without labels, of unit length.
    f : ndarray of shape (M, K)
        The classifier's log-odds of them.
    labelled : Labelled, optional
        Of the rows that the classifier was fitted on.
    keep_shares : bool, default=False
        Whether the mean probability of each class stays what it was under f.

    Returns
    -------
    scale, coef, bias : float, ndarray of shape (K, H), ndarray of shape (K,)
        ``scale * f(x) + coef @ x + bias`` are the new log-odds; None where the pool says too little
        or claims too much.
    """
    if len(pool) < _enough(f.shape[1]) or not pool.shape[1]:
        return None
    own, at = _rows(pool, f.shape[1], labelled)
    step = _STEP * len(pool) / (len(pool) + float(own.sum()))
    found = _mixture(pool, f, step, own, at)
    if found is None:
        return None
    coef, bias = found
    if labelled is not None:
        right = (labelled.x @ coef.T + bias).argmax(axis=1) == labelled.y
        share = np.average(right, weights=labelled.weight)
        if (share * len(right) + _ALREADY) / (len(right) + _ALREADY) < _RIGHT:
            return None
    before = softmax(f, axis=1)
    both = f + step * (pool @ coef.T + bias)
    scale = _temperature(both, float(before.max(axis=1).mean()))
    if scale < _LOUD:
        return None
    scale **= _SURER
    coef, bias = scale * step * coef, scale * step * bias
    if keep_shares:
        bias += _shift(scale * both, _log_means(f)).astype(bias.dtype)
    return scale, coef, bias


def warn_of_useless(M: int, pool: Floats, K: int) -> None:
    """Say that M texts were asked about in vain, of which those of the pool differ."""
    if not pool.shape[1]:
        why = "the model gives no hidden states"
    elif len(pool) < _enough(K):
        why = f"for {K} classes there have to be {_enough(K)} different ones"
    else:
        why = "they fall into groups that are not the classes"
    warnings.warn(f"the {M} texts without labels change nothing: {why}", ModelWarning, stacklevel=4)


def _enough(K: int) -> int:
    """Return how many texts there have to be."""
    return max(_LEAST * K, _TEXTS)


def _rows(pool: Floats, K: int, labelled: Labelled | None) -> tuple[Floats, Floats]:
    """Return how many texts the labelled rows of each class count for (K,), and their mean."""
    if labelled is None:
        return np.zeros(K, pool.dtype), np.zeros((K, pool.shape[1]), pool.dtype)
    counts, means = labelled.groups(K)
    return _WORTH * counts, means


def _mixture(
    pool: Floats, f: Floats, step: float, own: Floats, at: Floats
) -> tuple[Floats, Floats] | None:
    """Return the linear discriminant, (K, H) and (K,), of one Gaussian a class with one covariance.

    Total covariance T = within + between, and T does not depend on who belongs where. So it is
    factorised once, and the within-class part differs from it by K directions. Fewer texts than
    dimensions span a space that holds all means; what is perpendicular to it says nothing.
    """
    (M, K), H = f.shape, pool.shape[1]
    shrink = 1 - (1 - _SHRINK) * min(M / K / _MANY, 1)
    total, basis = M + own.sum(), None
    if M + K < H:
        basis, corner = np.linalg.qr(np.vstack([pool, at]).T)
        pool, at = corner[:, :M].T, corner[:, M:].T
    centre = (pool.sum(axis=0) + own @ at) / total
    T = (_scatter(pool, centre) + ((at - centre).T * own) @ (at - centre)) / total
    size = np.trace(T) / H
    if size <= np.finfo(T.dtype).eps:
        return None
    T *= 1 - shrink
    T[np.diag_indices_from(T)] += shrink * size
    root = cholesky(T, lower=True, overwrite_a=True)

    prior = log_softmax(f, axis=1)
    coef, bias = np.zeros((K, len(root)), T.dtype), np.zeros(K, T.dtype)
    for _ in range(_ROUNDS):
        z = softmax(prior + step * (pool @ coef.T + bias), axis=1)
        n = z.sum(axis=0) + own + _NOBODY
        sums = z.T @ pool + own[:, None] * at + _NOBODY * centre
        mean = sums / n[:, None] - centre
        mean = solve_triangular(root, mean.T, lower=True).T
        gram = mean @ mean.T
        inner = np.diag(total / ((1 - shrink) * n)) - gram
        white = mean + gram @ np.linalg.solve(inner, mean)
        coef = solve_triangular(root, white.T, lower=True, trans="T").T
        bias = -np.einsum("kh,kh->k", white, mean) / 2 - coef @ centre
    return (coef if basis is None else coef @ basis.T), bias


def _scatter(pool: Floats, centre: Floats) -> Floats:
    """Return the scatter matrix of the rows, without a second copy of them."""
    T = np.zeros((pool.shape[1],) * 2, pool.dtype)
    for start in range(0, len(pool), _CHUNK):
        rows = pool[start : start + _CHUNK] - centre
        T += rows.T @ rows
    return T


def _shift(f: Floats, log_shares: Floats) -> Floats:
    """Return what to add to f, (K,), for the mean probabilities to be the given ones."""
    f = f.astype(np.float64)
    shift = np.zeros(f.shape[1])
    for _ in range(_MATCHES):  # in logarithms: a class may be next to impossible in all texts
        shift += log_shares - _log_means(f + shift)
    return shift - shift.mean()


def _log_means(f: Floats) -> Floats:
    """Return the logarithm of the mean probability of each class, (K,)."""
    log_p = log_softmax(f.astype(np.float64), axis=1)
    return logsumexp(log_p, axis=0) - np.log(len(f))


def _temperature(f: Floats, confidence: float) -> float:
    """Return the factor, at most 1, at which the mean confidence of f is the given one."""

    def excess(scale: float) -> float:
        return float(softmax(scale * f, axis=1).max(axis=1).mean()) - confidence

    if excess(1.0) <= 0:
        return 1.0
    return brentq(excess, 0.0, 1.0, xtol=1e-6) if excess(0.0) < 0 else 0.0
