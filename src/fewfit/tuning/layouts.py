"""How architectures name their layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Stack(NamedTuple):
    """How one architecture names the layers of a stack of equal blocks.

    Paths below `blocks` are relative to a block.

    Attributes
    ----------
    name : str
        ``"encoder"`` or ``"decoder"``: the first part of a site's name.
    blocks : str
        Path of the list of blocks in a network with a head. In one without, the part before the
        first dot is left out where need be.
    attention : mapping of str to mapping of str to str
        For ``"self"`` and, where there is one, ``"cross"``: the paths of ``q``, ``k``, ``v`` and
        ``o``. Where one layer computes queries, keys and values, ``qkv`` in the place of the three:
        all queries, then all keys, then all values; or ``qkv_by_head``: for each key head its
        queries, its key and its value.
    ffn_in : tuple of str
        Paths of the layers that read the feed-forward's input; those that exist are taken, so that
        gated and ungated variants share a layout.
    ffn_out : str
        Path of the layer that reads the feed-forward's hidden activation.
    embeddings : str, default=""
        Path in the network of the token embeddings that the stack reads. Left out: the network's.
    after : mapping of str to str
        For ``"self"``, ``"cross"`` and ``"ffn"``: the path of a norm between the sub-layer and its
        addition to the residual stream, where there is one.
    experts : str, default=""
        Path of a feed-forward made of experts, in the blocks that have no `ffn_out`.
    """

    name: str
    blocks: str
    attention: Mapping[str, Mapping[str, str]]
    ffn_in: tuple[str, ...]
    ffn_out: str
    embeddings: str = ""
    after: Mapping[str, str] = MappingProxyType({})
    experts: str = ""


def _qkvo(pattern: str, names: str) -> dict[str, str]:
    return {part: pattern.format(n) for part, n in zip("qkvo", names.split(), strict=True)}


def _t5(stack: str) -> Stack:
    attention = {"self": _qkvo("layer.0.SelfAttention.{}", "q k v o")}
    last = 1
    if stack == "decoder":
        attention["cross"] = _qkvo("layer.1.EncDecAttention.{}", "q k v o")
        last = 2
    ffn = f"layer.{last}.DenseReluDense"
    inner = (f"{ffn}.wi", f"{ffn}.wi_0", f"{ffn}.wi_1")
    return Stack(
        stack, f"{stack}.block", attention, inner, f"{ffn}.wo", embeddings=f"{stack}.embed_tokens"
    )


def _bert(prefix: str, stack: str = "encoder", embeddings: str = "") -> Stack:
    names = "self.query self.key self.value output.dense"
    attention = {"self": _qkvo("attention.{}", names)}
    if stack == "decoder":
        attention["cross"] = _qkvo("crossattention.{}", names)
    blocks = f"{prefix}.encoder.layer"
    return Stack(stack, blocks, attention, ("intermediate.dense",), "output.dense", embeddings)


_GPT2 = Stack(
    "decoder",
    "transformer.h",
    {"self": {"qkv": "attn.c_attn", "o": "attn.c_proj"}},
    ("mlp.c_fc",),
    "mlp.c_proj",
)
_LLAMA = Stack(
    "decoder",
    "model.layers",
    {"self": _qkvo("self_attn.{}_proj", "q k v o")},
    ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj",
)
_GEMMA3 = _LLAMA._replace(
    after={"self": "post_attention_layernorm", "ffn": "post_feedforward_layernorm"}
)
_MOE = _LLAMA._replace(experts="mlp")
_PHI = _LLAMA._replace(
    attention={"self": _qkvo("self_attn.{}", "q_proj k_proj v_proj dense")},
    ffn_in=("mlp.fc1",),
    ffn_out="mlp.fc2",
)
_PHI3 = _LLAMA._replace(
    attention={"self": {"qkv": "self_attn.qkv_proj", "o": "self_attn.o_proj"}},
    ffn_in=("mlp.gate_up_proj",),
)
_NEOX = Stack(
    "decoder",
    "gpt_neox.layers",
    {"self": {"qkv_by_head": "attention.query_key_value", "o": "attention.dense"}},
    ("mlp.dense_h_to_4h",),
    "mlp.dense_4h_to_h",
)
_BLOOM = _NEOX._replace(
    blocks="transformer.h",
    attention={
        "self": {"qkv_by_head": "self_attention.query_key_value", "o": "self_attention.dense"}
    },
)
_OPT = Stack(
    "decoder",
    "model.decoder.layers",
    {"self": _qkvo("self_attn.{}_proj", "q k v out")},
    ("fc1",),
    "fc2",
)
_MODERNBERT = Stack(
    "encoder",
    "model.layers",
    {"self": {"qkv": "attn.Wqkv", "o": "attn.Wo"}},
    ("mlp.Wi",),
    "mlp.Wo",
)
_DISTILBERT = Stack(
    "encoder",
    "distilbert.transformer.layer",
    {"self": _qkvo("attention.{}_lin", "q k v out")},
    ("ffn.lin1",),
    "ffn.lin2",
)
_DEBERTA = _bert("deberta")._replace(
    attention={
        "self": _qkvo("attention.{}", "self.query_proj self.key_proj self.value_proj output.dense")
    }
)
_MPNET = _bert("mpnet")._replace(attention={"self": _qkvo("attention.attn.{}", "q k v o")})

LAYOUTS: dict[str, tuple[Stack, ...]] = {
    "t5": (_t5("encoder"), _t5("decoder")),
    "mt5": (_t5("encoder"), _t5("decoder")),
    "encoder-decoder": (
        _bert("encoder", embeddings="encoder.embeddings.word_embeddings"),
        _bert("decoder.bert", "decoder", "decoder.bert.embeddings.word_embeddings"),
    ),
    "bert": (_bert("bert"),),
    "roberta": (_bert("roberta"),),
    "xlm-roberta": (_bert("roberta"),),
    "camembert": (_bert("roberta"),),
    "electra": (_bert("electra"),),
    "deberta-v2": (_DEBERTA,),
    "distilbert": (_DISTILBERT,),
    "modernbert": (_MODERNBERT,),
    "mpnet": (_MPNET,),
    "gpt2": (_GPT2,),
    "gpt_neox": (_NEOX,),
    "bloom": (_BLOOM,),
    "falcon": (_BLOOM,),
    "opt": (_OPT,),
    "llama": (_LLAMA,),
    "mistral": (_LLAMA,),
    "mixtral": (_MOE,),
    "qwen2": (_LLAMA,),
    "qwen3": (_LLAMA,),
    "qwen3_moe": (_MOE,),
    "smollm3": (_LLAMA,),
    "granite": (_LLAMA,),
    "gemma": (_LLAMA,),
    "gemma2": (_GEMMA3,),
    "gemma3_text": (_GEMMA3,),
    "gemma3": (_GEMMA3._replace(blocks="model.language_model.layers"),),
    "olmo": (_LLAMA,),
    "olmo2": (_GEMMA3,),
    "phi": (_PHI,),
    "phi3": (_PHI3,),
}
"""How known architectures (the config's ``model_type``) name their layers.

An ``encoder-decoder`` is one of two BERTs; DeBERTa v3 is a ``deberta-v2``.
"""

REFUSED: dict[str, str] = {
    "deberta": "the first DeBERTa adds biases of its own to queries and values behind the layer "
    "that computes them, so that no layer's output is its keys and values; take DeBERTa v2 or v3",
}
"""Architectures that have no sites, and why."""
