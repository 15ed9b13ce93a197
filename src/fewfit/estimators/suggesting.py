"""Which texts to label next: numbers in, positions and reasons out.

Symbols: z hidden state of unit length, less the pool's mean, of unit length again (H); f log-odds
of the classifier (K); M texts of the pool, no two alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fewfit.decoders.threads import one_thread

Floats = NDArray[Any]

TYPICAL, UNCERTAIN, NEW = "typical", "uncertain", "new class suspected"

_NEIGHBOURS = 20
_REFERENCES = 2000  # texts among which neighbours are looked for
_CHUNK = 4096
_UNCERTAIN = 0.25  # share of the pool whose two best classes are closest
_APART = 0.5  # a text whose nearest class centre is less than this times as near as its neighbours


class Chosen(NamedTuple):
    """A text to label: its position in the pool, and why."""

    index: int
    reason: str


def choose(
    hidden: Floats,
    f: Floats,
    n: int,
    labelled: tuple[Floats, NDArray[np.intp]] | None = None,
) -> list[Chosen]:
    """Return n texts, in the order in which they are worth a label.

    Each goes to the class that has the fewest labels so far, counting those that were chosen as
    what the classifier takes them for. Among the texts that it takes for this class, the one is
    chosen that lies in the densest place, far from what has a label or was chosen: the largest mean
    similarity to its nearest texts, less the largest similarity to one of those.

    Parameters
    ----------
    hidden : ndarray of shape (M, H)
    f : ndarray of shape (M, K)
    n : int
        All are returned where there are fewer.
    labelled : (ndarray of shape (N, H), ndarray of shape (N,)), optional
        Hidden states of what is labelled and the positions of the classes.
    """
    M, K = f.shape
    unit = _unit(hidden)
    centre = unit.mean(axis=0)
    z, p = _unit(unit - centre), softmax(f, axis=1)
    best = p.argmax(axis=1)
    with one_thread():
        dense = _density(z)
        near = np.full(M, -np.inf)
        counts = np.zeros(K)
        if labelled is not None and len(labelled[1]):
            known = _unit(_unit(labelled[0]) - centre)
            counts += np.bincount(labelled[1], minlength=K)
            for start in range(0, M, _CHUNK):
                near[start : start + _CHUNK] = (z[start : start + _CHUNK] @ known.T).max(axis=1)
        reasons = _reasons(z, p, dense)
        left, found = np.ones(M, dtype=bool), []
        while left.any() and len(found) < n:
            there = np.bincount(best[left], minlength=K) > 0
            k = int(np.where(there, counts, np.inf).argmin())
            rows = np.flatnonzero(left & (best == k))
            worth = dense[rows] - np.maximum(near[rows], 0)
            i = int(rows[worth.argmax()])
            found.append(Chosen(i, reasons[i]))
            left[i] = False
            counts[k] += 1
            near = np.maximum(near, z @ z[i])
    return found


def _density(z: Floats) -> Floats:
    """Return the mean similarity of each text to its nearest others, shape (M,).

    In a large pool they are looked for among every so-manieth text in an order of its own, so that
    the order of the rows does not matter.
    """
    M = len(z)
    others = z[np.lexsort(z.T[:8])[:: -(-M // _REFERENCES)]]
    n = min(_NEIGHBOURS, len(others) - 1)
    out = np.zeros(M, z.dtype)
    for start in range(0, M if n else 0, _CHUNK):
        similar = z[start : start + _CHUNK] @ others.T
        similar[similar > 1 - 1e-6] = -1  # itself
        out[start : start + _CHUNK] = np.sort(similar, axis=1)[:, -n:].mean(axis=1)
    return out


def _reasons(z: Floats, p: Floats, dense: Floats) -> list[str]:
    """Return why one would label each text, were it chosen."""
    top = np.sort(p, axis=1)
    gap = top[:, -1] - (top[:, -2] if p.shape[1] > 1 else 0)
    unsure = gap <= np.quantile(gap, _UNCERTAIN)
    centres = _unit((p**2).T @ z)
    apart = (z @ centres.T).max(axis=1) < _APART * dense
    told = np.where(apart, NEW, np.where(unsure, UNCERTAIN, TYPICAL))
    return told.tolist()


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(x.dtype).tiny)
