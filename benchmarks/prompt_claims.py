"""What PTEC and ProMoT claim, two members of ``prompt_proofs``. On minilm-mlm in
bfloat16.

- `ptec`: texts of two intents (utterances of clinc150, joined in pairs; 30 intents, 8 of each). A
  prompt learnt with a head per label, against the same head on the frozen model, and against a
  prompt that is tuned to name one intent, whose two best are taken.
- `promot`: sentiment, answered with true or false. Full tuning against full tuning behind a prompt;
  how often either then answers true or false where it was asked for something else.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from benchmarks.tasks import TASKS, data_folder, read_split
from fewfit.decoders import MultiLabel
from fewfit.prompts import make_views
from fewfit.tuning import Adapter, ChoiceExample, Data, Recipe, Run, Trunk, make_method
from fewfit.tuning.losses import Objective
from fewfit.tuning.method import Rows, learn
from fewfit.tuning.prompts.prompt_tuning import PromptTuning
from fewfit.tuning.prompts.ptec import PTEC, states_only
from fewfit.tuning.reading import answers, encode_rows, query_flops, scored

Labels = NDArray[np.intp]
K, SHOTS = 30, 8
ABOUT, TRUE = "{text} This is about {mask} .", "{text} That is good : {mask} ."
OFF = ("agnews", "trec")


def masked_model(max_tokens: int) -> Trunk:
    """Return minilm-mlm."""
    folder = data_folder().parent / "models" / "minilm-mlm"
    return Trunk.load(f"hf:{folder}?dtype=bfloat16", reading="words", max_tokens=max_tokens)


# --- PTEC ----------------------------------------------------------------------------------------


def pairs(split: str, names: Sequence[str], n: int, seed: int) -> tuple[Rows, Labels]:
    """Return texts of two intents, and which (N, 2); each intent comes up equally often."""
    own: dict[str, list[str]] = {name: [] for name in names}
    for row in read_split(data_folder(), "clinc150", split):
        if row["label"] in own:
            own[row["label"]].append(row["text"])
    rng, view = np.random.default_rng(seed), make_views(ABOUT).views[0]
    words = tuple(name.replace("_", " ") for name in names)
    drawn = {name: rng.permutation(texts).tolist() for name, texts in own.items()}
    used, rows, sets = dict.fromkeys(names, 0), [], []
    while len(rows) < n:
        order = rng.permutation(len(names)).reshape(-1, 2)
        for pair in order[: n - len(rows)].tolist():
            said = []
            for name in (names[int(k)] for k in pair):
                said.append(drawn[name][used[name] % len(drawn[name])])
                used[name] += 1
            text = f"{said[0]} . {said[1]} ."
            rows.append([ChoiceExample(view.render({"text": text}), words, pair[0])])
            sets.append(pair)
    return rows, np.array(sets)


def states(base: Trunk, rows: Rows, prompt: Adapter) -> NDArray[np.float32]:
    """Return the hidden state of each row's slot, (N, H), a prompt in front."""
    found = np.zeros((len(rows), base.network.config.hidden_size), dtype=np.float32)
    items = [row[0] for row in states_only(base, rows)]
    with prompt.on(base.network):
        for some, tokens in answers(base, items, None, prompt, 32):
            assert tokens.states is not None
            found[some] = tokens.states.float().numpy()
    return found


def macro(Y: Labels, given: Labels) -> float:
    """Macro-F1 of indicators, where a label that is never given has 0."""
    return float(f1_score(Y, given, average="macro", zero_division=0))


def ones(sets: Labels) -> Labels:
    """Return an indicator (N, K)."""
    Y = np.zeros((len(sets), K), dtype=np.intp)
    np.put_along_axis(Y, sets, 1, 1)
    return Y


