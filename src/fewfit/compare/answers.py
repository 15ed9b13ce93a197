"""What is asked once and shared by all methods, and how each of them sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration import Calibration
from fewfit.compare.methods import Features
from fewfit.errors import ModelError
from fewfit.models.base import Progress
from fewfit.observations import Observations, Status
from fewfit.prompts import Row, View, Views
from fewfit.task import Query, Task

Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one frozen model said.

    Attributes
    ----------
    task : Task
        Without a prior: each cell has its own, see :meth:`cell`.
    observations : Observations
        One row per query.
    place : dict of Query to int
        Where each of them is.
    """

    task: Task
    observations: Observations
    place: dict[Query, int]

    @classmethod
    def ask(
        cls,
        task: Task,
        queries: Sequence[Query],
        *,
        named: Callable[[Query], str],
        progress: Progress | None = None,
    ) -> Answers:
        """Ask each of these queries, which are distinct, once.

        Raises
        ------
        ModelError
            If one has no answer, with its row as `named`: methods are compared on the same rows.
        """
        patient = replace(task, policy=replace(task.policy, errors="nan"))
        observations = patient.answer(queries, progress=progress)
        failed = np.flatnonzero(observations.status == Status.FAILED)
        if len(failed):
            raise ModelError(
                f"the model gave no usable answer to {len(failed)} of {len(queries)} prompts, "
                f"first {named(queries[failed[0]])}: {observations.why_failed()}. Run again, which "
                "asks nothing that the store has, or leave the rows out: all methods are compared "
                "on the same"
            )
        task.policy.check_enough(observations, observations.status != Status.FAILED)
        return cls(task, observations, {query: i for i, query in enumerate(queries)})

    def where(self, queries: Sequence[Sequence[Query]]) -> Places:
        """Return where the answers to N times P queries are, shape (N, P)."""
        places = [[self.place[query] for query in row] for row in queries]
        return np.array(places, dtype=np.intp) if places else np.empty((0, 1), dtype=np.intp)

    def cell(
        self,
        views: Sequence[View],
        calibration: Calibration,
        free: Places,
        sample: tuple[Places, Sequence[Row], NDArray[Any]],
        test: tuple[Places, Sequence[Row], NDArray[Any]],
        classes: NDArray[Any],
        *,
        reads_words: bool = False,
        pool: tuple[Places, Sequence[Row]] | None = None,
    ) -> tuple[Features, Features]:
        """Return a sample and the test set as a method under this calibration sees them.

        The prior is that of the sample and of its content-free prompts alone, as in
        :meth:`FewShotClassifier.fit`; a calibration that is not row-independent takes the test set
        as one batch.

        Parameters
        ----------
        views : sequence of View, length P
        calibration : Calibration
        free : ndarray of shape (M, P)
            Where its content-free prompts for this sample are.
        sample, test : (ndarray of shape (N, P), rows, ndarray of shape (N,))
            Where their prompts are, the rows, and their labels; no rows of the sample for a method
            that learns nothing.
        classes : ndarray of shape (K,)
        reads_words : bool
            As in :class:`Task`.
        pool : (ndarray of shape (M, P), rows), optional
            Texts without labels that go with the sample.
        """
        here, _, y = sample
        task = replace(
            self.task, template=Views(views), calibration=calibration, reads_words=reads_words
        )
        if len(here) or calibration.row_independent:
            codes = np.searchsorted(classes, y)
            blank, told = self.observations[free.ravel()], self.observations[here.ravel()]
            task = task.estimate(blank, told, y=codes)
        seen = self._features(task, *test)
        own = self._features(task, *sample) if len(here) else seen[:0]
        if pool is not None:
            own = replace(own, pool=self._features(task, *pool, y[:0]))
        return own, seen

    def tokens(self, queries: Places) -> dict[int, int]:
        """Return the length of each of these queries, in the frozen model's tokens."""
        return {int(i): int(self.observations.n_tokens[i]) for i in queries.ravel()}

    def _features(
        self, task: Task, places: Places, rows: Sequence[Row], y: NDArray[Any]
    ) -> Features:
        answers = self.observations[places.ravel()]
        hidden, scores = task.features(answers)
        return Features(hidden, scores, y, rows, places, answers.n_tokens.reshape(places.shape))
