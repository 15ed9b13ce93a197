"""The mean of the rows that are to be decided: batch calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.calibration.base import Calibration, Scores, log_mean
from fewfit.errors import CalibrationError
from fewfit.observations import ScoreSpace


@dataclass(frozen=True)
class BatchCalibration(Calibration):
    """Subtract the mean of the rows that are to be decided, no extra query (Zhou et al. 2024).

    The prior is the mean label probability over the batch: of the examples in `fit`, of the rows
    of one call in `predict`. So **a row's result depends on the rows beside it**, a single row
    becomes a tie, and predictions are pushed toward equal numbers per class: right where the
    classes are balanced, harmful where they are not.

    Attributes
    ----------
    strength : float or "labels"
        gamma in ``log p - gamma * log prior``: 1 is the plain method, 0 is no calibration.
        "labels" chooses it in [-5, 5] for the lowest log loss of the labelled examples, which is
        the paper's few-shot form; it is chosen once, from the rows too that `expected_accuracy`
        holds out.
    """

    name = "batch"
    coarse = True
    row_independent = False
    labels_needed = "none; any for strength='labels'"
    queries_per_example = "0"
    reference = "Zhou et al. 2024, arXiv 2309.17249"
    bound: ClassVar[float] = 5.0
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Calibration._parameter_constraints,
        "strength": [StrOptions({"labels"}), Interval(Real, None, None, closed="neither")],
    }

    strength: float | str = 1.0

    @property
    def learns(self) -> bool:
        return self.strength == "labels"

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return log_mean(scores, space)

    def fitted(self, scores: Scores, y: NDArray[np.intp], space: ScoreSpace) -> BatchCalibration:
        if self.strength != "labels":
            return self
        prior = np.stack([self.prior(scores[:, p], space) for p in range(scores.shape[1])])

        def loss(gamma: float) -> float:
            s = (scores - gamma * prior).mean(axis=1)
            return -float(log_softmax(s, axis=1)[np.arange(len(y)), y].mean())

        best = minimize_scalar(loss, bounds=(-self.bound, self.bound), method="bounded")
        return replace(self, strength=float(best.x))

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        if isinstance(self.strength, str):
            raise CalibrationError("strength='labels' is chosen by fit; call it, or give a number")
        return scores.astype(np.float64) - self.strength * prior
