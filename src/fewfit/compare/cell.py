"""One cell: a method is fitted on a sample and measured, and what it cost is written down."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fewfit.compare.accounting import flops, task_bytes
from fewfit.compare.journal import Finished
from fewfit.compare.methods import Features, Method
from fewfit.compare.metrics import measure
from fewfit.compare.schema import Cell, Ledger
from fewfit.models import FrozenModel
from fewfit.prompts import Prompt


def run_cell(
    name: str,
    method: Method,
    sample: Features,
    test: Features,
    classes: NDArray[Any],
    *,
    free: Mapping[Prompt, int],
    model: str | None,
    frozen: FrozenModel | None,
    shots: int,
    seed: int,
    traced: bool,
) -> Finished:
    """Fit `method` on a sample of the training pool and measure it on the test set.

    `sample` has no rows for a method that learns nothing; `free` are the content-free prompts of
    its calibration, with their tokens; `frozen` is who was asked, if anybody.
    """
    start = time.perf_counter()
    fitted = method.fit(sample, classes)
    middle = time.perf_counter()
    proba = method.predict_proba(fitted, test)
    end = time.perf_counter()
    metrics = measure(test.y, proba, classes)

    def again() -> None:
        method.predict_proba(method.fit(sample, classes), test)

    shown = _prompts(sample) if method.asks else {}
    paid = {**shown, **free} if method.asks else {}
    asked = _prompts(test) if method.asks else {}
    arrays = {key: np.array(value, order="C") for key, value in method.arrays(fitted).items()}
    ledger = Ledger(
        queries=len(paid),
        tokens=_total(paid),
        predict_queries=len(asked),
        predict_tokens=_total(asked),
        fit_seconds=middle - start,
        predict_seconds=end - middle,
        peak_memory=peak_memory(again) if traced else None,
        parameters=method.parameters(fitted),
        artifact_bytes=len(safetensors.numpy.save(arrays)) + task_bytes(frozen),
        **flops(
            frozen,
            fit_tokens=_total(paid),
            sample=list(shown.values()),
            asked=list(asked.values()),
        ),
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


def _prompts(features: Features) -> dict[Prompt, int]:
    """Each distinct prompt, and its tokens."""
    return dict(zip(features.prompts, features.n_tokens.tolist(), strict=True))


def _total(prompts: Mapping[Prompt, int]) -> int | None:
    """Tokens of all prompts; None if the model does not say how many some have."""
    counts = list(prompts.values())
    return None if any(count < 0 for count in counts) else sum(counts)
