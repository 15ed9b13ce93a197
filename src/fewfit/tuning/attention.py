"""One attention function for all architectures, to which prefixes, branches and observers attach.

transformers lets the networks that follow its ``AttentionInterface`` call a function from a table.
The one that is put there here calls what the network called before, with the arguments that it
had, unless something is attached to the attention that asks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from fewfit.errors import CapabilityError
from fewfit.tuning.sites import Site, SiteMap

_NAMES = {"sdpa": "fewfit_sdpa", "eager": "fewfit_eager"}
_ATTACHED = "_fewfit_attached"


class AttentionSite(NamedTuple):
    """One attention of a network.

    Attributes
    ----------
    name : str
        As a site's: ``"decoder.0.self"``.
    module : str
        Path of the module that computes it.
    heads, key_heads, size : int
        Heads of queries, of keys and values, and features of each.
    """

    name: str
    module: str
    heads: int
    key_heads: int
    size: int


@dataclass(frozen=True)
class Attention:
    """What an attention is about to compute.

    Attributes
    ----------
    site : AttentionSite
    queries : Tensor of shape (B, heads, T, size)
    keys, values : Tensor of shape (B, key_heads, P + S, size)
        Rotated where the network rotates; the prefixes' P first.
    bias : Tensor of shape (B or 1, heads or 1, T or 1, P + S), or None
        What is added to the scores: the lowest number where nothing may be seen, and positions
        where they are relative.
    scale : float
        Of the products of queries and keys.
    softcap : float or None
        The scores are bent to lie between -softcap and softcap.
    prefix : int
        P.
    """

    site: AttentionSite
    queries: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    prefix: int

    def scores(self) -> Tensor:
        """Return what the softmax is taken of, (B, heads, T, P + S), float32 or float64."""
        times = self.site.heads // self.site.key_heads
        keys = self.keys.repeat_interleave(times, dim=1)
        scores = self.queries @ keys.transpose(-1, -2) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if self.bias is not None:
            scores = scores + self.bias
        return scores if scores.dtype == torch.float64 else scores.float()


class AttentionPart:
    """What attaches to attentions; each of its methods may be overridden, and does nothing here."""

    def keys_values(self, site: AttentionSite, queries: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return keys and values that every query sees, (B or 1, key_heads, P, size), or None.

        They go in front of the tokens' own as they are: without rotation, and without a relative
        position.
        """

    def observe(self, attention: Attention) -> None:
        """Look at what is about to be computed."""

    def branch(self, attention: Attention, output: Tensor) -> Tensor | None:
        """Return what takes the place of the heads' output, (B, T, heads, size), or None.

        The logarithm of the softmax's denominator is ``attention.scores().logsumexp(-1)``.
        """


class Handle:
    """Takes a part away again."""

    def __init__(self, network: Any, modules: Sequence[Any], part: AttentionPart) -> None:
        self._network, self._modules, self._part = network, list(modules), part

    def remove(self) -> None:
        """Undo :func:`attach`; without any part the network calls its own function again."""
        for module in self._modules:
            site, parts = getattr(module, _ATTACHED)
            left = tuple(part for part in parts if part is not self._part)
            if left:
                setattr(module, _ATTACHED, (site, left))
            else:
                delattr(module, _ATTACHED)
        self._modules.clear()
        if not any(hasattr(module, _ATTACHED) for module in self._network.modules()):
            self._network.set_attn_implementation(_implementation(self._network))