def ptec(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Macro-F1 of three ways, draw by draw."""
    base = masked_model(64)
    every = sorted({row["label"] for row in read_split(data_folder(), "clinc150", "train")})

    def names(seed: int) -> list[str]:
        return [every[i] for i in np.random.default_rng([9, seed]).permutation(len(every))[:K]]

    def one(train: Any, test: Any, seed: int) -> dict[str, float]:
        (rows, sets), (new, truth) = train, test
        recipe = replace(PTEC.recipe, steps=args.steps, dropout=False)
        bare, found = PromptTuning(m=0).build(base, 0), {}
        tuned = PTEC(m=10).fit(base, Data(rows, sets=sets.tolist()), Run(recipe, seed))
        for way, prompt in (("head only", bare), ("ptec", tuned)):
            head = MultiLabel().fit(states(base, rows, prompt), ones(sets))
            found[way] = macro(ones(truth), head.predict(states(base, new, prompt)))
        return found

    def ranking(train: Any, test: Any, seed: int) -> tuple[float, Adapter]:
        (rows, sets), (new, truth) = train, test
        each = [
            [ChoiceExample(row[0].prompt, row[0].choices, int(k))]
            for row, pair in zip(rows, sets, strict=True)
            for k in pair
        ]
        method, plain = PromptTuning(m=10), Objective(False, False)
        prompt = method.build(base, seed)
        recipe = Recipe(args.steps, 8, method.recipe.learning_rate, dropout=False)
        run = Run(recipe, seed)
        learn(base, prompt, each, lambda t, *_: plain(t), run, recipe, only_answer=True)
        with prompt.on(base.network):
            items = [row[0] for row in encode_rows(base, new)]
            beta = scored(base, items, adapter=prompt, batch_size=16)
        return macro(ones(truth), ones(np.argsort(-beta, axis=1)[:, :2])), prompt

    cut = K * SHOTS // 2
    for seed in range(args.draws):
        mine = names(seed)
        train, test = pairs("train", mine, cut, seed), pairs("test", mine, args.test_rows, seed)
        got = one(train, test, seed)
        named, prompt = ranking(train, test, seed)
        with prompt.on(base.network):
            items, first = encode_rows(base, test[0][:8]), states_only(base, test[0][:8])
            flops = [query_flops(base, [row[0] for row in rows], prompt) for rows in (items, first)]
        yield {
            "set": "clinc150, in pairs",
            "draw": seed,
            "head alone": {"macro-F1": got["head only"]},
            "prompt, its two best": {"macro-F1": named, "GFLOP a row": flops[0] / 1e9},
            "ptec": {"macro-F1": got["ptec"], "GFLOP a row": flops[1] / 1e9},
        }


# --- ProMoT --------------------------------------------------------------------------------------


def promot(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Accuracy on the task, and what becomes of other questions."""
    base = masked_model(48)
    words, view = ("false", "true"), make_views(TRUE).views[0]

    def task(split: str, n: int, seed: int) -> Rows:
        rows = read_split(data_folder(), "sst2", split)
        order = np.random.default_rng(seed).permutation(len(rows))[:n]
        positive = str(max(row["label"] for row in rows))
        return [
            [
                ChoiceExample(
                    view.render({"text": r["text"]}), words, int(str(r["label"]) == positive)
                )
            ]
            for r in (rows[i] for i in order)
        ]

    other: Rows = []
    for name in OFF:
        rows, own = read_split(data_folder(), name, "test")[:150], TASKS[name]
        asked = make_views(own["template"]).views[0]
        other = [
            *other,
            *[[ChoiceExample(asked.render({"text": r["text"]}), words, 0)] for r in rows],
        ]
    ids = [base.tokenizer.convert_tokens_to_ids(word) for word in words]
    plain = said(base, other, None)
    test = task("test", args.test_rows, 0)
    for seed in range(args.draws):
        rows = task("train", 512, seed + 1)
        found: dict[str, Any] = {"set": "sst2", "draw": seed}
        recipe = Recipe(args.steps, 8, 1e-4, optimizer="adamw", dropout=False)
        ways = {"full": ("full", {}), "promot": ("promot", {"m": 10, "adapter": "full"})}
        for way, (name, options) in ways.items():
            tuned: Any = make_method(name, options).fit(base, Data(rows), Run(recipe, seed))
            with tuned.on(base.network):
                items = [row[0] for row in encode_rows(base, test)]
                best = scored(base, items, adapter=tuned).argmax(1)
            right = float(np.mean(best == [row[0].answer for row in test]))
            tuned.enabled = False  # of a prompt; full tuning has none
            off = said(base, other, tuned)
            kl = (plain.exp() * (plain - off)).sum(1).mean()
            found[way] = {
                "accuracy": right,
                "true or false, off task": share(off, ids),
                "KL off task, nats": float(kl),
            }
        found["promot"]["untuned: true or false, off task"] = share(plain, ids)
        yield found


def said(base: Trunk, rows: Rows, adapter: Adapter | None) -> torch.Tensor:
    """Return the log-probabilities of all tokens at the slot, (N, V)."""
    kept: list[torch.Tensor] = []
    head = base.network.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _, __, out: kept.append(out.reshape(-1, out.shape[-1]))
    )
    try:
        for row in states_only(base, rows):
            batch = base.pack([row[0]])
            with torch.inference_mode():
                if adapter is None:
                    base.read(batch)
                    continue
                with adapter.on(base.network):
                    base.read(adapter.rewrite(batch, base))
    finally:
        handle.remove()
    return torch.cat(kept).float().log_softmax(1)


def share(log_p: torch.Tensor, ids: Sequence[int]) -> float:
    """Share of slots whose most probable token is one of these."""
    return float(torch.isin(log_p.argmax(1), torch.tensor(ids)).float().mean())
