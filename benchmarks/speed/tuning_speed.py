"""Speed and memory of tuning against peft's IA3Model in a plain loop, in one run.

    python -m benchmarks tuning_speed [--rounds 9] [--width 256] [--layers 4]

The network is a random T5 v1.1; both sides compute the same three losses on the same batch of 8
examples with 4 choices each, and their losses are compared first. The plain loop does what the
authors' code and peft's examples do: every choice is a row of its own, so that the encoder sees
each input four times. Memory is measured on Linux. Writes
``results/tuning_speed.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.optimization import Adafactor

from benchmarks import RESULTS
from fewfit.tuning import IA3, Objective, Trunk, site_map
from fewfit.tuning.choices import Encoded

BATCH, CHOICES, VOCABULARY = 8, 4, 2000


def network(width: int, layers: int) -> Any:
    """A random T5 v1.1 without dropout, so that both sides compute the same."""
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": width,
        "d_kv": 32,
        "num_heads": width // 32,
        "d_ff": width * 2,
        "num_layers": layers,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    config = transformers.T5Config(**size)
    return transformers.T5ForConditionalGeneration(config).requires_grad_(False)


def examples(n_tokens: int, seed: int = 0) -> list[Encoded]:
    """Inputs of 0.75 to 1 times `n_tokens` tokens, choices of 2 to 6 tokens with the end token."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(BATCH):
        before = rng.integers(2, VOCABULARY, int(n_tokens * rng.uniform(0.75, 1))).tolist()
        choices = [
            [*rng.integers(2, VOCABULARY, rng.integers(1, 6)).tolist(), 1] for _ in range(CHOICES)
        ]
        out.append(Encoded(before, [], choices, int(rng.integers(CHOICES)), i))
    return out


def trunk_of(model: Any) -> Trunk:
    """A trunk around `model`; the tokenizer is never used here."""
    backend = Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    return Trunk(model, tokenizer, identity={})


def ours(model: Any, batch: list[Encoded]) -> Callable[[], float]:
    """Return one step of this library: forward, losses, backward, update."""
    trunk = trunk_of(model)
    vectors = IA3(site_map(model)).attach(model)
    parameters = list(vectors.of().values())
    optimizer = adafactor(parameters)
    objective = Objective()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = objective(trunk.read(trunk.pack(batch))[0])
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def plain(model: Any, batch: list[Encoded]) -> Callable[[], float]:
    """Return one step of peft's IA3Model with a row for every choice."""
    from peft import IA3Config, get_peft_model

    config = IA3Config(target_modules=["k", "v", "wi_1"], feedforward_modules=[])
    tuned = get_peft_model(model, config)
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = adafactor(parameters)
    longest = max(len(item.before) for item in batch)
    most = max(len(choice) for item in batch for choice in item.choices)
    rows = [(item, choice) for item in batch for choice in item.choices]
    ids = torch.tensor([item.before + [0] * (longest - len(item.before)) for item, _ in rows])
    labels = torch.tensor([choice + [-100] * (most - len(choice)) for _, choice in rows])
    answers = torch.tensor([item.answer for item in batch])
    mask = (ids != 0).long()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = tuned(input_ids=ids, attention_mask=mask, labels=labels).logits
        flat = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="none"
        )
        log_p = -flat.view(BATCH, CHOICES, most)
        real = (labels != -100).view(BATCH, CHOICES, most)
        beta = (log_p * real).sum(-1) / real.sum(-1)
        wrong = real.clone()
        wrong[torch.arange(BATCH), answers] = False
        unlikely = torch.log(-torch.expm1(log_p.clamp(max=-1e-6))) * wrong
        loss = (
            -beta[torch.arange(BATCH), answers].mean()
            - (unlikely.sum((1, 2)) / wrong.sum((1, 2))).mean()
            + torch.nn.functional.cross_entropy(beta, answers)
        )
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def adafactor(parameters: Any) -> Adafactor:
    """T-Few's optimiser."""
    return Adafactor(
        parameters, lr=3e-3, scale_parameter=True, relative_step=False, warmup_init=False
    )


def resident(field: str) -> int:
    """Memory of this process in KiB, from Linux's own books."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def seconds(call: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratios(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> dict[str, float]:
    """Time the two in turn; the median of the ratios of each round."""
    for call in (slow, fast):
        call()
    pairs = [(seconds(slow), seconds(fast)) for _ in range(rounds)]
    return {
        "first_ms": 1000 * statistics.median(a for a, _ in pairs),
        "second_ms": 1000 * statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def mixed(model: Any, batch: list[Encoded], rounds: int, *, train: bool) -> dict[str, float]:
    """A batch of 8 rows of 8 tasks against the same batch of one task."""
    trunk = trunk_of(model)
    vectors = IA3(site_map(model), n_tasks=BATCH).attach(model)
    objective = Objective()
    packed = trunk.pack(batch)

    def one() -> None:
        with torch.set_grad_enabled(train):
            loss = objective(trunk.read(packed)[0])
            if train:
                loss.backward()

    def eight() -> None:
        with torch.set_grad_enabled(train), vectors.rows(list(range(BATCH))):
            loss = objective(trunk.read(packed)[0])
            if train:
                loss.backward()

    found = ratios(eight, one, rounds)
    vectors.detach()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--memory", choices=["ours", "plain"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    batch = examples(args.tokens)
    if args.memory:
        step = {"ours": ours, "plain": plain}[args.memory](network(args.width, args.layers), batch)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
        before = resident("VmRSS")
        for _ in range(2):
            step()
        print(resident("VmHWM") - before)
        return

    def memory(which: str) -> float:
        given = [f"--{name}={getattr(args, name)}" for name in ("width", "layers", "tokens")]
        command = [sys.executable, "-m", "benchmarks", "tuning_speed", *given, f"--memory={which}"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(run.stdout.split()[-1]) / 1024

    loop = plain(network(args.width, args.layers), batch)
    step = ours(network(args.width, args.layers), batch)
    gap = max(abs(loop() - step()) for _ in range(3))
    if gap > 1e-3:
        raise SystemExit(f"the two sides differ by {gap} in their losses: nothing to compare")
    model = network(args.width, args.layers)
    results = {
        "torch": torch.__version__,
        "threads": 1,
        "width": args.width,
        "layers": args.layers,
        "tokens": args.tokens,
        "examples": BATCH,
        "choices": CHOICES,
        "largest_difference_of_the_loss": gap,
        "steps_against_plain_peft": ratios(loop, step, args.rounds),
        "peak_growth_mb": {"plain_peft": memory("plain"), "fewfit": memory("ours")},
        "mixed_of_8_tasks_inference": mixed(model, batch, args.rounds, train=False),
        "mixed_of_8_tasks_training": mixed(model, batch, args.rounds, train=True),
    }
    text = json.dumps(results, indent=1)
    print(text)
    path = RESULTS / "tuning_speed.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
