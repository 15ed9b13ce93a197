"""Where in a network a small module can sit: one map of names for every architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from fewfit.errors import InputError
from fewfit.tuning.layouts import LAYOUTS, REFUSED, Stack
from fewfit.tuning.site import Site, feature_axis, features, hook
from fewfit.tuning.sites_file import EXAMPLE, read_sites

__all__ = ["LAYOUTS", "Site", "SiteMap", "Stack", "feature_axis", "features", "hook", "read_sites"]
__all__ += ["site_map"]

_EXPERTS = (
    "the weights of its experts are one tensor and each token passes through a few of them, so "
    "that no layer reads or writes it; adapt the attention, or ffn.in and ffn.sublayer"
)


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
    norms : tuple of str
        Paths of all norms that have weights, the head's too.
    missing : dict of str to str
        Parts that other architectures have, and why this one has not.
    """

    sites: dict[str, Site]
    layers: dict[str, tuple[str, ...]]
    blocks: tuple[str, ...]
    embeddings: str | None
    head: str | None
    norms: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)

    def select(self, *parts: str) -> tuple[Site, ...]:
        """Return the sites whose part is one of `parts`, for example ``"self.k"``."""
        for part in parts:
            if part in self.missing:
                raise InputError(f"sites: there is no {part}: {self.missing[part]}")
        chosen = tuple(s for s in self.sites.values() if s.part in parts)
        if not chosen:
            known = sorted({site.part for site in self.sites.values()})
            raise InputError(f"sites: none of {list(parts)} is here; there are {', '.join(known)}")
        return chosen


def site_map(network: Any, layout: Sequence[Stack] | None = None) -> SiteMap:
    """Find the sites of a model of transformers, with a head or without.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        May be on the meta device; nothing but shapes is read.
    layout : sequence of Stack, optional
        How the architecture names its layers, for example from :func:`read_sites`; left out, it is
        looked up in :data:`LAYOUTS` by the config's ``model_type``.

    Raises
    ------
    InputError
        If the architecture is refused, or not known and no layout is given, or a layer of the
        layout is not there; the message says what was looked for.
    """
    kind = getattr(getattr(network, "config", None), "model_type", type(network).__name__)
    if layout is None:
        if kind in REFUSED:
            raise InputError(f"sites: {kind!r} has none: {REFUSED[kind]}")
        if kind not in LAYOUTS:
            raise InputError(_unknown(network, kind))
        layout = LAYOUTS[kind]
    if len(layout) > 1 and not network.config.is_encoder_decoder:
        layout = [stack for stack in layout if stack.name == "encoder"]  # half of such a model
    modules = dict(network.named_modules(remove_duplicate=False))
    names = {id(module): name for name, module in network.named_modules()}
    embeddings = names.get(id(network.get_input_embeddings()))
    read = _Reader(modules, kind, type(network).__name__, network.config)
    for stack in layout:
        read.stack(stack, embeddings)
    return SiteMap(
        read.sites,
        {role: tuple(dict.fromkeys(found)) for role, found in read.layers.items()},
        tuple(read.blocks),
        embeddings,
        names.get(id(network.get_output_embeddings())),
        tuple(name for name, module in network.named_modules() if _is_norm(module)),
        read.missing,
    )


