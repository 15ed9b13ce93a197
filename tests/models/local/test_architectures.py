"""Which architectures are read rightly, and which are refused: tiny random ones of each."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import torch
import transformers as t

from fewfit import Template
from fewfit.errors import ModelError
from fewfit.models import TransformersModel
from fewfit.models.local.loading import CLASSES
from fewfit.observations import Status
from tests.hf_checkpoints import byte_level, unigram

TEMPLATE = Template("{text} it was {mask}.")
WORDS = ["great", "bad"]
TEXTS = ["fun movie", "", "a film , really great , the world news"]
POSITIONS = 48

BASE = {
    "vocab_size": 500,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 1,
}
GROUPED = {**BASE, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 0}
GEMMA = {**GROUPED, "head_dim": 8}
EXPERTS = {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}
OFFSET = {**BASE, "max_position_embeddings": POSITIONS + 2}
T5 = {
    "vocab_size": 500,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 500,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": POSITIONS,
}
GPT = {"vocab_size": 500, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": POSITIONS}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}

MASKED = {
    "bert": (t.BertForMaskedLM, t.BertConfig, BASE),
    "roberta": (t.RobertaForMaskedLM, t.RobertaConfig, OFFSET),
    "xlm-roberta": (t.XLMRobertaForMaskedLM, t.XLMRobertaConfig, OFFSET),
    "camembert": (t.CamembertForMaskedLM, t.CamembertConfig, OFFSET),
    "data2vec": (t.Data2VecTextForMaskedLM, t.Data2VecTextConfig, OFFSET),
    "longformer": (
        t.LongformerForMaskedLM,
        t.LongformerConfig,
        {**OFFSET, "attention_window": 8},
    ),
    "mpnet": (t.MPNetForMaskedLM, t.MPNetConfig, OFFSET),
    "electra": (t.ElectraForMaskedLM, t.ElectraConfig, {**BASE, "embedding_size": 32}),
    "deberta": (t.DebertaForMaskedLM, t.DebertaConfig, BASE),
    "deberta-v3": (
        t.DebertaV2ForMaskedLM,
        t.DebertaV2Config,
        {**BASE, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
    ),
    "distilbert": (
        t.DistilBertForMaskedLM,
        t.DistilBertConfig,
        {
            "vocab_size": 500,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": 1,
        },
    ),
    "modernbert": (t.ModernBertForMaskedLM, t.ModernBertConfig, BASE),
    "albert": (t.AlbertForMaskedLM, t.AlbertConfig, {**BASE, "embedding_size": 16}),
    # Both mix padding into what they read.
    "convbert": (t.ConvBertForMaskedLM, t.ConvBertConfig, {**BASE, "embedding_size": 32}),
    "fnet": (t.FNetForMaskedLM, t.FNetConfig, BASE),
}
CAUSAL = {
    "gpt2": (t.GPT2LMHeadModel, t.GPT2Config, {**GPT, "bos_token_id": 0, "eos_token_id": 0}),
    "llama": (t.LlamaForCausalLM, t.LlamaConfig, GROUPED),
    "gemma": (t.GemmaForCausalLM, t.GemmaConfig, GEMMA),
    "gemma2": (t.Gemma2ForCausalLM, t.Gemma2Config, GEMMA),
    "gemma3": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, GEMMA),
    "qwen2": (t.Qwen2ForCausalLM, t.Qwen2Config, GROUPED),
    "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, GEMMA),
    "phi3": (t.Phi3ForCausalLM, t.Phi3Config, GROUPED),
    "mixtral": (t.MixtralForCausalLM, t.MixtralConfig, EXPERTS),
    "opt": (
        t.OPTForCausalLM,
        t.OPTConfig,
        {**BASE, "ffn_dim": 48, "word_embed_proj_dim": 16},
    ),
    "gpt-neox": (t.GPTNeoXForCausalLM, t.GPTNeoXConfig, BASE),
    "olmo2": (t.Olmo2ForCausalLM, t.Olmo2Config, GROUPED),
    "falcon": (t.FalconForCausalLM, t.FalconConfig, {**BASE, "ffn_hidden_size": 48}),
    "ctrl": (t.CTRLLMHeadModel, t.CTRLConfig, {**GPT, "dff": 48}),
    "bert-decoder": (t.BertLMHeadModel, t.BertConfig, {**BASE, "is_decoder": True}),
    "bart-decoder": (t.BartForCausalLM, t.BartConfig, {**BART, "is_encoder_decoder": False}),
    "mamba": (
        t.MambaForCausalLM,
        t.MambaConfig,
        {"vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    ),
}
SEQ2SEQ = {
    "t5": (t.T5ForConditionalGeneration, t.T5Config, T5),
    "mt5": (t.MT5ForConditionalGeneration, t.MT5Config, T5),
    "umt5": (t.UMT5ForConditionalGeneration, t.UMT5Config, T5),
}
READ = {
    **{name: ("masked", *entry) for name, entry in MASKED.items()},
    **{name: ("causal", *entry) for name, entry in CAUSAL.items()},
    **{name: ("seq2seq", *entry) for name, entry in SEQ2SEQ.items()},
}


def tokenizer(kind):
    backend, special = {
        "masked": lambda: byte_level("roberta"),
        "causal": lambda: byte_level("gpt2"),
        "seq2seq": unigram,
    }[kind]()
    return t.PreTrainedTokenizerFast(tokenizer_object=backend, **special)


tokenizers = functools.cache(tokenizer)


def build(folder, kind, network_class, config_class, options, words=None):
    """Save a random network, without a limit in its tokenizer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network_class(config_class(**options))
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    network.save_pretrained(folder)
    (words or tokenizers(kind)).save_pretrained(folder)
    return folder


