"""How sure a tuned classifier is: with the temperature that held-out examples say, and without.

    python -m benchmarks temperature [--sets ...] [--shots 4,16,64] [--seeds 2]

Samples, pools and the rows that judge are of the training split; no test row is read. A cell that
is in ``results/temperature.jsonl`` is not run again.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.cells import add_cell, read_cells
from benchmarks.decision import CHOSEN_ON, CONFIRMED_ON, MODEL
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit import FewShotClassifier
from fewfit.compare import measure, sample_shots
from fewfit.errors import InputError
from fewfit.markdown import markdown_table

JUDGES, POOL = 400, 1000
WAYS = ("frozen", "tuned, T = 1", "tuned", "and a pool, T = 1", "and a pool")
PATH = RESULTS / "temperature.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join([*CHOSEN_ON, *CONFIRMED_ON]))
    parser.add_argument("--shots", default="4,16,64")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    known = [tuple(cell[k] for k in ("set", "shots", "seed")) for cell in read_cells(PATH)]
    for seed in range(args.seeds):
        for shots in map(int, args.shots.split(",")):
            for name in args.sets.split(","):
                if (name, shots, seed) in known:
                    continue
                try:
                    cell = run(name, shots, seed)
                except InputError as error:  # a set that has not so many of each class
                    print(name, error, flush=True)
                    continue
                add_cell(PATH, cell)
                print(cell, flush=True)


def run(name: str, shots: int, seed: int) -> dict[str, Any]:
    """Return accuracy, log loss and calibration error of each of WAYS on rows that judge."""
    rows = read_split(data_folder(), name, "train")
    order = np.random.RandomState(0).permutation(len(rows))
    judges, pool, rest = np.split(order, [JUDGES, JUDGES + min(POOL, len(rows) // 2)])
    y = np.array([str(row["label"]) for row in rows])
    rest = np.sort(rest)
    sample = rest[sample_shots(y[rest], shots, seed=seed)]
    texts = [row["text"] for row in rows]
    X = [texts[i] for i in sample]
    given = {"template": TASKS[name]["template"], "labels": TASKS[name]["labels"]}
    frozen = FewShotClassifier(MODEL, **given).fit(X, y[sample].tolist())
    clf = FewShotClassifier(MODEL, tune="auto", store=None, **given).fit(X, y[sample].tolist())
    told, task, training = clf.tuning_, clf.task_, clf._training
    assert told is not None
    assert training is not None
    hidden, scores = task.features(clf.observe([texts[i] for i in judges]))
    others, their_scores = task.features(clf.observe([texts[i] for i in pool]))
    sure: Any = copy.copy(clf.decoder_)
    sure.temper(1 / told.temperature)

    labelled = (training.hidden, training.codes, training.weight)
    pooled = sure.adapt(others, scores=their_scores, labelled=labelled)
    less_sure: Any = copy.copy(pooled)
    less_sure.temper(told.temperature)
    classes = np.array([str(c) for c in clf.classes_])
    decoders = (sure, clf.decoder_, pooled, less_sure)
    said = [np.asarray(frozen.predict_proba([texts[i] for i in judges]))]
    said += [decoder.predict_proba(hidden, scores=scores) for decoder in decoders]
    found = [measure(y[judges], proba, classes) for proba in said]
    return {
        "set": name,
        "shots": shots,
        "seed": seed,
        "alpha": told.alpha,
        "temperature": round(told.temperature, 3),
        **{
            key: [round(getattr(m, key), 4) for m in found]
            for key in ("accuracy", "log_loss", "ece")
        },
    }


def section(path: Any) -> str:
    """The section on how sure a tuned classifier is."""
    cells = [cell for cell in read_cells(path.with_suffix(".jsonl")) if cell["alpha"]]
    rows = []
    for sets, what in ((CHOSEN_ON, "the six sets of the choice"), (CONFIRMED_ON, "four others")):
        for shots in sorted({cell["shots"] for cell in cells}):
            own = [cell for cell in cells if cell["set"] in sets and cell["shots"] == shots]
            if not own:
                continue
            T = [cell["temperature"] for cell in own]
            row = [f"{what}, {shots} shots", str(len(own)), f"{min(T):.1f} to {max(T):.1f}"]
            for i in range(len(WAYS)):
                a, loss, e = (
                    np.mean([cell[k][i] for cell in own]) for k in ("accuracy", "log_loss", "ece")
                )
                row.append(f"{100 * a:.1f} / {loss:.3f} / {e:.3f}")
            rows.append(row)
    return (
        "\n## How sure a tuned classifier is\n\n`python -m benchmarks temperature`\n\n"
        f"{MODEL}, samples, pools of {POOL} and {JUDGES} judging rows of the training split. "
        "Accuracy in percent, log loss and calibration error, mean over the samples in which "
        "`auto` tunes; T is the temperature that held-out examples say.\n\n"
        + markdown_table(["", "samples", "T", *WAYS], rows)
        + "\n"
    )
