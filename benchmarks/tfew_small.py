"""T-Few, end to end, on an encoder-decoder trained here from scratch.

    python -m benchmarks.tfew_small --data DIR [--base-steps 3000] [--steps 300] [--seeds 3]

First a small T5 is trained on the prompted mixture of some sets of DIR (``tfew_small.toml``), then
its (IA)^3 vectors alone; then every method is run on 32 examples of each set that was held back.
The examples are the first 32 of the training split shuffled with the seed, not balanced, as in the
paper. The first wording is used for testing, both for training. Writes
``results/tfew_small.json`` after each set. Memory is compared in ``tuning_speed``, where each side
has a process of its own.

What is not as in the paper: the network is small and knows little, and `--steps` stands for the
1,000 steps of T-Few and LoRA; full fine-tuning has 0.3 times as many, as there.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tqdm import tqdm

from benchmarks.tasks import read_split
from fewfit.prompts import Part, Prompt, Template
from fewfit.tuning import (
    ChoiceExample,
    Objective,
    Recipe,
    Trunk,
    add_lora,
    ranked,
    site_map,
    t_few,
    tune,
)

SETS: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "tfew_small.toml").read_text(encoding="utf-8")
)
SHOTS = 32
ALL, LM = Objective(), Objective(False, False)
UL, LN = Objective(True, False), Objective(False, True)


def wordings(rows: Sequence[Any], entry: Any) -> list[list[ChoiceExample]]:
    """Every row in every wording of its set."""
    templates = [Template(source) for source in entry["templates"]]
    names = sorted({row["label"] for row in rows} | set(entry.get("answers", {})))
    answers = entry.get("answers") or {name: name.replace("_", " ") for name in names}
    place = {name: i for i, name in enumerate(answers)}
    choices = tuple(answers.values())
    return [
        [ChoiceExample(t.render(row), choices, place[row["label"]]) for t in templates]
        for row in rows
    ]


def tokenizer(texts: Sequence[str], size: int) -> Any:
    """Byte-level BPE of lower-cased text, with the end token of T5."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>"
    )


def train_base(rows: Any, args: Any) -> Trunk:
    """Train all weights on the mixture with the language-model loss."""
    words = tokenizer([wording.prompt.text("") for row in rows for wording in row], args.vocabulary)
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "vocab_size": len(words),
        "d_model": args.width,
        "d_kv": args.width // 4,
        "num_heads": 4,
        "d_ff": 2 * args.width,
        "num_layers": args.layers,
        "feed_forward_proj": "gated-gelu",
        "decoder_start_token_id": 0,
        "tie_word_embeddings": False,
    }
    network = transformers.T5ForConditionalGeneration(transformers.T5Config(**size))
    with torch.no_grad():  # T5's embeddings start too wide for so few steps
        network.shared.weight.mul_(0.3)
        network.lm_head.weight.mul_(0.3)
    trunk = Trunk(network, words, identity={}, max_tokens=args.max_tokens)
    recipe = Recipe(steps=args.base_steps, batch_size=16, learning_rate=1e-3, optimizer="adamw")
    with tqdm(total=args.base_steps, desc="base", disable=None) as bar:
        tune(
            trunk,
            rows,
            everything(trunk),
            recipe=recipe,
            objective=LM,
            progress=bar.update,
        )
    network.requires_grad_(False)
    return trunk


def known(trunk: Trunk, args: Any) -> dict[str, float]:
    """Accuracy of the base on test rows of its own mixture, where choices are few."""
    found = {}
    for name, entry in SETS["mixture"].items():
        if "answers" in entry:
            test = read_split(args.data, name, "test")
            chosen = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
            asked = [row[0] for row in wordings([test[i] for i in chosen], entry)]
            found[name] = round(accuracy(trunk, asked), 4)
    print("base", found, flush=True)
    return found


def everything(trunk: Trunk) -> dict[str, Any]:
    """All weights of the network, to be trained."""
    trunk.network.requires_grad_(True)
    return dict(trunk.network.named_parameters())


def fresh(trunk: Trunk) -> Trunk:
    """Copy the trunk, to change its weights."""
    network = copy.deepcopy(trunk.network)
    body: Any = network.get_decoder()
    body._forward_hooks.clear()  # the copy's hook would still belong to the old trunk
    return Trunk(network, trunk.tokenizer, identity={}, max_tokens=trunk.encoder.max_tokens)


def accuracy(trunk: Trunk, test: Sequence[ChoiceExample]) -> float:
    """Share of the test rows that rank classification gets right."""
    right = [best == item.answer for best, item in zip(ranked(trunk, test), test, strict=True)]
    return float(np.mean(right))


def with_vectors(objective: Objective, start: Any = None) -> Callable[..., tuple[float, int]]:
    """T-Few with some of its losses; returns the accuracy and the bytes to be kept."""

    def run(trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int) -> tuple[float, int]:
        vectors = t_few(trunk, rows, start=start, recipe=recipe, objective=objective, seed=seed)
        vectors.attach(trunk.network)
        found = accuracy(trunk, test)
        vectors.detach()
        return found, 4 * vectors.count

    return run


