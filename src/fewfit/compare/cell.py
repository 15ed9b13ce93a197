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
from fewfit.models import FrozenModel
from fewfit.models.costs import Size, in_context_bytes, in_context_flops, inference_flops
from fewfit.observations import ScoreSpace


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
    model : FrozenModel or None
        Who gave them.
    """

    pool: Features
    place: NDArray[np.intp]
    test: Features
    free_tokens: tuple[int, ...]
    model: FrozenModel | None

    @property
    def size(self) -> Size | None:
        """The frozen model's, where it is known."""
        return None if self.model is None else self.model.size

    @property
    def in_context(self) -> bool:
        """Whether examples could stand in its prompts, as they cannot for a sentence encoder."""
        space = None if self.model is None else self.model.capabilities.scores
        return space not in (None, ScoreSpace.SIMILARITY)


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
    size = answers.size
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
        artifact_bytes=len(safetensors.numpy.save(arrays)) + (size.task_bytes if size else 0),
        **_flops(size, np.array(paid), np.array(free), np.array(asked), answers.in_context),
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


def _flops(
    size: Size | None,
    paid: NDArray[np.integer],
    free: NDArray[np.integer],
    asked: NDArray[np.integer],
    in_context: bool,
) -> dict[str, float]:
    """What the frozen model computes, from the tokens of the sample, the blanks and the test."""
    if size is None or min([0, *paid, *free, *asked]) < 0:
        return {}  # a model may not say how many tokens it read
    kind = {"encoder_decoder": size.encoder_decoder}
    query = float(asked.mean())
    known = {
        "fit_flops": size.task_flops
        + inference_flops(size.n_parameters, float(paid.sum() + free.sum()), **kind),
        "predict_flops": inference_flops(size.n_parameters, query, **kind),
    }
    if len(paid) and in_context:
        shown = {"shots": len(paid), "shot_tokens": float(paid.mean())}
        known["in_context_flops"] = in_context_flops(size.n_parameters, query, **shown, **kind)
        known["in_context_bytes"] = in_context_bytes(**shown)
    return known


def _first(features: Features) -> NDArray[np.intp]:
    """Position of one row for each distinct prompt."""
    return np.array(list({prompt: i for i, prompt in enumerate(features.prompts)}.values()))
