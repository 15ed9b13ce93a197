"""One cell: a method is fitted on a sample and measured, and what it cost is written down."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fewfit.compare.journal import Finished
from fewfit.compare.methods import Features, Method
from fewfit.compare.metrics import measure
from fewfit.compare.schema import Cell, Ledger


@dataclass(frozen=True, eq=False)
class Answers:
    """What methods on one frozen model work on.

    Attributes
    ----------
    pool : Features
        The rows of the training pool that some sample holds.
    place : ndarray of int
        Where in `pool` a row of the training pool is.
    test : Features
    free_tokens : tuple of int
        Tokens of each content-free prompt of the calibration.
    """

    pool: Features
    place: NDArray[np.intp]
    test: Features
    free_tokens: tuple[int, ...]


def run_cell(
    name: str,
    method: Method,
    answers: Answers,
    classes: NDArray[Any],
    *,
    model: str | None,
    shots: int,
    seed: int,
    rows: NDArray[np.intp],
    traced: bool,
) -> Finished:
    """Fit `method` on `rows` of the training pool and measure it on the test set."""
    seen = answers.place[rows] if method.learns else answers.place[:0]
    sample, test = answers.pool[seen], answers.test
    start = time.perf_counter()
    fitted = method.fit(sample, classes)
    middle = time.perf_counter()
    proba = method.predict_proba(fitted, test)
    end = time.perf_counter()
    metrics = measure(test.y, proba, classes)

    def again() -> None:
        method.predict_proba(method.fit(sample, classes), test)

    paid = sample.n_tokens[_first(sample)] if method.asks and method.learns else []
    free = answers.free_tokens if method.asks else ()
    asked = test.n_tokens[_first(test)] if method.asks else []
    arrays = {key: np.array(value, order="C") for key, value in method.arrays(fitted).items()}
    ledger = Ledger(
        queries=len(paid) + len(free),
        tokens=int(np.sum(paid)) + sum(free),
        predict_queries=len(asked),
        predict_tokens=int(np.sum(asked)),
        fit_seconds=middle - start,
        predict_seconds=end - middle,
        peak_memory=peak_memory(again) if traced else None,
        parameters=method.parameters(fitted),
        artifact_bytes=len(safetensors.numpy.save(arrays)),
    )
    cell = Cell(
        method=name,
        model=model,
        shots=shots,
        seed=seed,
        accuracy=metrics.accuracy,
        macro_f1=metrics.macro_f1,
        log_loss=metrics.log_loss,
        ece=metrics.ece,
        ledger=ledger,
    )
    predicted = proba.argmax(axis=1).astype(np.uint16)
    return Finished(cell, predicted, proba.max(axis=1).astype(np.float16))


def peak_memory(call: Callable[[], object]) -> int:
    """Return the most bytes that Python and NumPy held at one time during `call`, beyond before.

    Tracing makes the call slower, and does not see what native libraries allocate for themselves.
    """
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not tracing:
            tracemalloc.stop()


def _first(features: Features) -> NDArray[np.intp]:
    """Position of one row for each distinct prompt."""
    return np.array(list({prompt: i for i, prompt in enumerate(features.prompts)}.values()))
