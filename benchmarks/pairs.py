"""Two fields as one text or as a pair, to a model that embeds: what the hidden state is worth.

    python -m benchmarks pairs [--model embedded] [--seeds 5]

A linear probe on the hidden states of each, on rows of the training splits: a sample is judged on
500 rows that no sample drew. agnews and trec are not pairs: their texts are cut after a third of
the words, to see what is lost where two fields are parts of one text. The data are found as `make
bench` finds them. Writes ``results/pairs.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import data_folder, read_split
from fewfit.compare import sample_shots
from fewfit.decoders import LinearProbe
from fewfit.estimators.opening import open_model
from fewfit.prompts import Template

SETS = ("snli", "mnli", "rte", "wic", "agnews", "trec")
SHOTS, JUDGED = (1, 4, 16), 500
TEMPLATES = {"one text": "{both} {mask}", "a pair": "{text_a} {mask} {text_b}"}


def two_fields(row: dict[str, Any]) -> dict[str, str]:
    """Return the fields of a row, and both in one."""
    a, b = row.get("text_a"), row.get("text_b")
    if a is None or b is None:
        words = row["text"].split()
        third = max(1, len(words) // 3)
        a, b = " ".join(words[:third]), " ".join(words[third:])
    return {"text_a": a, "text_b": b, "both": f"{a} {b}"}


def judged(model: Any, name: str, seeds: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """Return mean and standard deviation of accuracy by way of reading and number of shots."""
    train = read_split(data_folder(), name, "train")
    y = np.array([str(row["label"]) for row in train])
    samples = {n: [sample_shots(y, n, seed=seed) for seed in seeds] for n in SHOTS}
    drawn = np.unique(np.concatenate([rows for some in samples.values() for rows in some]))
    others = np.setdiff1d(np.random.default_rng(0).permutation(len(y)), drawn)
    others = np.random.default_rng(1).permutation(others)[:JUDGED]
    asked = np.concatenate([drawn, others])
    rows = [two_fields(train[i]) for i in asked]
    found: dict[str, dict[str, list[float]]] = {}
    for way, source in TEMPLATES.items():
        hidden = model.observe([Template(source).render(row) for row in rows], ("x",)).hidden
        test = hidden[len(drawn) :]
        for n, some in samples.items():
            right = []
            for sample in some:
                probe = LinearProbe().fit(hidden[np.searchsorted(drawn, sample)], y[sample])
                right.append(float((probe.predict(test) == y[others]).mean()))
            kept = [round(float(np.mean(right)), 4), round(float(np.std(right)), 4)]
            found.setdefault(way, {})[str(n)] = kept
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args(argv)
    model = open_model(args.model, "default")
    path = RESULTS / "pairs.json"
    content: dict[str, Any] = {"model": args.model, "seeds": args.seeds, "sets": {}}
    for name in SETS:
        content["sets"][name] = judged(model, name, range(args.seeds))
        print(name, content["sets"][name], flush=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
