"""What texts without labels bring the default decoder, on rows of the test splits.

    python -m benchmarks unlabelled [--model embedded] [--store default] [--large]

A sample of labelled rows, and `POOL` other rows of the training split without their labels, as far
as there are so many. The same fit without them is beside it; with 0 labels it is the model's own
scores. ``--large`` measures time and memory alone. Writes ``results/unlabelled.json``, in which
what is not run again stays.
"""

from __future__ import annotations

import argparse
import json
import resource
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
from fewfit.decoders import OffsetLogisticRegression, ZeroShot
from fewfit.errors import ModelWarning
from fewfit.estimators.opening import open_model
from fewfit.prompts import Verbalizer, make_views
from fewfit.task import Task

CHOSEN_ON = (
    *("agnews", "dbpedia", "subj", "trec", "mpqa", "sst2", "tweet_irony", "tweet_offensive"),
    *("tweet_stance", "mr", "sst5", "wic"),
)
CONFIRMED_ON = ("clinc150", "imdb", "snli", "rte", "boolq")
SHOTS = (0, 1, 4, 16)
POOL, TEST = 1000, 1000


def rows_of_training(K: int) -> int:
    """Return how many rows a sample and its pool are drawn from."""
    return 2400 + 24 * K


def figures(proba: Any, y: Any, classes: Any) -> list[float]:
    """Return accuracy, macro F1, log loss and calibration error."""
    m = measure(y, proba, classes)
    f1 = f1_score(y, classes[proba.argmax(axis=1)], average="macro")
    return [m.accuracy, float(f1), m.log_loss, m.ece]


def large(M: int = 100_000, H: int = 1024, K: int = 4) -> dict[str, float]:
    """Return processor seconds and the peak memory of the process, in MB, for many texts."""
    rng = np.random.default_rng(0)
    y, rows = np.arange(16 * K) % K, np.arange(M) % K
    middle = 0.15 * rng.standard_normal((K, H), dtype=np.float32)
    hidden = rng.standard_normal((M, H), dtype=np.float32)
    for k in range(K):
        hidden[rows == k] += middle[k]
    scores = rng.standard_normal((M, K), dtype=np.float32) + np.eye(K, dtype=np.float32)[rows]
    x, m = hidden[: len(y)], scores[: len(y)]
    decoder = OffsetLogisticRegression().fit(x, y, scores=m)
    start = time.process_time()
    found = decoder.adapt(hidden, scores=scores, labelled=(x, y))
    seconds = time.process_time() - start
    assert found.pool_used_
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"texts": M, "hidden": H, "seconds": round(seconds, 1), "peak_mb": round(peak)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--store", default="default")
    parser.add_argument("--sets", default=",".join([*CHOSEN_ON, *CONFIRMED_ON]))
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args(argv)

    path, rows_before, size = RESULTS / "unlabelled.json", [], None
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        size = before.get("large")
        if (before["model"], before["seeds"]) == (args.model, args.seeds):
            rows_before = before["rows"]
    if args.large:
        size = large()
    model, table = open_model(args.model, args.store), []
    for name in args.sets.split(",") if not args.large else ():
        rng = np.random.RandomState(0)
        train, test = (read_split(data_folder(), name, split) for split in ("train", "test"))
        some = rows_of_training(len(TASKS[name]["labels"]))
        train = [train[i] for i in rng.permutation(len(train))[:some]]
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
                drawn = sample_shots(y[:n], shots, seed=seed) if shots else np.arange(0)
                rest = np.setdiff1d(np.arange(n), drawn)
                pool = np.random.RandomState(seed).permutation(rest)[:POOL]
                n_pool = len(pool)
                if shots:
                    one = OffsetLogisticRegression()
                    one.fit(hidden[drawn], y[drawn], scores=scores[drawn])
                else:
                    one = ZeroShot().restore({}, np.arange(len(codes)))
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ModelWarning)
                    labelled = (hidden[drawn], y[drawn]) if shots else None
                    other = one.adapt(hidden[pool], scores=scores[pool], labelled=labelled)
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
    told = {row["set"] for row in table}
    table += [row for row in rows_before if row["set"] not in told]
    order = {name: i for i, name in enumerate([*CHOSEN_ON, *CONFIRMED_ON])}
    content = {
        "model": args.model,
        "seeds": args.seeds,
        "chosen_on": CHOSEN_ON,
        "figures": ["accuracy", "macro F1", "log loss", "calibration error"],
        "large": size,
        "rows": sorted(table, key=lambda row: (order[row["set"]], row["shots"])),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
