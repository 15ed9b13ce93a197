"""Calibration: estimate a frozen model's prior over labels, and remove it.

One object does both, in a named score space:

* contextual calibration (Zhao et al. 2021, arXiv 2102.09690) divides label *probabilities* by
  those of content-free inputs; here it is the same thing as a subtraction of logarithms,
* DecT's calibration (Cui et al. 2023, arXiv 2212.08408, section 3.2) divides raw *logits*.

Scores are class scores of shape (N, K); the prior has shape (K,), float64, in the space of the
scores.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from fewfit.errors import CalibrationError, CapabilityError, InputError
from fewfit.observations import ScoreSpace

Scores = NDArray[np.floating]


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

    content_free: tuple[str, ...] = ()

    def check(self, space: ScoreSpace) -> None:
        """Refuse a score space in which this calibration is not defined (CapabilityError)."""
        if space not in self.spaces:
            raise CapabilityError(
                f"{self.name!r} calibration is defined for {sorted(self.spaces)}, but this frozen "
                f"model gives {space.value!r} scores; use 'contextual'"
            )

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

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return np.zeros(scores.shape[1])

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64)


@dataclass(frozen=True)
class ContextualCalibration(Calibration):
    """Subtract what the model says to nothing (Zhao et al. 2021).

    In the spaces ``logit`` and ``logprob`` the prior is the logarithm of the label probabilities,
    normalised over the K classes and averaged over the content-free inputs; subtracting it equals
    the paper's division of probabilities. In ``similarity`` it is the mean score.

    The default is the empty text alone, one extra query; the paper's three inputs are
    ``("N/A", "", "[MASK]")``.
    """

    name = "contextual"

    content_free: tuple[str, ...] = ("",)

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        scores = scores.astype(np.float64)
        if space is ScoreSpace.SIMILARITY:
            return scores.mean(axis=0)
        return logsumexp(log_softmax(scores, axis=1), axis=0) - np.log(len(scores))

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) - prior


@dataclass(frozen=True)
class RatioCalibration(Calibration):
    """Divide raw logits by those of the empty text, as DecT does.

    ``c_bar = c / mean(c)`` and ``m_cal = m / (c_bar + 1e-15)``. Unlike a subtraction this is not
    invariant to a constant added to all logits, and it explodes or flips signs where a content-free
    logit is near zero or negative; such a prior is refused.

    Raises
    ------
    CalibrationError
        If an entry of `c_bar` is below 0.01, from :meth:`prior`.
    """

    name = "ratio"
    spaces = frozenset({ScoreSpace.LOGIT})
    smallest: ClassVar[float] = 0.01

    content_free: tuple[str, ...] = ("",)

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        c = scores.astype(np.float64).mean(axis=0)
        mean = c.mean()
        c_bar = c / mean if mean > 0 else np.full_like(c, -np.inf)
        if c_bar.min() < self.smallest:
            raise CalibrationError(
                f"'ratio' calibration divides by the content-free logits {c.tolist()}, which are "
                "not safely positive; use calibration='contextual'. Nothing needs to be asked again"
            )
        return c_bar

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) / (prior + 1e-15)


CALIBRATIONS: dict[str, type[Calibration]] = {
    kind.name: kind for kind in (NoCalibration, ContextualCalibration, RatioCalibration)
}


def make_calibration(calibration: str | Calibration) -> Calibration:
    """Return the calibration of this name; a calibration is returned as it is.

    Raises
    ------
    InputError
        If nothing is known under this name.
    """
    if isinstance(calibration, Calibration):
        return calibration
    if calibration not in CALIBRATIONS:
        raise InputError(f"calibration: {calibration!r} is not one of {sorted(CALIBRATIONS)}")
    return CALIBRATIONS[calibration]()
