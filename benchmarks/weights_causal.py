"""What LocFT and HFT claim, two parts of ``weights_proofs``, on a causal model.

- `facts` (LocFT): made-up facts, breadth first against depth first; what becomes of prose.
- `forgetting` (HFT): sums, by full tuning and by half of it; what becomes of prose.
"""

from __future__ import annotations

import argparse
import gzip
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.tasks import data_folder
from fewfit.prompts import Template
from fewfit.tuning import Adapter, ChoiceExample, Data, Recipe, Run, Trunk, make_method
from fewfit.tuning.sparse.locft import recalled


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
