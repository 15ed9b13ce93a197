"""Speed of a comparison, once everything is answered.

    OMP_NUM_THREADS=1 python -m benchmarks grid

10 seeds x 4 numbers of shots x 8 decoders on 5,000 stored observations, and how the time grows
when each factor is halved; of the shots, which cost more the more they are, both halves are run.
The observations are those of the toy model with 384 dimensions, asked
before the clock starts. On one thread, CPU seconds do not depend on what else runs. Writes
``results/grid.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import RESULTS
from fewfit import DecT, LinearProbe, OffsetLogisticRegression
from fewfit.compare import Experiment
from fewfit.decoders import Decoder
from fewfit.models import FakeModel

CLASSES = ("ant", "bee", "cat", "dog")
N_TEST = 4000
N_TRAIN = 1000
SHOTS = (1, 4, 16, 64)

# The first half costs about as much as the second.
DECODERS: dict[str, Decoder] = {
    "DecT": DecT(),
    "DecT, lambda = 1": DecT(lam=1.0),
    "DecT, lambda = 0": DecT(lam=0.0),
    "linear probe": LinearProbe(),
    "DecT, not normalised": DecT(normalize=False),
    "DecT, another start": DecT(random_state=1),
    "DecT, half the rate": DecT(lr=0.005),
    "offset regression": OffsetLogisticRegression(),
}


def rows(n: int, *, seed: int) -> tuple[list[str], list[str]]:
    """Return n texts of 30 words, a tenth of which belong to the label."""
    rng = np.random.default_rng(seed)
    labels = [CLASSES[i % len(CLASSES)] for i in range(n)]
    texts = [
        " ".join(f"{label}{w}" if w % 10 == 0 else f"w{w}" for w in rng.integers(2000, size=30))
        for label in labels
    ]
    return texts, labels


def experiment(
    store: str, *, seeds: int, n_test: int, decoders: int, shots: Sequence[int]
) -> Experiment:
    """Return the comparison of this size."""
    train, test = rows(N_TRAIN, seed=0), rows(n_test, seed=1)
    return Experiment(
        *train,
        *test,
        methods=dict(list(DECODERS.items())[:decoders]),
        models=[FakeModel(hidden_size=384)],
        shots=shots,
        seeds=seeds,
        store=store,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run it whole, then with each factor halved."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    full: dict[str, Any] = {
        "seeds": 10,
        "n_test": N_TEST,
        "decoders": len(DECODERS),
        "shots": SHOTS,
    }
    parts: dict[str, dict[str, Any]] = {
        "full": {},
        "half the seeds": {"seeds": 5},
        "half the n_test": {"n_test": N_TEST // 2},
        "half the decoders": {"decoders": len(DECODERS) // 2},
        "1 and 4 shots": {"shots": SHOTS[:2]},
        "16 and 64 shots": {"shots": SHOTS[2:]},
    }
    results: dict[str, Any] = {"size": {**full, "shots": len(SHOTS)}}
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store.sqlite"
        experiment(store, **{**full, "decoders": 1}).run()  # asks all there is to ask
        for name, part in parts.items():
            planned = experiment(store, **{**full, **part})
            start, cpu = time.perf_counter(), time.process_time()
            found = planned.run()
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            if found.asked:
                raise RuntimeError("the store lacked answers")
            fitting = sum(c.ledger.fit_seconds + c.ledger.predict_seconds for c in found.cells)
            results[name] = {
                "cells": len(found.cells),
                "seconds": round(seconds, 2),
                "cpu_seconds": round(cpu, 2),
                "of_which_decoders": round(fitting, 2),
            }
            print(name, results[name], flush=True)
    path = RESULTS / "grid.json"
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
