"""Whether T-Few and PET learn what they learnt in an earlier version of this project, bit for bit.

    python -m benchmarks vectors --before TREE --model FOLDER [--steps 20] [--data DIR]

TREE is a checkout of the earlier version. Both read the same 32 rows of agnews and trec, and 40
more without their labels; once with texts cut at 48 tokens, once with none cut. Writes
``results/vectors.json``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATES = ("{text} what is it about ? {mask}", "text : {text} this is about {mask}")
LABELS: dict[str, dict[str, str]] = {
    "agnews": {
        "World": "politics",
        "Sports": "sports",
        "Business": "business",
        "Sci/Tech": "technology",
    },
    "trec": {
        "description": "description",
        "entity": "thing",
        "abbreviation": "abbreviation",
        "human": "person",
        "number": "number",
        "location": "place",
    },
}
LIMITS = (48, 200)


def main(argv: Sequence[str] | None = None) -> None:
    """Train in both trees and compare."""
    from benchmarks import RESULTS
    from benchmarks.tasks import data_folder

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--data", type=Path, default=data_folder())
    args = parser.parse_args(argv)
    here = Path(__file__).parents[1]
    was, now = (_trained(tree, args) for tree in (args.before, here))
    rows = [
        {k: v for k, v in new.items() if k != "vectors"}
        | {"same": new["vectors"] == old["vectors"]}
        for old, new in zip(was, now, strict=True)
    ]
    RESULTS.mkdir(exist_ok=True)
    content = {"steps": args.steps, "rows": rows}
    (RESULTS / "vectors.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _trained(tree: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run this file on a tree's own code."""
    asked = [str(args.model.absolute()), str(args.steps), str(args.data.absolute())]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *asked],
        env={**os.environ, "PYTHONPATH": str(tree.absolute() / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def _train(model: str, steps: int, data: Path) -> list[dict[str, Any]]:
    """Train with the code that is found first."""
    import numpy as np

    from fewfit.prompts import Template
    from fewfit.tuning import ChoiceExample, Objective, Recipe, Trunk, pet, t_few

    found: list[dict[str, Any]] = []
    for name, labels in LABELS.items():
        with gzip.open(data / name / "train.jsonl.gz", "rt", encoding="utf-8") as stream:
            lines = [json.loads(line) for line in stream]
        order = np.random.default_rng(0).permutation(len(lines))
        classes, words = list(labels), tuple(labels.values())

        def wordings(i: int, lines: Any = lines, classes: Any = classes, words: Any = words) -> Any:
            text, answer = {"text": lines[i]["text"]}, classes.index(lines[i]["label"])
            return [ChoiceExample(Template(t).render(text), words, answer) for t in TEMPLATES]

        rows, pool = ([wordings(i) for i in some] for some in (order[:32], order[32:72]))
        for limit in LIMITS:
            recipe = Recipe(steps=steps)
            trunk = Trunk.load(f"hf:{model}", dtype="bfloat16", max_tokens=limit)
            for method, vectors in (
                ("T-Few", t_few(trunk, rows, recipe=recipe)),
                ("LM alone", t_few(trunk, rows, recipe=recipe, objective=Objective(False, False))),
                ("PET", pet(trunk, rows, pool, repetitions=1, recipe=recipe)),
            ):
                kept = vectors.of()
                data_of = b"".join(
                    kept[k].detach().contiguous().numpy().tobytes() for k in sorted(kept)
                )
                digest = hashlib.sha256(data_of).hexdigest()
                found.append({"set": name, "tokens": limit, "method": method, "vectors": digest})
    return found


if __name__ == "__main__":
    print(json.dumps(_train(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
