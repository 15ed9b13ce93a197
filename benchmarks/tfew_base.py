"""A small encoder-decoder that follows prompts: the base of ``tfew_small`` and ``pet_small``.

    python -m benchmarks tfew_base benchmarks/base --data DIR --masked FOLDER [--steps 3200]

The network is put together from a masked language model of BERT's layout (FOLDER): its lower four
layers are the encoder, its upper two and its head the decoder, which starts from the mask token and
whose cross-attention starts as a copy of the self-attention. All weights but the word vectors are
then trained on the prompted mixture of ``tfew_mixture.toml``, in several wordings and with several
sets of answers, with the language-model loss. 100 rows of each set's training split are kept for
validation; test splits and held-back sets are not read. Then (IA)^3 vectors alone are trained on
the prompted part of the mixture. Writes a checkpoint, ``vectors`` and ``base.json``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm import tqdm

from benchmarks.tasks import read_split
from fewfit.prompts import Template
from fewfit.tuning import ChoiceExample, Objective, Recipe, Trunk, ranked, save_vectors, t_few, tune

SETS: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "tfew_mixture.toml").read_text(encoding="utf-8")
)
MAX_TOKENS = 48
VALIDATION = 100
LM = Objective(False, False)
_WINDOW = 30
_LOWER = 4


def wordings(
    rows: Sequence[Mapping[str, Any]], entries: Sequence[Mapping[str, Any]]
) -> list[list[ChoiceExample]]:
    """Every row in every wording of its set, each with the answers that go with it."""
    labels = sorted({row["label"] for row in rows})
    out: list[list[ChoiceExample]] = [[] for _ in rows]
    for entry in entries:
        answers = entry.get("answers") or {name: name.replace("_", " ") for name in labels}
        place = {name: i for i, name in enumerate(answers)}
        for source in entry["templates"]:
            template = Template(source)
            for found, row in zip(out, rows, strict=True):
                fields = {name: row[name] for name in template.fields}
                found.append(
                    ChoiceExample(
                        template.render(fields), tuple(answers.values()), place[row["label"]]
                    )
                )
    return out


def mixture(
    data: Path, rows_per_set: int
) -> tuple[list[list[ChoiceExample]], dict[str, list[list[ChoiceExample]]]]:
    """Training rows of the whole mixture, and validation rows by set."""
    entries: dict[str, list[Any]] = {}
    for entry in SETS["mixture"]:
        entries.setdefault(entry["set"], []).append(entry)
    kept: dict[str, list[Any]] = {}
    rest: dict[str, list[Any]] = {}
    for name in entries:
        rows = read_split(data, name, "train")
        order = np.random.default_rng(0).permutation(len(rows))
        kept[name] = [rows[i] for i in order[:VALIDATION]]
        rest[name] = [rows[i] for i in order[VALIDATION:]]
    seen = {_text(row) for rows in kept.values() for row in rows}
    train: list[list[ChoiceExample]] = []
    for name, rows in rest.items():
        train += wordings([r for r in rows if _text(r) not in seen][:rows_per_set], entries[name])
    return train, {name: wordings(kept[name], entries[name]) for name in entries}


def cloze(data: Path, tokenizer: Any, rows_per_file: int) -> list[list[ChoiceExample]]:
    """Windows of 30 words of running text whose rarest known word is left out."""
    known = {word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 3}
    windows: list[list[str]] = []
    for name in SETS["cloze"]["files"]:
        found = list(_windows(data / "text" / f"{name}.txt.gz"))
        order = np.random.default_rng(0).permutation(len(found))[:rows_per_file]
        windows += [found[i] for i in order]
    counts = Counter(word for window in windows for word in window)
    templates = [Template(source) for source in SETS["cloze"]["templates"]]
    out: list[list[ChoiceExample]] = []
    for window in windows:
        candidates = [word for word in window if word in known and counts[word] > 4]
        if not candidates:
            continue
        hidden = min(candidates, key=counts.__getitem__)
        text = " ".join("_" if word == hidden else word for word in window)
        choices = (hidden, "the")  # the language-model loss reads the right one only
        out.append([ChoiceExample(t.render({"text": text}), choices, 0) for t in templates])
    return out


def _windows(path: Path) -> Iterator[list[str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            words = line.lower().split()
            for start in range(0, len(words) - _WINDOW + 1, _WINDOW):
                yield words[start : start + _WINDOW]


def _text(row: Mapping[str, Any]) -> str:
    return row.get("text") or f"{row['text_a']}\n{row['text_b']}"


def assembled(folder: str) -> tuple[Any, Any]:
    """Return an encoder-decoder made of a masked language model's layers, and its tokenizer."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    words.eos_token = words.sep_token
    masked = transformers.BertForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    size = masked.config.to_dict()
    upper = size["num_hidden_layers"] - _LOWER
    lower_config = transformers.BertConfig(**{**size, "num_hidden_layers": _LOWER})
    upper_config = transformers.BertConfig(
        **{**size, "num_hidden_layers": upper, "is_decoder": True, "add_cross_attention": True}
    )
    network = transformers.EncoderDecoderModel(
        encoder=transformers.BertModel(lower_config),
        decoder=transformers.BertLMHeadModel(upper_config),
    )
    encoder: Any = network.encoder
    decoder: Any = network.decoder
    body: Any = masked.bert
    encoder.embeddings.load_state_dict(body.embeddings.state_dict())
    decoder.bert.embeddings.load_state_dict(body.embeddings.state_dict())
    decoder.cls.load_state_dict(masked.cls.state_dict())
    for i, layer in enumerate(body.encoder.layer):
        if i < _LOWER:
            encoder.encoder.layer[i].load_state_dict(layer.state_dict())
            continue
        own = decoder.bert.encoder.layer[i - _LOWER]
        own.load_state_dict(layer.state_dict(), strict=False)
        own.crossattention.load_state_dict(layer.attention.state_dict())
    network.config.decoder_start_token_id = words.mask_token_id
    network.config.pad_token_id = words.pad_token_id
    network.config.eos_token_id = words.sep_token_id
    return network, words


