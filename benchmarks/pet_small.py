"""PET beside T-Few, on the same base and rows as ``tfew_small``, with unlabelled rows for PET.

    python -m benchmarks pet_small BASE --data DIR [--steps 300] [--seeds 2] [--unlabelled 200]

The labelled rows of a draw are those of ``tfew_small``; the unlabelled ones are the next in the
same shuffle of the training split. PET has the two wordings of a set as its patterns, one
repetition, and so three trainings of ``--steps`` each against one of T-Few. Finished runs are kept
in ``results/pet_small.json``, so that a stopped benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.tasks import data_folder, read_split
from benchmarks.tfew_base import MAX_TOKENS, SETS, wordings
from benchmarks.tfew_small import (
    ALL,
    SHOTS,
    Method,
    Predict,
    answered,
    measured,
    run,
    with_vectors,
    zero_shot,
)
from fewfit.tuning import Recipe, Trunk, pet

RESULT = RESULTS / "pet_small.json"


def taught(unlabelled: Any) -> Method:
    """PET with one repetition."""

    def fit(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
        student = pet(trunk, rows, unlabelled, repetitions=1, recipe=recipe, seed=seed)
        student.attach(trunk.network)
        return lambda test: answered(trunk, test), 4 * student.count

    return fit


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="written by benchmarks.tfew_base")
    parser.add_argument("--data", type=Path, default=data_folder())
    for name, value in {"steps": 300, "seeds": 2, "unlabelled": 200, "test-rows": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sets", default="agnews,trec")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    trunk = Trunk.load(f"hf:{args.base}", dtype="bfloat16", max_tokens=MAX_TOKENS)
    given = {key: vars(args)[key] for key in ("steps", "unlabelled", "test_rows")}
    facts = {"torch": torch.__version__, "arguments": given, "base": trunk.identity, "cells": []}
    if RESULT.exists():
        old = json.loads(RESULT.read_text(encoding="utf-8"))
        facts = old if {**old, "cells": []} == facts else facts
    cells: list[dict[str, Any]] = facts["cells"]
    done = {(cell["set"], cell["seed"], cell["method"]) for cell in cells}
    for seed in range(args.seeds):
        for name in args.sets.split(","):
            entry = [SETS["held_back"][name]]
            test = read_split(args.data, name, "test")
            chosen = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
            asked = [row[0] for row in wordings([test[i] for i in chosen], entry)]
            train = read_split(args.data, name, "train")
            order = np.random.default_rng(seed).permutation(len(train))
            shuffled = wordings([train[i] for i in order[: SHOTS + args.unlabelled]], entry)
            rows, unlabelled = shuffled[:SHOTS], shuffled[SHOTS:]
            methods = {
                "zero-shot": zero_shot,
                "T-Few": with_vectors(ALL),
                "PET": taught(unlabelled),
            }
            for method, fit in methods.items():
                if (name, seed, method) in done:
                    continue

                def work(fit: Method = fit, rows: Any = rows, asked: Any = asked, seed: int = seed):
                    return run(fit, trunk, rows, asked, Recipe(steps=args.steps), seed)

                cell = {"set": name, "seed": seed, "method": method, **measured(work)}
                cells.append(cell)
                print(cell, flush=True)
                RESULT.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
