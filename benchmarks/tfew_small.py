"""T-Few, end to end, on the small encoder-decoder of ``tfew_base``, on sets that it never saw.

    python -m benchmarks tfew_small BASE --data DIR [--sets agnews,trec] [--seeds 5]

Every method is run on 32 examples of each held-back set: the first 32 of the training split,
shuffled with the seed, not balanced, as in the paper. The first wording is used for testing, both
for training. The base is kept in bfloat16, as in the paper; what is trained is float32. Each run is
a process of its own, forked with the base in memory: seconds are those of its processor, and memory
is the growth of its peak resident set over that of one step on one row. Finished runs are kept in
``results/tfew_small.json``, so that a stopped benchmark goes on.

``--steps`` are those of T-Few and LoRA, 1,000 as in the paper; full fine-tuning has 0.3 times as
many, as there. What is not as in the paper: the network is small.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.tasks import read_split
from benchmarks.tfew_base import MAX_TOKENS, SETS, wordings
from fewfit.decoders import Decoder, DecT, OffsetLogisticRegression
from fewfit.prompts import Part, Prompt
from fewfit.tuning import (
    IA3,
    ChoiceExample,
    Objective,
    Recipe,
    Trunk,
    add_lora,
    load_start,
    ranked,
    site_map,
    t_few,
    tune,
)

SHOTS = 32
SHOWN = 4
BATCH = 8
ALL, LM = Objective(), Objective(False, False)
UL, LN = Objective(True, False), Objective(False, True)

Predict = Callable[[Sequence[ChoiceExample]], Sequence[int]]
Method = Callable[[Trunk, Any, Recipe, int], tuple[Predict, int]]
"""Fits on rows; returns what predicts, and the bytes to be kept."""


def answered(trunk: Trunk, test: Sequence[ChoiceExample]) -> list[int]:
    """Rank classification in batches of as many rows as a training step has."""
    return ranked(trunk, test, batch_size=BATCH)


def with_vectors(objective: Objective, start: Path | None = None) -> Method:
    """T-Few with some of its losses."""

    def fit(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
        found = None if start is None else load_start(start, trunk.identity)
        vectors = t_few(trunk, rows, start=found, recipe=recipe, objective=objective, seed=seed)
        vectors.attach(trunk.network)
        return lambda test: answered(trunk, test), 4 * vectors.count

    return fit


def vectors_alone(start: Path) -> Method:
    """The base with the pre-trained vectors, and no example of the task."""

    def fit(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
        vectors = IA3(site_map(trunk.network))
        vectors.set(load_start(start, trunk.identity))
        vectors.attach(trunk.network)
        return lambda test: answered(trunk, test), 0

    return fit


def full(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
    """All weights, in float32, with the same three losses: 300 steps at 3e-4 in the paper."""
    trunk.network.float().requires_grad_(True)  # bfloat16 would round the updates to nothing
    weights = dict(trunk.network.named_parameters())
    slower = Recipe(steps=max(1, round(0.3 * recipe.steps)), learning_rate=3e-4)
    tune(trunk, rows, weights, recipe=slower, objective=ALL, seed=seed)
    return lambda test: answered(trunk, test), 4 * sum(p.numel() for p in weights.values())


def low_rank(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
    """LoRA of rank 4 on every linear layer, with the same three losses."""
    torch.manual_seed(seed)
    weights = add_lora(trunk.network, site_map(trunk.network), rank=4)
    tune(trunk, rows, weights, recipe=recipe, objective=ALL, seed=seed)
    return lambda test: answered(trunk, test), 4 * sum(p.numel() for p in weights.values())


def in_context(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
    """Four of the examples, cut to 20 words, in front of each test row; nothing is trained."""
    shown = []
    for row in rows[:SHOWN]:
        item = row[0]
        short = " ".join(item.prompt.user_text.split()[:20])
        parts = [Part("field", short) if p.kind == "field" else p for p in item.prompt.parts]
        shown.append(Prompt(tuple(parts)).text(item.choices[item.answer]))
    before = Part("literal", " ".join(shown) + " ")
    trunk.encoder.max_tokens = 256

    def predict(test: Sequence[ChoiceExample]) -> Sequence[int]:
        told = [ChoiceExample(Prompt((before, *e.prompt.parts)), e.choices, e.answer) for e in test]
        return answered(trunk, told)

    return predict, 4 * len(trunk.tokenizer(before.text, add_special_tokens=False)["input_ids"])


def zero_shot(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
    """The base as it is."""
    return lambda test: answered(trunk, test), 0


def decoded(make: Callable[[], Decoder]) -> Method:
    """A decoder on the base's scores, less those of an empty text, and hidden states."""

    def fit(trunk: Trunk, rows: Any, recipe: Recipe, seed: int) -> tuple[Predict, int]:
        asked = [row[0] for row in rows]
        answers = np.array([e.answer for e in asked])
        held = np.unique(answers)  # a class without an example is never predicted
        empty = [Part("field", "") if p.kind == "field" else p for p in asked[0].prompt.parts]
        blank = ChoiceExample(Prompt(tuple(empty)), asked[0].choices, 0)
        _, prior = _states(trunk, [blank])
        hidden, scores = _states(trunk, asked)
        decoder = make().fit(hidden, answers, scores=(scores - prior)[:, held])

        def predict(test: Sequence[ChoiceExample]) -> Sequence[int]:
            hidden, scores = _states(trunk, test)
            return decoder.predict(hidden, scores=(scores - prior)[:, held]).tolist()

        size = sum(np.asarray(getattr(decoder, key)).nbytes for key in decoder.fitted_arrays)
        return predict, size

    return fit


