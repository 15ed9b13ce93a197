"""Many decoders, shots and seeds over observations that are paid for once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fewfit.compare.metrics import Metrics, measure
from fewfit.compare.splits import sample_shots
from fewfit.decoders import Decoder


@dataclass(frozen=True)
class Cell:
    """One decoder, fitted on one sample, measured on the test set."""

    method: str
    shots: int
    seed: int
    metrics: Metrics
    fit_seconds: float
    predict_seconds: float


@dataclass(frozen=True)
class Summary:
    """Cells of one decoder and shot count, over seeds. `sd` is the sample standard deviation."""

    method: str
    shots: int
    accuracy: float
    sd: float
    log_loss: float
    ece: float
    fit_seconds: float
    seeds: int


@dataclass(frozen=True)
class Features:
    """What decoders are fed for a set of examples, with the labels; see :meth:`Task.features`."""

    hidden: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    y: NDArray[np.generic]

    def __getitem__(self, index: NDArray[np.intp]) -> Features:
        scores = None if self.scores is None else self.scores[index]
        return Features(self.hidden[index], scores, self.y[index])


@dataclass(frozen=True)
class Sample:
    """Which rows of the training pool a few-shot classifier sees."""

    shots: int
    seed: int
    rows: NDArray[np.intp]


def draw_samples(
    y: NDArray[np.generic], *, shots: Sequence[int], seeds: Sequence[int]
) -> list[Sample]:
    """Draw one sample per number of shots and seed; see :func:`sample_shots`."""
    return [Sample(n, seed, sample_shots(y, n, seed=seed)) for n in shots for seed in seeds]


def few_shot_grid(
    train: Features,
    test: Features,
    methods: Mapping[str, Decoder],
    samples: Sequence[Sample],
    *,
    progress: Callable[[int], object] | None = None,
) -> list[Cell]:
    """Fit every decoder on every sample; the samples are the same for all decoders.

    Parameters
    ----------
    train, test : Features
        The pool that samples are drawn from, and the test set.
    methods : mapping of str to Decoder
        Decoders by name; each is cloned for each cell.
    samples : sequence of Sample
        Rows of `train`.
    progress : callable, optional
        Called with 1 after each cell.

    Returns
    -------
    list of Cell
        Sample by sample, in the order of `methods`. No query is asked.
    """
    cells: list[Cell] = []
    for sample in samples:
        drawn = train[sample.rows]
        for name, decoder in methods.items():
            start = time.perf_counter()
            fitted = clone(decoder).fit(drawn.hidden, drawn.y, scores=drawn.scores)
            middle = time.perf_counter()
            proba = fitted.predict_proba(test.hidden, scores=test.scores)
            end = time.perf_counter()
            metrics = measure(test.y, proba, fitted.classes_)
            cells.append(
                Cell(name, sample.shots, sample.seed, metrics, middle - start, end - middle)
            )
            if progress is not None:
                progress(1)
    return cells


def summarise(cells: Iterable[Cell]) -> list[Summary]:
    """Average cells over seeds, in order of first appearance."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.method, cell.shots), []).append(cell)
    summaries: list[Summary] = []
    for (method, shots), group in groups.items():
        accuracy = np.array([cell.metrics.accuracy for cell in group])
        summaries.append(
            Summary(
                method=method,
                shots=shots,
                accuracy=float(accuracy.mean()),
                sd=float(accuracy.std(ddof=1)) if len(group) > 1 else float("nan"),
                log_loss=float(np.mean([cell.metrics.log_loss for cell in group])),
                ece=float(np.mean([cell.metrics.ece for cell in group])),
                fit_seconds=float(np.median([cell.fit_seconds for cell in group])),
                seeds=len(group),
            )
        )
    return summaries