class _Reader:
    """Goes through the stacks of a network and notes what it finds."""

    def __init__(self, modules: Mapping[str, Any], kind: str, network: str, config: Any) -> None:
        self.modules, self.kind, self.network = modules, kind, network
        self.config = config.get_text_config()
        self.sites: dict[str, Site] = {}
        self.layers: dict[str, list[str]] = {}
        self.blocks: list[str] = []
        self.missing: dict[str, str] = {}

    def stack(self, stack: Stack, embeddings: str | None) -> None:
        """Note the blocks of a stack, and the embeddings that it reads."""
        blocks = stack.blocks
        if blocks not in self.modules and blocks.partition(".")[2] in self.modules:
            blocks = blocks.partition(".")[2]  # without a head
        paths = [f"{blocks}.{i}" for i in range(len(self._find(blocks)))]
        for i, block in enumerate(paths):
            self._block(stack, f"{stack.name}.{i}", block)
        path = stack.embeddings or embeddings
        if path is not None:
            width = self._find(path).weight.shape[1]
            name = f"{stack.name}.embeddings"
            self.sites[name] = Site(name, path, "output", 0, width)
        self.blocks += paths

    def _block(self, stack: Stack, name: str, block: str) -> None:
        width = 0
        for which, parts in stack.attention.items():
            here = {part: f"{block}.{path}" for part, path in parts.items()}
            first = next(here[part] for part in ("q", "qkv", "qkv_by_head") if part in here)
            self._add(f"{name}.{which}.in", first, "input")
            self._projections(f"{name}.{which}", here)
            self._add(f"{name}.{which}.context", here["o"], "input")
            width = self._add(f"{name}.{which}.o", here["o"], "output", role="o")
            self._sublayer(stack, name, which, block, here["o"], width)
        hidden, experts = f"{block}.{stack.ffn_out}", f"{block}.{stack.experts}"
        if hidden not in self.modules and stack.experts and experts in self.modules:
            self._note(f"{name}.ffn.in", experts, "input", width)
            self.missing |= {"ffn.hidden": _EXPERTS, "ffn.out": _EXPERTS}
            hidden = experts
        else:
            inner = [f"{block}.{path}" for path in stack.ffn_in]
            inner = [path for path in inner if path in self.modules]
            if not inner:
                raise InputError(
                    f"sites: looked for one of {list(stack.ffn_in)} in {block!r} of {self.kind!r} "
                    "and found none; give the architecture's own layout=(...)"
                )
            self._add(f"{name}.ffn.in", inner[0], "input")
            self.layers.setdefault("ffn.in", []).extend(inner)
            self._add(f"{name}.ffn.hidden", hidden, "input")
            self._add(f"{name}.ffn.out", hidden, "output", role="ffn.out")
        self._sublayer(stack, name, "ffn", block, hidden, width)
        norms = [
            path
            for path, module in self.modules.items()
            if path.startswith(f"{block}.") and _is_norm(module) and len(module.weight) == width
        ]
        for i, path in enumerate(norms):
            self._note(f"{name}.norm.{i}", path, "output", width)
        self._note(f"{name}.block", block, "output", width)

    def _projections(self, name: str, parts: Mapping[str, str]) -> None:
        if "q" in parts:
            for part in "qkv":
                self._add(f"{name}.{part}", parts[part], "output", role=part)
            return
        by_head = "qkv_by_head" in parts
        path = parts["qkv_by_head" if by_head else "qkv"]
        whole = features(self._find(path), "output")
        heads, groups = self.config.num_attention_heads, _key_heads(self.config)
        each, rest = divmod(whole, heads + 2 * groups)
        if rest or heads % groups:
            raise InputError(
                f"sites: {path!r} of {self.kind!r} writes {whole} features, which are not the "
                f"queries of {heads} heads with keys and values of {groups}"
            )
        together = heads // groups if by_head else heads
        sizes = {"q": together * each, "k": each, "v": each}
        if not by_head:
            sizes |= {"k": groups * each, "v": groups * each}
        start, every = 0, sum(sizes.values())
        for part, size in sizes.items():
            if by_head and groups > 1:
                self._note(f"{name}.{part}", path, "output", size * groups, start, size, every)
            else:
                self._note(f"{name}.{part}", path, "output", size, start)
            self.layers.setdefault(part, []).append(path)
            start += size

    def _sublayer(
        self, stack: Stack, name: str, which: str, block: str, last: str, width: int
    ) -> None:
        path = f"{block}.{stack.after[which]}" if which in stack.after else last
        self._find(path)
        self._note(f"{name}.{which}.sublayer", path, "output", width)

    def _add(
        self, name: str, path: str, side: Literal["input", "output"], *, role: str | None = None
    ) -> int:
        width = features(self._find(path), side)
        self._note(name, path, side, width)
        if role is not None:
            self.layers.setdefault(role, []).append(path)
        return width

    def _note(
        self,
        name: str,
        path: str,
        side: Literal["input", "output"],
        size: int,
        start: int = 0,
        run: int = 0,
        every: int = 0,
    ) -> None:
        self.sites[name] = Site(name, path, side, start, size, run, every)

    def _find(self, path: str) -> Any:
        if path not in self.modules:
            raise InputError(
                f"sites: looked for the module {path!r} in {self.kind!r} ({self.network}) and "
                "found none; give the architecture's own layout=(...)"
            )
        return self.modules[path]


def _key_heads(config: Any) -> int:
    if getattr(config, "multi_query", False) and not getattr(
        config, "new_decoder_architecture", False
    ):
        return 1
    given = (getattr(config, name, None) for name in ("num_key_value_heads", "num_kv_heads"))
    return next((n for n in given if n is not None), config.num_attention_heads)


def _is_norm(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and weight is not None and weight.ndim == 1


def _unknown(network: Any, kind: str) -> str:
    """What to do about an architecture that is not known, with its own names."""
    lists = {n: m for n, m in network.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    seen = ""
    if lists:
        size = {n: sum(p.numel() for p in m.parameters()) for n, m in lists.items()}
        blocks = max(lists, key=size.__getitem__)
        inner = [
            n
            for n, m in lists[blocks][0].named_modules()
            if getattr(m, "weight", None) is not None and m.weight.ndim == 2
        ]
        seen = f" Its blocks seem to be {blocks!r}, with the layers {', '.join(inner)}."
    return (
        f"sites: the architecture {kind!r} is not known (known: {', '.join(LAYOUTS)}). Say where "
        "its layers are in a file, for `fewfit tune --sites FILE`, or in Python for "
        f"layout=read_sites(FILE).{seen} Llama's would be: {EXAMPLE}"
    )
