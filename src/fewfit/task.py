"""A task: everything between a user's rows and a decoder's arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration import Calibration
from fewfit.errors import InputError, ModelError, TruncationWarning
from fewfit.models.base import FrozenModel, Progress
from fewfit.observations import Observations, Status, gather
from fewfit.prompts import Prompt, Row, Verbalizer, View, Views


@dataclass(frozen=True)
class Task:
    """A question put to a frozen model about every row: template, label words, calibration.

    Attributes
    ----------
    model : FrozenModel
    template : View or Views
        One view, or P views that are asked about the same row.
    verbalizer : Verbalizer
    calibration : Calibration
    prior : ndarray of shape (P, K), or None
        The model's prior over labels once it was estimated (:meth:`begin`), view by view; None
        before, and for a model that gives no scores.
    """

    model: FrozenModel
    template: View | Views
    verbalizer: Verbalizer
    calibration: Calibration
    prior: NDArray[np.float64] | None = None

    def check(self, requires: frozenset[str], *, who: str) -> None:
        """Refuse a decoder or calibration that the model cannot serve (CapabilityError)."""
        given = self.model.capabilities
        given.check(requires, who=who, n_words=len(self.verbalizer.words))
        if given.scores is not None:
            self.calibration.check(given.scores)

    def begin(
        self,
        rows: Sequence[Row],
        *,
        y: NDArray[np.intp] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Task, Observations, int]:
        """Ask about `rows` and, in the same go, about the calibration's content-free inputs.

        Parameters
        ----------
        rows : sequence of Row, length N
        y : ndarray of shape (N,), optional
            Positions of the rows' classes: for views with demonstrations, and for calibrations
            that learn from labels.
        progress : callable, optional

        Returns
        -------
        (Task, Observations, int)
            The task with its prior, the answers to `rows`, and the queries paid for in all.
        """
        task = self
        if y is not None:
            shown = [self.verbalizer.first[k] for k in y]
            task = replace(self, template=self.template.learn(rows, shown))
        views, calibration = task.template.views, task.calibration
        blanks: list[list[Prompt]] = []
        if task.model.capabilities.scores is not None:
            free = [calibration.prompts(view, rows) for view in views]
            blanks = [list(prompts) for prompts in zip(*free, strict=True)]
        answers = task._ask([*blanks, *task._prompts(rows)], progress)
        n_blanks = len(blanks) * len(views)
        if answers.scores is None or answers.space is None:
            return task, answers[n_blanks:], answers.queries
        scores = answers.scores.reshape(-1, len(views), answers.scores.shape[1])
        told = scores[len(blanks) :]
        if y is not None:
            scaled = told * task.model.capabilities.score_scale
            calibration = calibration.fitted(scaled, y, answers.space)
        source = scores[: len(blanks)] if calibration.row_independent else told
        prior = [calibration.prior(source[:, p], answers.space) for p in range(len(views))]
        task = replace(task, calibration=calibration, prior=np.stack(prior))
        return task, answers[n_blanks:], answers.queries

    def observe(self, rows: Sequence[Row], *, progress: Progress | None = None) -> Observations:
        """Ask about `rows`; the answers have one score column per class.

        Returns
        -------
        Observations
            N * P rows: the P views of the first example, then those of the second, and so on.

        Raises
        ------
        ModelError
            If a prompt was not answered. What was answered is in the store, if there is one.
        """
        if not rows:
            raise InputError("X: no examples")
        return self._ask(self._prompts(rows), progress)

    def features(
        self, observations: Observations
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return what a decoder is fed: hidden states and calibrated scores.

        The hidden states have shape (N, P * H), the views of an example side by side; H is 0 if
        the model gives none. The scores have shape (N, K), or (N, P, K) where P > 1; they are
        without each view's prior and in units of log-odds, or None if the model gives none.
        """
        P = len(self.template.views)
        hidden: Any = observations.hidden
        if hidden is None:
            hidden = np.empty((len(observations), 0), dtype=np.float32)
        hidden = hidden.reshape(len(observations) // P, P * hidden.shape[1])
        if observations.scores is None or observations.space is None or self.prior is None:
            return hidden, None
        views = observations.scores.reshape(len(hidden), P, -1).swapaxes(0, 1)
        prior: Any = self.prior
        if not self.calibration.row_independent:
            prior = [self.calibration.prior(scores, observations.space) for scores in views]
        removed = np.stack(
            [self.calibration.remove(*pair) for pair in zip(views, prior, strict=True)], axis=1
        )
        scores = (removed * self.model.capabilities.score_scale).astype(np.float32)
        return hidden, scores if P > 1 else scores[:, 0]

    def _prompts(self, rows: Sequence[Row]) -> list[list[Prompt]]:
        return [[view.render(row) for view in self.template.views] for row in rows]

    def _ask(self, prompts: Sequence[Sequence[Prompt]], progress: Progress | None) -> Observations:
        """Ask N times P prompts; views that spell the label words alike are asked together."""
        P = len(self.template.views)
        names = [str(name) for name in self.verbalizer.classes]
        owners, weights = self.verbalizer.word_class, self.verbalizer.weights
        groups: dict[tuple[str, ...], list[int]] = {}
        for p, view in enumerate(self.template.views):
            words = tuple(view.spell(word) for word in self.verbalizer.words)
            groups.setdefault(words, []).append(p)
        batches = []
        for words, columns in groups.items():
            asked = [row[p] for row in prompts for p in columns]
            answers = self.model.observe(asked, words, progress=progress)
            where = np.arange(len(prompts))[:, None] * P + columns
            batches.append((where.ravel(), answers.by_class(names, owners, weights)))
        answers = gather(batches, len(prompts) * P)
        failed = int((answers.status == Status.FAILED).sum())
        if failed:
            raise ModelError(
                f"the model gave no usable answer to {failed} of {len(answers)} prompts; run again "
                "to ask only these"
            )
        cut = int((answers.status == Status.TRUNCATED).sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(answers)} texts are longer than the model reads and were cut at "
                "the end; the template is whole",
                TruncationWarning,
                stacklevel=3,
            )
        return answers
