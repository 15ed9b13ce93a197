"""Takes what is zero out of a network, heads and hidden features: the answers stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewfit.tuning.attention import attention_sites
from fewfit.tuning.site import feature_axis
from fewfit.tuning.sites import SiteMap


@torch.no_grad()
def slim(network: Any, sites: SiteMap) -> dict[str, int]:
    """Cut away what no later layer reads, in place: hidden features, and heads where that is whole.

    A feature is cut whose column in the layer behind it is zero, which is what
    :class:`~fewfit.tuning.sparse.dsee.DSEE` leaves once merged. Heads are cut in encoders whose
    queries, keys and values are layers of their own with as many heads each, and which take their
    number from what they are given: BERT and its kin.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Changed for good. Its config says what it was, so that it is for this process and not saved.
    sites : SiteMap

    Returns
    -------
    dict of str to int
        How many features each layer has lost, by its path.
    """
    lost: dict[str, int] = {}
    whole = attention_sites(network, sites)
    for name, site in sites.sites.items():
        if site.part not in ("ffn.hidden", "self.context"):
            continue
        layer = network.get_submodule(site.module)
        axis = feature_axis(layer, "input")
        kept = layer.weight.movedim(axis, 0).flatten(1).ne(0).any(1)
        if site.part == "ffn.hidden":
            block = max((b for b in sites.blocks if site.module.startswith(f"{b}.")), key=len)
            before = [p for p in sites.layers["ffn.in"] if p.startswith(f"{block}.")]
        else:
            own = whole[name.removesuffix(".context")]
            before = [sites.sites[f"{name.removesuffix('context')}{part}"].module for part in "qkv"]
            equal = own.heads == own.key_heads and len(kept) == own.heads * own.size
            if not _apart(network, own.module, before, equal):
                continue
            heads = kept.view(own.heads, own.size).any(1)
            kept = heads.repeat_interleave(own.size)
        if kept.all() or not kept.any():
            continue
        lost[site.module] = int((~kept).sum())
        _cut(layer, "input", kept)
        for path in before:
            _cut(network.get_submodule(path), "output", kept)
    return lost


def _apart(network: Any, module: str, layers: Sequence[str], equal: bool) -> bool:
    """Whether heads can go: an attention without a bias of its own for each."""
    found = [network.get_submodule(path) for path in layers]
    plain = all(isinstance(layer, nn.Linear) for layer in found) and len(set(layers)) == 3
    return equal and plain and hasattr(network.get_submodule(module), "attention_head_size")


def _cut(layer: Any, side: Any, kept: Tensor) -> None:
    axis = feature_axis(layer, side)
    at = kept.nonzero().flatten()
    layer.weight = nn.Parameter(layer.weight.index_select(axis, at), layer.weight.requires_grad)
    if side == "output" and layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias[at], layer.bias.requires_grad)
    name = ("in" if side == "input" else "out") + "_features"
    if hasattr(layer, name):
        setattr(layer, name, len(at))
    elif side == "output":
        layer.nf = len(at)  # GPT-2's Conv1D
