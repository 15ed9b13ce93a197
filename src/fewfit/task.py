"""A task: everything between a user's rows and a decoder's arrays."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.asking import Policy, check_budget
from fewfit.calibration import Calibration
from fewfit.errors import InputError, LabelWordWarning, ModelError
from fewfit.gathering import gather
from fewfit.models.base import Capabilities, FrozenModel, Progress
from fewfit.observations import Observations, Status
from fewfit.prompts import Prompt, Row, Verbalizer, View, Views

DEFAULT_TEMPLATE = "{text} This is about {mask}."

PROBE = "A short text."
"""What a model is asked to see if it still answers the same, where nothing of this kind is asked
anyway."""


class Query(NamedTuple):
    """A prompt, and the label words as its view spells them."""

    prompt: Prompt
    words: tuple[str, ...]


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
    policy : Policy
        What becomes of rows that the model does not answer as one would wish.
    reads_words : bool
        Whether the scores of the label words take the place of the hidden states.
    """

    model: FrozenModel
    template: View | Views
    verbalizer: Verbalizer
    calibration: Calibration
    prior: NDArray[np.float64] | None = None
    policy: Policy = field(default_factory=Policy)
    reads_words: bool = False

    def check(self, requires: frozenset[str], *, who: str) -> None:
        """Refuse what the model cannot serve (CapabilityError), or a budget (InputError).

        Warns
        -----
        LabelWordWarning
            If the label words have weights and the model's scores are counts of answers in words.
        """
        given = self.model.capabilities
        given.check(requires, who=who, n_words=len(self.verbalizer.words))
        if given.scores is not None:
            self.calibration.check(given.scores, given.resolution)
        self.policy.check(given, len(self.verbalizer.classes))
        check_pairs(given, self.template.views)
        weights = self.verbalizer.weights
        if given.resolution > 0 and weights is not None and min(weights) < 1:
            warnings.warn(
                "labels: the weights of label words have no effect with this model: it answers in "
                "words, and an answer counts for its class whichever word of it was said",
                LabelWordWarning,
                stacklevel=3,
            )
        if len(set(self.spellings())) > 1:
            check_budget(self.model, "views that spell the label words differently")

    def begin(
        self,
        rows: Sequence[Row],
        *,
        y: NDArray[np.intp] | None = None,
        more: Sequence[Row] = (),
        progress: Progress | None = None,
    ) -> tuple[Task, Observations, int]:
        """Ask about `rows` and, in the same go, about the calibration's content-free inputs.

        Parameters
        ----------
        rows : sequence of Row, length N
        y : ndarray of shape (N,), optional
            Positions of the rows' classes: for views with demonstrations, and for calibrations
            that learn from labels.
        more : sequence of Row, optional
            Further rows to ask about, which have no part in the prior.
        progress : callable, optional

        Returns
        -------
        (Task, Observations, int)
            The task with its prior, the answers to `rows` and then to `more`, and the queries paid
            for in all. Scores of rows that were not answered have no part in the prior.
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
        prompts = [*blanks, *task._prompts([*rows, *more])]
        everything = task.ask(prompts, progress=progress, spare=len(more))
        queries, n_blanks = everything.queries, len(blanks) * len(views)
        blank, asked = everything[:n_blanks], everything[n_blanks:]
        answers = asked[: len(rows) * len(views)]
        if (blank.status == Status.FAILED).any():
            raise ModelError(
                "the model gave no usable answer to a content-free input of the calibration: "
                f"{blank.why_failed()}. Run again, which asks nothing that the store has, or use "
                "calibration='none'"
            )
        there = np.repeat(task.answered(answers), len(views))
        task.policy.check_enough(answers, there)
        return task.estimate(blank, answers, y=y), asked, queries

    @property
    def probe(self) -> Row:
        """A row that says nothing, to see later whether the model still answers the same.

        It is what the calibration asks about anyway, if it does, and so costs nothing.
        """
        asked = self.calibration.content_free if self.model.capabilities.scores else ()
        return dict.fromkeys(self.template.fields, asked[0] if asked else PROBE)

    def estimate(
        self, blank: Observations, answers: Observations, *, y: NDArray[np.intp] | None = None
    ) -> Task:
        """Return the task with its prior, from answers that are there.

        Parameters
        ----------
        blank : Observations
            Answers to the calibration's content-free prompts, view by view of each.
        answers : Observations
            Answers to the examples of the fit; those that failed have no part in the prior.
        y : ndarray of shape (N,), optional
            Positions of the examples' classes, for calibrations that learn from labels.
        """
        if blank.scores is None or answers.scores is None or answers.space is None:
            return self
        there, calibration = self.answered(answers), self.calibration
        told = self._by_example(answers.scores)[there]
        if y is not None:
            scaled = told * self.model.capabilities.score_scale
            calibration = calibration.fitted(scaled, y[there], answers.space)
        source = self._by_example(blank.scores) if calibration.row_independent else told
        views = range(len(self.template.views))
        prior = np.stack([calibration.prior(source[:, p], answers.space) for p in views])
        return replace(self, calibration=calibration, prior=prior)

    def observe(self, rows: Sequence[Row], *, progress: Progress | None = None) -> Observations:
        """Ask about `rows`; the answers have one score column per class.

        Returns
        -------
        Observations
            N * P rows: the P views of the first example, then those of the second, and so on.

        Raises
        ------
        ModelError
            If a prompt was not answered, unless the policy's ``errors`` is "nan". What was answered
            is in the store, if there is one.
        """
        if not rows:
            raise InputError("X: no examples")
        return self.ask(self._prompts(rows), progress=progress)

    def ask(
        self,
        prompts: Sequence[Sequence[Prompt]],
        *,
        progress: Progress | None = None,
        spare: int = 0,
    ) -> Observations:
        """Ask N times P prompts; :meth:`observe` says what is returned and raised."""
        views = len(self.template.views)
        return self.answer(self._queries(prompts), progress=progress, spare=spare * views)

    def queries(self, rows: Sequence[Row]) -> list[Query]:
        """Return what is asked about N rows: N * P queries, the views of a row side by side."""
        return self._queries(self._prompts(rows))

    def answer(
        self, queries: Sequence[Query], *, progress: Progress | None = None, spare: int = 0
    ) -> Observations:
        """Ask queries of any views, in one go where they spell the label words alike.

        Of those at the end, `spare` many, it is no matter whether they are answered.
        """
        together: dict[tuple[str, ...], list[int]] = {}
        for i, query in enumerate(queries):
            together.setdefault(query.words, []).append(i)
        names = [str(name) for name in self.verbalizer.classes]
        owners, weights = self.verbalizer.word_class, self.verbalizer.weights
        votes = self.model.capabilities.resolution > 0
        batches = []
        for words, where in together.items():
            asked = [queries[i].prompt for i in where]
            answers = self.model.observe(asked, words, progress=progress)
            batches.append((np.array(where), answers.by_class(names, owners, weights, votes=votes)))
        found = gather(batches, len(queries))
        self.policy.settle(found[: len(queries) - spare])
        return found

    def answered(self, observations: Observations) -> NDArray[np.bool_]:
        """Return which examples have a usable answer in every view, shape (N,)."""
        return np.all(self._by_example(observations.status) != Status.FAILED, axis=1)

    def failures(self, observations: Observations) -> list[str]:
        """Return for each of the N examples why it has no usable answer; empty where it has one."""
        failed = self._by_example(observations.status) == Status.FAILED
        reasons = self._by_example(np.asarray(observations.reason))
        return [
            (row[lost].tolist()[0] or "the model did not say why") if lost.any() else ""
            for row, lost in zip(reasons, failed, strict=True)
        ]

    def spellings(self) -> list[tuple[str, ...]]:
        """Return the label words as each of the P views asks for them."""
        words = self.verbalizer.words
        return [tuple(view.spell(word) for word in words) for view in self.template.views]

    def select(self, observations: Observations, examples: NDArray[np.bool_]) -> Observations:
        """Return the answers to those of the N examples, with all their views."""
        return observations[np.repeat(examples, len(self.template.views))]

    def features(
        self, observations: Observations
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return what a decoder is fed: hidden states and calibrated scores.

        The hidden states have shape (N, P * H), the views of an example side by side; H is 0 if
        the model gives none. If :attr:`reads_words`, they are the scores of the W label words, less
        their mean over the words and in units of log-odds, (N, P * W).

        The scores have shape (N, K), or (N, P, K) where P > 1; they are without each view's prior
        and in units of log-odds, or None if the model gives none.
        """
        P = len(self.template.views)
        hidden: Any = observations.hidden
        if self.reads_words and observations.word_scores is not None:
            words = observations.word_scores
            hidden = words - words.mean(axis=1, keepdims=True)
            hidden *= self.model.capabilities.score_scale
        if hidden is None:
            hidden = np.empty((len(observations), 0), dtype=np.float32)
        hidden = hidden.reshape(len(observations) // P, P * hidden.shape[1])
        if observations.scores is None or observations.space is None:
            return hidden, None
        views = self._by_example(observations.scores).swapaxes(0, 1)
        prior: Any = self.prior
        if self.calibration.row_independent:
            if prior is None:
                return hidden, None
        else:
            prior = [self.calibration.prior(scores, observations.space) for scores in views]
        removed = np.stack(
            [self.calibration.remove(*pair) for pair in zip(views, prior, strict=True)], axis=1
        )
        scores = (removed * self.model.capabilities.score_scale).astype(np.float32)
        return hidden, scores if P > 1 else scores[:, 0]

    def _by_example(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a view of shape (N, P, ...) of an array of shape (N * P, ...)."""
        P = len(self.template.views)
        return array.reshape(len(array) // P, P, *array.shape[1:])

    def _queries(self, prompts: Sequence[Sequence[Prompt]]) -> list[Query]:
        words = self.spellings()
        return [Query(*pair) for row in prompts for pair in zip(row, words, strict=True)]

    def _prompts(self, rows: Sequence[Row]) -> list[list[Prompt]]:
        for view in self.template.views:
            view.prepare(rows)
        return [[view.render(row) for view in self.template.views] for row in rows]


def check_pairs(given: Capabilities, views: Sequence[View]) -> None:
    """Refuse views that a model would give hidden states of different sizes to (InputError)."""
    pairs = [len(view.fields) == 2 for view in views]
    if given.pairs and any(pairs) and not all(pairs):
        raise InputError(
            "template: this model reads two fields as a pair of texts, which it embeds one by one; "
            "give every template two fields, or none of them"
        )
