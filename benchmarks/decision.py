"""Frozen or tuned: what examples held out say of it, and what other rows say.

    python -m benchmarks decision [--sets ...] [--shots 4,16] [--seeds 4]

Samples and the rows that judge are of the training split; no test row is read. A cell that is in
``results/decision.jsonl`` is not run again. The rules that were compared are in RULES.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import RESULTS
from benchmarks.cells import add_cell, read_cells
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit import FewShotClassifier
from fewfit.compare import sample_shots
from fewfit.estimators.expected import assign_folds
from fewfit.estimators.tuning import ALPHAS, N_FOLDS, Tuner
from fewfit.markdown import markdown_table

MODEL = "embedded-en-float32"
CHOSEN_ON = ("trec", "sst2", "mpqa", "subj", "agnews", "tweet_irony")
CONFIRMED_ON = ("sst5", "mr", "tweet_offensive", "dbpedia")
JUDGES = 200
LEAST, MARGIN = 1e-6, 0.05
"""Of the likelihood: the smallest probability, and the nats that are taken to be chance."""
FEW = 16
"""Rows below which some of the rules leave the model frozen."""

Rule = Callable[[NDArray[Any], NDArray[Any]], int]
"""Given what each candidate got right of the held-out rows, and the probability of their class,
both (1 + A, N): the candidate that is chosen, 0 being the frozen model."""

PATH = RESULTS / "decision.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join([*CHOSEN_ON, *CONFIRMED_ON]))
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    known = [tuple(cell[k] for k in ("set", "shots", "seed")) for cell in read_cells(PATH)]
    for seed in range(args.seeds):
        for shots in map(int, args.shots.split(",")):
            for name in args.sets.split(","):
                if (name, shots, seed) not in known:
                    cell = run(name, shots, seed)
                    add_cell(PATH, cell)
                    said = {k: v for k, v in cell.items() if k not in ("right", "p")}
                    print(said, np.mean(_right(cell), axis=1).round(2), flush=True)


def run(name: str, shots: int, seed: int) -> dict[str, Any]:
    """Return a cell: what each candidate did on held-out examples, and on other rows."""
    rows = read_split(data_folder(), name, "train")
    order = np.random.RandomState(0).permutation(len(rows))
    judges, rest = order[:JUDGES], np.sort(order[JUDGES:])
    y = np.array([str(row["label"]) for row in rows])
    sample = rest[sample_shots(y[rest], shots, seed=seed)]
    texts, labels = [rows[i]["text"] for i in sample], y[sample].tolist()
    new, truth = [rows[i]["text"] for i in judges], y[judges]
    given = {"template": TASKS[name]["template"], "labels": TASKS[name]["labels"]}

    def accuracy(model: Any, store: str | None) -> tuple[FewShotClassifier, float]:
        clf = FewShotClassifier(model, store=store, **given).fit(texts, labels)
        said = [str(label) for label in clf.predict(new)]
        return clf, float(np.mean(np.array(said) == truth))

    clf, frozen = accuracy(MODEL, "default")
    training: Any = clf._training
    codes, start = training.codes, time.process_time()
    tuner = Tuner(MODEL, training, clf.task_, clf.decoder_)
    proba = tuner.held_out(assign_folds(training.rows, codes, N_FOLDS, 0))
    half = time.process_time()
    models = tuner.models(ALPHAS)
    end = time.process_time()
    own = proba[:, np.arange(len(codes)), codes]
    return {
        "set": name,
        "shots": shots,
        "seed": seed,
        "accuracy": [frozen, *(accuracy(model, None)[1] for model in models)],
        "cpu_seconds": [round(half - start, 2), round(end - half, 2)],
        "right": ["".join("01"[int(r)] for r in row) for row in proba.argmax(axis=2) == codes],
        "p": own.round(3).tolist(),
    }


def _right(cell: dict[str, Any]) -> NDArray[Any]:
    return np.array([[int(r) for r in row] for row in cell["right"]])


def _by_probability(right: NDArray[Any], p: NDArray[Any]) -> int:
    return int(p.mean(axis=1).argmax())


def _by_likelihood(right: NDArray[Any], p: NDArray[Any], margin: float = 0.0) -> int:
    """The one tuned furthest of the best, but for a margin in nats of an example."""
    likely = np.log(p + LEAST).mean(axis=1)
    if likely[1:].max() <= likely[0] + margin:
        return 0
    return 1 + int(np.flatnonzero(likely[1:] >= likely[1:].max() - margin)[-1])


def _by_accuracy(right: NDArray[Any], p: NDArray[Any]) -> int:
    return max(range(len(right)), key=lambda i: (right[i].sum(), np.log(p[i] + LEAST).mean()))


def _unless_worse(right: NDArray[Any], p: NDArray[Any]) -> int:
    """Tuned, unless the frozen model is better by more than a standard error of the difference."""
    best = 1 + _by_accuracy(right[1:], p[1:])
    apart = right[0] - right[best]
    error = apart.std() / np.sqrt(len(apart))
    return 0 if apart.mean() > error else best


def _with_enough(rule: Rule) -> Rule:
    return lambda right, p: rule(right, p) if p.shape[1] >= FEW else 0


RULES: dict[str, Rule] = {
    "frozen": lambda right, p: 0,
    "half the way": lambda right, p: 1,
    "the whole way": lambda right, p: 2,
    "likelihood": _by_likelihood,
    "likelihood, by a margin": partial(_by_likelihood, margin=MARGIN),
    "the same, from 16 rows on": _with_enough(partial(_by_likelihood, margin=MARGIN)),
    "mean probability (auto)": _by_probability,
    "mean probability, from 16 rows on": _with_enough(_by_probability),
    "accuracy, likelihood where equal": _by_accuracy,
    "tuned unless clearly worse": _unless_worse,
}


def section(path: Path) -> str:
    """The section on what to decide by: the rules, on the sets of the choice and on the others."""
    cells = read_cells(path.with_suffix(".jsonl"))
    header = ["", "chosen on: gain", "to the best", "confirmed on: gain", "to the best", "worst"]
    rows = []
    for name, rule in RULES.items():
        row, worst = [name], 0.0
        for sets in (CHOSEN_ON, CONFIRMED_ON):
            found = []
            for cell in (cell for cell in cells if cell["set"] in sets):
                taken = cell["accuracy"][rule(_right(cell), np.array(cell["p"]))]
                found.append((taken - cell["accuracy"][0], max(cell["accuracy"]) - taken))
            gain, regret = 100 * np.mean(found, axis=0)
            worst = min(worst, 100 * min(gained for gained, _ in found))
            row += [f"{gain:+.1f}", f"{regret:.1f}"]
        rows.append([*row, f"{worst:+.1f}"])
    n = {sets: sum(cell["set"] in sets for cell in cells) for sets in (CHOSEN_ON, CONFIRMED_ON)}
    each = [
        [
            f"{cell['set']}, {cell['shots']} shots, {cell['seed']}",
            *(f"{100 * x:.1f}" for x in cell["accuracy"]),
            *(f"{100 * x:.0f}" for x in _right(cell).mean(axis=1)),
        ]
        for cell in sorted(cells, key=lambda c: (c["shots"], c["set"], c["seed"]))
    ]
    parts = ["frozen", "half", "whole"]
    return (
        "\n## Frozen or tuned\n\n`python -m benchmarks decision`\n\n"
        f"{MODEL}, samples and {JUDGES} judging rows of the training split. What a rule gains over "
        "the frozen model, points of accuracy, and what it lacks to the best candidate, mean over "
        f"samples; chosen on {', '.join(CHOSEN_ON)} ({n[CHOSEN_ON]} samples), confirmed on "
        f"{', '.join(CONFIRMED_ON)} ({n[CONFIRMED_ON]}); the worst sample is of both.\n\n"
        + markdown_table(header, rows)
        + "\n\nEach sample: accuracy on the judging rows, and on held-out examples, percent.\n\n"
        + markdown_table(["", *parts, *(f"{part}, held out" for part in parts)], each)
        + "\n"
    )
