"""Batches of similar length that survive running out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError

_WINDOW = 2048

Answer = TypeVar("Answer")


@dataclass
class Budget:
    """How much is asked at once: padded tokens, and rows. Running out of memory lowers it."""

    tokens: int = 2048
    rows: int = 128


def windows(sizes: Sequence[int]) -> Iterator[NDArray[np.intp]]:
    """Cut the positions of `sizes` into runs, largest first.

    Only one window need be held in tokens at a time, so memory does not grow with the number of
    texts.
    """
    order = np.argsort(-np.asarray(sizes, dtype=np.intp), kind="stable")
    for start in range(0, len(order), _WINDOW):
        yield order[start : start + _WINDOW]


def in_batches(
    lengths: NDArray[np.integer],
    ask: Callable[[NDArray[np.intp]], Answer],
    budget: Budget,
    *,
    pads: bool = True,
) -> Iterator[tuple[NDArray[np.intp], Answer]]:
    """Ask about rows of similar length together, longest first, within a budget.

    Parameters
    ----------
    lengths : ndarray of shape (N,)
        Tokens of each row.
    ask : callable
        Takes the positions of a batch and returns its answer.
    budget : Budget
        Halved, and kept so, whenever `ask` runs out of memory; the batch is then asked again in
        smaller parts.
    pads : bool, default=True
        Whether rows of unequal length may stand in one batch.

    Yields
    ------
    (positions, answer)

    Raises
    ------
    ModelError
        If the memory does not hold a single row.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        n = max(1, min(budget.rows, budget.tokens // max(longest, 1), len(order) - start))
        if not pads:
            n = min(n, int((lengths[order[start:]] == longest).sum()))
        rows = order[start : start + n]
        try:
            answer = ask(rows)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not _out_of_memory(error):
                raise
            if n == 1:
                raise ModelError(
                    f"a single prompt of {longest} tokens does not fit into memory; use a smaller "
                    "model, a smaller dtype or max_tokens"
                ) from error
            budget.tokens = longest * (n // 2)
            _free()
            continue
        yield rows, answer
        start += n


def read_in_batches(
    sizes: Sequence[int],
    encode: Callable[[NDArray[np.intp]], Sequence[Any]],
    ask: Callable[[Sequence[Any]], Answer],
    budget: Budget,
    *,
    pads: bool = True,
) -> Iterator[tuple[NDArray[np.intp], Answer]]:
    """Encode texts, some thousand at a time, and ask about those of similar length together.

    Parameters
    ----------
    sizes : sequence of int
        Roughly how long each text is.
    encode : callable
        Takes positions in `sizes` and returns what has `ids`, in this order.
    ask : callable
        Takes some of these and returns their answer.
    budget, pads
        As in :func:`in_batches`.

    Yields
    ------
    (positions, answer)
    """
    for window in windows(sizes):
        encoded = encode(window)
        lengths = np.array([len(item.ids) for item in encoded], dtype=np.intp)

        def asked(rows: NDArray[np.intp], encoded: Sequence[Any] = encoded) -> Answer:
            return ask([encoded[row] for row in rows])

        for rows, answer in in_batches(lengths, asked, budget, pads=pads):
            yield window[rows], answer


def pad(sequences: Sequence[Sequence[int]], value: int) -> tuple[Any, Any]:
    """Return token ids (B, T) and attention mask (B, T), int64 tensors, padded on the right."""
    import torch

    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), value, dtype=np.int64)
    mask = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _out_of_memory(error: RuntimeError) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
