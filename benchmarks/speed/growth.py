"""How a fit of the default decoder grows with examples, dimensions and classes.

    python -m benchmarks growth

Synthetic observations: Gaussian classes, of which the hidden state and the scores both say
something. Each size runs in a process of its own, whose peak memory is read. Writes
``results/growth.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import RESULTS
from fewfit import DecT, OffsetLogisticRegression
from fewfit.decoders import Decoder

SIZES = [
    (64, 1024, 4),
    *[(n, 1024, 4) for n in (256, 1024, 4096, 10_000)],
    *[(64, h, 4) for h in (256, 4096)],
    *[(600, 1024, k) for k in (4, 38, 150)],
    (10_000, 4096, 150),
]
REPEATS = 7


def observations(n: int, h: int, k: int) -> tuple[Any, Any, Any]:
    """Return hidden states (n, h), classes (n,) and scores (n, k) of balanced classes."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    means = rng.standard_normal((k, h), dtype=np.float32)
    X = rng.standard_normal((n, h), dtype=np.float32)
    X *= 4
    X += means[y]
    scores = rng.standard_normal((n, k), dtype=np.float32)
    scores[np.arange(n), y] += 1
    return X, y, scores


def timed(decoder: Decoder, X: Any, y: Any, scores: Any, repeats: int) -> tuple[float, float]:
    """Return wall and CPU seconds: medians over the repeats, or one fit that takes a second."""
    walls: list[float] = []
    cpus: list[float] = []
    while len(walls) < repeats and sum(walls) < 1:
        start, cpu = time.perf_counter(), time.process_time()
        decoder.fit(X, y, scores=scores)
        walls.append(time.perf_counter() - start)
        cpus.append(time.process_time() - cpu)
    return float(np.median(walls)), float(np.median(cpus))


def measure(n: int, h: int, k: int) -> dict[str, Any]:
    """Time one size, in this process."""
    OffsetLogisticRegression().fit(*_first(observations(32, 64, 4)))  # imports and first calls
    X, y, scores = observations(n, h, k)
    before = _peak()
    seconds, cpu = timed(OffsetLogisticRegression(), X, y, scores, REPEATS)
    peak = _peak() - before
    dect, _ = timed(DecT(), X, y, scores, REPEATS)
    return {
        "N": n,
        "H": h,
        "K": k,
        "seconds": round(seconds, 5),
        "cpu_seconds": round(cpu, 4),
        "dect_seconds": round(dect, 5),
        "peak_mib": round(peak, 1),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every size, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, metavar=("N", "H", "K"), help="one size alone")
    if (size := parser.parse_args(argv).size) is not None:
        print(json.dumps(measure(*size)))
        return
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "growth", "--size", *map(str, size)],
            check=True,
            capture_output=True,
            text=True,
        )
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    path = RESULTS / "growth.json"
    content = {"threads": threads, "repeats": REPEATS, "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _first(data: tuple[Any, Any, Any]) -> tuple[Any, Any]:
    return data[0], data[1]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
