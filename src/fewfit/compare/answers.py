"""What is asked once and shared by all methods, and how each of them sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration import Calibration
from fewfit.compare.methods import Features
from fewfit.models.base import FrozenModel, Progress
from fewfit.observations import Observations
from fewfit.prompts import Prompt
from fewfit.task import Task


@dataclass(frozen=True, eq=False)
class Answers:
    """What one frozen model said, or only the prompts, for methods that read the texts.

    Attributes
    ----------
    task : Task or None
        Without a prior: each cell has its own, see :meth:`cell`.
    observations : Observations or None
        Of the test set, of the rows of the training pool that some sample holds, and of the
        content-free prompts, in this order.
    prompts : ndarray of object
        Of the test set and of the rows of the pool.
    y : ndarray
        Their labels.
    n_test : int
    place : dict of int to int
        Row of the training pool -> where it is.
    free : dict of Prompt to int
        Content-free prompt -> where it is.
    """

    task: Task | None
    observations: Observations | None
    prompts: NDArray[np.object_]
    y: NDArray[Any]
    n_test: int
    place: dict[int, int]
    free: dict[Prompt, int]

    @property
    def model(self) -> FrozenModel | None:
        """Who was asked."""
        return None if self.task is None else self.task.model

    @classmethod
    def ask(
        cls,
        task: Task | None,
        test: Sequence[Prompt],
        y_test: NDArray[Any],
        pool: dict[int, Prompt],
        y_pool: NDArray[Any],
        free: Sequence[Prompt],
        *,
        progress: Progress | None = None,
    ) -> Answers:
        """Ask about each distinct prompt once; `pool` maps rows of the pool to their prompts."""
        prompts = [*test, *pool.values()]
        observations = None
        if task is not None:
            asked = [[prompt] for prompt in [*prompts, *free]]
            observations = task.ask(asked, progress=progress)
            task.check_answers(observations)
        array = np.empty(len(prompts), dtype=object)
        array[:] = prompts
        return cls(
            task,
            observations,
            array,
            np.concatenate([y_test, y_pool[list(pool)]]),
            len(test),
            {row: len(test) + i for i, row in enumerate(pool)},
            {prompt: len(prompts) + i for i, prompt in enumerate(free)},
        )

    def cell(
        self,
        calibration: Calibration,
        free: Sequence[Prompt],
        rows: Sequence[int],
        classes: NDArray[Any],
        *,
        reads_words: bool = False,
    ) -> tuple[Features, Features]:
        """Return a sample and the test set as a method under this calibration sees them.

        The prior is that of the sample and of its content-free prompts alone, as in
        :meth:`FewShotClassifier.fit`; a calibration that is not row-independent takes the test set
        as one batch.

        Parameters
        ----------
        calibration : Calibration
        free : sequence of Prompt
            Its content-free prompts for this sample.
        rows : sequence of int
            The sample's rows of the training pool; none for a method that learns nothing.
        classes : ndarray of shape (K,)
        reads_words : bool
            As in :class:`Task`.
        """
        here = np.array([self.place[row] for row in rows], dtype=np.intp)
        if self.task is None or self.observations is None:
            return self._features(None, here), self._features(None, slice(0, self.n_test))
        task = replace(self.task, calibration=calibration, reads_words=reads_words)
        if len(rows) or calibration.row_independent:
            blank = self.observations[np.array([self.free[p] for p in free], dtype=np.intp)]
            codes = np.searchsorted(classes, self.y[here])
            task = task.estimate(blank, self.observations[here], y=codes)
        test = self._features(task, slice(0, self.n_test))
        return self._features(task, here) if len(rows) else test[:0], test

    def tokens(self, free: Sequence[Prompt]) -> dict[Prompt, int]:
        """Return the length of each content-free prompt in the frozen model's tokens."""
        if self.observations is None:
            return {}
        return {p: int(self.observations.n_tokens[self.free[p]]) for p in free}

    def _features(self, task: Task | None, index: slice | NDArray[np.intp]) -> Features:
        prompts, y = self.prompts[index], self.y[index]
        if task is None or self.observations is None:
            nothing = np.empty((len(y), 0), np.float32)
            return Features(nothing, None, y, prompts, np.zeros(len(y), np.int32))
        answers = self.observations[index]
        return Features(*task.features(answers), y, prompts, answers.n_tokens)
