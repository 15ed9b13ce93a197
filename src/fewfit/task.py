"""A task: everything between a user's rows and a decoder's arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration import Calibration
from fewfit.errors import (
    CapabilityError,
    InputError,
    ModelError,
    ModelWarning,
    TruncationWarning,
)
from fewfit.models.base import FrozenModel, Progress
from fewfit.observations import Observations, Status
from fewfit.prompts import Row, Template, Verbalizer

MAX_CENSORED = 0.5
"""Beyond half, a row's class scores are mostly one and the same bound, and what a decoder learnt
from them would be the server's cut-off. Two classes never exceed it while one of them is listed."""


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
    errors : {"raise", "nan"}
        What becomes of a row that the model gave no usable answer to.
    max_censored : float
        Largest share of class scores that may be bounds in what is fitted.
    """

    model: FrozenModel
    template: Template
    verbalizer: Verbalizer
    calibration: Calibration
    prior: NDArray[np.float64] | None = None
    errors: str = "raise"
    max_censored: float = MAX_CENSORED

    def check(self, requires: frozenset[str], *, who: str) -> None:
        """Refuse a decoder or calibration that the model cannot serve (CapabilityError)."""
        given = self.model.capabilities
        given.check(requires, who=who, n_words=len(self.verbalizer.words))
        if given.scores is not None:
            self.calibration.check(given.scores)
        K = len(self.verbalizer.classes)
        if given.top_k is not None and 1 - given.top_k / K > self.max_censored:
            raise CapabilityError(
                f"the model lists its {given.top_k} most probable tokens, so that of {K} classes "
                f"at least {1 - given.top_k / K:.0%} would have no score but a bound (allowed: "
                f"{self.max_censored:.0%}, max_censored); ask for more tokens (top_k), for fewer "
                "classes, or a server that scores tokens by id (vllm, sglang)"
            )

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
        self._check_begun(answers, len(blanks))
        prior = None
        if answers.scores is not None and answers.space is not None:
            prior = self.calibration.prior(answers.scores[: len(blanks)], answers.space)
        return replace(self, prior=prior), answers[len(blanks) :], answers.queries

    def observe(self, rows: Sequence[Row], *, progress: Progress | None = None) -> Observations:
        """Ask about `rows`; the answers have one score column per class.

        Raises
        ------
        ModelError
            If a prompt was not answered, unless :attr:`errors` is "nan". What was answered is in
            the store, if there is one.
        """
        if not rows:
            raise InputError("X: no examples")
        prompts = [self.template.render(row) for row in rows]
        answers = self.model.observe(prompts, self.verbalizer.words, progress=progress)
        failed = int((answers.status == Status.FAILED).sum())
        if failed and self.errors == "raise":
            raise ModelError(
                f"the model gave no usable answer to {failed} of {len(rows)} prompts; run again to "
                "ask only these, or go on without them with errors='nan'"
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
        answers = answers.by_class(names, self.verbalizer.word_class)
        if (rate := _censored(answers)) > 0:
            warnings.warn(
                f"{rate:.0%} of the class scores are only upper bounds: the model lists its most "
                "probable tokens, and the label words were not among them",
                ModelWarning,
                stacklevel=2,
            )
        return answers

    def _check_begun(self, answers: Observations, n_blanks: int) -> None:
        if (answers.status[:n_blanks] == Status.FAILED).any():
            raise ModelError(
                "the model gave no usable answer to a content-free input of the calibration; run "
                "again to ask only what is missing, or use calibration='none'"
            )
        rate = _censored(answers[n_blanks:])
        if rate > self.max_censored:
            raise CapabilityError(
                f"{rate:.0%} of the class scores are only bounds (allowed: "
                f"{self.max_censored:.0%}, max_censored); choose label words that the model would "
                "say, or a server that scores tokens by id. The answers are stored"
            )

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


def _censored(answers: Observations) -> float:
    """Share of the scores of answered rows that are bounds."""
    if answers.censored is None:
        return 0.0
    answered = answers.censored[answers.status != Status.FAILED]
    return float(answered.mean()) if answered.size else 0.0