def one_by_one(folder, kind, text, words):
    """The scores of two words at the slot, from an untouched network and no padding."""
    network = getattr(t, CLASSES[kind]).from_pretrained(folder).eval()
    slot = {"masked": "<mask>", "seq2seq": "<extra_id_0>", "causal": ""}[kind]
    whole = f"{text} it was {slot}." if slot else f"{text} it was"
    ids = torch.tensor([words(whole).input_ids])
    names = {"masked": "Ġ{}", "causal": "Ġ{}", "seq2seq": "▁{}"}[kind]
    columns = words.convert_tokens_to_ids([names.format(word) for word in WORDS])
    if kind == "seq2seq":
        said = torch.tensor([[0, words.convert_tokens_to_ids(slot)]])
        logits = network(input_ids=ids, decoder_input_ids=said).logits[0, 1]
    else:
        at = ids.shape[1] - 1
        if kind == "masked":
            at = ids[0].tolist().index(words.mask_token_id)
        logits = network(input_ids=ids).logits[0, at]
    return logits[columns].detach().numpy()


@pytest.mark.parametrize("name", READ)
def test_an_architecture_is_read_as_it_reads_itself(name, tmp_path):
    kind, *entry = READ[name]
    folder = build(tmp_path, kind, *entry)
    limited = kind != "seq2seq" and name != "mamba"  # the rest has no limit of its own
    model = TransformersModel(folder, max_tokens=None if limited else POSITIONS)
    assert model.checkpoint.kind == kind
    assert model.max_tokens == POSITIONS
    found = model.observe([TEMPLATE.render({"text": x}) for x in TEXTS], WORDS)
    for row, text in enumerate(TEXTS):
        expected = one_by_one(folder, kind, text, tokenizers(kind))
        scale = 1 + np.abs(expected).max()
        np.testing.assert_allclose(found.scores[row] / scale, expected / scale, atol=1e-5)
    long = model.observe([TEMPLATE.render({"text": "great film " * 99})], WORDS)
    assert long.status.tolist() == [Status.TRUNCATED]
    assert long.n_tokens.tolist() == [POSITIONS]


