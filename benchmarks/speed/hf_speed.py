"""How fast a local model is asked, as ratios within one run.

Three questions, each a race of two loops over the same texts on the same weights:

* ``hf:`` against a hand-written loop that sorts by length and runs the model without its head,
  masked (RoBERTa-base's size) and causal (GPT-2 small's size), random weights;
* the same ``hf:`` with and without scoring label words;
* ``hf:`` against a loop that pads everything to the model's full length and computes the logits of
  the whole vocabulary at every position, on a small masked model.

The loops take turns, piece by piece, so that whatever else the machine does hits both alike. The
slow loop of the third race runs on a few texts and is extrapolated: it does the same work for
every text, whatever its length.

    python -m benchmarks hf_speed --data ../shared/data --model ../shared/models/minilm-mlm
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks import RESULTS
from fewfit import Template
from fewfit.models import TransformersModel
from fewfit.models.local import pad
from fewfit.models.local.texts import Encoded
from fewfit.prompts import Prompt

TEMPLATE = "{text} In summary, it was {mask}."
WORDS = ["bad", "great"]
ROUNDS = 8
LENGTH, BATCH = 512, 32  # what DecT's first release asks with
SIZES = {"masked": "RoBERTa-base", "causal": "GPT-2 small"}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the races, print a table, and write the numbers."""
    parser = argparse.ArgumentParser(description="Race hf: against hand-written loops.")
    root = Path(os.environ.get("FEWFIT_SHARED", "../shared"))
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--padded-texts", type=int, default=64)
    parser.add_argument("--data", type=Path, default=root / "data")
    parser.add_argument("--model", type=Path, default=root / "models/minilm-mlm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS / "hf_speed.json")
    options = parser.parse_args(argv)

    train = read_sst2(options.data, "train")
    texts = train[: options.texts]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("masked", "causal"):
            path = random_checkpoint(kind, Path(folder) / kind, train)
            rows += race_bare(kind, path, texts, options.device)
    if options.model.exists():
        rows.append(race_padded(options.model, options))
    report = {
        "texts": len(texts),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "machine": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


def read_sst2(folder: Path, split: str) -> list[str]:
    """Return the texts of a split of sst2."""
    with gzip.open(folder / "sst2" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def random_checkpoint(kind: str, folder: Path, corpus: Sequence[str]) -> Path:
    """Save a model of the published size with random weights, and a tokenizer of words.

    Speed does not depend on the numbers in the weights. The tokenizer maps every word of the corpus
    to one token, so that texts have their natural lengths in words.
    """
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = sorted({w for text in [*corpus, TEMPLATE, "bad great"] for w in split(text)})
    vocabulary = {w: i for i, w in enumerate(dict.fromkeys([*special, *words]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    torch.manual_seed(0)
    if kind == "masked":
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
        names["mask_token"] = "<mask>"
        config = transformers.RobertaConfig(
            vocab_size=50265, max_position_embeddings=514, pad_token_id=1
        )
        network: Any = transformers.RobertaForMaskedLM(config)
    else:
        network = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, **names
    )
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder)
    return folder


def split(text: str) -> list[str]:
    """Return the words as the tokenizer of :func:`random_checkpoint` cuts them."""
    return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(text)]


class Bare:
    """The loop that someone in a hurry writes by hand: sort, pad, run the model without a head."""

    def __init__(self, folder: Path, kind: str, device: str) -> None:
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        loader: Any = {
            "masked": transformers.AutoModelForMaskedLM,
            "causal": transformers.AutoModelForCausalLM,
        }[kind]
        self.network: Any = loader.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        self.kind, self.device = kind, device

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the state at the slot of each text, shape (N, H)."""
        masked = self.kind == "masked"
        shape = TEMPLATE.replace("{mask}", self.tokenizer.mask_token) if masked else None
        shape = shape or TEMPLATE.split(" {mask}")[0]
        all_ids = self.tokenizer([shape.replace("{text}", text) for text in texts]).input_ids
        order = np.argsort([-len(ids) for ids in all_ids], kind="stable")
        out = np.empty((len(texts), self.network.config.hidden_size), dtype=np.float32)
        start = 0
        while start < len(order):
            longest = len(all_ids[order[start]])
            rows = order[start : start + max(1, min(128, 2048 // longest))]
            start += len(rows)
            ids = torch.full((len(rows), longest), self.tokenizer.pad_token_id)
            mask = torch.zeros((len(rows), longest), dtype=torch.long)
            for j, row in enumerate(rows):
                ids[j, : len(all_ids[row])] = torch.tensor(all_ids[row])
                mask[j, : len(all_ids[row])] = 1
            ids, mask = ids.to(self.device), mask.to(self.device)
            with torch.inference_mode():
                extra = {} if masked else {"use_cache": False}
                last = self.network.base_model(input_ids=ids, attention_mask=mask, **extra)
                if masked:
                    slot = (ids == self.tokenizer.mask_token_id).long().argmax(1)
                else:
                    slot = mask.sum(1) - 1
                states = last.last_hidden_state[torch.arange(len(rows)), slot]
            out[rows] = states.cpu().numpy()
        return out


def race_bare(kind: str, folder: Path, texts: Sequence[str], device: str) -> list[dict[str, Any]]:
    """Race ``hf:`` against the hand-written loop, and against itself without label words."""
    model = TransformersModel(str(folder), device=device, dtype="float32")
    whole = TransformersModel(str(folder), device=device, dtype="float32", space="logprob")
    bare = Bare(folder, kind, device)
    prompts = [Template(TEMPLATE).render({"text": text}) for text in texts]

    body, first = model._network.model.base_model, -1 if kind == "causal" else 0

    def states(batch: Sequence[Encoded]) -> Any:
        ids, mask = (t.to(device) for t in pad([item.ids for item in batch], 1))
        slots = torch.tensor([item.slot + first for item in batch])
        with torch.inference_mode():
            extra = {"use_cache": False} if kind == "causal" else {}
            last = body(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
            return last[torch.arange(len(batch)), slots].cpu().numpy()

    def no_words(part: Sequence[Prompt]) -> Any:
        """The same path up to the hidden states, without any head."""
        return list(model._batches(part, range(len(part)), model.max_tokens, states))

    loops: dict[str, Callable[[int, int], Any]] = {
        "bare": lambda a, b: bare(texts[a:b]),
        "states": lambda a, b: no_words(prompts[a:b]),
        "labels": lambda a, b: model.observe(prompts[a:b], WORDS),
        "vocabulary": lambda a, b: whole.observe(prompts[a:b], WORDS),
    }
    found, mine = bare(texts[:8]), model.observe(prompts[:8], WORDS)
    whole.observe(prompts[:8], WORDS)
    assert mine.hidden is not None
    gap = float(np.abs(found - mine.hidden).max())
    if gap > 1e-3:
        raise SystemExit(f"the two loops disagree by {gap}: nothing is compared")
    seconds = take_turns(loops, len(texts))
    tokens = int(model.observe(prompts, WORDS).n_tokens.sum())
    rates = {name: tokens / sum(times) for name, times in seconds.items()}
    what = f"{SIZES[kind]} size, {len(texts)} texts, {tokens} tokens"

    def row(question: str, numerator: str, denominator: str, wanted: str) -> dict[str, Any]:
        pairs = zip(seconds[denominator], seconds[numerator], strict=True)
        by_round = sorted(a / b for a, b in pairs)
        return {
            "race": f"{question} ({what})",
            "ours_tokens_per_second": round(rates[numerator], 1),
            "theirs_tokens_per_second": round(rates[denominator], 1),
            "ratio": round(rates[numerator] / rates[denominator], 4),
            "ratio_median_of_rounds": round(float(np.median(by_round)), 4),
            "wanted": wanted,
        }

    return [
        row("`hf:` / hand-written pass without head", "labels", "bare", ">= 0.95"),
        row("label words scored / states only", "labels", "states", "> 0.97"),
        row("whole vocabulary at the slot / states only", "vocabulary", "states", "-"),
    ]


def take_turns(loops: dict[str, Callable[[int, int], Any]], n: int) -> dict[str, list[float]]:
    """Time each loop on each of ROUNDS pieces of the texts, in an order that rotates."""
    edges = np.linspace(0, n, ROUNDS + 1).astype(int).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    for turn, (a, b) in enumerate(pairwise(edges)):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            loops[name](a, b)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def race_padded(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Race ``hf:`` against full-length batches with all logits, on sst2's test texts."""
    texts = read_sst2(options.data, "test")[: options.texts]
    model = TransformersModel(str(folder), device=options.device, dtype="float32")
    bare = Bare(folder, "masked", options.device)
    prompts = [Template(TEMPLATE).render({"text": text}) for text in texts]
    lengthen(bare.network.base_model.embeddings)
    shape = TEMPLATE.replace("{mask}", bare.tokenizer.mask_token)

    def padded(part: Sequence[str]) -> Any:
        encoded = bare.tokenizer(
            [shape.replace("{text}", text) for text in part],
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        ).to(options.device)
        with torch.inference_mode():
            out = bare.network(**encoded, output_hidden_states=True)
        at = encoded.input_ids == bare.tokenizer.mask_token_id
        ids = bare.tokenizer.convert_tokens_to_ids(WORDS)
        return out.logits[at][:, ids].cpu().numpy(), out.hidden_states[-1][at].cpu().numpy()

    scores, _ = padded(texts[:2])
    ours = model.observe(prompts[:2], WORDS).scores
    if ours is None or np.abs(scores - ours).max() > 1e-3:
        raise SystemExit("the two loops disagree: nothing is compared")
    per_text, some = [], texts[: options.padded_texts]
    quick = []
    for a in range(0, len(some), BATCH):
        start = time.perf_counter()
        padded(some[a : a + BATCH])
        per_text.append((time.perf_counter() - start) / len(some[a : a + BATCH]))
        start = time.perf_counter()
        model.observe(prompts, WORDS)
        quick.append(time.perf_counter() - start)
    slow, fast = float(np.median(per_text)) * len(texts), float(np.median(quick))
    return {
        "race": (
            f"`hf:` / everything padded to {LENGTH}, all logits ({folder.name}, {len(texts)} texts "
            f"of sst2; the slow loop extrapolated from {len(some)})"
        ),
        "ours_seconds": round(fast, 3),
        "theirs_seconds_extrapolated": round(slow, 1),
        "ratio": round(slow / fast, 2),
        "wanted": ">= 30",
    }


def lengthen(embeddings: Any) -> None:
    """Repeat BERT's position table up to LENGTH; what is added is seen by padding only."""
    table = embeddings.position_embeddings.weight.detach()
    repeated = table.repeat(-(-LENGTH // len(table)), 1)[:LENGTH]
    embeddings.position_embeddings = torch.nn.Embedding.from_pretrained(repeated)
    embeddings.position_ids = torch.arange(LENGTH, device=table.device).unsqueeze(0)
    embeddings.token_type_ids = torch.zeros_like(embeddings.position_ids)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = ["| race | ours | theirs | ratio | wanted |", "|---|---|---|---|---|"]
    for row in rows:
        if "ours_seconds" in row:
            ours = f"{row['ours_seconds']} s"
            theirs = f"{row['theirs_seconds_extrapolated']} s"
        else:
            ours = f"{row['ours_tokens_per_second']:,.0f} tokens/s"
            theirs = f"{row['theirs_tokens_per_second']:,.0f} tokens/s"
        lines.append(f"| {row['race']} | {ours} | {theirs} | {row['ratio']} | {row['wanted']} |")
    return "\n".join(lines)
