"""Tiny random checkpoints of every kind, with tokenizers of every kind, built on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

CORPUS = [
    "the movie was great . it was a great movie , really great fun",
    "the film was bad . it was a bad film , really bad and sad",
    "in summary , it was great . in summary , it was bad .",
    "New York is great. New Delhi is great. It was New York. It was New Delhi.",
    "I loved it. I hated it. It was (great). It was (bad). In summary, it was great.",
    "politics sports business science technology world news",
] * 40

KINDS = {
    "bert": "masked",
    "distilbert": "masked",
    "roberta": "masked",
    "gpt2": "causal",
    "llama": "causal",
    "t5": "seq2seq",
}


def wordpiece() -> tuple[Tokenizer, dict[str, str]]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = sorted({word.lower() for line in CORPUS for word in line.split() if word.isalpha()})
    letters = sorted({letter.lower() for line in CORPUS for letter in line} - {" "})
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
    return tokenizer, dict(zip(names, special, strict=True))


def byte_level(kind: str) -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special: list[Any] = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    if kind == "gpt2":
        special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if kind == "gpt2":
        return tokenizer, {"bos_token": special[0], "eos_token": special[0]}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer, {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": special[4],
    }


def sentencepiece_bpe() -> tuple[Tokenizer, dict[str, str]]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=260, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # An end token behind the prompt, as some checkpoints have it: it must not come before the slot.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def unigram() -> tuple[Tokenizer, dict[str, str]]:
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"]
    words = sorted({f"▁{word}" for line in CORPUS for word in line.split() if word.isalpha()})
    letters = sorted({letter for line in CORPUS for letter in line} - {" "})
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(word, -5.0) for word in words] + [(letter, -9.0) for letter in ["▁", *letters]]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def build(name: str, folder: Path, *, positions: int = 64, seed: int = 0) -> Path:
    """Save a random checkpoint of the architecture `name` and return its folder."""
    tokenizer, special = {
        "bert": wordpiece,
        "distilbert": wordpiece,
        "roberta": lambda: byte_level("roberta"),
        "gpt2": lambda: byte_level("gpt2"),
        "llama": sentencepiece_bpe,
        "t5": unigram,
    }[name]()
    wrapper = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=positions, **special
    )
    wrapper.save_pretrained(folder)
    vocabulary = len(wrapper) + 3  # checkpoints often have more rows than the tokenizer has tokens
    size: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": positions,
        "initializer_range": 0.3,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(name, size, positions)
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases are zero when made, which would hide a lost one
                parameter.data += 0.1 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    return folder


def _network(name: str, size: dict[str, Any], positions: int) -> Any:
    t = transformers
    if name == "bert":
        return t.BertForMaskedLM(t.BertConfig(**size))
    if name == "roberta":
        size["max_position_embeddings"] = positions + 2
        return t.RobertaForMaskedLM(t.RobertaConfig(**size, pad_token_id=1))
    if name == "distilbert":
        config = t.DistilBertConfig(
            vocab_size=size["vocab_size"],
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=48,
            max_position_embeddings=positions,
            initializer_range=0.3,
        )
        return t.DistilBertForMaskedLM(config)
    if name == "gpt2":
        config = t.GPT2Config(
            vocab_size=size["vocab_size"],
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=positions,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.3,
        )
        return t.GPT2LMHeadModel(config)
    if name == "llama":
        return t.LlamaForCausalLM(
            t.LlamaConfig(**size, num_key_value_heads=2, tie_word_embeddings=False)
        )
    return t.T5ForConditionalGeneration(
        t.T5Config(
            vocab_size=size["vocab_size"],
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            initializer_factor=1.0,
        )
    )
