"""Tiny random networks of several architectures, with a tokenizer of whole words."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fewfit.prompts import Template
from fewfit.tuning import ChoiceExample, Trunk

ARCHITECTURES = ("t5-gated", "t5-ungated", "gpt2", "llama", "bert", "roberta", "bert2bert")
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
TEXT = (
    "a the movie film was great bad good awful really very not so dull fun is it about sport "
    "politics science yes no maybe new york city in all ? . , answer"
)
WORDS = TEXT.split()
TEMPLATE = Template("{text} it was {mask}")


def tokenizer(kind: str) -> Any:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(SPECIAL)
    form = {"seq2seq": "$A </s>", "causal": "$A", "masked": "<s> $A </s>"}[kind]
    backend.post_processor = processors.TemplateProcessing(
        single=form, special_tokens=[("</s>", 1), ("<s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=64,
    )


def network(name: str, *, seed: int = 0, dropout: float = 0.1) -> Any:
    """A network with random weights and random biases, which zeros would hide."""
    t = transformers
    vocabulary = len(SPECIAL) + len(WORDS)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name.startswith("t5"):
            made = t.T5ForConditionalGeneration(
                t.T5Config(
                    vocab_size=vocabulary,
                    d_model=16,
                    d_kv=4,
                    d_ff=24,
                    num_layers=2,
                    num_heads=3,
                    decoder_start_token_id=0,
                    dropout_rate=dropout,
                    feed_forward_proj="gated-gelu" if name == "t5-gated" else "relu",
                )
            )
        elif name == "gpt2":
            made = t.GPT2LMHeadModel(
                t.GPT2Config(
                    vocab_size=vocabulary,
                    n_embd=16,
                    n_layer=2,
                    n_head=2,
                    n_positions=64,
                    initializer_range=0.3,
                    bos_token_id=3,
                    eos_token_id=1,
                    resid_pdrop=dropout,
                    embd_pdrop=dropout,
                    attn_pdrop=dropout,
                )
            )
        else:
            size: dict[str, Any] = {
                "vocab_size": vocabulary,
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 24,
                "max_position_embeddings": 64,
                "initializer_range": 0.3,
                "pad_token_id": 0,
            }
            if name == "llama":
                config = t.LlamaConfig(
                    **size, num_key_value_heads=2, bos_token_id=3, eos_token_id=1
                )
                made = t.LlamaForCausalLM(config)
            elif name == "bert2bert":
                parts = [
                    t.BertConfig(**size, hidden_dropout_prob=dropout, is_decoder=decoder)
                    for decoder in (False, True)
                ]
                parts[1].add_cross_attention = True
                config = t.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
                config.decoder_start_token_id = config.pad_token_id = 0
                made = t.EncoderDecoderModel(config)
            elif name == "bert":
                made = t.BertForMaskedLM(t.BertConfig(**size, hidden_dropout_prob=dropout))
            else:
                made = t.RobertaForMaskedLM(t.RobertaConfig(**size, hidden_dropout_prob=dropout))
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return made.eval()


@functools.cache
def kind(name: str) -> str:
    if name.startswith("t5") or name == "bert2bert":
        return "seq2seq"
    return "causal" if name in ("gpt2", "llama") else "masked"


def trunk(name: str = "t5-gated", **options: Any) -> Trunk:
    return Trunk(
        network(name, **options), tokenizer(kind(name)), identity={"name": name}, max_tokens=32
    )


def checkpoint(folder: Path, name: str = "t5-gated", **options: Any) -> Path:
    network(name, **options).save_pretrained(folder)
    tokenizer(kind(name)).save_pretrained(folder)
    return folder


def example(
    text: str,
    answer: int,
    choices: tuple[str, ...] = ("great", "not so bad", "really awful"),
    task: int = 0,
) -> ChoiceExample:
    return ChoiceExample(TEMPLATE.render({"text": text}), choices, answer, task)


EXAMPLES = [
    example("the movie was fun", 0),
    example("so dull", 2, ("awful", "great", "bad")),
    example("the film is about sport in new york city", 1, ("yes", "no", "maybe not", "so so")),
    example("it was not good", 1),
]


def inputs(name: str, rows: int = 3) -> dict[str, torch.Tensor]:
    """Ids for a plain forward pass, with padding in the last row."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(5, 30, (rows, 6), generator=generator)
    mask = torch.ones_like(ids)
    ids[-1, 4:], mask[-1, 4:] = 0, 0
    given = {"input_ids": ids, "attention_mask": mask}
    if kind(name) == "seq2seq":
        given["decoder_input_ids"] = torch.randint(5, 30, (rows, 4), generator=generator)
    return given
