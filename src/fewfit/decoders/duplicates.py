"""Rows that stand several times among the labelled examples."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


class Distinct(NamedTuple):
    """The rows that differ from all before them in what the model answered or in their label.

    Attributes
    ----------
    rows : ndarray of shape (M,)
        Where they stand.
    answer : ndarray of shape (M,)
        A number for each answer, the same for rows that differ in the label alone.
    weight : ndarray of shape (M,), or None
        The share of the label among all rows of this answer; None where every share is 1. Of rows
        with weights, the mean weight of the answer's copies, shared out.
    """

    rows: NDArray[np.intp]
    answer: NDArray[np.intp]
    weight: NDArray[np.float64] | None


def same_rows(*arrays: Floats | None) -> NDArray[np.intp]:
    """Return a number for each row, the same for rows that are equal in all arrays, shape (N,)."""
    seen: dict[bytes, int] = {}
    number: list[int] = []
    for rows in zip(*(array for array in arrays if array is not None), strict=True):
        key = b"".join((row + 0).tobytes() for row in rows)  # no -0.0
        key = blake2b(key, digest_size=16).digest()  # of many long rows, no second copy
        number.append(seen.setdefault(key, len(seen)))
    return np.array(number, dtype=np.intp)


def first_rows(*arrays: Floats | None) -> NDArray[np.intp] | slice:
    """Return where the rows stand that differ from all before them; all rows if nothing repeats."""
    number = same_rows(*arrays)
    first = np.unique(number, return_index=True)[1]
    return slice(None) if len(first) == len(number) else first


def distinct(
    X: Floats,
    y: NDArray[np.intp],
    scores: Floats | None,
    sample_weight: Floats | None = None,
) -> Distinct | None:
    """Return the distinct rows, or None if all are: nothing stands twice.

    Of rows without hidden states nothing is said: different texts may well have the same scores.
    """
    if not X.shape[1]:
        return None
    answer = same_rows(X, scores)
    if answer.max() + 1 == len(answer):
        return None
    pairs, rows, where, counts = np.unique(
        np.stack([answer, y]), axis=1, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(rows)
    answer = pairs[0][order]
    held = counts if sample_weight is None else np.bincount(where.ravel(), sample_weight)
    weight = held[order] / np.bincount(answer, counts[order])[answer]
    return Distinct(rows[order], answer, None if (weight == 1).all() else weight)
