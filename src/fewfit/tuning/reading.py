"""Rows of examples through a network: encoded, drawn, scored, ranked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fewfit.errors import InputError, TruncationWarning
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.losses import TokenLogProbs, rank
from fewfit.tuning.measure import forward_flops
from fewfit.tuning.trunk import Trunk

if TYPE_CHECKING:
    from fewfit.tuning.adapter import Adapter
    from fewfit.tuning.adapters.ia3 import IA3
    from fewfit.tuning.measure import Meter

T = TypeVar("T")

COUNTED = 8
"""Examples whose operations are counted for all of them."""


def encode_rows(
    trunk: Trunk, rows: Sequence[Sequence[Any]], *, only_answer: bool = False
) -> list[list[Encoded]]:
    """Turn rows into tokens, so that every error in them is found before the first step.

    How many texts are cut is said in a :class:`fewfit.errors.TruncationWarning`.
    """
    for i, wordings in enumerate(rows):
        if isinstance(wordings, ChoiceExample) or not wordings:
            raise InputError(f"rows: row {i} is not a sequence of one or more wordings")
    fresh = any(isinstance(item, ChoiceExample) for row in rows for item in row)
    encoded = [
        [
            item
            if isinstance(item, Encoded)
            else trunk.encoder.encode(item, only_answer=only_answer)
            for item in wordings
        ]
        for wordings in rows
    ]
    cut = sum(any(item.truncated for item in row) for row in encoded) if fresh else 0
    if cut:
        warnings.warn(
            f"{cut} of {len(rows)} texts are longer than the {trunk.max_tokens} tokens that are "
            "read (max_tokens) and were cut at the end; the template is whole",
            TruncationWarning,
            stacklevel=3,
        )
    return encoded


def draw(wordings: Sequence[T], seed: int, step: int, row: int) -> T:
    """Return the wording of a row in a step, or what is kept of it."""
    if len(wordings) == 1:
        return wordings[0]
    return wordings[int(np.random.default_rng([seed, step, row]).integers(len(wordings)))]


def ranked(
    trunk: Trunk,
    examples: Sequence[ChoiceExample],
    *,
    vectors: IA3 | None = None,
    adapter: Adapter | None = None,
    batch_size: int = 32,
) -> list[int]:
    """Rank classification: the position of the best choice of each example.

    Parameters
    ----------
    vectors : IA3, optional
        Attached to the trunk's network by the caller; given, a batch may mix tasks, each row being
        answered with the vectors of its :attr:`ChoiceExample.task`.
    adapter : Adapter, optional
        Attached by the caller; what it says the network reads instead is read.
    """
    encoded = [trunk.encoder.encode(example) for example in examples]
    out = [0] * len(encoded)
    for some, tokens in answers(trunk, encoded, vectors, adapter, batch_size):
        for i, best in zip(some, rank(tokens).tolist(), strict=True):
            out[i] = best
    return out


def scored(
    trunk: Trunk,
    encoded: Sequence[Encoded],
    *,
    adapter: Adapter | None = None,
    batch_size: int = 32,
    meter: Meter | None = None,
) -> NDArray[np.float32]:
    """Return beta of K choices of each of N examples, shape (N, K), nats per token.

    `adapter`, if given, is attached by the caller; `meter` is told what it takes.
    """
    out = np.empty((len(encoded), len(encoded[0].choices)), dtype=np.float32)
    for some, tokens in answers(trunk, encoded, None, adapter, batch_size):
        out[some] = tokens.grid(tokens.beta).cpu().numpy()
    if meter is not None:
        meter.flops += len(encoded) * query_flops(trunk, encoded, adapter)
    return out


def query_flops(trunk: Trunk, encoded: Sequence[Encoded], adapter: Adapter | None = None) -> float:
    """Count the operations of reading one example with all its choices: the mean over some."""
    some = [encoded[i] for i in range(0, len(encoded), -(-len(encoded) // COUNTED))]

    def read() -> None:
        for _ in answers(trunk, some, None, adapter, len(some)):
            pass

    return forward_flops(read) / len(some)


def answers(
    trunk: Trunk,
    encoded: Sequence[Encoded],
    vectors: IA3 | None,
    adapter: Adapter | None,
    batch_size: int,
) -> Iterator[tuple[list[int], TokenLogProbs]]:
    """Read examples in batches of similar length; yields their positions and what was read."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].before))
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        batch = trunk.pack([encoded[i] for i in some])
        with (
            torch.inference_mode(),
            nullcontext() if vectors is None else vectors.rows(batch.tasks),
        ):
            if adapter is not None:
                batch = adapter.rewrite(batch.to(trunk.device), trunk)
            tokens, _ = trunk.read(batch)
        yield some, tokens
