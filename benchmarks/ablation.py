"""What each part of the default decoder is worth, on rows of the training split.

    python -m benchmarks ablation [--model embedded]

Every variant changes one constant of ``fewfit/decoders/offset_regression.py``. A sample is judged
on the rows that other samples drew, so no test row is involved. The last row is no method but a
bound: the pair (b, t) that the judged rows themselves like best, for each set and number of shots,
out of `PAIRS`; no rule that chooses them from the labelled examples does better. The data are found
as `make bench` finds them. Writes ``results/ablation_<model>.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.calibration import ContextualCalibration
from fewfit.compare import measure, sample_shots
from fewfit.decoders import DecT, OffsetLogisticRegression, offset_regression
from fewfit.decoders.ridge import basis, minimise
from fewfit.estimators.opening import open_model
from fewfit.prompts import Template, Verbalizer
from fewfit.task import Task

SETS = "sst2,agnews,trec,dbpedia,mpqa,clinc150"
SHOTS = (1, 4, 16)


def _eight(K: int) -> float:
    return 8 / float(np.log2(K)) ** 2


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "b = 1, not learnt": {"_STRENGTHS": ()},
    "b also 4 and 1/4": {"_STRENGTHS": (0.0, 0.25, 0.5, 2.0, 4.0)},
    "b = 0 counts as 1/4 in the prior": {"_ZERO": 0.25},
    "t = t0, not learnt": {"_VARIANCES": (1.0,)},
    "t up to 4 t0": {"_VARIANCES": (0.25, 1.0, 4.0)},
    "t up to 64 t0": {"_VARIANCES": (0.25, 1.0, 4.0, 16.0, 64.0)},
    "t0 / 2": {"_MEDIAN": 1.0},
    "2 t0": {"_MEDIAN": 4.0},
    "t0 = 8, whatever the number of classes": {"_MEDIAN": _eight},
    "label bias from the rows alone": {"_EMPTY": 0.0},
    "label bias from the empty input alone": {"_EMPTY": 1e9},
    "no sharpness": {"_SHARPNESS": (1.0,)},
    "sharpness up to 2": {"_SHARPNESS": (0.125, 0.25, 0.5, 1.0, 2.0)},
}


PAIRS = [(b, t) for b in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0) for t in (1 / 16, 0.25, 1.0, 4.0, 16.0)]
BOUND = "bound: b and t as the judged rows like them best"


def _fixed(b: float, t: float, K: int) -> Any:
    """What stands in the place of ``offset_regression._average``: one pair, t in units of t0."""
    variance = t * offset_regression._MEDIAN * float(np.log2(K)) ** 2

    def fit(
        x: Any, a: Any, often: Any, y: Any, *_: Any, **__: Any
    ) -> tuple[float, float, float, Any]:
        Z, d, B = basis(x, y, K, max(K, offset_regression._RANK))
        return b, variance, 1.0, B @ minimise(Z, d, y, b * a + often, variance)

    return fit


@contextmanager
def changed(constants: dict[str, Any], K: int) -> Iterator[None]:
    """Set constants of the decoder's module for a while; a function takes the number of classes."""
    before = {name: getattr(offset_regression, name) for name in constants}
    try:
        for name, value in constants.items():
            setattr(offset_regression, name, value(K) if callable(value) else value)
        yield
    finally:
        for name, value in before.items():
            setattr(offset_regression, name, value)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the ablation from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--name", help="of the model, in the results; default: --model")
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(argv)

    model = open_model(args.model, "default")
    pairs = {f"{b} {t}": {"_average": partial(_fixed, b, t)} for b, t in PAIRS}
    found: dict[tuple[str, str, int], list[tuple[float, float, float]]] = {}
    for name in args.sets.split(","):
        train = read_split(data_folder(), name, "train")
        y = np.array([str(row["label"]) for row in train])
        samples = [(n, sample_shots(y, n, seed=seed)) for n in SHOTS for seed in range(args.seeds)]
        asked = np.unique(np.concatenate([rows for _, rows in samples]))
        task = Task(
            model,
            Template(TASKS[name]["template"]),
            Verbalizer(TASKS[name]["labels"]),
            ContextualCalibration(),
        )
        task, answers, _ = task.begin([train[i] for i in asked])
        hidden, scores = task.features(answers)
        assert scores is not None
        for n, drawn in samples:
            i = np.searchsorted(asked, drawn)
            j = np.setdiff1d(np.arange(len(asked)), i)
            j = j[:: max(1, len(j) // 1000)]
            variants = [
                (label, OffsetLogisticRegression(), v) for label, v in {**VARIANTS, **pairs}.items()
            ]
            for label, decoder, constants in [("DecT", DecT(), {}), *variants]:
                with changed(constants, len(TASKS[name]["labels"])):
                    decoder.fit(hidden[i], y[asked[i]], scores=scores[i])
                proba = decoder.predict_proba(hidden[j], scores=scores[j])
                m = measure(y[asked[j]], proba, decoder.classes_)
                cell = (m.accuracy, m.log_loss, m.ece)
                found.setdefault((label, name, n), []).append(cell)
        print(name, flush=True)
    sets = args.sets.split(",")
    mean = {key: np.mean(cells, axis=0) for key, cells in found.items()}
    for name in sets:
        for n in SHOTS:
            best = max(pairs, key=lambda pair: mean[pair, name, n][0])
            mean[BOUND, name, n] = mean[best, name, n]
    table = [
        {"variant": label, "shots": n, "accuracy": accuracy, "log_loss": log_loss, "ece": ece}
        for label in ("DecT", *VARIANTS, BOUND)
        for n in SHOTS
        for accuracy, log_loss, ece in [
            np.mean([mean[label, name, n] for name in sets], axis=0).round(4).tolist()
        ]
    ]
    name = args.name or args.model
    path = RESULTS / f"ablation_{name.replace(':', '_')}.json"
    text = {"model": name, "sets": args.sets, "seeds": args.seeds, "rows": table}
    path.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
