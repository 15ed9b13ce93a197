"""How a prior over labels is estimated and removed; and the calibration that does neither."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from fewfit.errors import CapabilityError, InputError
from fewfit.observations import ScoreSpace
from fewfit.parameters import check_parameters
from fewfit.prompts import Prompt, Row, View

Scores = NDArray[np.floating]

COARSEST = 0.1
"""Largest step of the probabilities with which a few answers tell a prior."""


@dataclass(frozen=True)
class Calibration(ABC):
    """How to estimate the prior over labels from content-free inputs, and how to remove it.

    Attributes
    ----------
    content_free : tuple of str
        Texts without content that are asked beside the examples, one query each.
    """

    name: ClassVar[str]
    spaces: ClassVar[frozenset[ScoreSpace]] = frozenset(ScoreSpace)
    row_independent: ClassVar[bool] = True
    """Whether a row's calibrated score depends on that row alone."""
    coarse: ClassVar[bool] = False
    """Whether scores may be counts of a few answers (:attr:`Capabilities.resolution`)."""
    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "0, and 1 per content-free text once"
    reference: ClassVar[str]

    _parameter_constraints: ClassVar[dict[str, Any]] = {"content_free": [tuple]}
    needs_content_free: ClassVar[bool] = False
    """Whether its prior is that of its content-free texts, so that there has to be one."""

    content_free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.content_free, list):
            object.__setattr__(self, "content_free", tuple(self.content_free))
        check_parameters(self)
        if not all(isinstance(text, str) for text in self.content_free):
            raise InputError(f"content_free: {type(self).__name__} takes texts, and one is none")
        if self.needs_content_free and not self.content_free:
            raise InputError(f"content_free: {type(self).__name__} needs at least one text")
        if self.content_free and not self.needs_content_free:  # they would be paid for in vain
            raise InputError(
                f"content_free: {type(self).__name__} has no use for such texts; leave them out"
            )

    @property
    def learns(self) -> bool:
        """Whether :meth:`fitted` looks at labels."""
        return False

    def check(self, space: ScoreSpace, resolution: float = 0.0) -> None:
        """Refuse scores for which this calibration is not defined (CapabilityError).

        Parameters
        ----------
        space : ScoreSpace
        resolution : float
            Smallest step of the probabilities behind them.
        """
        if space not in self.spaces:
            known = [repr(own.value) for own in sorted(self.spaces)]
            raise CapabilityError(
                f"{self.name!r} calibration is defined for scores in {' and '.join(known)}, but "
                f"this frozen model gives {space.value!r} scores; use 'contextual'"
            )
        if resolution > COARSEST and not self.coarse:
            raise CapabilityError(
                f"{self.name!r} calibration takes what the model says to nothing for a prior, and "
                f"{round(1 / resolution)} answers in words do not tell one; use 'none' or 'batch', "
                f"or ask for {round(1 / COARSEST)} samples (samples=, temperature=)"
            )

    def with_premise(self, premise: str) -> Calibration:
        """Return this calibration with a premise, if it has one; if not, itself."""
        return self

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        """Return the content-free prompts of one view; `rows` are the examples of the fit."""
        return [view.render(dict.fromkeys(view.fields, text)) for text in self.content_free]

    def fitted(self, scores: Scores, y: NDArray[np.intp], space: ScoreSpace) -> Calibration:
        """Return this calibration with what it learns from labels; most learn nothing.

        Parameters
        ----------
        scores : ndarray of shape (N, P, K)
            Class scores of the labelled examples for each view, in units of log-odds.
        y : ndarray of shape (N,)
            Positions of their classes.
        space : ScoreSpace
        """
        return self

    @abstractmethod
    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        """Estimate the prior (K,) from the class scores (M, K) of the content-free inputs."""

    @abstractmethod
    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        """Return the class scores (N, K) without the prior; the input is not changed."""


@dataclass(frozen=True)
class NoCalibration(Calibration):
    """Leave the scores as they are."""

    name = "none"
    coarse = True
    requires = frozenset()
    queries_per_example = "0"
    reference = ""

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return np.zeros(scores.shape[1])

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64)


def log_mean(scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
    """Logarithm of the mean label probability over the rows; the mean score for similarities."""
    scores = scores.astype(np.float64)
    if space is ScoreSpace.SIMILARITY:
        return scores.mean(axis=0)
    return logsumexp(log_softmax(scores, axis=1), axis=0) - np.log(len(scores))
