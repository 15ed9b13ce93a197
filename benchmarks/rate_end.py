"""Where the training at a rate that was tried should end.

    python -m benchmarks rate_end [--sets ...] [--shots 16,64]

``rate = "auto"`` tries three rates on three quarters of a sample, and looks at the others twenty
times. Which rate is best may be said by the lowest loss along the way or by the last, and the
training on all rows may end where the loss was lowest or make all its steps. minilm-mlm in
bfloat16, 60 steps; judged by 200 other rows of the training split. A cell that is in
``results/rate_end.jsonl`` is not run again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.cells import add_cell, read_cells
from benchmarks.run import rows_of
from benchmarks.subset_transfer import BASE, STEPS
from benchmarks.tasks import TASKS, data_folder
from fewfit.compare import sample_shots
from fewfit.markdown import markdown_table
from fewfit.prompts import Template
from fewfit.tuning import ChoiceExample, Data, Run, Trunk, make_method, method, ranked
from fewfit.tuning.rates import FACTORS, held_out

METHODS = {
    "full": {},
    "lora": {},
    "random-mask": {"share": 0.005},
}
CHOSEN_ON, CONFIRMED_ON = ("trec", "subj"), ("agnews", "mpqa")
JUDGES = 200
RULES = {
    "lowest, ends there": ("lowest", True),
    "lowest, all steps": ("lowest", False),
    "last, all steps": ("last", False),
}
PATH = RESULTS / "rate_end.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join((*CHOSEN_ON, *CONFIRMED_ON)))
    parser.add_argument("--shots", default="16,64")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    known = [tuple(c[k] for k in ("set", "shots", "seed", "method")) for c in read_cells(PATH)]
    base = Trunk.load(BASE, reading="words", max_tokens=64)
    sets, shots = args.sets.split(","), map(int, args.shots.split(","))
    for key in product(sets, shots, range(args.seeds), METHODS):
        if key not in known:
            found = run(base, *key)
            add_cell(PATH, found)
            print(found, flush=True)


def run(base: Trunk, name: str, shots: int, seed: int, tuner: str) -> dict[str, Any]:
    """Try the rates, train as each rule says, and judge by other rows."""
    rows, judges = drawn(name, shots, seed)
    made = make_method(tuner, METHODS[tuner])
    recipe = replace(made.usual(), steps=STEPS)
    held = held_out([row[0].answer for row in rows], seed)
    rest = [row for i, row in enumerate(rows) if i not in set(held)]
    curves = {}
    for factor in FACTORS:
        looks: list[float] = []
        slow = replace(recipe, learning_rate=factor * recipe.learning_rate)
        patient, method.PATIENCE = method.PATIENCE, STEPS  # to the end, which one rule asks
        try:
            kept = [rows[i] for i in held]
            made.fit(base, Data(rest), Run(slow, seed, held_out=kept, looks=looks))
        finally:
            method.PATIENCE = patient
        curves[factor] = looks
    best: dict[float, int] = {factor: lowest(looks) for factor, looks in curves.items()}
    chosen = {
        "lowest": min(curves, key=lambda factor: curves[factor][best[factor]]),
        "last": min(curves, key=lambda factor: curves[factor][-1]),
    }
    reached: dict[tuple[float, int], float] = {}
    found: dict[str, float] = {}
    for rule, (by, early) in RULES.items():
        factor = chosen[by]
        until = (1 + best[factor]) * (STEPS // method.LOOKS) if early else STEPS
        if (factor, until) not in reached:
            at = replace(recipe, learning_rate=factor * recipe.learning_rate)
            adapter = made.fit(base, Data(rows), Run(at, seed, until=until))
            with adapter.on(base.network):
                told = ranked(base, judges, adapter=adapter)
            right = [choice == item.answer for choice, item in zip(told, judges, strict=True)]
            reached[factor, until] = float(np.mean(right))
        found[rule] = reached[factor, until]
    return {"set": name, "shots": shots, "seed": seed, "method": tuner, "accuracy": found}


def lowest(looks: Sequence[float]) -> int:
    """Return the look with the lowest loss, before five in a row saw no lower one."""
    best = 0
    for i, loss in enumerate(looks):
        best = i if loss < looks[best] else best
        if i - best >= method.PATIENCE:
            break
    return best


def drawn(name: str, shots: int, seed: int) -> tuple[list[list[ChoiceExample]], list[Any]]:
    """Return a sample of a training split, and other rows of it."""
    train, _ = rows_of(data_folder(), name)
    y = [str(row["label"]) for row in train]
    words, template = TASKS[name]["labels"], Template(TASKS[name]["template"])

    def example(i: int) -> ChoiceExample:
        prompt = template.render(train[i])
        return ChoiceExample(prompt, tuple(words.values()), list(words).index(y[i]))

    sample = sample_shots(y, shots, seed=seed)
    others = np.setdiff1d(np.random.RandomState(seed).permutation(len(y))[: 2 * JUDGES], sample)
    return [[example(i)] for i in sample], [example(i) for i in others[:JUDGES]]


def section(path: Path) -> str:
    """Compare the rules."""
    found = read_cells(path.with_suffix(".jsonl"))
    rows = []
    for rule in RULES:
        row = [rule]
        for sets in (CHOSEN_ON, CONFIRMED_ON):
            own = [100 * cell["accuracy"][rule] for cell in found if cell["set"] in sets]
            row += [f"{np.mean(own):.1f}", f"{min(own):.1f}"]
        rows.append(row)
    there = [[c["set"] for c in found if c["set"] in sets] for sets in (CHOSEN_ON, CONFIRMED_ON)]
    named = [f"{', '.join(dict.fromkeys(own))} ({len(own)} cells)" for own in there]
    shots = " and ".join(str(n) for n in sorted({cell["shots"] for cell in found}))
    header = ["the rate with the loss that is", "chosen on", "worst", "confirmed on", "worst"]
    each = [
        [f"{c['set']}, {c['shots']} shots, {c['method']}"]
        + [f"{100 * c['accuracy'][rule]:.1f}" for rule in RULES]
        for c in found
    ]
    return (
        "\n## Where a training at a tried rate ends\n\n`python -m benchmarks rate_end`\n\n"
        f"minilm-mlm in bfloat16, {STEPS} steps, {shots} labels of each class, {JUDGES} judging "
        f"rows of the training split; accuracy in percent. Chosen on {named[0]}, confirmed on "
        f"{named[1]}.\n\n"
        f"{markdown_table(header, rows)}\n\n{markdown_table(['', *RULES], each)}\n"
    )
