"""What PANDA claims, a member of ``prompt_proofs``: what a prompt of another task is worth.

Six source tasks and four targets, 32 rows of each class, on minilm-mlm in bfloat16. Three ways for
each pair: prompt tuning that starts from words, prompt transfer (the source's prompt is tuned on),
and PANDA (what the transferred prompt says teaches one that starts from words). And whether the
gain of transfer could be told before: Spearman's correlation, over the sources of a target, of the
gain with the likeness of source and target prompt by the states they lead to, and by the prompts
themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn.functional import cosine_similarity

from benchmarks.choices import examples
from benchmarks.prompt_claims import masked_model
from fewfit.tuning import Adapter, ChoiceExample, Data, Run, Trunk, make_method
from fewfit.tuning.prompts.panda import LIKENESS_ROWS, likeness
from fewfit.tuning.reading import encode_rows, scored

SOURCES = ("agnews", "dbpedia", "mpqa", "tweet_irony", "tweet_offensive", "imdb")
TARGETS = ("sst2", "trec", "subj", "mr")
M, SHOTS, SOURCE_SHOTS = 20, 32, 64


def drawn(name: str, shots: int, seed: int) -> list[list[ChoiceExample]]:
    """Return so many rows of each class."""
    pool = examples(name, "train")
    order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).tolist()
    answers = sorted({item.answer for item in pool})
    return [[pool[i]] for k in answers for i in [j for j in order if pool[j].answer == k][:shots]]


def accuracy(base: Trunk, adapter: Adapter, test: Sequence[ChoiceExample]) -> float:
    """Return the share of rows whose best choice is the answer."""
    items = [row[0] for row in encode_rows(base, [[item] for item in test])]
    with adapter.on(base.network):
        best = scored(base, items, adapter=adapter).argmax(1)
    return float(sum(int(b) == t.answer for b, t in zip(best, test, strict=True)) / len(test))


def panda(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Accuracy of the three ways, means over the sources, and the correlations, by target."""
    base, method = masked_model(64), make_method("prompt-tuning", {"m": M})
    learner: Any = make_method("panda", {"m": M})
    for seed in range(args.draws):
        sources: dict[str, Adapter] = {}
        for name in SOURCES:
            recipe = replace(method.usual(), steps=2 * args.steps)
            rows = drawn(name, SOURCE_SHOTS, seed)
            sources[name] = method.fit(base, Data(rows), Run(recipe, seed))
        for target in TARGETS:
            test = examples(target, "test")
            order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0)).tolist()
            test = [test[i] for i in order[: args.test_rows]]
            rows = drawn(target, SHOTS, seed)
            run = Run(replace(method.usual(), steps=args.steps), seed)
            own = method.fit(base, Data(rows), run)
            alone = accuracy(base, own, test)
            some = [row[0] for row in encode_rows(base, rows[:LIKENESS_ROWS])]
            told, taught, states, prompts = [], [], [], []
            for source in sources.values():
                start = replace(run, start=source.tensors())
                told.append(accuracy(base, method.fit(base, Data(rows), start), test))
                taught.append(accuracy(base, learner.fit(base, Data(rows), start), test))
                states.append(likeness(base, source, own, some))
                prompts.append(cosine(source, own))
            gains, key = np.array(told) - alone, "Spearman with the gain"
            yield {
                "set": target,
                "draw": seed,
                "likeness of prompts": {key: float(spearmanr(prompts, gains).statistic)},
                "likeness of states": {key: float(spearmanr(states, gains).statistic)},
                "prompt-tuning": {"accuracy": alone},
                "transfer": {"accuracy": float(np.mean(told))},
                "panda": {"accuracy": float(np.mean(taught))},
                "sources": dict(zip(sources, zip(told, taught, strict=True), strict=True)),
            }


def cosine(one: Any, other: Any) -> float:
    """Return the cosine of the mean vectors of two prompts."""
    return float(cosine_similarity(one.P.mean(0), other.P.mean(0), dim=0))