def trainable(trunk: Trunk) -> dict[str, Any]:
    """All weights but the word vectors and the pooler, which nothing reads."""
    chosen = {
        name: p
        for name, p in trunk.network.named_parameters()
        if "word_embeddings" not in name and "pooler" not in name
    }
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return chosen


def validated(
    trunk: Trunk, held: Mapping[str, Sequence[Sequence[ChoiceExample]]]
) -> dict[str, dict[str, float]]:
    """Accuracy of rank classification in a set's first wording, beside its largest class."""
    found = {}
    for name, rows in held.items():
        asked = [row[0] for row in rows]
        right = [e.answer for e in asked]
        hits = [a == b for a, b in zip(ranked(trunk, asked), right, strict=True)]
        found[name] = {
            "accuracy": round(float(np.mean(hits)), 3),
            "largest_class": round(max(Counter(right).values()) / len(right), 3),
            "choices": len(asked[0].choices),
        }
    return found


class Clock:
    """Processor seconds, in a file, so that a training that was interrupted adds up."""

    def __init__(self, path: Path) -> None:
        self.path, self._begun = path, time.process_time()
        self._before = float(path.read_text(encoding="ascii")) if path.exists() else 0.0
        self.seconds = self._before

    def tick(self) -> None:
        """Keep what has passed."""
        self.seconds = self._before + time.process_time() - self._begun
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(f"{self.seconds:.1f}", encoding="ascii")


def pretrain(output: Path, rows: Any, steps: int) -> dict[str, Any]:
    """Train (IA)^3 vectors alone on the mixture, to start from; writes ``output/vectors``."""
    trunk = Trunk.load(f"hf:{output}", dtype="bfloat16", max_tokens=MAX_TOKENS)
    recipe = Recipe(steps=steps, batch_size=16)
    begun = time.process_time()
    with tqdm(total=steps, desc="vectors", mininterval=20) as bar:
        vectors = t_few(trunk, rows, recipe=recipe, objective=LM, progress=bar.update)
    save_vectors(
        output / "vectors",
        vectors,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=recipe,
        n_examples=len(rows),
    )
    return {"vectors_steps": steps, "vectors_cpu_seconds": round(time.process_time() - begun)}


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masked", required=True)
    for name, value in {
        "steps": 3200,
        "rows-per-set": 5000,
        "cloze-rows": 2000,
        "vector-steps": 300,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    network, words = assembled(args.masked)
    trunk = Trunk(network, words, identity={}, max_tokens=MAX_TOKENS)
    train, held = mixture(args.data, args.rows_per_set)
    n_prompted = len(train)
    train += cloze(args.data, words, args.cloze_rows)
    before = validated(trunk, held)
    print(len(train), "rows; before:", before, flush=True)
    clock = Clock(args.output / "cpu_seconds")
    with tqdm(total=args.steps, desc="base", mininterval=20) as bar:

        def made(steps: int) -> None:
            clock.tick()
            bar.update(steps)

        losses = tune(
            trunk,
            train,
            trainable(trunk),
            recipe=Recipe(
                steps=args.steps,
                batch_size=16,
                learning_rate=3e-4,
                optimizer="adamw",
                dropout=False,
            ),
            objective=LM,
            progress=made,
            checkpoint=args.output / "training.pt",
            every=500,
        )
    facts = {
        "steps": args.steps,
        "rows_per_set": args.rows_per_set,
        "prompted_rows": n_prompted,
        "cloze_rows": len(train) - n_prompted,
        "sets": list(held),
        "parameters": network.num_parameters(),
        "trained_parameters": sum(p.numel() for p in trainable(trunk).values()),
        "cpu_seconds": round(clock.seconds),
        "loss": [round(float(np.mean(part)), 3) for part in np.array_split(losses, 20)],
        "validation_before": before,
        "validation": validated(trunk, held),
    }
    network.save_pretrained(args.output)
    words.save_pretrained(args.output)
    facts |= pretrain(args.output, train[:n_prompted], args.vector_steps)
    text = json.dumps(facts, indent=1) + "\n"
    (args.output / "base.json").write_text(text, encoding="utf-8")
    print(text)
