"""Prompts that a searcher tries on the same rows, within an exact budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.prompts import Row
from fewfit.task import Task

Floats = NDArray[Any]
T = TypeVar("T")


def cost_of(task: Task, rows: Sequence[Row]) -> int:
    """Queries of asking a task of one view about rows, whether or not a store has the answers."""
    [view] = task.template.views
    return len({*task.calibration.prompts(view, rows), *(view.render(row) for row in rows)})


class Trials(Generic[T]):
    """Ask about every row with one prompt after another; keep the best.

    One query is one row asked with one prompt. A trial is every distinct row, and what the
    calibration asks, so each costs the same; it is only made if all of it fits the budget. It
    counts whether or not a store has the answers, so that a search does not depend on the store.

    Parameters
    ----------
    first : Task
        Any of the tasks that will be tried.
    rows : sequence of Row, length N
    y : ndarray of shape (N,)
        Positions of the classes.
    loss : callable
        ``loss(scores, y)`` gives a loss for each row, shape (N,).
    max_queries : int
    who : str
        Name of the searcher, for messages.
    least : int
        Trials that it takes to learn anything.

    Attributes
    ----------
    cost : int
        Queries of one trial.
    queries : int
        What was asked so far.
    best : T
        What was tried with the least mean loss, the first of equals; `best_loss` is that loss.

    Raises
    ------
    InputError
        If there is no row or the budget does not pay for `least` trials.
    CapabilityError
        If the model gives no scores, or takes no soft prompt where one is needed.
    """

    best: T

    def __init__(
        self,
        first: Task,
        rows: Sequence[Row],
        y: NDArray[np.intp],
        *,
        loss: Callable[[Floats, NDArray[np.intp]], Floats],
        max_queries: int,
        requires: frozenset[str],
        who: str,
        least: int = 1,
    ) -> None:
        first.check(requires, who=who)
        if not rows or len(rows) != len(y):
            raise InputError(f"rows, y: {len(rows)} rows and {len(y)} classes; one for each")
        self.cost = cost_of(first, rows)
        if max_queries < least * self.cost:
            raise InputError(
                f"max_queries: {who} learns from {least} prompts at once, of {self.cost} queries "
                f"each: at least {least * self.cost} are needed, and {max_queries} are allowed"
            )
        self.queries = 0
        self.best_loss = np.inf
        self._rows, self._y, self._loss, self._limit = rows, y, loss, max_queries

    @property
    def left(self) -> int:
        """How many more trials the budget pays for."""
        return (self._limit - self.queries) // self.cost

    def ask(self, task: Task, tried: T) -> Floats:
        """Return the loss of each row, shape (N,), with this task; `tried` is what it stands for.

        Only while :attr:`left` is not 0.
        """
        task, answers, _ = task.begin(self._rows)
        scores = task.features(answers)[1]
        assert scores is not None
        losses = self._loss(scores.astype(np.float64), self._y)
        self.queries += self.cost
        if losses.mean() < self.best_loss:
            self.best, self.best_loss = tried, float(losses.mean())
        return losses
