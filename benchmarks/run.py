"""Run experiments, as far as this machine can, and keep what they gave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.peers import Peer
from benchmarks.spec import ExperimentFile, ModelEntry
from benchmarks.tasks import read_split
from fewfit.cli.output import bar
from fewfit.compare import Comparison, Cost, Experiment
from fewfit.compare.report.tables import accuracy_table
from fewfit.errors import FewfitError, InputError
from fewfit.store import default_path


def run_experiment(
    name: str,
    file: ExperimentFile,
    data: Path,
    *,
    models: Sequence[str] = (),
    sets: Sequence[str] = (),
    dry: bool = False,
) -> None:
    """Run every set on every model and write ``results/NAME.json``; print what cannot be run.

    Parameters
    ----------
    models : sequence of str, optional
        Frozen models to use in place of those of the file.
    sets : sequence of str, optional
        Those of the file's sets that are run; all, if left out.
    dry : bool
        Whether only the number of queries is printed.
    """
    entries = [ModelEntry(spec=spec) for spec in models] or file.models
    runs: list[dict[str, Any]] = []
    unknown = sorted({*sets} - {*file.sets})
    if unknown:
        raise InputError(f"{unknown[0]!r} is not a set of {name}: {file.sets}")
    for set_name in sets or file.sets:
        for entry in entries:
            where = f"{name}: {set_name} on {entry.spec}"
            if not (data / set_name).is_dir():
                print(f"{where}: skipped, no folder {data / set_name}")
                continue
            try:
                experiment = _experiment(file, set_name, entry, data)
                output = default_path().parent / "benchmarks" / name / set_name
                if dry:
                    print(f"{where}: {_queries(experiment.cost(output))} queries to ask")
                    continue
                try:
                    found = experiment.run(output, bar=bar)
                finally:
                    for method in experiment.methods.values():
                        if isinstance(method, Peer):
                            method.close()
            except FewfitError as error:
                print(f"{where}: skipped, {error}")
                continue
            print(f"{where}\n{accuracy_table(found.summaries)}\n", flush=True)
            runs.append({"set": set_name, "model": entry.spec, **_kept(found)})
            write_results(name, runs)


def write_results(name: str, runs: Sequence[dict[str, Any]]) -> None:
    """Put runs into the result file; other sets, models and numbers of shots stay there."""
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []
    merged = {(run["set"], run["model"]): run for run in old}
    for run in runs:
        key, fresh = (run["set"], run["model"]), {item["shots"] for item in run["summaries"]}
        before = merged.get(key, {"summaries": []})["summaries"]
        kept = [item for item in before if item["shots"] not in fresh]
        merged[key] = {**run, "summaries": [*kept, *run["summaries"]]}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"experiment": name, "runs": list(merged.values())}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def rows_of(
    data: Path, name: str, test_rows: int | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the training rows of a set, and the test rows or so many of them at random."""
    train, test = read_split(data, name, "train"), read_split(data, name, "test")
    if test_rows is not None and test_rows < len(test):
        rows = np.sort(np.random.RandomState(0).permutation(len(test))[:test_rows])
        test = [test[i] for i in rows]
    return train, test


def _experiment(file: ExperimentFile, name: str, entry: ModelEntry, data: Path) -> Experiment:
    train, test = rows_of(data, name, entry.test_rows)
    y = [str(row["label"]) for row in train]
    smallest = min(y.count(label) for label in set(y))
    prompt = file.prompt(name)
    return Experiment(
        train,
        y,
        test,
        [str(row["label"]) for row in test],
        template=prompt.template,
        labels=prompt.labels,
        methods={key: entry.make(key, prompt.template) for key, entry in file.methods.items()},
        models=[entry.spec],
        shots=[n for n in file.shots if n <= smallest],
        seeds=file.seeds,
        calibration=entry.calibration,
        drop_overlap=True,
    )


def _queries(costs: Sequence[Cost]) -> str:
    return f"{sum(cost.queries for cost in costs):,}"


def _kept(found: Comparison) -> dict[str, Any]:
    """What is committed: no text of anyone's, and no cell, of which the summaries are made."""
    content = found.model_dump(mode="json")
    return {key: content[key] for key in ("setup", "asked", "summaries")}
