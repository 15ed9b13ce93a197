"""What texts without labels bring the default decoder, on rows of the test splits.

    python -m benchmarks unlabelled [--model embedded-en-float32] [--seeds 10] [--store default]

A sample of labelled rows, and `POOL` other rows of the training split without their labels, as far
as there are so many. The same fit without them is beside it. Writes ``results/unlabelled.json``.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import f1_score

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.calibration import ContextualCalibration
from fewfit.compare import measure, sample_shots
from fewfit.decoders import OffsetLogisticRegression
from fewfit.errors import ModelWarning
from fewfit.estimators.opening import open_model
from fewfit.prompts import Verbalizer, make_views
from fewfit.task import Task

CHOSEN_ON = ("agnews", "trec", "subj", "sst2", "mpqa", "tweet_stance")
CONFIRMED_ON = (
    *("dbpedia", "mr", "sst5", "tweet_irony", "tweet_offensive", "imdb", "clinc150", "snli"),
    *("rte", "boolq", "wic"),
)
SHOTS = (1, 4, 16)
POOL, TRAIN, TEST = 1000, 6000, 1000


def figures(proba: Any, y: Any, classes: Any) -> list[float]:
    """Return accuracy, macro F1, log loss and calibration error."""
    m = measure(y, proba, classes)
    f1 = f1_score(y, classes[proba.argmax(axis=1)], average="macro")
    return [m.accuracy, float(f1), m.log_loss, m.ece]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded-en-float32")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--store", default="default")
    parser.add_argument("--sets", default=",".join([*CHOSEN_ON, *CONFIRMED_ON]))
    args = parser.parse_args(argv)

    model, table = open_model(args.model, args.store), []
    for name in args.sets.split(","):
        rng = np.random.RandomState(0)
        train, test = (read_split(data_folder(), name, split) for split in ("train", "test"))
        train = [train[i] for i in rng.permutation(len(train))[:TRAIN]]
        test = [test[i] for i in rng.permutation(len(test))[:TEST]]
        task = Task(
            model,
            make_views(TASKS[name]["template"]),
            Verbalizer(TASKS[name]["labels"]),
            ContextualCalibration(),
        )
        task, answers, _ = task.begin([*train, *test])
        hidden, scores = task.features(answers)
        assert scores is not None
        y = np.array([str(row["label"]) for row in [*train, *test]])
        codes = np.array([str(c) for c in task.verbalizer.classes])
        y, n = np.array([codes.tolist().index(label) for label in y]), len(train)
        for shots in SHOTS:
            cells, used, seconds, n_pool = [], [], [], 0
            for seed in range(args.seeds):
                drawn = sample_shots(y[:n], shots, seed=seed)
                rest = np.setdiff1d(np.arange(n), drawn)
                pool = np.random.RandomState(seed).permutation(rest)[:POOL]
                n_pool = len(pool)
                one = OffsetLogisticRegression().fit(hidden[drawn], y[drawn], scores=scores[drawn])
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ModelWarning)
                    other = OffsetLogisticRegression().fit(
                        hidden[drawn],
                        y[drawn],
                        scores=scores[drawn],
                        pool=hidden[pool],
                        pool_scores=scores[pool],
                    )
                seconds.append(time.perf_counter() - start)
                used.append(other.pool_used_)
                cells.append(
                    [
                        figures(d.predict_proba(hidden[n:], scores=scores[n:]), y[n:], d.classes_)
                        for d in (one, other)
                    ]
                )
            before, after = np.mean(cells, axis=0).round(4).tolist()
            gain = np.array(cells)[:, 1, 0] - np.array(cells)[:, 0, 0]
            table.append(
                {
                    "set": name,
                    "shots": shots,
                    "pool": n_pool,
                    "without": before,
                    "with": after,
                    "worst": round(float(gain.min()), 4),
                    "used": float(np.mean(used)),
                    "seconds": round(float(np.median(seconds)), 3),
                }
            )
            print(name, shots, before, after, table[-1]["worst"], table[-1]["used"], flush=True)
    content = {
        "model": args.model,
        "seeds": args.seeds,
        "chosen_on": CHOSEN_ON,
        "figures": ["accuracy", "macro F1", "log loss", "calibration error"],
        "rows": table,
    }
    path = RESULTS / "unlabelled.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
