"""DecT's division of raw logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.calibration.base import Calibration, Scores
from fewfit.errors import CalibrationError
from fewfit.observations import ScoreSpace


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
    needs_content_free = True
    reference = "Cui et al. 2023, arXiv 2212.08408"
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
                "not safely positive; use calibration='contextual'. What the store has is not "
                "asked again"
            )
        return c_bar

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) / (prior + 1e-15)
