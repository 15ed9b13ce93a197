"""What tuning changed: token-distribution shift, and abilities that a transform brings back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.declare import declare
from fewfit.errors import InputError

Next = Callable[[tuple[int, ...]], NDArray[np.floating]]
"""Tokens so far -> score of every next token, shape (V,): one query of the base model."""


class Shift(NamedTuple):
    """Where an aligned model's answer leaves its base model's way.

    Attributes
    ----------
    ranks : ndarray of shape (T,), int
        Rank of each token of the answer in the base model's distribution, from 1.
    unshifted, marginal, shifted : float
        Shares of ranks 1, 2 to 3, and above.
    """

    ranks: NDArray[np.intp]
    unshifted: float
    marginal: float
    shifted: float


@declare(
    requires=frozenset({"full_vocabulary"}),
    queries="1 per token of the answer",
    reference="Lin et al. 2024, arXiv 2312.01552",
)
def token_shift(base: Next, query: Sequence[int], answer: Sequence[int]) -> Shift:
    """Rank an aligned model's greedy answer under its base model (Lin et al. 2024, section 2).

    The base model is always given the *aligned* model's tokens, never its own: one query per token.
    A token's rank is one more than the number of tokens that are strictly more probable, so a tie
    counts in its favour.

    Parameters
    ----------
    base : callable of tuple of int to ndarray of shape (V,)
    query, answer : sequence of int, answer of length T >= 1
    """
    if not len(answer):
        raise InputError("answer: no tokens")
    ranks = np.empty(len(answer), dtype=np.intp)
    for t, token in enumerate(answer):
        scores = np.asarray(base((*query, *answer[:t])))
        ranks[t] = 1 + int((scores > scores[token]).sum())
    unshifted, within = float((ranks == 1).mean()), float((ranks <= 3).mean())
    return Shift(ranks, unshifted, within - unshifted, 1 - within)


class Drops(NamedTuple):
    """How much tuning costs a task, asked plainly and asked through a transform."""

    plain: float
    transformed: float
    recovered: float


def recovered(
    base: float, tuned: float, base_transformed: float, tuned_transformed: float
) -> Drops:
    """Return the difference of drops that conjugate prompting is about (Kotha et al. 2024).

    All four are accuracies. The transform has a cost of its own, which both of its numbers carry,
    so that it cancels.

    Examples
    --------
    >>> drops = recovered(0.9, 0.5, 0.8, 0.7)
    >>> round(drops.plain, 3), round(drops.transformed, 3), round(drops.recovered, 3)
    (0.4, 0.1, 0.3)
    """
    plain, transformed = base - tuned, base_transformed - tuned_transformed
    return Drops(plain, transformed, plain - transformed)
