"""Batches of observations, put together in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.observations import DTYPES, UNANSWERED, Batch, Observations, Status


def concatenate(parts: Sequence[Observations]) -> Observations:
    """Join observations of the same columns, space and hidden size, in order.

    Raises
    ------
    InputError
        If there is nothing to join, or the parts differ in anything but their rows.
    """
    ends = np.cumsum([0, *(len(part) for part in parts)])
    batches = ((np.arange(*ends[i : i + 2]), part) for i, part in enumerate(parts))
    return gather(batches, int(ends[-1]))


def gather(batches: Iterable[Batch], n: int) -> Observations:
    """Put batches that arrive in any order into one block of `n` rows, copying each row once.

    A batch in which no row was answered goes with any other; its numbers become NaN.

    Raises
    ------
    InputError
        If the batches disagree, or do not fill every row exactly once.
    """
    first: Observations | None = None
    block: dict[str, NDArray[Any]] = {}
    filled = np.zeros(n, dtype=np.intp)
    failures: list[Batch] = []
    for positions, batch in batches:
        if (batch.status == Status.FAILED).all():
            failures.append((positions, batch))
            filled[positions] += 1
            continue
        arrays = batch.arrays()
        if first is None:
            first = batch
            block = {k: np.empty((n, *v.shape[1:]), dtype=v.dtype) for k, v in arrays.items()}
        _check_alike(first, batch)
        for name, value in arrays.items():
            block[name][positions] = value
        filled[positions] += 1
    if first is None:
        if not failures:
            raise InputError("observations: nothing to gather")
        first = failures[0][1]
        block = {k: np.empty((n, *v.shape[1:]), dtype=v.dtype) for k, v in first.arrays().items()}
    for positions, batch in failures:
        for name, array in block.items():
            array[positions] = UNANSWERED.get(name, getattr(batch, name))
    if (filled != 1).any():
        raise InputError(f"observations: row {int(np.argmax(filled != 1))} was not filled once")
    return replace(first, **block)


def _check_alike(first: Observations, other: Observations) -> None:
    for field in fields(Observations):
        a, b = getattr(first, field.name), getattr(other, field.name)
        same = (
            (a is None) == (b is None) and (a is None or a.shape[1:] == b.shape[1:])
            if field.name in DTYPES
            else a == b
        )
        if not same:
            raise InputError(f"observations: parts differ in {field.name}")