XLM = {"vocab_size": 500, "emb_dim": 32, "n_layers": 2, "n_heads": 4, "pad_index": 1}
REFUSED = {
    "xlnet": (
        ("causal", t.XLNetLMHeadModel, t.XLNetConfig),
        {"vocab_size": 500, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
        "reads what comes after a token",
    ),
    "bert that sees both ways": (
        ("causal", t.BertLMHeadModel, t.BertConfig),
        BASE,
        "reads what comes after a token",
    ),
    "roberta that sees both ways": (
        ("causal", t.RobertaForCausalLM, t.RobertaConfig),
        OFFSET,
        "reads what comes after a token",
    ),
    "bert that is a decoder": (
        ("masked", t.BertForMaskedLM, t.BertConfig),
        {**BASE, "is_decoder": True},
        "does not read what comes after the mask",
    ),
    "electra that tells replaced tokens": (
        ("masked", t.ElectraForPreTraining, t.ElectraConfig),
        {**BASE, "embedding_size": 32},
        "lacks the weight",
    ),
    "bart": (
        ("masked", t.BartForConditionalGeneration, t.BartConfig),
        BART,
        "has no token '<extra_id_0>'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(name, tmp_path):
    (kind, network, config), options, message = REFUSED[name]
    folder = build(tmp_path, kind, network, config, options)
    with pytest.raises(ModelError, match=message):
        TransformersModel(folder, max_tokens=40).observe([TEMPLATE.render({"text": "x"})], WORDS)


@pytest.mark.parametrize("causal", [False, True])
def test_xlm_is_read_as_it_is_configured(causal, tmp_path):
    kind = "causal" if causal else "masked"
    options = {**XLM, "causal": causal, "max_position_embeddings": POSITIONS}
    folder = build(tmp_path, kind, t.XLMWithLMHeadModel, t.XLMConfig, options)
    model = TransformersModel(folder)
    assert model.checkpoint.kind == kind
    found = model.observe([TEMPLATE.render({"text": x}) for x in TEXTS], WORDS)
    if not causal:
        expected = [one_by_one(folder, kind, text, tokenizers(kind)) for text in TEXTS]
        np.testing.assert_allclose(found.scores, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_a_padding_token_without_a_row_is_not_looked_up(name, tmp_path):
    """As where [PAD] was added to the tokenizer and the embeddings were not resized."""
    kind, network, config, options = READ[name]
    folder = build(tmp_path / "as-it-was", kind, network, config, options)
    expected = TransformersModel(folder).observe(
        [TEMPLATE.render({"text": x}) for x in TEXTS], WORDS
    )
    words = tokenizer(kind)
    words.add_tokens([*(f"<filler{i}>" for i in range(600 - len(words))), "<last>"])
    words.add_special_tokens({"pad_token": "[PAD]"})
    assert words.pad_token_id >= options["vocab_size"]
    for key in ("pad_token_id", "eos_token_id"):
        options = {**options, key: None}
    folder = build(tmp_path / "extended", kind, network, config, options, words)
    model = TransformersModel(folder)
    found = model.observe([TEMPLATE.render({"text": x}) for x in TEXTS], WORDS)
    assert np.isfinite(found.scores).all()
    if name != "bert":  # its row of the padding token is zero when it is made
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    with pytest.raises(ModelError, match=r"token \d+, but the weights have 500"):
        model.observe([TEMPLATE.render({"text": "so <last> good"})], WORDS)


def test_a_limit_is_found_whether_config_or_tokenizer_declares_it(tmp_path):
    kind, *entry = READ["roberta"]
    folder = build(tmp_path, kind, *entry)
    path = folder / "tokenizer_config.json"
    declared = json.loads(path.read_text())
    for limit, expected in ((20, 20), (10**30, POSITIONS), (512, POSITIONS)):
        path.write_text(json.dumps({**declared, "model_max_length": limit}))
        assert TransformersModel(folder).max_tokens == expected
