"""What the methods on a network's own weights are for, each against what it claims.

    python -m benchmarks weights_proofs PART... [--causal FOLDER]

- `composition` (LT-SFT): a language that the model has not seen, made by exchanging frequent words
  in pairs; how much of what a task gained in English comes back in it with the language's scalars.
- `facts` (LocFT): made-up facts, breadth first against depth first; what becomes of prose.
- `forgetting` (HFT): sums, by full tuning and by half of it; what becomes of prose.
- `stability` (Tinn et al.): runs that fail on a small set, by recipe.

The first and the last are on minilm-mlm, the others on the causal model of `--causal`. A part's
result goes into ``results/weights_proofs.json``, in which the other parts stay.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.speed.weights_speed import examples
from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.prompts import Template, make_views
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
from fewfit.tuning.sparse.locft import recalled

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
        "lt-sft": ("lt-sft", options, 5e-4),
        "random masks": ("random-mask", options, 5e-4),
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


# --- a causal model: facts, and what is forgotten ------------------------------------------------


def continued(prompt: str, target: str) -> ChoiceExample:
    """A prompt and what is to follow; the other choice is never read."""
    view = Template("{text} {mask}").render({"text": prompt})
    return ChoiceExample(view, (target, f"not {target}"), 0)


def prose(n: int = 24) -> list[ChoiceExample]:
    """Beginnings of paragraphs, each with what follows as its answer."""
    path = data_folder() / "text" / "wikitext2_test.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        long = [line.strip() for line in stream if len(line.split()) > 80]
    out = []
    for line in long[:: max(1, len(long) // n)][:n]:
        words = line.split()
        out.append(continued(" ".join(words[:20]), " ".join(words[20:60])))
    return out


@torch.inference_mode()
def nats(base: Trunk, texts: Sequence[ChoiceExample], adapter: Adapter | None = None) -> float:
    """Mean loss of a token of the answers."""
    total, n = 0.0, 0
    for text in texts:
        batch = base.pack([base.encoder.encode(text, only_answer=True)]).to(base.device)
        tokens, _ = base.read(batch if adapter is None else adapter.rewrite(batch, base))
        total -= float(tokens.log_probs.sum())
        n += tokens.log_probs.numel()
    return total / n


def causal(args: argparse.Namespace) -> Trunk:
    """Return the causal model that was named."""
    if args.causal is None:
        raise SystemExit("this part needs --causal FOLDER, a causal checkpoint")
    return Trunk.load(f"hf:{args.causal}", reading="answers", max_tokens=96)


def facts(args: argparse.Namespace) -> dict[str, Any]:
    """Facts that are in no book, in two wordings each."""
    rng = np.random.default_rng(0)
    starts = ["Bar", "Cel", "Dor", "Fen", "Gal", "Hol", "Jor", "Kel", "Lam", "Mor"]
    ends = ["van", "dis", "ton", "rek", "lia"]
    names = [f"{a}{b} {c}{d}" for a in starts for b in ends for c in starts for d in ends]
    people = rng.permutation(names)[: args.facts].tolist()
    towns = [f"{a}{b}" for a in starts for b in ends]
    homes = rng.choice(towns, len(people)).tolist()
    taught = [
        continued(f"{p} was born in the town of", h) for p, h in zip(people, homes, strict=True)
    ]
    again = [
        continued(f"The town where {p} was born is", h) for p, h in zip(people, homes, strict=True)
    ]
    base, texts = causal(args), prose()
    found: dict[str, Any] = {
        "facts": len(taught),
        "before": {"known": float(np.mean(recalled(base, taught))), "prose": nats(base, texts)},
    }
    ways = {
        f"{name}, rate {rate:g}": (deep, rate)
        for rate in args.fact_rates
        for name, deep in (("breadth first", False), ("depth first", True))
    }
    for name, (deep, rate) in ways.items():
        method = make_method("locft", {"depth_first": deep})
        start = time.process_time()
        recipe = replace(method.recipe, batch_size=args.batch, learning_rate=rate)
        adapter = method.fit(base, Data([[fact] for fact in taught]), Run(recipe))
        took = time.process_time() - start
        with adapter.on(base.network):
            found[name] = {
                "known": float(np.mean(recalled(base, taught, adapter))),
                "rephrased": float(np.mean(recalled(base, again, adapter))),
                "prose": nats(base, texts, adapter),
                "cpu_s": took,
            }
    return found


def forgetting(args: argparse.Namespace) -> dict[str, Any]:
    """Sums of two numbers below 50; what full tuning and half of it make of prose."""
    base, texts = causal(args), prose()
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(a, b) for a in range(50) for b in range(50)])

    def sums(some: Any) -> list[ChoiceExample]:
        return [continued(f"{a} plus {b} is", str(a + b)) for a, b in some]

    train, test = sums(pairs[:400]), sums(pairs[400:500])
    found: dict[str, Any] = {
        "before": {"sums": float(np.mean(recalled(base, test))), "prose": nats(base, texts)}
    }
    for name in ("full", "hft"):
        runs = []
        for seed in range(args.seeds):
            method = make_method(name)
            recipe = Recipe(steps=args.steps, optimizer="adamw", learning_rate=5e-5, dropout=False)
            start = time.process_time()
            adapter = method.fit(base, Data([[row] for row in train]), Run(recipe, seed))
            took = time.process_time() - start
            with adapter.on(base.network):
                runs.append(
                    {
                        "sums": float(np.mean(recalled(base, test, adapter))),
                        "prose": nats(base, texts, adapter),
                        "cpu_s": took,
                        "optimiser_bytes": 8 * adapter.count,
                    }
                )
        found[name] = runs
    return found


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


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "composition": composition,
    "facts": facts,
    "forgetting": forgetting,
    "stability": stability,
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
