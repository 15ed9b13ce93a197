"""What the methods on a network's own weights take, against full tuning, in one run.

    python -m benchmarks weights_speed [--rows 1200] [--rounds 3]

On minilm-mlm and trec: the steps of a mask of half a percent, GreenTrainer's operations, seconds
and accuracy at two budgets, LoRA's beside them; and the choice of the K best of 10^8 scalars and
of GreenTrainer's plan over 500 parameters. Operations are counted over whole trainings, probes
included. Writes ``results/weights_speed.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.prompts import make_views
from fewfit.tuning import (
    ChoiceExample,
    Data,
    Recipe,
    Run,
    Trunk,
    TuningMethod,
    make_method,
    ranked,
    top_k,
)
from fewfit.tuning.measure import flops_of
from fewfit.tuning.sparse.green import select

SCALARS, PARAMETERS = 10**8, 500
SHARE = 0.005


def examples(name: str, split: str, n: int, seed: int = 0) -> list[ChoiceExample]:
    """Return `n` rows of a set, drawn, with the prompt that the benchmarks have for it."""
    task = TASKS[name]
    (view,) = make_views(task["template"]).views
    classes = list(task["labels"])
    rows = read_split(data_folder(), name, split)
    order = np.random.default_rng(seed).permutation(len(rows))[:n]
    words = tuple(task["labels"].values())
    return [
        ChoiceExample(
            view.render({k: v for k, v in rows[i].items() if k != "label"}),
            words,
            classes.index(rows[i]["label"]),
        )
        for i in order
    ]


def accuracy(base: Trunk, method: TuningMethod, data: Data, run: Run, test: Any) -> float:
    """Fit and return the share of `test` that is answered rightly."""
    adapter = method.fit(base, data, run)
    with adapter.on(base.network):
        best = ranked(base, test, adapter=adapter)
    return float(np.mean([b == t.answer for b, t in zip(best, test, strict=True)]))


def masked(base: Trunk, data: Data, rounds: int) -> dict[str, Any]:
    """Processor seconds of a step under a mask of scalars against one of full tuning."""
    methods = {
        "full": make_method("full"),
        "mask": make_method("random-mask", {"share": SHARE, "where": "all"}),
    }
    recipe = Recipe(steps=20, optimizer="adamw", learning_rate=1e-4)
    taken: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds + 1):
        for name, method in methods.items():
            start = time.process_time()
            method.fit(base, data, Run(recipe))
            whole = time.process_time() - start
            start = time.process_time()
            method.build(base, 0)
            taken[name].append((whole - (time.process_time() - start)) / recipe.steps)
    full, mask = (taken[name][1:] for name in methods)
    return {
        "share": SHARE,
        "full_ms": 1000 * median(full),
        "mask_ms": 1000 * median(mask),
        "ratio": median(m / f for m, f in zip(mask, full, strict=True)),
    }


def green(base: Trunk, data: Data, test: Any) -> dict[str, Any]:
    """Two epochs of full tuning, of GreenTrainer at two budgets, and of LoRA."""
    steps = 2 * (len(data.rows) // 8)
    arms: dict[str, tuple[TuningMethod, float]] = {
        "full": (make_method("full"), 1e-4),
        "rho = 0.5": (make_method("greentrainer", {"rho": 0.5}), 1e-4),
        "rho = 0.4": (make_method("greentrainer", {"rho": 0.4}), 1e-4),
        "lora": (make_method("lora"), 1e-3),
    }
    found: dict[str, Any] = {"steps": steps}
    for name, (method, rate) in arms.items():
        run = Run(Recipe(steps=steps, optimizer="adamw", learning_rate=rate))
        start = time.process_time()
        right = accuracy(base, method, data, run, test)
        took = time.process_time() - start
        start = time.process_time()
        ranked(base, test)
        took -= time.process_time() - start

        def train(method: TuningMethod = method, run: Run = run) -> torch.Tensor:
            method.fit(base, data, run)
            return torch.zeros(())

        found[name] = {"accuracy": right, "cpu_s": took, "flops": flops_of(train).forward}
    return found


def plan() -> float:
    """Seconds of GreenTrainer's choice among many parameters."""
    rng = np.random.default_rng(0)
    weight, pass_on = rng.uniform(1e6, 1e9, (2, PARAMETERS))
    gain = rng.normal(size=PARAMETERS)
    start = time.perf_counter()
    select(weight.tolist(), pass_on.tolist(), gain.tolist(), 0.3 * float((weight + pass_on).sum()))
    return time.perf_counter() - start


def choose() -> None:
    """Print seconds, and growth of the peak of memory over the weights', of the K best scalars."""
    g = torch.Generator().manual_seed(0)
    scores = {f"w{i}": torch.rand(SCALARS // 10, generator=g) for i in range(10)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    top_k(scores, int(SHARE * SCALARS))
    took = time.process_time() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    print(json.dumps({"cpu_s": took, "growth": grown / (4 * SCALARS)}))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1200, help="Of the training split.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--choose", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.choose:
        choose()
        return
    command = [sys.executable, "-m", "benchmarks", "weights_speed", "--choose"]
    alone = subprocess.run(command, capture_output=True, text=True, check=True)
    base = Trunk.load(
        f"hf:{data_folder().parent / 'models' / 'minilm-mlm'}", reading="words", max_tokens=64
    )
    data = Data([[example] for example in examples("trec", "train", args.rows)])
    results = {
        "torch": torch.__version__,
        "rows": args.rows,
        "top_k": {"scalars": SCALARS, **json.loads(alone.stdout)},
        "plan": {"parameters": PARAMETERS, "seconds": plan()},
        "masked": masked(base, data, args.rounds),
        "green": green(base, data, examples("trec", "test", 500)),
    }
    text = json.dumps(results, indent=1)
    print(text)
    (RESULTS / "weights_speed.json").write_text(text + "\n", encoding="utf-8")
