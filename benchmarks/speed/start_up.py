"""What starting costs, sst2 from the command line, and both beside an earlier version.

    OMP_NUM_THREADS=1 python -m benchmarks start-up [--before TREE]

CPU seconds of whole processes, which do not depend on what else runs on the machine:
``fewfit --version`` against ``python -c "import numpy"``; and sst2 through ``fewfit fit`` and
``fewfit evaluate`` (two processes, 32 + 1,821 texts, DecT, no store, a masked model), as it is and
with ``dtype=auto``. The texts that the two dtypes do not give the same label are counted.

With ``--before``, the working tree of an earlier version, the same commands and the races of
``speed``, ``grid`` and ``hf_speed``, smaller, run in both trees in turn. Writes
``results/start_up.json``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import RESULTS

TEMPLATE = "{text} In summary, it was {mask}."
HERE = Path(__file__).parents[2]
SHOTS, ROUNDS, STARTS = 16, 3, 9

RACES = {
    "DecT's fit / the same loop in torch": (
        "from benchmarks.{speed} import dect_fit; print(dect_fit()['ratio'])"
    ),
    "the bare network / encoding 1,000 texts": (
        "from benchmarks.{speed} import encoding; print(1 / encoding(1000)['ratio_of_throughput'])"
    ),
    "CPU seconds of a comparison of 240 cells": (
        "import tempfile, time; from benchmarks.{grid} import experiment\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    size = dict(seeds=10, n_test=1000, decoders=8, shots=(1, 4, 16))\n"
        "    experiment(folder + '/store.sqlite', **{{**size, 'decoders': 1}}).run()\n"
        "    start = time.process_time()\n"
        "    experiment(folder + '/store.sqlite', **size).run()\n"
        "    print(time.process_time() - start)"
    ),
    **{
        f"the bare pass without a head / `hf:`, {kind}": (
            "import tempfile; from pathlib import Path; from benchmarks.{hf} import *\n"
            "texts = read_sst2(Path({data!r}), 'train')\n"
            "with tempfile.TemporaryDirectory() as folder:\n"
            f"    path = random_checkpoint({kind!r}, Path(folder) / 'model', texts)\n"
            f"    print(1 / race_bare({kind!r}, path, texts[:80], 'cpu')[0]['ratio'])"
        )
        for kind in ("masked", "causal")
    },
}
"""What is raced -> a program of either tree that prints one number, the less the better."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run all and write the figures."""
    root = Path(os.environ.get("FEWFIT_SHARED", "../shared"))
    parser = argparse.ArgumentParser(description="What starting costs.")
    parser.add_argument("--data", type=Path, default=root / "data")
    parser.add_argument("--model", type=Path, default=root / "models/minilm-mlm")
    parser.add_argument("--before", type=Path, help="working tree of an earlier version")
    parser.add_argument("--output", type=Path, default=RESULTS / "start_up.json")
    options = parser.parse_args(argv)
    trees = {"after": HERE}
    if options.before is not None:
        trees["before"] = options.before.resolve()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables(options.data.resolve(), folder)
        model = options.model.resolve()
        asked: dict[str, Callable[[Path], float]] = {
            "python -c 'import numpy'": lambda tree: cpu(tree, "-c", "import numpy"),
            "fewfit --version": lambda tree: cpu(tree, "-m", "fewfit", "--version"),
        }
        figures |= in_turn(trees, asked, STARTS)
        asked = {"sst2, fit and evaluate": lambda tree: sst2(tree, folder, f"hf:{model}")}
        figures |= in_turn(trees, asked, ROUNDS)
        asked = {"sst2, dtype=auto": lambda tree: sst2(tree, folder, f"hf:{model}?dtype=auto")}
        figures |= in_turn({"after": HERE}, asked, ROUNDS)  # the earlier one may not know it
        wide = labels(folder, f"hf:{model}")
        narrow = labels(folder, f"hf:{model}?dtype=auto")
    if options.before is not None:
        asked = {
            what: lambda tree, code=code: float(printed(tree, code, options.data.resolve()))
            for what, code in RACES.items()
        }
        figures |= in_turn(trees, asked, ROUNDS)
    content = {
        "figures": figures,
        "texts": len(wide),
        "other_labels": sum(a != b for a, b in zip(wide, narrow, strict=True)),
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for what, found in figures.items():
        print(what, {side: round(median(values), 3) for side, values in found.items()})


def in_turn(
    trees: dict[str, Path], asked: dict[str, Callable[[Path], float]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Measure everything in every tree, round by round."""
    found = {what: {side: list[float]() for side in trees} for what in asked}
    for _ in range(rounds):
        for what, measure in asked.items():
            for side, tree in trees.items():
                found[what][side].append(round(measure(tree), 4))
    return found


def tables(data: Path, folder: Path) -> None:
    """Write the first examples of each class, and the test texts, as people have them."""
    for split in ("train", "test"):
        with gzip.open(data / "sst2" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        if split == "train":
            names = sorted({row["label"] for row in rows})
            rows = [r for k in names for r in [r for r in rows if r["label"] == k][:SHOTS]]
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)


def sst2(tree: Path, folder: Path, model: str) -> float:
    """CPU seconds of a fit and an evaluation."""
    with tempfile.TemporaryDirectory() as name:
        task = str(Path(name) / "task")
        words = ("--label", "negative=bad", "--label", "positive=great")
        common = ("--template", TEMPLATE, "--decoder", "dect", "--store", "none")
        fit = ("fit", str(folder / "train.csv"), "-o", task, "--model", model, *words, *common)
        test = ("evaluate", task, str(folder / "test.csv"), "--store", "none")
        return sum(cpu(tree, "-m", "fewfit", *command) for command in (fit, test))


def labels(folder: Path, model: str) -> list[str]:
    """Return the labels of the test texts by DecT on the same examples."""
    from fewfit import DecT, FewShotClassifier

    def column(split: str, name: str) -> list[str]:
        with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as stream:
            return [row[name] for row in csv.DictReader(stream)]

    words = {"negative": "bad", "positive": "great"}
    clf = FewShotClassifier(model, labels=words, template=TEMPLATE, decoder=DecT(), store=None)
    clf.fit(column("train", "text"), column("train", "label"))
    return clf.predict(column("test", "text")).tolist()


def cpu(tree: Path, *command: str) -> float:
    """CPU seconds of a Python process that imports from a tree."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(tree, *command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def printed(tree: Path, code: str, data: Path) -> str:
    """What a program of a tree prints last."""
    inner = "speed." if (tree / "benchmarks" / "speed").is_dir() else ""
    names = {"speed": f"{inner}speed", "grid": f"{inner}grid", "hf": f"{inner}hf_speed"}
    return _run(tree, "-c", code.format(data=str(data), **names)).split()[-1]


def _run(tree: Path, *command: str) -> str:
    paths = f"{tree / 'src'}{os.pathsep}{tree}"
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": paths},
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout
