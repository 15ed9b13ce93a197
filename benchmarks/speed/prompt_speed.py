"""What prompts cost: in a forward pass, in a training step, and where many tasks are served.

    OMP_NUM_THREADS=1 python -m benchmarks prompt_speed [--rounds 9] [--part reading ...]

- `reading`: rows through a masked model, bare, with 20 vectors or 20 keys and values in front, and
  bare with 20 tokens more.
- `training`: a step of DePT against one of prompt tuning with as many values, those of a prompt of
  100 vectors; processor time, and bytes kept for the backward pass.
- `serving`: 8 rows of 8 tasks through a causal model, 32 tokens generated behind each; IAPT, whose
  generators differ from row to row, against LoRA on all layers that differs from row to row and is
  not merged, as two products of stacked matrices and as peft has it, and against the network alone.

Networks are random, and no accuracy is measured. What is compared takes turns. Writes
``results/prompt_speed.json``; parts that are not run stay there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from torch import Tensor, nn

from benchmarks import RESULTS, prompt_report
from fewfit.tuning import Adapter, Objective, Trunk, make_method
from fewfit.tuning.choices import Encoded
from fewfit.tuning.measure import forward_flops, saved_bytes, seconds

BATCH, CHOICES, VOCABULARY, TOKENS = 8, 4, 8000, 64
FRONT, LONG = 20, 100
"""Vectors of a short prompt, and of the long one whose values DePT has too."""

GENERATED, RANK = 32, 8


def network(kind: str, width: int, layers: int) -> Any:
    """A random BERT or Llama, without dropout."""
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    if kind == "masked":
        still: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = transformers.BertForMaskedLM(transformers.BertConfig(**size, **still))
    else:
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**size))
    return model.eval().requires_grad_(False)


def base_of(kind: str, width: int, layers: int) -> Trunk:
    """The network as a trunk; texts are token ids here, and no tokenizer is used."""
    return Trunk(network(kind, width, layers), tokenizer(), identity={})


def tokenizer() -> Any:
    """A tokenizer for a trunk that is never given a text."""
    backend = Tokenizer(models.WordLevel({"a": 0, "</s>": 1, "?": 2}, unk_token="?"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", mask_token="?"
    )


def rows_of(n_tokens: int, seed: int = 0) -> list[Encoded]:
    """Rows of `n_tokens` tokens, with a choice of one token out of four."""
    rng = np.random.default_rng(seed)
    return [
        Encoded(
            rng.integers(2, VOCABULARY, n_tokens).tolist(),
            [3],
            [[int(t)] for t in rng.integers(2, VOCABULARY, CHOICES)],
            int(rng.integers(CHOICES)),
            0,
        )
        for _ in range(BATCH)
    ]


# --- a forward pass ------------------------------------------------------------------------------


def reading(width: int, layers: int, rounds: int) -> dict[str, Any]:
    """Forward passes over the same rows."""
    rows, longer = rows_of(TOKENS), rows_of(TOKENS + FRONT)

    def read(items: Sequence[Encoded], method: str | None) -> Callable[[], object]:
        base = base_of("masked", width, layers)
        adapter = None
        if method is not None:
            adapter = make_method(method, {"m": FRONT}).build(base, 0).attach(base.network)

        @torch.no_grad()
        def run() -> object:
            batch = base.pack(items)
            return base.read(batch if adapter is None else adapter.rewrite(batch, base))

        return run

    steps = {
        "bare": read(rows, None),
        f"bare, {FRONT} tokens more": read(longer, None),
        **{name: read(rows, name) for name in ("prompt-tuning", "prefix-tuning")},
    }
    taken = seconds(steps, repeat=rounds)
    return {n: {"seconds": taken[n], "flops": forward_flops(run)} for n, run in steps.items()}


# --- a training step -----------------------------------------------------------------------------


def training(width: int, layers: int, rounds: int) -> dict[str, Any]:
    """Steps with as many trained values."""
    rank = (LONG - FRONT) * width // (TOKENS + width)
    rows, objective, found = rows_of(TOKENS), Objective(), {}
    steps: dict[str, Callable[[], Tensor]] = {}
    for name, options in {
        "prompt-tuning": {"m": LONG},
        "dept": {"m": FRONT, "r": rank},
        "ept": {"m": FRONT, "r": rank},
    }.items():
        base = base_of("masked", width, layers)
        base.max_tokens = TOKENS
        adapter = make_method(name, options).build(base, 0).attach(base.network)

        def loss(base: Trunk = base, adapter: Adapter = adapter) -> Tensor:
            return objective(base.read(adapter.rewrite(base.pack(rows), base))[0])

        def step(loss: Callable[[], Tensor] = loss) -> Tensor:
            value = loss()
            value.backward()
            return value

        kept = saved_bytes(loss, base.network, adapter)
        found[name] = {"values": adapter.count, "saved_bytes": kept, "options": options}
        steps[name] = step
    for name, taken in seconds(steps, repeat=rounds).items():
        found[name]["seconds"] = taken
    return found


# --- many tasks at once --------------------------------------------------------------------------


class OfEachRow(nn.Module):
    """A generator, or a rational function, of each row's own."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleList(modules)

    def forward(self, H: Tensor, own: Tensor, g: OfEachRow) -> Tensor:
        parts = zip(self.of, g.of, H.split(1), own.split(1), strict=True)
        return torch.cat([made(h, seen, rational) for made, rational, h, seen in parts])


