"""What the methods on a network's own weights are for, each against what it claims.

    python -m benchmarks weights_proofs PART... [--causal FOLDER]

- `composition` (LT-SFT): a language that the model has not seen, made by exchanging frequent words
  in pairs; how much of what a task gained in English comes back in it with the language's scalars.
- `stability` (Tinn et al.): runs that fail on a small set, by recipe.
- `pruning` (DSEE): a quarter of the heads and hidden features gone, and cut out; and what the few
  scalars beside the low rank are for.
- `facts`, `forgetting`: see ``weights_causal``.

The first three are on minilm-mlm, the others on the causal model of `--causal`. A part's
result goes into ``results/weights_proofs.json``, in which the other parts stay.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS, weights_causal
from benchmarks.speed.weights_speed import examples
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.prompts import make_views
from fewfit.tuning import (
    Adapter,
    ChoiceExample,
    Data,
    Recipe,
    Run,
    Trunk,
    compose,
    make_method,
    ranked,
    save_adapter,
)
from fewfit.tuning.measure import flops_of
from fewfit.tuning.sparse.slim import slim

PRUNING_STEPS, ROUNDS = 200, 5

WORD = re.compile(r"[A-Za-z]+")


def right(base: Trunk, test: Sequence[ChoiceExample], adapter: Adapter | None = None) -> float:
    """Share of examples whose best choice is the answer."""
    if adapter is None:
        best = ranked(base, test)
    else:
        with adapter.on(base.network):
            best = ranked(base, test, adapter=adapter)
    return float(np.mean([b == t.answer for b, t in zip(best, test, strict=True)]))


def masked_model(max_tokens: int = 64) -> Trunk:
    """Return minilm-mlm."""
    folder = data_folder().parent / "models" / "minilm-mlm"
    return Trunk.load(f"hf:{folder}", reading="words", max_tokens=max_tokens)


# --- composition ---------------------------------------------------------------------------------


def composition(args: argparse.Namespace) -> dict[str, Any]:
    """Task and language, learnt apart and added, on text of which the task has seen nothing."""
    base, task = masked_model(), TASKS["trec"]
    texts = [row["text"] for row in read_split(data_folder(), "trec", "train")]
    kept = {w.lower() for line in task["labels"].values() for w in WORD.findall(line)}
    kept |= {w.lower() for w in WORD.findall(task["template"])}
    tokenizer = base.tokenizer
    counts = Counter(w.lower() for text in texts for w in WORD.findall(text))
    frequent = [
        w
        for w, _ in counts.most_common()
        if w not in kept and len(w) > 1 and len(tokenizer.tokenize(w)) == 1
    ][:400]
    shuffled = np.random.default_rng(0).permutation(frequent).tolist()
    other = dict(zip(shuffled[::2], shuffled[1::2], strict=True))
    other |= {b: a for a, b in other.items()}

    def foreign(text: str) -> str:
        return WORD.sub(lambda m: other.get(m[0].lower(), m[0]), text)

    rng = np.random.default_rng(1)
    rows: list[list[ChoiceExample]] = []
    for text in texts:
        found = list(WORD.finditer(strange := foreign(text)))
        at = [m for m in found if m[0].lower() in other]
        if len(found) > 3 and at:
            m = at[rng.integers(len(at))]
            wrong = rng.choice([w for w in shuffled[:50] if w != m[0].lower()])
            before, after = strange[: m.start()], strange[m.end() :]
            (view,) = make_views("{a} {mask} {b}").views
            if before.strip() and after.strip():
                prompt = view.render({"a": before.strip(), "b": after.strip()})
                rows.append([ChoiceExample(prompt, (m[0].lower(), str(wrong)), 0)])
    english = examples("trec", "test", 500)
    (view,) = make_views(task["template"]).views
    test = read_split(data_folder(), "trec", "test")
    order = np.random.default_rng(0).permutation(len(test))[:500]
    abroad = [
        replace(e, prompt=view.render({"text": foreign(test[i]["text"])}))
        for e, i in zip(english, order, strict=True)
    ]
    labelled = [[e] for e in examples("trec", "train", 800)]
    found_: dict[str, Any] = {
        "words": len(other),
        "language_rows": len(rows),
        "base": {"english": right(base, english), "foreign": right(base, abroad)},
    }
    options = {"share": 0.02, "where": "all"}
    ways = {
        "lt-sft": ("lt-sft", options, 3e-3),
        "random masks": ("random-mask", options, 3e-3),
        "dense": ("full", {}, 1e-4),
    }
    for name, (method_name, given, rate) in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            row: dict[str, float] = {}
            for part, data, steps, size in (("task", labelled, 200, 8), ("lang", rows, 300, 16)):
                recipe = Recipe(steps=steps, batch_size=size, optimizer="adamw", learning_rate=rate)
                method = make_method(method_name, given)
                adapter = method.fit(base, Data(data), Run(recipe))
                paths.append(Path(folder) / part)
                save_adapter(
                    paths[-1],
                    adapter,
                    method=method,
                    base_spec=base.spec,
                    base_identity=base.identity,
                    recipe=recipe,
                    n_examples=len(data),
                )
                if part == "task":
                    row["english"] = right(base, english, adapter)
                    row["foreign"] = right(base, abroad, adapter)
            both = compose(base, paths, Path(folder) / "both")
            row["foreign, language added"] = right(base, abroad, both)
            row["english, language added"] = right(base, english, both)
        found_[name] = row
    return found_


# --- stability -----------------------------------------------------------------------------------

RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "freeze=3": {"freeze": 3},
    "layer_decay=0.8": {"layer_decay": 0.8},
    "reinitialise=1": {"reinitialise": 1},
}


def stability(args: argparse.Namespace) -> dict[str, Any]:
    """Full tuning on 16 rows of each class of trec."""
    base = masked_model()
    pool, test = examples("trec", "train", 5000), examples("trec", "test", 300)
    classes = len(pool[0].choices)
    most = max(np.bincount([t.answer for t in test])) / len(test)
    found: dict[str, Any] = {"majority": float(most)}
    for name, options in RECIPES.items():
        runs = []
        for seed in range(args.seeds * 4):
            order = np.random.default_rng(seed).permutation(len(pool))
            rows = [
                [pool[i]]
                for k in range(classes)
                for i in [j for j in order if pool[j].answer == k][:16]
            ]
            recipe = Recipe(steps=60, optimizer="adamw", learning_rate=args.rate)
            adapter = make_method("full", options).fit(base, Data(rows), Run(recipe, seed))
            runs.append(right(base, test, adapter))
        found[name] = runs
    return found


# --- pruning -------------------------------------------------------------------------------------


def pruning(args: argparse.Namespace) -> dict[str, Any]:
    """DSEE on 800 rows of trec: dense with S_2 of several sizes, and a quarter pruned and cut."""
    base, pool = masked_model(), examples("trec", "train", 800)
    rows, test = Data([[row] for row in pool]), examples("trec", "test", 500)
    found: dict[str, Any] = {"rows": len(pool), "steps": PRUNING_STEPS, "scalars": {}}
    for n in (0, 16, 64):
        found["scalars"][str(n)] = [
            right(base, test, _dual(base, rows, seed, n=n)) for seed in range(args.seeds)
        ]
    less = {"n": 64, "prune": 0.25, "structured": True}
    pruned = [_dual(base, rows, seed, **less) for seed in range(args.seeds)]
    found["pruned"], cut = [right(base, test, adapter) for adapter in pruned], masked_model()
    pruned[0].merge(cut.network)
    found["lost"] = sum(slim(cut.network, cut.sites).values())
    found["cut"] = right(cut, test)
    trunks = {"dense": base, "cut": cut}
    found["flops"] = {name: flops_of(partial(_read, t, test)).forward for name, t in trunks.items()}
    taken: dict[str, list[float]] = {name: [] for name in trunks}
    for _ in range(ROUNDS):
        for name, trunk in trunks.items():
            start = time.process_time()
            _read(trunk, test)
            taken[name].append(time.process_time() - start)
    found["seconds"] = {name: median(values) for name, values in taken.items()}
    return found


def _dual(base: Trunk, rows: Data, seed: int, **options: Any) -> Adapter:
    recipe = Recipe(steps=PRUNING_STEPS, optimizer="adamw", learning_rate=1e-3)
    return make_method("dsee", options).fit(base, rows, Run(recipe, seed))


def _read(base: Trunk, test: Sequence[ChoiceExample]) -> torch.Tensor:
    ranked(base, test)
    return torch.zeros(())


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "composition": composition,
    "facts": weights_causal.facts,
    "forgetting": weights_causal.forgetting,
    "stability": stability,
    "pruning": pruning,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--causal", help="Folder of a causal checkpoint, as SmolLM2-135M.")
    parser.add_argument("--facts", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="Facts of a step.")
    parser.add_argument("--fact-rates", type=float, nargs="+", default=[5e-4, 2e-3, 5e-3])
    parser.add_argument("--steps", type=int, default=100, help="Of forgetting.")
    parser.add_argument("--seeds", type=int, default=2, help="Stability takes four times as many.")
    parser.add_argument("--rate", type=float, default=5e-4, help="Of stability.")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = RESULTS / "weights_proofs.json"
    for part in args.parts:
        start = time.process_time()
        found = PARTS[part](args)
        found["cpu_s"] = time.process_time() - start
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        content[part] = found
        print(json.dumps(found, indent=1))
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
