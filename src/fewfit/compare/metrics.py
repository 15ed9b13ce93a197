"""How good probabilities are: accuracy, macro-F1, log loss, calibration error."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import f1_score

_FLOOR = 1e-15


class Metrics(NamedTuple):
    """Quality of the predictions on one test set.

    Attributes
    ----------
    accuracy : float
    accuracy_low, accuracy_high : float
        Wilson's 95 % interval for the accuracy, for a test set drawn at random.
    macro_f1 : float
        F1 averaged over the classes that the labels hold: the same for all methods on one test set.
    log_loss : float
        Mean negative log-probability of the true class, in nats; probabilities below 1e-15 count
        as 1e-15.
    ece : float
        Expected calibration error of the most probable class, 15 bins of equal width.
    n : int
        Number of test examples.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    log_loss: float
    ece: float
    n: int


def measure(y: NDArray[np.generic], proba: NDArray[np.floating], classes: NDArray) -> Metrics:
    """Compare labels (N,) with probabilities (N, K) whose columns are `classes`, sorted.

    A label outside `classes` counts as wrong, with probability 0.
    """
    position = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    known = classes[position] == y
    best = proba.argmax(axis=1)
    correct = known & (best == position)
    true = np.where(known, proba[np.arange(len(y)), position], 0.0)
    interval = binomtest(int(correct.sum()), len(y)).proportion_ci(method="wilson")
    return Metrics(
        accuracy=float(correct.mean()),
        accuracy_low=float(interval.low),
        accuracy_high=float(interval.high),
        macro_f1=float(
            f1_score(
                np.where(known, position, -1),
                best,
                labels=np.unique(position[known]),
                average="macro",
                zero_division=0,
            )
        )
        if known.any()
        else 0.0,
        log_loss=float(-np.log(np.maximum(true, _FLOOR)).mean()),
        ece=expected_calibration_error(proba.max(axis=1), correct),
        n=len(y),
    )


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], *, n_bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over bins of equal width, weighted by their rows.

    Parameters
    ----------
    confidence : ndarray of shape (N,)
        Probability of the predicted class, in (0, 1].
    correct : ndarray of shape (N,), bool
    n_bins : int, default=15
        Guo et al. 2017 (arXiv 1706.04599) use 15; a bin is open below and closed above.
    """
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    gap = np.bincount(bins, weights=confidence - correct, minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))