def own_prompts(base: Trunk) -> Sequence[Any]:
    """IAPT with other generators for each row, at work from now on."""
    adapters: list[Any] = [make_method("iapt").build(base, seed) for seed in range(BATCH)]
    first = adapters[0]
    for name in ("generators", "rational"):
        lists = [list(getattr(adapter, name)) for adapter in adapters]
        setattr(first, name, nn.ModuleList(OfEachRow(own) for own in zip(*lists, strict=True)))
    return [first.attach(base.network)]


def own_loras(base: Trunk) -> Sequence[Any]:
    """LoRA on every layer of the blocks, with other matrices for each row, from now on."""
    g = torch.Generator().manual_seed(0)
    roles = ("q", "k", "v", "o", "ffn.in", "ffn.out")
    for path in dict.fromkeys(path for role in roles for path in base.sites.layers[role]):
        module: Any = base.network.get_submodule(path)
        A = torch.randn(BATCH, module.in_features, RANK, generator=g) * 0.02
        B = torch.randn(BATCH, RANK, module.out_features, generator=g) * 0.02

        def add(_: Any, args: Any, out: Tensor, A: Tensor = A, B: Tensor = B) -> Tensor:
            return out + args[0] @ A @ B

        module.register_forward_hook(add)
    return ()


def own_loras_of_peft(base: Trunk) -> Sequence[Any]:
    """The same through peft, which takes the rows of each adapter in turn."""
    config = LoraConfig(
        r=RANK,
        target_modules=[
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
        ],
        init_lora_weights=False,
    )
    tuned: Any = get_peft_model(base.network, config, "0")
    for row in range(1, BATCH):
        tuned.add_adapter(str(row), config)
    base.network = partial(tuned.eval(), adapter_names=[str(row) for row in range(BATCH)])
    return ()


def nothing(base: Trunk) -> Sequence[Any]:
    """The network as it is."""
    return ()


@torch.no_grad()
def generate(base: Trunk, rows: Sequence[Encoded], adapters: Sequence[Any]) -> Tensor:
    """Greedy, with a cache; every row has as many tokens, and none ends early."""
    batch = base.pack(rows)
    for adapter in adapters:
        batch = adapter.rewrite(batch, base)
    inputs = dict(batch.inputs)
    position = inputs["position_ids"][:, -1:]
    out = base.network(**inputs, use_cache=True, logits_to_keep=1)
    told = []
    for _ in range(GENERATED):
        ids, position = out.logits[:, -1:].argmax(-1), position + 1
        told.append(ids)
        out = base.network(
            input_ids=ids,
            position_ids=position,
            past_key_values=out.past_key_values,
            use_cache=True,
        )
    return torch.cat(told, 1)


def serving(width: int, layers: int, rounds: int) -> dict[str, Any]:
    """Tokens a second, eight tasks at once."""
    rows = [row._replace(choices=[[3]], answer=0) for row in rows_of(TOKENS)]
    ways = {
        "bare": nothing,
        "iapt": own_prompts,
        "lora": own_loras,
        "lora of peft": own_loras_of_peft,
    }

    def call(way: Callable[[Trunk], Sequence[Any]]) -> Callable[[], object]:
        base = base_of("causal", width, layers)
        adapters = way(base)
        return lambda: generate(base, rows, adapters)

    taken = seconds({name: call(way) for name, way in ways.items()}, repeat=rounds)
    made = BATCH * GENERATED
    return {n: {"seconds": s, "tokens_per_second": made / s} for n, s in taken.items()}


PARTS = {"reading": reading, "training": training, "serving": serving}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--part", action="append", choices=PARTS, help="Left out, all.")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    path = RESULTS / "prompt_speed.json"
    parts = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.exists() else {}
    content = {
        "torch": torch.__version__,
        "width": args.width,
        "layers": args.layers,
        "rounds": args.rounds,
        "rows": BATCH,
        "tokens": TOKENS,
        "front": FRONT,
        "long": LONG,
        "generated": GENERATED,
        "rank": RANK,
        "parts": parts,
    }
    for part in args.part or PARTS:
        parts[part] = PARTS[part](args.width, args.layers, args.rounds)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(prompt_report.speed(path))
