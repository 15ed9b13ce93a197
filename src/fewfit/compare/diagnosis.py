"""How methods err: reliability, confusion, and the rows that they are most wrongly sure of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewfit.compare.journal import Finished
from fewfit.compare.schema import Bin, Diagnosis, Wrong

N_BINS = 15
N_WRONG = 20


def diagnose(
    finished: Sequence[Finished],
    y: NDArray[np.intp],
    classes: Sequence[str],
    texts: Sequence[str],
) -> list[Diagnosis]:
    """Return one diagnosis for each method and model, at its largest number of shots.

    Parameters
    ----------
    finished : sequence of Finished
    y : ndarray of shape (N,)
        Position of the true class of each test row.
    classes : sequence of str, length K
    texts : sequence of str, length N
        The test rows.
    """
    groups: dict[tuple[str | None, str], list[Finished]] = {}
    for item in finished:
        group = groups.setdefault((item.cell.model, item.cell.method), [])
        if group and group[0].cell.shots < item.cell.shots:
            group.clear()
        if not group or group[0].cell.shots == item.cell.shots:
            group.append(item)
    return [_diagnosis(group, y, classes, texts) for group in groups.values()]


def _diagnosis(
    group: Sequence[Finished], y: NDArray[np.intp], classes: Sequence[str], texts: Sequence[str]
) -> Diagnosis:
    predicted = np.array([item.predicted for item in group], dtype=np.intp)  # (S, N)
    confidence = np.array([item.confidence for item in group], dtype=np.float64)
    K, cell = len(classes), group[0].cell
    confusion = np.bincount((y * K + predicted).ravel(), minlength=K * K).reshape(K, K)
    return Diagnosis(
        method=cell.method,
        model=cell.model,
        shots=cell.shots,
        reliability=_reliability(confidence.ravel(), (predicted == y).ravel()),
        confusion=confusion.tolist(),
        wrong=_wrong(predicted, confidence, y, classes, texts),
    )


def _reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[Bin]:
    where = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    return [
        Bin(
            n=int((where == b).sum()),
            confidence=float(confidence[where == b].mean()),
            accuracy=float(correct[where == b].mean()),
        )
        for b in np.unique(where)
    ]


def _wrong(
    predicted: NDArray[np.intp],
    confidence: NDArray[np.float64],
    y: NDArray[np.intp],
    classes: Sequence[str],
    texts: Sequence[str],
) -> list[Wrong]:
    votes = np.zeros((len(y), len(classes)), dtype=np.intp)
    belief = np.zeros(votes.shape)
    rows = np.arange(len(y))
    for guess, sure in zip(predicted, confidence, strict=True):
        votes[rows, guess] += 1
        belief[rows, guess] += sure
    votes[rows, y] = 0
    worst = votes.argmax(axis=1)
    count, mean = votes[rows, worst], belief[rows, worst] / np.maximum(votes[rows, worst], 1)
    order = np.lexsort((-mean, -count))
    return [
        Wrong(
            row=i,
            text=str(texts[i]),
            label=classes[int(y[i])],
            predicted=classes[int(worst[i])],
            confidence=float(mean[i]),
        )
        for i in order[:N_WRONG].tolist()
        if count[i]
    ]
