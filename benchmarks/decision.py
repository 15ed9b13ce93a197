"""Frozen or tuned: what examples held out say of it, and what other rows say.

    python -m benchmarks decision [--sets ...] [--shots 4,16] [--seeds 2]

Samples and the rows that judge are of the training split; no test row is read. A cell that is in
``results/decision.jsonl`` is not run again. The rules that were compared are in RULES.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit import FewShotClassifier
from fewfit.compare import sample_shots
from fewfit.estimators.expected import assign_folds
from fewfit.estimators.tuning import ALPHAS, N_FOLDS, Tuner

MODEL = "embedded-en-float32"
CHOSEN_ON, CONFIRMED_ON = ("trec", "sst2", "mpqa"), ("subj", "agnews", "tweet_irony")
JUDGES = 200
PATH = RESULTS / "decision.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join([*CHOSEN_ON, *CONFIRMED_ON]))
    parser.add_argument("--shots", default="4,16")
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    lines = PATH.read_text(encoding="utf-8").splitlines() if PATH.exists() else []
    known = [tuple(json.loads(line)[k] for k in ("set", "shots", "seed")) for line in lines]
    for seed in range(args.seeds):
        for shots in map(int, args.shots.split(",")):
            for name in args.sets.split(","):
                if (name, shots, seed) not in known:
                    cell = run(name, shots, seed)
                    with PATH.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(cell) + "\n")
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