def attention_sites(network: Any, sites: SiteMap) -> dict[str, AttentionSite]:
    """Return the attentions of a network by name, block after block.

    Raises
    ------
    CapabilityError
        If the network computes its attention in a way of its own.
    """
    _implementation(network)
    found: dict[str, AttentionSite] = {}
    for site in sites.select("self.q", "cross.q"):
        name, path = site.name.removesuffix(".q"), site.module.rpartition(".")[0]
        module, keys = network.get_submodule(path), sites.sites[f"{name}.k"]
        heads = module.config.get_text_config().num_attention_heads
        size = site.size // heads
        found[name] = AttentionSite(name, path, heads, keys.size // size, size)
    return found


def attach(network: Any, sites: Iterable[AttentionSite], part: AttentionPart) -> Handle:
    """Attach a part to attentions, behind those that are there, until the handle is removed.

    Parameters
    ----------
    network : transformers.PreTrainedModel
    sites : iterable of AttentionSite
        Of :func:`attention_sites`.
    part : AttentionPart

    Raises
    ------
    CapabilityError
        If the network computes its attention in a way of its own.
    """
    network.set_attn_implementation(_NAMES[_implementation(network)])
    modules = []
    for site in sites:
        module = network.get_submodule(site.module)
        _, parts = getattr(module, _ATTACHED, (site, ()))
        setattr(module, _ATTACHED, (site, (*parts, part)))
        modules.append(module)
    return Handle(network, modules, part)


def by_key_head(network: Any, layer: Site, site: AttentionSite, x: Tensor) -> Tensor:
    """Return what a frozen projection to keys or values makes of x, head by head.

    Parameters
    ----------
    network : torch.nn.Module
    layer : Site
        ``k`` or ``v`` of the attention `site`.
    x : Tensor of shape (..., n, width)

    Returns
    -------
    Tensor of shape (..., key_heads, n, size)
        Without rotation, and without the norm that some networks put behind the projection.
    """
    module = network.get_submodule(layer.module)
    weight = next(module.parameters())
    # Not by calling it, whose hooks are other adapters'.
    made = module.forward(x.to(weight.dtype))[..., layer.where]
    return made.unflatten(-1, (site.key_heads, site.size)).transpose(-3, -2)


def _implementation(network: Any) -> str:
    """Return what computes the network's attention where nothing is attached."""
    models = [module for module in network.modules() if isinstance(module, PreTrainedModel)]
    names = {str(model.config._attn_implementation) for model in models}
    own = {before for before, name in _NAMES.items() if names & {before, name}}
    able = all(model._can_set_attn_implementation() for model in models)
    if not able or len(names) > 1 or not own:
        raise CapabilityError(
            f"attention: {type(network).__name__} computes it in a way of its own "
            f"({', '.join(sorted(names)) if able else 'not through AttentionInterface'}), to which "
            "no prefix, branch or observer can be attached; take an architecture that is served by "
            "transformers' AttentionInterface, with attn_implementation 'sdpa' or 'eager'"
        )
    return own.pop()


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    inner: Any,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    attached = getattr(module, _ATTACHED, None)
    if attached is None:
        return inner(module, query, key, value, attention_mask, **options)
    site, parts = attached
    mask, own = attention_mask, key.shape[2]
    pairs = [pair for part in parts if (pair := part.keys_values(site, query)) is not None]
    looked_at = any(
        type(part).observe is not AttentionPart.observe
        or type(part).branch is not AttentionPart.branch
        for part in parts
    )
    if mask is None and (pairs or looked_at) and inner is sdpa_attention_forward:
        mask = _causal(module, query, own, options)
    if pairs:
        rows = query.shape[0]
        keys, values = zip(*pairs, strict=True)
        key = torch.cat([*(k.to(key).expand(rows, -1, -1, -1) for k in keys), key], 2)
        value = torch.cat([*(v.to(value).expand(rows, -1, -1, -1) for v in values), value], 2)
        front = key.shape[2] - own
        if mask is not None:
            mask = pad(mask, (front, 0), value=True if mask.dtype == torch.bool else 0.0)
        if options.get("position_bias") is not None:
            options["position_bias"] = pad(options["position_bias"], (front, 0))
    attention = None
    if looked_at:
        bias = options.get("position_bias")
        if mask is not None:
            added = mask
            if mask.dtype == torch.bool:
                lowest = torch.finfo(query.dtype).min
                added = query.new_zeros(mask.shape).masked_fill(~mask, lowest)
            bias = added if bias is None else bias + added
        scale = options.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        cap = options.get("softcap")
        attention = Attention(site, query, key, value, bias, scale, cap, key.shape[2] - own)
        for part in parts:
            part.observe(attention)
    output, weights = inner(module, query, key, value, mask, **options)
    if attention is not None:
        for part in parts:
            new = part.branch(attention, output)
            output = output if new is None else new.to(output.dtype)
    return output, weights


def _causal(module: Any, query: Tensor, keys: int, options: dict[str, Any]) -> Tensor | None:
    """What sdpa's flag means, as a mask, (1, 1, T, S): a prefix in front would move it."""
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    tokens = query.shape[2]
    if not causal or tokens == 1:
        return None
    options["is_causal"] = False
    return torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril()[None, None]


def _sdpa(module: Any, *args: Any, **options: Any) -> Any:
    return _attend(module, *args, inner=sdpa_attention_forward, **options)


def _eager(module: Any, *args: Any, **options: Any) -> Any:
    own = sys.modules[type(module).__module__]
    return _attend(module, *args, inner=own.eager_attention_forward, **options)


for _name, _function in (("sdpa", _sdpa), ("eager", _eager)):
    AttentionInterface.register(_NAMES[_name], _function)
    AttentionMaskInterface.register(_NAMES[_name], ALL_MASK_ATTENTION_FUNCTIONS[_name])
