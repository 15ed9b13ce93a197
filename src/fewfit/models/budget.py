"""A budget of queries in front of a frozen model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, overload

from fewfit.errors import BudgetExceededError, InputError
from fewfit.models.base import Capabilities, FrontModel, FrozenModel
from fewfit.models.streams import mapped
from fewfit.observations import Batch
from fewfit.prompts import Prompt


class BudgetedModel(FrontModel):
    """Any frozen model, asked at most so many prompts.

    It belongs between the model and its store, where answers that are stored cost nothing.

    Parameters
    ----------
    model : FrozenModel
    max_queries : int
        How many prompts may be asked over the life of this object. A prompt without a usable
        answer counts, a retry does not; nor does one that the model had not taken from the
        sequence when it failed.
    keeps : bool
        Whether what is answered is stored. If so, a run that needs more than is left asks what it
        can before it stops; if not, it asks nothing, since the answers would be lost.
    left : int, optional
        How many of them are left; all if left out. A pickled copy goes on with a count of its own.

    Raises
    ------
    BudgetExceededError
        From a run that needs more than is left.
    """

    def __init__(
        self, model: FrozenModel, max_queries: int, *, keeps: bool, left: int | None = None
    ) -> None:
        whole = isinstance(max_queries, Integral) and not isinstance(max_queries, bool)
        if not whole or max_queries < 0:
            raise InputError(f"max_queries: expected a number of queries, got {max_queries!r}")
        super().__init__(model)
        self.max_queries = int(max_queries)
        self.keeps = keeps
        self._left = self.max_queries if left is None else left
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """How many prompts may still be asked."""
        return self._left

    @property
    def capabilities(self) -> Capabilities:
        # A model with a soft prompt is another object, whose queries would not count here.
        return replace(self.model.capabilities, soft_prompts=False)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        needed = len(prompts)
        with self._lock:
            suffices = needed <= self._left
            allowed = needed if suffices else self._left * self.keeps
            self._left -= allowed
            left = self._left
        if allowed:
            taken = _Taken(prompts[:allowed])

            def counted(batch: Batch) -> Iterator[Batch]:
                taken.places.update(batch[0].tolist())
                yield batch

            try:
                asking: Any = self.model.stream(taken, words)
                yield from mapped(asking, counted)
            finally:  # a server that is down, or a caller that stops, has not used up the rest
                with self._lock:
                    self._left += allowed - len(taken.places)
        if not suffices and self.keeps:
            raise BudgetExceededError(f"the budget of {self.max_queries} queries is used up")
        if not suffices:
            raise BudgetExceededError(
                f"{needed} queries are needed and {left} are left of the budget of "
                f"{self.max_queries}. Nothing was asked, since without a store the answers would "
                "be lost; name a store, or a larger budget",
                left=needed,
            )


def unbilled(prompts: Sequence[Prompt]) -> Sequence[Prompt]:
    """Return prompts to look through without asking, which no budget counts."""
    return prompts._prompts if isinstance(prompts, _Taken) else prompts


class _Taken(Sequence[Prompt]):
    """Prompts that note which of them a model has taken, one by one or by their places."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._prompts = prompts
        self.places: set[int] = set()

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, at: int) -> Prompt: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Prompt]: ...

    def __getitem__(self, at: int | slice) -> Prompt | Sequence[Prompt]:
        some = range(len(self._prompts))[at]
        self.places.update([some] if isinstance(some, int) else some)
        return self._prompts[at]
