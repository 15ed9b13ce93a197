"""Where in a network a small module can sit: one map of names for every architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fewfit.errors import InputError


class Stack(NamedTuple):
    """How one architecture names the layers of a stack of equal blocks.

    Paths below `blocks` are relative to a block.

    Attributes
    ----------
    name : str
        ``"encoder"`` or ``"decoder"``: the first part of a site's name.
    blocks : str
        Path of the list of blocks.
    attention : mapping of str to mapping of str to str
        For ``"self"`` and, where there is one, ``"cross"``: the paths of ``q``, ``k``, ``v`` and
        ``o``; or of ``qkv`` and ``o``, where one layer computes queries, keys and values in this
        order.
    ffn_in : tuple of str
        Paths of the layers that read the feed-forward's input; those that exist are taken, so that
        gated and ungated variants share a layout.
    ffn_out : str
        Path of the layer that reads the feed-forward's hidden activation.
    """

    name: str
    blocks: str
    attention: Mapping[str, Mapping[str, str]]
    ffn_in: tuple[str, ...]
    ffn_out: str


class Site(NamedTuple):
    """An activation: one side of a linear layer, or a slice of it.

    Attributes
    ----------
    name : str
        ``"<stack>.<block>.<part>"``, the same for every architecture; the parts are ``self.q``,
        ``self.k``, ``self.v``, ``self.o``, the same with ``cross``, ``ffn.in``, ``ffn.hidden`` and
        ``ffn.out``.
    module : str
        Path of the linear layer.
    side : {"input", "output"}
    start, size : int
        Which features of that side.
    """

    name: str
    module: str
    side: Literal["input", "output"]
    start: int
    size: int


@dataclass(frozen=True)
class SiteMap:
    """The sites of one network.

    Attributes
    ----------
    sites : dict of str to Site
        By name, block after block.
    layers : dict of str to tuple of str
        Paths of the linear layers that play a role: ``q``, ``k``, ``v``, ``o``, ``ffn.in``,
        ``ffn.out``. A fused layer plays several.
    blocks : tuple of str
        Paths of the blocks, in order.
    embeddings, head : str or None
        Paths of the token embeddings and of the layer over the vocabulary.
    """

    sites: dict[str, Site]
    layers: dict[str, tuple[str, ...]]
    blocks: tuple[str, ...]
    embeddings: str | None
    head: str | None

    def select(self, *parts: str) -> tuple[Site, ...]:
        """Return the sites whose part is one of `parts`, for example ``"self.k"``."""
        chosen = tuple(s for s in self.sites.values() if s.name.split(".", 2)[2] in parts)
        if not chosen:
            raise InputError(f"sites: none of {list(parts)} is in {sorted(self.sites)[:8]}...")
        return chosen


def site_map(network: Any, layout: Sequence[Stack] | None = None) -> SiteMap:
    """Find the sites of a model of transformers.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        May be on the meta device; nothing but shapes is read.
    layout : sequence of Stack, optional
        How the architecture names its layers; left out, it is looked up in :data:`LAYOUTS` by the
        config's ``model_type``.

    Raises
    ------
    InputError
        If the architecture is not known and no layout is given, or a layer of the layout is not
        there; the message says what was looked for.
    """
    kind = getattr(getattr(network, "config", None), "model_type", type(network).__name__)
    if layout is None:
        if kind not in LAYOUTS:
            raise InputError(
                f"sites: the architecture {kind!r} is not known (known: {', '.join(LAYOUTS)}); say "
                "where its layers are: layout=(fewfit.tuning.Stack(name, blocks, attention, "
                "ffn_in, ffn_out),)"
            )
        layout = LAYOUTS[kind]
    sites: dict[str, Site] = {}
    layers: dict[str, list[str]] = {}
    paths: list[str] = []
    for stack in layout:
        for i in range(len(_find(network, stack.blocks, kind))):
            block = f"{stack.blocks}.{i}"
            paths.append(block)
            for site, role in _block(network, stack, f"{stack.name}.{i}", block, kind):
                sites[site.name] = site
                for name in role:
                    layers.setdefault(name, []).append(site.module)
            inner = [f"{block}.{path}" for path in stack.ffn_in if _has(network, block, path)]
            layers.setdefault("ffn.in", []).extend(inner)
    names = {id(module): name for name, module in network.named_modules()}
    return SiteMap(
        sites,
        {role: tuple(dict.fromkeys(found)) for role, found in layers.items()},
        tuple(paths),
        names.get(id(network.get_input_embeddings())),
        names.get(id(network.get_output_embeddings())),
    )


def features(layer: Any, side: Literal["input", "output"]) -> int:
    """Return how many features a linear layer reads or writes."""
    return layer.weight.shape[feature_axis(layer, side)]


def feature_axis(layer: Any, side: Literal["input", "output"]) -> int:
    """Return the axis of the layer's weight that belongs to its input or output.

    GPT-2's ``Conv1D`` keeps its weight transposed.
    """
    transposed = type(layer).__name__ == "Conv1D"
    return int((side == "input") != transposed)


def _block(
    network: Any, stack: Stack, name: str, block: str, kind: str
) -> list[tuple[Site, tuple[str, ...]]]:
    found: list[tuple[Site, tuple[str, ...]]] = []

    def add(part: str, path: str, side: Literal["input", "output"], *role: str, third: int = -1):
        width = features(_find(network, path, kind), side)
        start, size = (0, width) if third < 0 else (third * width // 3, width // 3)
        found.append((Site(f"{name}.{part}", path, side, start, size), role))

    for which, parts in stack.attention.items():
        for third, part in enumerate("qkv"):
            fused = "qkv" in parts
            path = f"{block}.{parts['qkv' if fused else part]}"
            add(f"{which}.{part}", path, "output", part, third=third if fused else -1)
        add(f"{which}.o", f"{block}.{parts['o']}", "output", "o")
    present = [path for path in stack.ffn_in if _has(network, block, path)]
    if not present:
        raise InputError(
            f"sites: looked for one of {list(stack.ffn_in)} in {block!r} of {kind!r} and found "
            "none; give the architecture's own layout=(...)"
        )
    add("ffn.in", f"{block}.{present[0]}", "input")
    add("ffn.hidden", f"{block}.{stack.ffn_out}", "input")
    add("ffn.out", f"{block}.{stack.ffn_out}", "output", "ffn.out")
    return found


def _has(network: Any, block: str, path: str) -> bool:
    try:
        network.get_submodule(f"{block}.{path}")
    except AttributeError:
        return False
    return True


def _find(network: Any, path: str, kind: str) -> Any:
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        raise InputError(
            f"sites: looked for the module {path!r} in {kind!r} ({type(network).__name__}) and "
            "found none; give the architecture's own layout=(...)"
        ) from error


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
    return Stack(stack, f"{stack}.block", attention, inner, f"{ffn}.wo")


def _bert(prefix: str, stack: str = "encoder") -> Stack:
    names = "self.query self.key self.value output.dense"
    attention = {"self": _qkvo("attention.{}", names)}
    if stack == "decoder":
        attention["cross"] = _qkvo("crossattention.{}", names)
    blocks = f"{prefix}.encoder.layer"
    return Stack(stack, blocks, attention, ("intermediate.dense",), "output.dense")


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

LAYOUTS: dict[str, tuple[Stack, ...]] = {
    "t5": (_t5("encoder"), _t5("decoder")),
    "gpt2": (_GPT2,),
    "llama": (_LLAMA,),
    "mistral": (_LLAMA,),
    "qwen2": (_LLAMA,),
    "bert": (_bert("bert"),),
    "roberta": (_bert("roberta"),),
    "encoder-decoder": (_bert("encoder"), _bert("decoder.bert", "decoder")),
}
"""How known architectures (the config's ``model_type``) name their layers.

An ``encoder-decoder`` is one of two BERTs.
"""