def full(trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int) -> tuple[float, int]:
    """All weights, with the same three losses: 300 steps at 3e-4 in the paper."""
    own = fresh(trunk)
    weights = everything(own)
    slower = Recipe(steps=max(1, round(0.3 * recipe.steps)), learning_rate=3e-4)
    tune(own, rows, weights, recipe=slower, objective=ALL, seed=seed)
    return accuracy(own, test), 4 * sum(p.numel() for p in weights.values())


def low_rank(trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int) -> tuple[float, int]:
    """LoRA of rank 4 on every linear layer, with the same three losses."""
    own = fresh(trunk)
    torch.manual_seed(seed)
    weights = add_lora(own.network, site_map(own.network), rank=4)
    tune(own, rows, weights, recipe=recipe, objective=ALL, seed=seed)
    return accuracy(own, test), 4 * sum(p.numel() for p in weights.values())


def in_context(trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int) -> tuple[float, int]:
    """Four of the examples, cut to 20 words, in front of each test row; nothing is trained."""
    shown = []
    for row in rows[:4]:
        item = row[0]
        short = " ".join(item.prompt.user_text.split()[:20])
        parts = [Part("field", short) if p.kind == "field" else p for p in item.prompt.parts]
        shown.append(Prompt(tuple(parts)).text(item.choices[item.answer]))
    before = Part("literal", " ".join(shown) + " ")
    longer = fresh(trunk)
    longer.encoder.max_tokens = 8 * trunk.encoder.max_tokens
    told = [ChoiceExample(Prompt((before, *e.prompt.parts)), e.choices, e.answer) for e in test]
    return accuracy(longer, told), 4 * len(trunk.encoder._plain(before.text))


def zero_shot(trunk: Trunk, rows: Any, test: Any, recipe: Recipe, seed: int) -> tuple[float, int]:
    """The base as it is."""
    return accuracy(trunk, test), 0


def measured(method: Callable[..., tuple[float, int]], *arguments: Any) -> dict[str, float]:
    """Accuracy, seconds with the testing, and bytes kept."""
    start = time.perf_counter()
    found, size = method(*arguments)
    return {
        "accuracy": round(found, 4),
        "seconds": round(time.perf_counter() - start, 2),
        "bytes": size,
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    for name, value in {
        "base-steps": 3000,
        "pretraining-steps": 500,
        "steps": 300,
        "seeds": 3,
        "width": 128,
        "layers": 2,
        "vocabulary": 6000,
        "max-tokens": 64,
        "rows-per-set": 4000,
        "test-rows": 300,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--sets", default=",".join(SETS["held_back"]))
    args = parser.parse_args()
    torch.set_num_threads(1)

    mixture: list[list[ChoiceExample]] = []
    for name, entry in SETS["mixture"].items():
        rows = read_split(args.data, name, "train")
        order = np.random.default_rng(0).permutation(len(rows))[: args.rows_per_set]
        mixture += wordings([rows[i] for i in order], entry)
    begun = time.perf_counter()
    trunk = train_base(mixture, args)
    base_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    steps = args.pretraining_steps
    start = t_few(
        trunk,
        mixture,
        recipe=Recipe(steps=steps, batch_size=16, learning_rate=3e-4),
        objective=LM,
    ).of()
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "arguments": {k: v for k, v in vars(args).items() if k != "data"},
        "parameters": trunk.network.num_parameters(),
        "mixture": list(SETS["mixture"]),
        "mixture_rows": len(mixture),
        "base_accuracy": known(trunk, args),
        "base_seconds": round(base_seconds, 1),
        "pretraining_seconds": round(time.perf_counter() - begun, 1),
        "sets": {},
    }
    methods = {
        "zero-shot": zero_shot,
        "in-context": in_context,
        "LM": with_vectors(LM),
        "LM + UL": with_vectors(UL),
        "LM + LN": with_vectors(LN),
        "T-Few": with_vectors(ALL),
        "T-Few, pre-trained vectors": with_vectors(ALL, start),
        "full fine-tuning": full,
        "LoRA": low_rank,
    }
    recipe = Recipe(steps=args.steps)
    for name in args.sets.split(","):
        entry = SETS["held_back"][name]
        train = read_split(args.data, name, "train")
        test = read_split(args.data, name, "test")
        chosen = np.random.default_rng(0).permutation(len(test))[: args.test_rows]
        asked = [row[0] for row in wordings([test[i] for i in chosen], entry)]
        cells: dict[str, list[Any]] = {method: [] for method in methods}
        for seed in range(args.seeds):
            order = np.random.default_rng(seed).permutation(len(train))[:SHOTS]
            rows = wordings([train[i] for i in order], entry)
            for method, run in methods.items():
                cell = measured(run, trunk, rows, asked, recipe, seed)
                cells[method].append(cell)
                print(f"{name:8} {seed} {method:28} {cell}", flush=True)
        results["sets"][name] = {
            "test_rows": len(asked),
            "methods": {method: summary(found) for method, found in cells.items()},
        }
        path = Path(__file__).parent / "results" / "tfew_small.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def summary(cells: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and interquartile range over seeds, and every accuracy."""
    found = [cell["accuracy"] for cell in cells]
    low, middle, high = np.percentile(found, [25, 50, 75])
    return {
        "median": round(float(middle), 4),
        "iqr": round(float(high - low), 4),
        "accuracies": found,
        "seconds": float(np.median([cell["seconds"] for cell in cells])),
        "bytes": cells[0]["bytes"],
    }


if __name__ == "__main__":
    main()
