"""What prompts that are learnt are for, each against what its paper claims.

    python -m benchmarks prompt_proofs --member NAME [--draws 3] [--steps 60] [--causal FOLDER]

- `prompt`: prompt tuning against zero-shot, 64 rows of each class. The claim of this library alone:
  its default rate learns.
- `dept`: DePT against prompt tuning with as many values, those of 100 vectors (Shi & Lipani: no
  worse, in less time).
- `ept`: EPT against DePT, 20 vectors each (Lan et al.: better). EPT is a reconstruction.
- `iapt`: IAPT against prompt tuning, 20 vectors (Zhu et al.: better, at 4 tokens a layer). A
  reconstruction.
- `cpt`: CPT against in-context learning with the same examples, and against a prompt of as many
  vectors; accuracy and the loss on test rows (Blau et al.: better, and no overfitting). On the
  causal model of `--causal`.
- `mam`: bottlenecks in series and parallel, at the attention and at the feed-forward, as many
  values each (He et al.: parallel at the feed-forward is best).
- `apt`: APT against as many vectors before the text and against as many keys and values of each
  attention, 50 (Wu et al.: as accurate, at a fifth of what is computed more).
- `panda`: see ``prompt_transfer``; `ptec`, `promot`: see ``prompt_claims``.

All but `cpt` are on minilm-mlm in bfloat16. Rates are the recipes'. Every arm of a draw
has the same rows, and differences are paired by set and draw. A member's result goes into
``results/prompt_proofs.json`` after each draw, in which the others stay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks import RESULTS, prompt_claims, prompt_report, prompt_transfer
from benchmarks.choices import examples
from benchmarks.tasks import data_folder
from fewfit.tuning import Adapter, ChoiceExample, Data, Run, Trunk, make_method
from fewfit.tuning.reading import query_flops, scored

SETS = ("sst2", "trec", "subj")
TOKENS, LONG, FRONT = 64, 100, 20
"""Tokens of a text, and vectors of a long prompt and of a short one."""

Arm = tuple[str, Mapping[str, Any]]
"""A method and its options."""

Draw = dict[str, Any]
"""Of one set and draw: arm -> accuracy, loss and CPU seconds of the training."""


def sample(pool: Sequence[ChoiceExample], shots: int, seed: int) -> list[list[ChoiceExample]]:
    """Return `shots` rows of each class, drawn."""
    order = np.random.default_rng(seed).permutation(len(pool))
    classes = sorted({item.answer for item in pool})
    return [[pool[i]] for k in classes for i in [j for j in order if pool[j].answer == k][:shots]]


def judged(base: Trunk, test: Sequence[ChoiceExample], adapter: Adapter | None) -> Draw:
    """Return accuracy and mean cross-entropy over the choices, nats."""
    encoded = [base.encoder.encode(item) for item in test]
    if adapter is None:
        beta = torch.from_numpy(scored(base, encoded))
    else:
        with adapter.on(base.network):
            beta = torch.from_numpy(scored(base, encoded, adapter=adapter))
    truth = torch.tensor([item.answer for item in test])
    right = (beta.argmax(1) == truth).float().mean()
    with nullcontext() if adapter is None else adapter.on(base.network):
        flops = query_flops(base, encoded, adapter)
    return {
        "accuracy": float(right),
        "loss": float(cross_entropy(beta, truth)),
        "GFLOP a row": flops / 1e9,
    }


def trained(
    base: Trunk, arm: Arm, rows: Sequence[Sequence[ChoiceExample]], steps: int, seed: int
) -> tuple[Adapter, float]:
    """Return an adapter, and the processor seconds that it took."""
    method = make_method(*arm)
    start = time.process_time()
    run = Run(replace(method.usual(), steps=steps), seed)
    return method.fit(base, Data(rows), run), time.process_time() - start


def draws_of(
    base: Trunk, arms: Mapping[str, Arm | None], shots: int, args: argparse.Namespace
) -> Iterator[Draw]:
    """Train and judge all arms on the sets, draw by draw; None is the network alone."""
    for seed in range(args.draws):
        for name in SETS:
            test = examples(name, "test")
            order = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
            test = [test[i] for i in order]
            rows = sample(examples(name, "train"), shots, seed)
            found: Draw = {"set": name, "draw": seed}
            for label, arm in arms.items():
                if arm is None:
                    found[label] = judged(base, test, None)
                    continue
                adapter, taken = trained(base, arm, rows, args.steps, seed)
                found[label] = judged(base, test, adapter) | {"cpu_s": taken}
                found[label]["values"] = adapter.count
            yield found


def masked_model() -> Trunk:
    """Return minilm-mlm."""
    folder = data_folder().parent / "models" / "minilm-mlm"
    return Trunk.load(f"hf:{folder}?dtype=bfloat16", reading="words", max_tokens=TOKENS)


def prompt(args: argparse.Namespace) -> Iterator[Draw]:
    """Prompt tuning with its default rate, and nothing."""
    arms = {"zero-shot": None, "prompt-tuning": ("prompt-tuning", {})}
    return draws_of(masked_model(), arms, 64, args)


def dept(args: argparse.Namespace) -> Iterator[Draw]:
    """As many values: a long prompt, and a short one with an offset."""
    base = masked_model()
    width = int(base.network.config.hidden_size)
    rank = (LONG - FRONT) * width // (TOKENS + width)
    arms = {
        "prompt-tuning": ("prompt-tuning", {"m": LONG}),
        "dept": ("dept", {"m": FRONT, "r": rank}),
    }
    return draws_of(base, arms, 16, args)


def ept(args: argparse.Namespace) -> Iterator[Draw]:
    """The same prompt and offset, with fusion and spaces and without."""
    options = {"m": FRONT}
    return draws_of(masked_model(), {"dept": ("dept", options), "ept": ("ept", options)}, 16, args)


def iapt(args: argparse.Namespace) -> Iterator[Draw]:
    """Tokens that are made of the text, and vectors that are the same for all texts."""
    arms = {"prompt-tuning": ("prompt-tuning", {"m": FRONT}), "iapt": ("iapt", {})}
    return draws_of(masked_model(), arms, 16, args)


def cpt(args: argparse.Namespace) -> Iterator[Draw]:
    """Examples as they are, with what is learnt of them, and a prompt as long."""
    if args.causal is None:
        raise SystemExit("this member needs --causal FOLDER, a causal checkpoint")
    base = Trunk.load(f"hf:{args.causal}", reading="words", max_tokens=TOKENS)
    for seed in range(args.draws):
        for name in ("sst2", "subj"):
            test = examples(name, "test")
            order = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
            test = [test[i] for i in order]
            rows = sample(examples(name, "train"), 2, seed)
            found: Draw = {"set": name, "draw": seed}
            shown, _ = trained(base, ("cpt", {"eps": 0.0}), rows, 1, seed)
            found["in-context"] = judged(base, test, shown)
            long: Any = shown
            arms: dict[str, Arm] = {
                "cpt": ("cpt", {}),
                "prompt-tuning": ("prompt-tuning", {"m": len(long.ids)}),
            }
            for label, arm in arms.items():
                adapter, taken = trained(base, arm, rows, args.steps, seed)
                found[label] = judged(base, test, adapter) | {"cpu_s": taken}
            yield found


def mam(args: argparse.Namespace) -> Iterator[Draw]:
    """The design space of bottlenecks, and the half of each that MAM joins."""
    places, each = ("attention", "ffn"), {"r": 16}
    arms: dict[str, Arm] = {
        f"{kind}, {where}": (f"{kind}-adapter", {**each, "where": where})
        for kind in ("series", "parallel")
        for where in places
    }
    best = arms.pop("parallel, ffn")
    arms |= {"mam": ("mam", {"l": 8, "r": 8}), "parallel, ffn": best}
    return draws_of(masked_model(), arms, 16, args)


def apt(args: argparse.Namespace) -> Iterator[Draw]:
    """Fifty tokens beside the attention, in front of the text, and in front of its keys."""
    arms: dict[str, Arm | None] = {
        "zero-shot": None,
        "prompt-tuning": ("prompt-tuning", {"m": 50}),
        "prefix-tuning": ("prefix-tuning", {"m": 50}),
        "apt": ("apt", {"n": 50}),
    }
    return draws_of(masked_model(), arms, 16, args)


MEMBERS: dict[str, Callable[[argparse.Namespace], Iterator[Draw]]] = {
    "prompt": prompt,
    "dept": dept,
    "ept": ept,
    "iapt": iapt,
    "cpt": cpt,
    "mam": mam,
    "apt": apt,
    "panda": prompt_transfer.panda,
    "ptec": prompt_claims.ptec,
    "promot": prompt_claims.promot,
}
"""Member -> what yields its draws, the last arm being the one that is proved."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--member", action="append", required=True, choices=MEMBERS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--causal", help="Folder of a causal checkpoint, as SmolLM2-135M.")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = RESULTS / "prompt_proofs.json"
    for member in args.member:
        found: list[Draw] = []
        for draw in MEMBERS[member](args):
            found.append(draw)
            print(member, json.dumps(draw), flush=True)
            content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            content[member] = {"steps": args.steps, "test_rows": args.test_rows, "draws": found}
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(prompt_report.proofs(path))
