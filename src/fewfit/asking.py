"""The policy of asking: what becomes of rows without an answer, of bounds, and of budgets.

A :class:`~fewfit.task.Task` is the question; this is what is done where a model does not answer it
as one would wish.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import (
    CapabilityError,
    InputError,
    ModelError,
    ModelWarning,
    TruncationWarning,
)
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.budget import BudgetedModel
from fewfit.models.paired import halves
from fewfit.observations import Observations, Status

MAX_CENSORED = 0.5
"""Beyond half, a row's class scores are mostly one and the same bound, and what a decoder learnt
from them would be the server's cut-off. Two classes never exceed it while one of them is listed."""


@dataclass(frozen=True)
class Policy:
    """What is refused, and what is only warned of.

    Attributes
    ----------
    errors : {"raise", "nan"}
        What becomes of a row that the model gave no usable answer to, in any of its views.
    max_censored : float
        Largest share of class scores that may be bounds in what is fitted.
    chosen : bool
        Whether `errors` is the user's to choose, so that a message may advise another value.
    """

    errors: str = "raise"
    max_censored: float = MAX_CENSORED
    chosen: bool = False

    def __post_init__(self) -> None:
        if self.errors not in ("raise", "nan"):
            raise InputError(f"errors: expected 'raise' or 'nan', got {self.errors!r}")

    def check(self, given: Capabilities, n_classes: int) -> None:
        """Refuse a model that would give too many bounds (CapabilityError); nothing is asked."""
        if given.top_k is None:
            return
        rate = 1 - given.top_k / n_classes
        if rate > self.max_censored:
            raise CapabilityError(
                f"the model lists its {given.top_k} most probable tokens, so that of {n_classes} "
                f"classes at least {rate:.0%} would have no score but a bound (allowed: "
                f"{self.max_censored:.0%}, max_censored); ask for more tokens (top_k), for fewer "
                "classes, or a server that scores tokens by id (vllm, sglang)"
            )

    def settle(self, answers: Observations) -> Observations:
        """Return answers that have come, after saying what is wrong with them (ModelError)."""
        failed = int((answers.status == Status.FAILED).sum())
        if failed and self.errors == "raise":
            raise ModelError(
                f"the model gave no usable answer to {failed} of {len(answers)} prompts: "
                f"{answers.why_failed()}. Run again, which asks nothing that the store has"
                + ", or go on without them with errors='nan'"
                * self.chosen
            )
        cut = int((answers.status == Status.TRUNCATED).sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(answers)} texts are longer than the model reads and were cut at "
                "the end; the template is whole",
                TruncationWarning,
                stacklevel=5,
            )
        if (rate := _censored(answers)) > 0:
            warnings.warn(
                f"{rate:.0%} of the class scores are only upper bounds: the model lists its most "
                "probable tokens, and these label words were not among them",
                ModelWarning,
                stacklevel=5,
            )
        return answers

    def check_enough(self, answers: Observations, answered: NDArray[Any]) -> None:
        """Refuse to fit on answers of which too few are there (ModelError, CapabilityError).

        Parameters
        ----------
        answers : Observations
        answered : ndarray of shape (len(answers),), bool
            Those of the examples that have an answer in every view.
        """
        if not answered.any():
            raise ModelError(
                f"the model gave no usable answer to any example: {answers.why_failed()}. Run "
                "again, which asks nothing that the store has"
            )
        rate = _censored(answers[np.asarray(answered)])
        if rate > self.max_censored:
            raise CapabilityError(
                f"{rate:.0%} of the class scores are only bounds (allowed: "
                f"{self.max_censored:.0%}, max_censored); choose label words that the model would "
                "say (see 'fewfit doctor'), a larger top_k, or a server that scores tokens "
                "by id. What the store has is not asked again"
            )


def check_budget(model: FrozenModel, what: str) -> None:
    """Refuse to ask in more than one go where a budget could lose what the first one paid."""
    if any(isinstance(part, BudgetedModel) for part in halves(model)):
        raise InputError(
            f"max_queries: {what} are asked apart, so that without a store a budget that ends "
            "between them would lose answers; name a store, or leave max_queries out"
        )


def _censored(answers: Observations) -> float:
    """Share of the scores of answered rows that are bounds."""
    if answers.censored is None:
        return 0.0
    answered = answers.censored[answers.status != Status.FAILED]
    return float(answered.mean()) if answered.size else 0.0
