"""Which model `embedded` is: accuracy, seconds, megabytes and languages of those that wheels carry.

    python -m benchmarks embedded [--models embedded,embedded-en,embedded-en-float32]

The default decoder on the sets of the experiment `default_decoder`, on the same few samples for
each model; a capped number of test rows, the same for each model. Then messages that were
written for this in six languages, `languages.toml`: fitted on one language and judged on itself
(each message left out once), or fitted on English and judged on the others. Writes
``results/embedded.json`` after each model and set, and goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.calibration import ContextualCalibration
from fewfit.compare import sample_shots
from fewfit.decoders import OffsetLogisticRegression
from fewfit.estimators.opening import load_model
from fewfit.models import FrozenModel
from fewfit.prompts import Template, Verbalizer
from fewfit.task import Task

MODELS = "embedded,embedded-en,embedded-en-float32"
SETS = (
    "sst2,agnews,trec,dbpedia,mpqa,subj,sst5,tweet_irony,tweet_offensive,tweet_stance,rte,snli,mnli,"
    "imdb,boolq,clinc150"
)
SHOTS = (1, 4, 16)
LANGUAGES = Path(__file__).parent / "languages.toml"
PATH = RESULTS / "embedded.json"


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--test", type=int, default=200, help="rows, at most")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {"draws": args.draws, "test": args.test, "rows": {}}
    if PATH.exists():
        before = json.loads(PATH.read_text(encoding="utf-8"))
        if (before["draws"], before["test"]) == (args.draws, args.test):
            found = before
    models = {name: load_model(name) for name in args.models.split(",")}
    for name in ["languages", *args.sets.split(",")]:
        for spec, model in models.items():
            key = f"{spec} {name}"
            if key not in found["rows"]:
                one = _languages(model) if name == "languages" else _set(model, name, args)
                found["rows"][key] = one
                PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(key, one, flush=True)


def _set(model: FrozenModel, name: str, args: argparse.Namespace) -> dict[str, Any]:
    train = read_split(data_folder(), name, "train")
    test = read_split(data_folder(), name, "test")
    rng = np.random.default_rng(0)
    test = [test[i] for i in np.sort(rng.permutation(len(test))[: args.test])]
    y = np.array([str(row["label"]) for row in train])
    drawn = [sample_shots(y, max(SHOTS), seed=seed) for seed in range(args.draws)]
    asked = np.unique(np.concatenate(drawn))
    task = _task(model, TASKS[name]["template"], TASKS[name]["labels"])
    start = time.process_time()
    task, answers, _ = task.begin([train[i] for i in asked])
    judged = task.observe(test)
    seconds = (time.process_time() - start) / (len(asked) + len(test))
    (X, m), (Z, s) = task.features(answers), task.features(judged)
    truth = np.array([str(row["label"]) for row in test])
    accuracy: dict[str, list[float]] = {str(n): [] for n in SHOTS}
    for rows in drawn:
        for n in SHOTS:
            few = np.concatenate([rows[y[rows] == k][:n] for k in np.unique(y[rows])])
            i = np.searchsorted(asked, few)
            decoder = OffsetLogisticRegression().fit(
                X[i], y[few], scores=None if m is None else m[i]
            )
            accuracy[str(n)].append(float((decoder.predict(Z, scores=s) == truth).mean()))
    return {"accuracy": accuracy, "cpu_ms_per_text": round(1000 * seconds, 2)}


def _languages(model: FrozenModel) -> dict[str, Any]:
    content = tomllib.loads(LANGUAGES.read_text(encoding="utf-8"))
    task = _task(model, content["template"], content["labels"])
    rows = [
        (language, label, text)
        for language, classes in content["texts"].items()
        for label, texts in classes.items()
        for text in texts
    ]
    language, y = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    task, answers, _ = task.begin([{"text": row[2]} for row in rows])
    X, m = task.features(answers)
    assert m is not None
    own, english = {}, {}

    def right(fit: Any, judge: Any) -> float:
        decoder = OffsetLogisticRegression().fit(X[fit], y[fit], scores=m[fit])
        return float((decoder.predict(X[judge], scores=m[judge]) == y[judge]).mean())

    for one in dict.fromkeys(language):
        here = np.flatnonzero(language == one)
        own[one] = float(np.mean([right(here[here != i], np.array([i])) for i in here]))
        if one != "English":
            english[one] = right(np.flatnonzero(language == "English"), here)
    return {"own": own, "english": english}


def _task(model: FrozenModel, template: str, labels: Any) -> Task:
    return Task(model, Template(template), Verbalizer(labels), ContextualCalibration())