def _states(trunk: Trunk, examples: Sequence[ChoiceExample]) -> tuple[Any, Any]:
    hidden, scores = [], []
    with torch.inference_mode():
        for start in range(0, len(examples), BATCH):
            some = [trunk.encoder.encode(e) for e in examples[start : start + BATCH]]
            tokens, states = trunk.read(trunk.pack(some))
            hidden.append(states.float().numpy())
            scores.append(tokens.beta.view(len(some), -1).numpy())
    return np.concatenate(hidden), np.concatenate(scores)


def measured(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return what `work` does in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        status = 1
        try:
            found = work()
            with os.fdopen(writer, "w") as stream:
                json.dump(found, stream)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit("a run failed; its traceback is above")
    return json.loads(text)


def _peak() -> int:
    """Most bytes that this process had resident at one time."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(
    method: Method, trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int
) -> dict[str, float]:
    """Fit and test one method; a step on one row first brings in all code and weights."""
    vectors = IA3(site_map(trunk.network)).attach(trunk.network)
    tune(trunk, rows[:1], vectors.of(), recipe=Recipe(steps=1), objective=LM)
    vectors.detach()
    before = _peak()
    start = time.process_time()
    predict, size = method(trunk, rows, recipe, seed)
    middle, peak = time.process_time(), _peak()
    chosen = predict(test)
    end = time.process_time()
    hits = [best == e.answer for best, e in zip(chosen, test, strict=True)]
    return {
        "accuracy": round(float(np.mean(hits)), 4),
        "fit_seconds": round(middle - start, 2),
        "test_seconds": round(end - middle, 2),
        "fit_growth": peak - before,
        "growth": _peak() - before,
        "bytes": size,
    }


def methods(vectors: Path) -> dict[str, Method]:
    """All of them by name; `vectors` is the folder with the pre-trained ones."""
    return {
        "zero-shot": zero_shot,
        "zero-shot, pre-trained vectors": vectors_alone(vectors),
        "in-context, 4 examples": in_context,
        "(IA)^3, LM": with_vectors(LM),
        "(IA)^3, LM + UL": with_vectors(UL),
        "(IA)^3, LM + LN": with_vectors(LN),
        "(IA)^3, LM + UL + LN": with_vectors(ALL),
        "T-Few: the same, pre-trained vectors": with_vectors(ALL, vectors),
        "full fine-tuning": full,
        "LoRA": low_rank,
        "DecT": decoded(DecT),
        "default decoder": decoded(OffsetLogisticRegression),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path, help="written by benchmarks.tfew_base")
    parser.add_argument("--data", type=Path, required=True)
    for name, value in {"steps": 1000, "seeds": 5, "test-rows": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sets", default=",".join(SETS["held_back"]))
    parser.add_argument("--only", help="the name of one method")
    parser.add_argument("--output", default="tfew_small", help="name of the file of results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    trunk = Trunk.load(f"hf:{args.base}", dtype="bfloat16", max_tokens=MAX_TOKENS)
    given = {k: v for k, v in vars(args).items() if k in ("steps", "test_rows")}
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "arguments": given,
        "base": json.loads((args.base / "base.json").read_text(encoding="utf-8")),
        "cells": [],
    }
    path = RESULTS / f"{args.output}.json"
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        if {**old, "cells": []} == results:
            results = old
    done = {(cell["set"], cell["seed"], cell["method"]) for cell in results["cells"]}
    tasks = {}
    for name in args.sets.split(","):
        test = read_split(args.data, name, "test")
        chosen = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
        asked = wordings([test[i] for i in chosen], [SETS["held_back"][name]])
        tasks[name] = read_split(args.data, name, "train"), [row[0] for row in asked]
    runs = methods(args.base / "vectors")
    if args.only is not None:
        runs = {args.only: runs[args.only]}
    unseeded = [fit for method, fit in runs.items() if method.startswith("zero-shot")]
    for seed in range(args.seeds):
        for name, (train, asked) in tasks.items():
            order = np.random.default_rng(seed).permutation(len(train))[:SHOTS]
            rows = wordings([train[i] for i in order], [SETS["held_back"][name]])
            for method, fit in runs.items():
                if (name, seed, method) in done or (seed and fit in unseeded):
                    continue

                def work(fit: Method = fit, rows: Any = rows, asked: Any = asked, seed: int = seed):
                    return run(fit, trunk, rows, asked, Recipe(steps=args.steps), seed)

                cell = {"set": name, "seed": seed, "method": method, **measured(work)}
                results["cells"].append(cell)
                print(cell, flush=True)
                path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
