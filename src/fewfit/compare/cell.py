"""One cell: a method is fitted on a sample and measured, and what it cost is written down."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fewfit.compare.accounting import Load, flops, task_bytes
from fewfit.compare.job import Job
from fewfit.compare.journal import Finished
from fewfit.compare.methods import Features
from fewfit.compare.metrics import measure
from fewfit.compare.schema import Cell, Ledger
from fewfit.models import FrozenModel
from fewfit.models.metered import Bill, MeteredModel


def run_cell(
    job: Job,
    sample: Features,
    test: Features,
    classes: NDArray[Any],
    *,
    model: str | None,
    frozen: FrozenModel | None,
    free: Mapping[int, int] = {},
    meter: MeteredModel | None = None,
) -> Finished:
    """Fit a method on a sample of the training pool and measure it on the test set.

    Parameters
    ----------
    job : Job
    sample, test : Features
        `sample` has no rows for a method that learns nothing.
    classes : ndarray of shape (K,)
    model : str or None
        Name of who was asked.
    frozen : FrozenModel or None
    free : mapping of int to int
        The queries of the calibration's content-free prompts, with their tokens.
    meter : MeteredModel, optional
        What a searcher asks on its own.
    """
    method = job.method
    start = time.perf_counter()
    fitted = method.fit(sample, classes)
    middle = time.perf_counter()
    searched = None if meter is None else replace(meter.bill)
    proba = method.predict_proba(fitted, test)
    end = time.perf_counter()
    metrics = measure(test.y, proba, classes)

    def again() -> None:
        method.predict_proba(method.fit(sample, classes), test)

    if meter is None or searched is None:
        texts = {} if sample.pool is None else sample.pool.tokens
        fit, predict = _bill({**sample.tokens, **texts, **free}), _bill(test.tokens)
    else:
        fit, predict = searched, meter.bill.since(searched)
    asked = Load(test.n_asked if meter is None else predict.queries, _known(predict.tokens))
    arrays = {key: np.array(value, order="C") for key, value in method.arrays(fitted).items()}
    costs = dict(
        queries=fit.queries,
        tokens=_known(fit.tokens),
        predict_queries=predict.queries,
        predict_tokens=asked.tokens,
        row_queries=predict.queries / asked.rows if asked.rows else 0.0,
        fit_seconds=middle - start - fit.seconds,
        predict_seconds=end - middle - predict.seconds,
        peak_memory=peak_memory(again) if job.traced else None,
        parameters=method.parameters(fitted),
        artifact_bytes=len(safetensors.numpy.save(arrays)) + task_bytes(frozen),
        **flops(
            frozen,
            fit_tokens=_known(fit.tokens),
            sample=Load(sample.n_asked, _known(_bill(sample.tokens).tokens)),
            test=asked,
        ),
    )
    ledger = Ledger(**{**costs, **method.costs(fitted, test)})
    cell = Cell(
        method=job.name,
        model=model,
        shots=job.sample.shots,
        seed=job.sample.seed,
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


def _bill(tokens: Mapping[int, int]) -> Bill:
    """What was asked, from the length of each query."""
    counts = list(tokens.values())
    return Bill(len(counts), -1 if any(count < 0 for count in counts) else sum(counts))


def _known(tokens: int) -> int | None:
    return None if tokens < 0 else tokens
