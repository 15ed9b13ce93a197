"""One tiny random network of every architecture in the site map."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import transformers

WIDTH, HIDDEN, BLOCKS, HEADS = 16, 24, 2, 4
_SIZE = {
    "vocab_size": 40,
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
_T5 = {
    "vocab_size": 40,
    "d_model": WIDTH,
    "d_kv": 4,
    "d_ff": HIDDEN,
    "num_layers": BLOCKS,
    "num_heads": HEADS,
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
_GQA = {**_SIZE, "num_key_value_heads": 2}
_ROPE = {**_GQA, "head_dim": 4}
_DEBERTA = {  # as in the third version
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
}
_EXPERTS = {"num_experts_per_tok": 2}


class Architecture(NamedTuple):
    """Classes of the network with a head, its config and the network without; their sizes."""

    head: str
    config: str
    bare: str
    sizes: dict[str, Any]
    key_heads: int = HEADS
    pre_norm: bool = True


def _of(name: str, head: str, sizes: dict[str, Any], groups: int = HEADS, pre_norm: bool = True):
    return Architecture(name + head, f"{name}Config", f"{name}Model", sizes, groups, pre_norm)


_FALCON = {k: v for k, v in _SIZE.items() if k != "intermediate_size"} | {"ffn_hidden_size": HIDDEN}
_OPT = {k: v for k, v in _SIZE.items() if k not in ("intermediate_size", "initializer_range")}
ARCHITECTURES = {
    "t5": _of("T5", "ForConditionalGeneration", _T5),
    "mt5": _of("MT5", "ForConditionalGeneration", {**_T5, "feed_forward_proj": "gated-gelu"}),
    "bert": _of("Bert", "ForMaskedLM", _SIZE, pre_norm=False),
    "roberta": _of("Roberta", "ForMaskedLM", _SIZE, pre_norm=False),
    "xlm-roberta": _of("XLMRoberta", "ForMaskedLM", _SIZE, pre_norm=False),
    "camembert": _of("Camembert", "ForMaskedLM", _SIZE, pre_norm=False),
    "electra": _of("Electra", "ForMaskedLM", {**_SIZE, "embedding_size": 12}, pre_norm=False),
    "deberta-v2": _of("DebertaV2", "ForMaskedLM", {**_SIZE, **_DEBERTA}, pre_norm=False),
    "distilbert": _of(
        "DistilBert",
        "ForMaskedLM",
        {
            "vocab_size": 40,
            "dim": WIDTH,
            "n_layers": BLOCKS,
            "n_heads": HEADS,
            "hidden_dim": HIDDEN,
            "initializer_range": 0.3,
        },
        pre_norm=False,
    ),
    "modernbert": _of(
        "ModernBert",
        "ForMaskedLM",
        {
            **_SIZE,
            "local_attention": 4,
            "global_attn_every_n_layers": 2,
            "cls_token_id": 3,
            "sep_token_id": 1,
            "bos_token_id": 3,
            "eos_token_id": 1,
        },
    ),
    "mpnet": _of("MPNet", "ForMaskedLM", _SIZE, pre_norm=False),
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        "GPT2Config",
        "GPT2Model",
        {
            "vocab_size": 40,
            "n_embd": WIDTH,
            "n_layer": BLOCKS,
            "n_head": HEADS,
            "n_inner": HIDDEN,
            "initializer_range": 0.3,
        },
    ),
    "gpt_neox": _of("GPTNeoX", "ForCausalLM", _SIZE),
    "bloom": _of(
        "Bloom",
        "ForCausalLM",
        {**_OPT, "n_head": HEADS, "n_layer": BLOCKS, "initializer_range": 0.3},
    ),
    "falcon": _of("Falcon", "ForCausalLM", _FALCON, 1),
    "falcon-7b-as-many-keys": _of("Falcon", "ForCausalLM", {**_FALCON, "multi_query": False}),
    "falcon-40b": _of(
        "Falcon", "ForCausalLM", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}, 2
    ),
    "opt": _of(
        "OPT",
        "ForCausalLM",
        {**_OPT, "ffn_dim": HIDDEN, "init_std": 0.3, "word_embed_proj_dim": WIDTH},
    ),
    "llama": _of("Llama", "ForCausalLM", _GQA, 2),
    "mistral": _of("Mistral", "ForCausalLM", _ROPE, 2),
    "mixtral": _of("Mixtral", "ForCausalLM", {**_ROPE, **_EXPERTS, "num_local_experts": 3}, 2),
    "qwen2": _of("Qwen2", "ForCausalLM", _GQA, 2),
    "qwen3": _of("Qwen3", "ForCausalLM", _ROPE, 2),
    "qwen3_moe": _of(
        "Qwen3Moe",
        "ForCausalLM",
        {**_ROPE, **_EXPERTS, "num_experts": 3, "moe_intermediate_size": 8, "mlp_only_layers": [0]},
        2,
    ),
    "smollm3": _of("SmolLM3", "ForCausalLM", _GQA, 2),
    "granite": _of("Granite", "ForCausalLM", {**_GQA, "residual_multiplier": 1.0}, 2),
    "gemma": _of("Gemma", "ForCausalLM", _ROPE, 2),
    "gemma2": _of("Gemma2", "ForCausalLM", {**_ROPE, "query_pre_attn_scalar": 4}, 2),
    "gemma3_text": Architecture(
        "Gemma3ForCausalLM", "Gemma3TextConfig", "Gemma3TextModel", _ROPE, 2
    ),
    "olmo": _of("Olmo", "ForCausalLM", _GQA, 2),
    "olmo2": _of("Olmo2", "ForCausalLM", _GQA, 2),
    "phi": _of("Phi", "ForCausalLM", _GQA, 2),
    "phi3": _of("Phi3", "ForCausalLM", {**_GQA, "bos_token_id": 3, "eos_token_id": 1}, 2),
}


def network(name: str, *, bare: bool = False) -> Any:
    """The network in float64, with random biases and norms."""
    of = ARCHITECTURES[name]
    config = getattr(transformers, of.config)(**of.sizes)
    config._experts_implementation = "eager"  # the others know no float64
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, of.bare if bare else of.head)(config)
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    return made.double().eval()


def inputs(name: str) -> dict[str, torch.Tensor]:
    """Ids for one forward pass, the second row padded on the right."""
    ids = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[1, 4:], mask[1, 4:] = 0, 0
    given = {"input_ids": ids, "attention_mask": mask}
    if "Conditional" in ARCHITECTURES[name].head:
        given["decoder_input_ids"] = ids.flip(1)
    return given
