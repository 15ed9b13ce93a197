"""The data sets and prompts that benchmarks use, and how an accuracy table is made from them."""

from __future__ import annotations

import gzip
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fewfit.calibration import ContextualCalibration
from fewfit.compare import Cell, Features, draw_samples, few_shot_grid
from fewfit.decoders import Decoder
from fewfit.models import FrozenModel
from fewfit.prompts import Template, Verbalizer
from fewfit.task import Task

TASKS: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "tasks.toml").read_text(encoding="utf-8")
)


class Run(NamedTuple):
    """What one data set on one model gave, and what it cost."""

    cells: list[Cell]
    n_classes: int
    n_test: int
    queries: int


def read_split(data: Path, name: str, split: str) -> list[dict[str, Any]]:
    """Read ``data/name/split.jsonl.gz``."""
    with gzip.open(data / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def run_set(
    name: str,
    data: Path,
    model: FrozenModel,
    methods: Mapping[str, Decoder],
    *,
    shots: Sequence[int],
    seeds: Sequence[int],
    test_rows: int | None = None,
) -> Run:
    """Draw the samples, ask about their rows and the test rows, and fit every method.

    Parameters
    ----------
    shots : sequence of int
        Those that the smallest class of the training split can serve are run.
    test_rows : int, optional
        Take this many test rows, at random with seed 0; all by default.
    """
    train, test = read_split(data, name, "train"), read_split(data, name, "test")
    if test_rows is not None and test_rows < len(test):
        rows = np.sort(np.random.RandomState(0).permutation(len(test))[:test_rows])
        test = [test[i] for i in rows]
    y = np.array([str(row["label"]) for row in train])
    smallest = int(np.unique(y, return_counts=True)[1].min())
    samples = draw_samples(y, shots=[n for n in shots if n <= smallest], seeds=seeds)
    asked = np.unique(np.concatenate([sample.rows for sample in samples]))
    place = np.full(len(y), -1)
    place[asked] = np.arange(len(asked))

    task = Task(
        model,
        Template(TASKS[name]["template"]),
        Verbalizer(TASKS[name]["labels"]),
        ContextualCalibration(),
    )
    rows = [train[i] for i in asked] + test
    with tqdm(total=len(rows) + 1, desc=f"{name}: asking", disable=None) as bar:
        task, answers, queries = task.begin(rows, progress=bar.update)
    hidden, scores = task.features(answers)
    everything = Features(hidden, scores, np.array([str(row["label"]) for row in rows]))
    split = len(asked)
    with tqdm(total=len(samples) * len(methods), desc=f"{name}: fitting", disable=None) as bar:
        cells = few_shot_grid(
            everything[np.arange(split)],
            everything[np.arange(split, len(rows))],
            methods,
            [type(s)(s.shots, s.seed, place[s.rows]) for s in samples],
            progress=bar.update,
        )
    return Run(cells, len(task.verbalizer.classes), len(test), queries)
