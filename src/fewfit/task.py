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
from fewfit.observations import Observations, Status
from fewfit.prompts import Row, Template, Verbalizer


@dataclass(frozen=True)
class Task:
    """A question put to a frozen model about every row: template, label words, calibration.

    Attributes
    ----------
    model : FrozenModel
    template : Template
    verbalizer : Verbalizer
    calibration : Calibration
    prior : ndarray of shape (K,), or None
        The model's prior over labels once it was estimated (:meth:`begin`); None before, and for
        a model that gives no scores.
    """

    model: FrozenModel
    template: Template
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
        self, rows: Sequence[Row], *, progress: Progress | None = None
    ) -> tuple[Task, Observations, int]:
        """Ask about `rows` and, in the same go, about the calibration's content-free inputs.

        Returns
        -------
        (Task, Observations, int)
            The task with its prior, the answers to `rows`, and the queries paid for in all.
        """
        scored = self.model.capabilities.scores is not None
        free = self.calibration.content_free if scored else ()
        blanks = [dict.fromkeys(self.template.fields, text) for text in free]
        answers = self.observe([*blanks, *rows], progress=progress)
        prior = None
        if answers.scores is not None and answers.space is not None:
            prior = self.calibration.prior(answers.scores[: len(blanks)], answers.space)
        return replace(self, prior=prior), answers[len(blanks) :], answers.queries

    def observe(self, rows: Sequence[Row], *, progress: Progress | None = None) -> Observations:
        """Ask about `rows`; the answers have one score column per class.

        Raises
        ------
        ModelError
            If a prompt was not answered. What was answered is in the store, if there is one.
        """
        if not rows:
            raise InputError("X: no examples")
        prompts = [self.template.render(row) for row in rows]
        answers = self.model.observe(prompts, self.verbalizer.words, progress=progress)
        failed = int((answers.status == Status.FAILED).sum())
        if failed:
            raise ModelError(
                f"the model gave no usable answer to {failed} of {len(rows)} prompts; run again to "
                "ask only these"
            )
        cut = int((answers.status == Status.TRUNCATED).sum())
        if cut:
            warnings.warn(
                f"{cut} of {len(rows)} texts are longer than the model reads and were cut at the "
                "end; the template is whole",
                TruncationWarning,
                stacklevel=2,
            )
        names = [str(name) for name in self.verbalizer.classes]
        return answers.by_class(names, self.verbalizer.word_class)

    def features(
        self, observations: Observations
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return what a decoder is fed: hidden states (N, H) and calibrated scores (N, K).

        The scores are without the prior and in units of log-odds, or None if the model gives none;
        H is 0 if it gives no hidden state.
        """
        hidden: Any = observations.hidden
        if hidden is None:
            hidden = np.empty((len(observations), 0), dtype=np.float32)
        if observations.scores is None or self.prior is None:
            return hidden, None
        scores = self.calibration.remove(observations.scores, self.prior)
        return hidden, (scores * self.model.capabilities.score_scale).astype(np.float32)
