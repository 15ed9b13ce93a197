"""Tuned on one task, measured on others: the second half of the study of subsets.

    python -m benchmarks subset_transfer [--seeds 3] [--tuned-on trec,agnews]

Ploner and Akbik (2024) report that tuning a subset of a network's weights costs it more of what it
is good for elsewhere than what is added beside them does. A method trains minilm-mlm on one set;
then the model is taken as it is for another one: the default decoder, which reads the label words
too, and a linear probe, which reads the hidden state alone, learn from 16 texts of each class. A
cell that is in ``results/subset_transfer.jsonl`` is not run again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.cells import add_cell, read_cells
from benchmarks.run import rows_of
from benchmarks.tasks import TASKS, data_folder
from fewfit import FewShotClassifier
from fewfit.compare import sample_shots
from fewfit.markdown import markdown_table
from fewfit.prompts import Template
from fewfit.tuning import ChoiceExample, Data, Run, Trunk, TunedModel, make_method
from fewfit.tuning.artifact import adapter_files

BASE = "hf:../shared/models/minilm-mlm?dtype=bfloat16"
ASKED = f"{BASE}&max_tokens=64"
SETS = ("trec", "agnews", "subj", "sst2")
SHOTS, TUNED_SHOTS, STEPS, TEST_ROWS = 16, 64, 60, 300
DECODERS = ("offset-regression", "linear-probe")
METHODS: Mapping[str, Mapping[str, Any]] = {
    "untuned": {},
    "full": {},
    "lora": {},
    "ia3": {},
    "random-mask": {"share": 0.005},
    "magnitude-mask": {"share": 0.005},
    "gradient-mask": {"share": 0.005},
    "fish": {"share": 0.005},
    "lt-sft": {"share": 0.005},
    "bitfit": {},
    "layer-norms": {},
    "last-blocks": {},
}
PATH = RESULTS / "subset_transfer.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing of the cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuned-on", default="trec,agnews")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    known = [(c["tuned_on"], c["method"], c["seed"]) for c in read_cells(PATH)]
    base = Trunk.load(BASE, reading="words", max_tokens=64)
    for seed in range(args.seeds):
        for name, method in product(args.tuned_on.split(","), METHODS):
            if (name, method, seed) not in known:
                cell = run(base, name, method, seed)
                add_cell(PATH, cell)
                print(cell, flush=True)


def run(base: Trunk, name: str, method: str, seed: int) -> dict[str, Any]:
    """Train on a set, and return what decoders on top of it reach there and elsewhere."""
    model: Any = ASKED if method == "untuned" else tuned(base, name, method, seed)
    found = {other: fitted(model, other, seed) for other in SETS}
    return {"tuned_on": name, "method": method, "seed": seed, "accuracy": found}


def tuned(base: Trunk, name: str, method: str, seed: int) -> TunedModel:
    """Return the model that a method makes of a sample."""
    train, _ = rows_of(data_folder(), name)
    y = [str(row["label"]) for row in train]
    words: Mapping[str, str] = TASKS[name]["labels"]
    template, classes = Template(TASKS[name]["template"]), list(words)
    rows = [
        [ChoiceExample(template.render(train[i]), tuple(words.values()), classes.index(y[i]))]
        for i in sample_shots(y, TUNED_SHOTS, seed=seed)
    ]
    made = make_method(method, METHODS[method])
    recipe = replace(made.usual(), steps=STEPS)
    adapter = made.fit(base, Data(rows), Run(recipe, seed))
    files = adapter_files(
        adapter,
        method=made,
        base_spec=base.spec,
        base_identity=base.identity,
        recipe=recipe,
        n_examples=len(rows),
    )
    return TunedModel.of(files, trunk=base)


def fitted(model: Any, name: str, seed: int) -> dict[str, float]:
    """Return the accuracy of each decoder on a set, few-shot."""
    train, test = rows_of(data_folder(), name, TEST_ROWS)
    y = np.array([str(row["label"]) for row in train])
    sample = sample_shots(y, SHOTS, seed=seed)
    texts, labels = [train[i]["text"] for i in sample], y[sample].tolist()
    truth = np.array([str(row["label"]) for row in test])
    found = {}
    for decoder in DECODERS:
        given = {"template": TASKS[name]["template"], "labels": TASKS[name]["labels"]}
        clf = FewShotClassifier(model, decoder=decoder, **given).fit(texts, labels)
        found[decoder] = float(np.mean(clf.predict([row["text"] for row in test]) == truth))
    return found


def section(path: Path) -> str:
    """Tell what is left elsewhere."""
    found = read_cells(path.with_suffix(".jsonl"))
    texts = []
    for name in dict.fromkeys(cell["tuned_on"] for cell in found):
        own = [cell for cell in found if cell["tuned_on"] == name]
        texts.append(_table(name, own))
    return (
        "\n## Weights: tuned on one task, measured on others\n\n"
        "`python -m benchmarks subset_transfer`\n\n"
        f"minilm-mlm in bfloat16, {STEPS} steps on {TUNED_SHOTS} texts of each class at each "
        f"recipe's rate; then decoders on {SHOTS} texts of each class, {TEST_ROWS} test rows. "
        "Masks have half a percent of the matrices of the blocks. What is beside an accuracy is "
        "the mean difference to the untuned model over sets and draws, and its standard error."
        "\n\n" + "\n".join(texts)
    )


def _table(name: str, own: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({cell["seed"] for cell in own})
    by = {(cell["method"], cell["seed"]): cell["accuracy"] for cell in own}
    others = tuple(other for other in SETS if other != name)
    methods = [m for m in METHODS if all((m, seed) in by for seed in seeds)]

    def values(method: str, sets: Sequence[str], decoder: str) -> np.ndarray[Any, Any]:
        pairs = product(sets, seeds)
        return 100 * np.array([by[method, seed][other][decoder] for other, seed in pairs])

    rows = []
    for method in methods:
        row = [method]
        for sets in ((name,), others):
            for decoder in DECODERS:
                at = values(method, sets, decoder)
                away = at - values("untuned", sets, decoder)
                error = away.std(ddof=1) / len(away) ** 0.5
                beside = "" if method == "untuned" else f" ({away.mean():+.1f} ± {error:.1f})"
                row.append(f"{at.mean():.1f}{beside}")
        rows.append(row)
    header = [f"tuned on {name}"]
    header += [f"{where}, {d}" for where in (name, ", ".join(others)) for d in DECODERS]
    return f"{markdown_table(header, rows)}\n\n{len(seeds)} draws.\n"
