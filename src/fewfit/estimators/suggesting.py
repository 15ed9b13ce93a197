"""Which texts to label next: numbers in, positions and reasons out.

Symbols: z hidden state of unit length, less the pool's mean, of unit length again (H); f log-odds
of the classifier (K); M texts of the pool, no two alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from fewfit.decoders.threads import one_thread
from fewfit.prompts import Row

Floats = NDArray[Any]

TYPICAL, UNCERTAIN, NEW = "typical", "uncertain", "new class suspected"

_NEIGHBOURS = 20
_REFERENCES = 2000  # texts among which neighbours are looked for
_CHUNK = 4096
_UNCERTAIN = 0.25  # share of the pool whose two best classes are closest
_STRANGE = 2.0  # standard deviations of the neighbours' entropy above its mean
_EVERY = 10  # of so many texts one is from where the neighbours are strange, if any are


class Chosen(NamedTuple):
    """A text to label: its position in the pool, and why."""

    place: int
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """A text to label.

    Attributes
    ----------
    index : int
        Its place among the rows that were given.
    row : mapping of str to str
        Its fields.
    reason : {"typical", "uncertain", "new class suspected"}
    """

    index: int
    row: Row
    reason: str


class Suggestions(list[Suggestion]):
    """Texts to label, the most useful first.

    Attributes
    ----------
    queries : int
        What asking about the pool has cost.
    """

    def __init__(self, found: Iterable[Suggestion] = (), *, queries: int = 0) -> None:
        super().__init__(found)
        self.queries = queries


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
    similarity to its nearest texts, less the largest similarity to one of those. Every tenth is
    from where the classifier is unsure of whole neighbourhoods, if there are such: the classes may
    not be all.

    Parameters
    ----------
    hidden : ndarray of shape (M, H)
        Without columns, `f` says what is alike.
    f : ndarray of shape (M, K)
    n : int
        All are returned where there are fewer.
    labelled : (ndarray of shape (N, H), ndarray of shape (N,)), optional
        Hidden states of what is labelled and the positions of the classes.
    """
    M, K = f.shape
    unit = _unit(hidden if hidden.shape[1] else f)
    centre = unit.mean(axis=0)
    z, p = _unit(unit - centre), softmax(f, axis=1)
    best = p.argmax(axis=1)
    near, counts = np.full(M, -1.0), np.zeros(K)
    with one_thread():
        dense, strange = _neighbourhoods(z, p)
        if labelled is not None and len(labelled[1]):
            counts += np.bincount(labelled[1], minlength=K)
            for x in _unit(_unit(labelled[0]) - centre):  # of a model without hidden states their f
                near = np.maximum(near, z @ x)
        new = strange > strange.mean() + _STRANGE * strange.std()
        reasons = _reasons(p, new)
        left, found = np.ones(M, dtype=bool), []
        while left.any() and len(found) < n:
            if (len(found) + 1) % _EVERY == 0 and (left & new).any():
                i = int(np.where(left & new, strange, -np.inf).argmax())
            else:
                there = np.bincount(best[left], minlength=K) > 0
                k = int(np.where(there, counts, np.inf).argmin())
                rows = np.flatnonzero(left & (best == k))
                worth = dense[rows] - np.maximum(near[rows], 0)
                i = int(rows[worth.argmax()])
            found.append(Chosen(i, reasons[i]))
            left[i] = False
            counts[best[i]] += 1
            near = np.maximum(near, z @ z[i])
    return found


def _neighbourhoods(z: Floats, p: Floats) -> tuple[Floats, Floats]:
    """Return the mean similarity of each text to its nearest others, and their mean entropy.

    In a large pool they are looked for among every so-manieth text in an order of its own, so that
    the order of the rows does not matter.
    """
    M = len(z)
    some = np.lexsort(z.T[:8])[:: -(-M // _REFERENCES)]
    entropy = -(p[some] * np.log(np.maximum(p[some], 1e-30))).sum(axis=1)
    n = min(_NEIGHBOURS, len(some) - 1)
    dense, strange = np.zeros(M), np.zeros(M)
    for start in range(0, M if n else 0, _CHUNK):
        similar = z[start : start + _CHUNK] @ z[some].T
        similar[similar > 1 - 1e-6] = -1  # itself
        nearest = np.argpartition(similar, -n, axis=1)[:, -n:]
        here = slice(start, start + _CHUNK)
        dense[here] = np.take_along_axis(similar, nearest, axis=1).mean(axis=1)
        strange[here] = entropy[nearest].mean(axis=1)
    return dense, strange


def _reasons(p: Floats, new: NDArray[np.bool_]) -> list[str]:
    """Return why one would label each text, were it chosen."""
    top = np.sort(p, axis=1)
    gap = top[:, -1] - top[:, -2]
    unsure = gap <= np.quantile(gap, _UNCERTAIN)
    return np.where(new, NEW, np.where(unsure, UNCERTAIN, TYPICAL)).tolist()


def _unit(x: Floats) -> Floats:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(x.dtype).tiny)
