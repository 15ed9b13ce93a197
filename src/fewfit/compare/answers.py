"""What is asked once and shared by all methods, and how each of them sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration import Calibration
from fewfit.compare.methods import Features
from fewfit.models import FrozenModel
from fewfit.models.base import Progress
from fewfit.observations import Observations
from fewfit.prompts import Prompt
from fewfit.task import Task

Places = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one frozen model said, or only the prompts, for methods that read the texts.

    Attributes
    ----------
    task : Task or None
        Without a prior: each cell has its own, see :meth:`cell`.
    observations : Observations or None
        One row per prompt.
    prompts : ndarray of object
        Distinct.
    place : dict of Prompt to int
        Where each of them is.
    """

    task: Task | None
    observations: Observations | None
    prompts: NDArray[np.object_]
    place: dict[Prompt, int]

    @classmethod
    def ask(
        cls, task: Task | None, prompts: Sequence[Prompt], *, progress: Progress | None = None
    ) -> Answers:
        """Ask about each of these prompts, which are distinct, once."""
        observations = None
        if task is not None:
            observations = task.ask([[prompt] for prompt in prompts], progress=progress)
            task.check_answers(observations)
        array = np.empty(len(prompts), dtype=object)
        array[:] = prompts
        return cls(task, observations, array, {prompt: i for i, prompt in enumerate(prompts)})

    @property
    def model(self) -> FrozenModel | None:
        """Who was asked; None if nobody was."""
        return None if self.task is None else self.task.model

    def where(self, prompts: Sequence[Prompt]) -> Places:
        """Return where these prompts are."""
        return np.array([self.place[prompt] for prompt in prompts], dtype=np.intp)

    def cell(
        self,
        calibration: Calibration,
        free: Places,
        sample: tuple[Places, NDArray[Any]],
        test: tuple[Places, NDArray[Any]],
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
        free : ndarray of int
            Where its content-free prompts for this sample are.
        sample, test : (ndarray of int, ndarray)
            Where their prompts are, and their labels; no rows of the sample for a method that
            learns nothing.
        classes : ndarray of shape (K,)
        reads_words : bool
            As in :class:`Task`.
        """
        here, y = sample
        if self.task is None or self.observations is None:
            return self._features(None, *sample), self._features(None, *test)
        task = replace(self.task, calibration=calibration, reads_words=reads_words)
        if len(here) or calibration.row_independent:
            codes = np.searchsorted(classes, y)
            task = task.estimate(self.observations[free], self.observations[here], y=codes)
        seen = self._features(task, *test)
        return self._features(task, *sample) if len(here) else seen[:0], seen

    def tokens(self, free: Sequence[Prompt]) -> dict[Prompt, int]:
        """Return the length of each content-free prompt in the frozen model's tokens."""
        if self.observations is None:
            return {}
        return {p: int(self.observations.n_tokens[self.place[p]]) for p in free}

    def _features(self, task: Task | None, index: Places, y: NDArray[Any]) -> Features:
        prompts = self.prompts[index]
        if task is None or self.observations is None:
            nothing = np.empty((len(y), 0), np.float32)
            return Features(nothing, None, y, prompts, np.zeros(len(y), np.int32))
        answers = self.observations[index]
        return Features(*task.features(answers), y, prompts, answers.n_tokens)
