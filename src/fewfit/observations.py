"""What a frozen model said about prompts: the arrays that flow through the house."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError


class ScoreSpace(StrEnum):
    """The space that scores live in; it decides how a prior over labels can be removed."""

    LOGIT = "logit"
    """Raw logits, defined up to a constant per example."""
    LOGPROB = "logprob"
    """Log-probabilities over the model's vocabulary, in nats."""
    SIMILARITY = "similarity"
    """Cosine similarities."""


class Status(IntEnum):
    """What became of one query."""

    OK = 0
    TRUNCATED = 1
    """Answered, but the user's text was cut to what the model reads."""
    FAILED = 2
    """Not answered; every number of the row is NaN."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Answers of a frozen model to N prompts.

    Attributes
    ----------
    columns : tuple of str
        Names of the W score columns: label words, or classes after :meth:`by_class`.
    scores : ndarray of shape (N, W), float32, or None
        Score of each label word at the slot, in `space`. None if the model gives no scores.
    space : ScoreSpace or None
        None exactly when `scores` is None.
    hidden : ndarray of shape (N, H), float32, or None
        Hidden state at the slot. None if the model gives none.
    label_mass : ndarray of shape (N,), float32
        Probability that the label words hold together at the slot; NaN where unknown.
    n_tokens : ndarray of shape (N,), int32
        Length of each prompt as the model read it, in its tokens; -1 where it does not say.
    status : ndarray of shape (N,), uint8
        A :class:`Status` per row.
    asked : ndarray of shape (N,), bool
        True where this row cost a query in the call that returned it; False where it came from
        a store or repeats another row of the call.
    censored : ndarray of shape (N, W), bool, or None
        True where the score is only an upper bound, because the model lists its most probable
        tokens alone and the label word was not among them. None if the model never censors.
    word_scores : ndarray of shape (N, number of label words), float32, or None
        What :meth:`by_class` made the class scores of; None before.
    reason : ndarray of shape (N,), str objects
        Why a row failed, as far as the model says; empty for the others.

    Raises
    ------
    InputError
        If the shapes do not agree.
    """

    columns: tuple[str, ...]
    scores: NDArray[np.float32] | None
    space: ScoreSpace | None
    hidden: NDArray[np.float32] | None
    label_mass: NDArray[np.float32]
    n_tokens: NDArray[np.int32]
    status: NDArray[np.uint8]
    asked: NDArray[np.bool_]
    censored: NDArray[np.bool_] | None = None
    word_scores: NDArray[np.float32] | None = None
    reason: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        n = len(self.status)
        if self.reason is None:
            object.__setattr__(self, "reason", np.full(n, "", dtype=object))
        expected = {
            "scores": (n, len(self.columns)),
            "label_mass": (n,),
            "n_tokens": (n,),
            "status": (n,),
            "asked": (n,),
            "censored": (n, len(self.columns)),
            "reason": (n,),
        }
        for name, dtype in DTYPES.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value, dtype=dtype).view()
            shape = expected.get(name, (n, *array.shape[1:2]))
            if array.shape != shape:
                raise InputError(f"observations: {name} has shape {array.shape}, expected {shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if (self.scores is None) != (self.space is None):
            raise InputError("observations: scores and space are given together or not at all")
        if self.scores is None and self.hidden is None:
            raise InputError("observations: neither scores nor hidden states")

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, index: Any) -> Observations:
        """Return the rows that a slice, a boolean mask or an integer array selects."""
        if isinstance(index, int | np.integer):
            raise InputError("observations: select rows with a slice or an array, not one integer")
        return replace(self, **{name: value[index] for name, value in self.arrays().items()})

    @property
    def unlisted(self) -> NDArray[np.bool_]:
        """Rows that were answered, but all of whose scores are bounds; shape (N,)."""
        return self._without(np.ones(len(self.columns), dtype=bool))

    def failing(self, rows: NDArray[np.bool_], reason: str) -> Observations:
        """Return the same with some rows failed, and so NaN, for a reason."""
        if not rows.any():
            return self
        changed = self.arrays()
        for name, value in (UNANSWERED | {"status": Status.FAILED, "reason": reason}).items():
            if name in changed:
                changed[name] = changed[name].copy()
                changed[name][rows] = value
        return replace(self, **changed)

    def why_failed(self) -> str:
        """Return why rows failed, in one line: the most frequent reason, or none that is known."""
        failed = np.asarray(self.reason)[self.status == Status.FAILED].tolist()
        found = Counter(filter(None, failed)).most_common()
        others = f" (and {len(found) - 1} other reasons)" if len(found) > 1 else ""
        return found[0][0] + others if found else "the model did not say why"

    @property
    def queries(self) -> int:
        """Number of queries that this call paid for."""
        return int(self.asked.sum())

    def by_class(
        self,
        columns: Sequence[str],
        word_class: Sequence[int],
        weights: Sequence[float] | None = None,
        *,
        votes: bool = False,
    ) -> Observations:
        """Reduce label-word scores to class scores, the maximum over a class's words.

        The maximum is DecT's rule; it is defined in every score space. With weights it is the
        weighted mean, as in SciPrompt and MPD. Votes, logarithms of how often each word was said,
        are added up. Of a maximum, a class score is censored if the
        scores of all its words are, since a bound never exceeds a score that was listed; a mean is
        censored if the score of any word with weight is. A row in which every word with weight is
        censored says nothing about its class, and fails, whatever else is known of it.

        Parameters
        ----------
        columns : sequence of str, length K
            Names of the classes.
        word_class : sequence of int, length W
            For each label word the position of its class.
        weights : sequence of float, length W, optional
            Each word's share of its class's score; those of a class sum to 1.
        votes : bool, default=False
            Whether scores are logarithms of shares of several answers
            (:attr:`Capabilities.resolution`).
        """
        if self.scores is None:
            return replace(self, columns=tuple(columns))
        words = np.asarray(word_class)[:, None] == np.arange(len(columns))
        counts = np.ones(len(words), dtype=bool) if weights is None else np.asarray(weights) > 0
        unlisted = self._without(counts)
        if votes:
            with np.errstate(invalid="ignore"):  # rows without an answer
                reduced = np.stack(
                    [np.logaddexp.reduce(self.scores[:, own], axis=1) for own in words.T], axis=1
                )
        elif weights is None:
            reduced = np.stack([self.scores[:, own].max(axis=1) for own in words.T], axis=1)
        else:
            words = words * np.asarray(weights, dtype=np.float64)[:, None]
            reduced = (self.scores.astype(np.float64) @ words).astype(np.float32)
        censored = self.censored
        if censored is not None:
            some = np.all if weights is None else np.any
            censored = np.stack([some(censored[:, own > 0], axis=1) for own in words.T], axis=1)
        return replace(
            self,
            columns=tuple(columns),
            scores=reduced,
            censored=censored,
            word_scores=self.scores,
        ).failing(unlisted, "the model lists its most probable tokens, and no label word is one")

    def _without(self, words: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which answered rows have nothing but bounds for the given columns, shape (N,)."""
        if self.censored is None or not words.any():
            return np.zeros(len(self), dtype=bool)
        return self.censored[:, words].all(axis=1) & (self.status != Status.FAILED)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that there are, by name."""
        named = {name: getattr(self, name) for name in DTYPES}
        return {name: value for name, value in named.items() if value is not None}


DTYPES: dict[str, Any] = {
    "scores": np.float32,
    "hidden": np.float32,
    "label_mass": np.float32,
    "n_tokens": np.int32,
    "status": np.uint8,
    "asked": np.bool_,
    "censored": np.bool_,
    "word_scores": np.float32,
    "reason": np.object_,
}

UNANSWERED: dict[str, Any] = {
    "scores": np.nan,
    "hidden": np.nan,
    "label_mass": np.nan,
    "censored": False,
    "word_scores": np.nan,
}

Batch = tuple[NDArray[np.intp], Observations]
"""Positions in the list of prompts, and the observations of the prompts at these positions."""


def unanswered(columns: Sequence[str], n: int, reason: Sequence[str] | None = None) -> Observations:
    """Return `n` rows that were asked and not answered; they fit the answers of any model.

    Parameters
    ----------
    reason : sequence of str, length n, optional
        Why not, row by row.
    """
    return Observations(
        columns=tuple(columns),
        scores=None,
        space=None,
        hidden=np.empty((n, 0), dtype=np.float32),
        label_mass=np.full(n, np.nan, dtype=np.float32),
        n_tokens=np.full(n, -1, dtype=np.int32),
        status=np.full(n, Status.FAILED, dtype=np.uint8),
        asked=np.ones(n, dtype=bool),
        reason=None if reason is None else np.array(reason, dtype=object),
    )


def answered_whole(answers: Observations) -> Observations:
    """Return the same rows; one with a NaN or an infinity among its numbers has no answer.

    Half an answer is none: what it lacks would be guessed by whoever reads it. The mass of the
    label words is not looked at, it may be unknown.
    """
    broken = np.zeros(len(answers), dtype=bool)
    for numbers in (answers.scores, answers.hidden):
        if numbers is not None:
            broken |= ~np.isfinite(numbers).all(axis=1)
    broken &= answers.status != Status.FAILED
    return answers.failing(broken, "the answer holds a number that is not finite")
