"""How good predictions are and where they are wrong, as ``fewfit evaluate`` shows it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LISTED = 5
"""Confusions and wrong rows that are shown."""


def single(truth: NDArray[Any], probabilities: NDArray[Any], classes: list[str]) -> dict[str, Any]:
    """Measure one label per row, as :func:`fewfit.compare.measure` does."""
    from fewfit.compare import measure

    positions = np.arange(len(classes))
    return dict(measure(truth.argmax(axis=1), probabilities, positions)._asdict())


def several(truth: NDArray[Any], told: NDArray[Any]) -> dict[str, Any]:
    """Measure several labels per row; macro F1 is over those that rows have, as for one label."""
    from scipy.stats import binomtest
    from sklearn.metrics import f1_score

    right = (truth == told).all(axis=1)
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    occur = truth.any(axis=0)
    # Of all columns: of a single one scikit-learn would take the mean with its opposite.
    own = np.asarray(f1_score(truth, told, average=None, zero_division=0))
    return {
        "exact_match": float(right.mean()),
        "exact_match_low": float(interval.low),
        "exact_match_high": float(interval.high),
        "micro_f1": float(f1_score(truth, told, average="micro", zero_division=0)),
        "macro_f1": float(own[occur].mean()) if occur.any() else 0.0,
        "n": len(truth),
    }


def by_class(
    truth: NDArray[Any], told: NDArray[Any], classes: list[str]
) -> dict[str, dict[str, float | None]]:
    """Return precision, recall, F1 and counts of each class; None where there is nothing to share.

    That is a precision without a row of that prediction, recall and F1 without a row of the class.
    """
    from sklearn.metrics import precision_recall_fscore_support

    measured: Any = precision_recall_fscore_support(truth, told, average=None, zero_division=0)
    return {
        name: {
            "precision": float(precision) if predicted else None,
            "recall": float(recall) if rows else None,
            "f1": float(f1) if rows else None,
            "rows": int(rows),
            "predicted": int(predicted),
        }
        for name, precision, recall, f1, rows, predicted in zip(
            classes, *measured, told.sum(axis=0), strict=True
        )
    }


def confusions(truth: NDArray[Any], told: NDArray[Any], classes: list[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are taken for each other most often."""
    counts = truth.T.astype(int) @ told.astype(int)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:LISTED]
    return [
        {"label": classes[i], "predicted": classes[j], "rows": int(counts[i, j])}
        for i, j in zip(*np.unravel_index(order, counts.shape), strict=True)
        if counts[i, j]
    ]


def wrong_labels(
    truth: NDArray[Any],
    told: NDArray[Any],
    probabilities: NDArray[Any],
    classes: list[str],
    examples: Any,
) -> list[dict[str, Any]]:
    """The labels that it is most sure about and wrong: given and not there, or there and missed."""
    sure = np.where(told, probabilities, 1 - probabilities)
    sure = np.where(told != truth, sure, -1.0)
    order = np.argsort(-sure, axis=None, kind="stable")[:LISTED]
    return [
        {
            "row": examples.lines[i],
            "label": classes[k],
            "predicted": bool(told[i, k]),
            "probability": round(float(probabilities[i, k]), 6),
            "text": {name: column[i] for name, column in examples.texts.items()},
        }
        for i, k in zip(*np.unravel_index(order, sure.shape), strict=True)
        if sure[i, k] >= 0
    ]


def wrong(
    truth: NDArray[Any], probabilities: NDArray[Any], classes: list[str], examples: Any
) -> list[dict[str, Any]]:
    """The rows that it is most sure about and wrong."""
    best, true = probabilities.argmax(axis=1), truth.argmax(axis=1)
    sure = np.where(best != true, probabilities.max(axis=1), -1.0)
    return [
        {
            "row": examples.lines[i],
            "label": classes[true[i]],
            "predicted": classes[best[i]],
            "probability": round(float(sure[i]), 6),
            "text": {name: column[i] for name, column in examples.texts.items()},
        }
        for i in np.argsort(-sure, kind="stable")[:LISTED]
        if sure[i] >= 0
    ]
