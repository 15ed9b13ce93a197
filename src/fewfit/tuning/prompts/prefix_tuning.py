"""Prefix tuning: Li & Liang, ACL 2021, arXiv 2101.00190; on all layers, P-tuning v2, 2110.07602."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.attention import (
    Attention,
    AttentionPart,
    AttentionSite,
    attach,
    attention_sites,
)
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Prefix(Adapter, AttentionPart):
    """Keys and values (key_heads, m, size) of each attention, in front of the tokens' own.

    The text of a causal model is numbered from m on, as if m tokens stood before it; in other
    models its positions stay as they are.

    Parameters
    ----------
    sites : mapping of str to AttentionSite
    pairs : mapping of str to (Tensor, Tensor)
        Of the same names; none for a prefix of no tokens.
    """

    def __init__(
        self, sites: Mapping[str, AttentionSite], pairs: Mapping[str, tuple[Tensor, Tensor]]
    ) -> None:
        super().__init__()
        self.sites = [sites[name] for name in pairs]
        self.K, self.V = nn.ParameterDict(), nn.ParameterDict()
        for name, (keys, values) in pairs.items():
            self.K[_key(name)], self.V[_key(name)] = nn.Parameter(keys), nn.Parameter(values)
        self.m = next(iter(pairs.values()))[0].shape[1] if pairs else 0

    def act(self, network: nn.Module) -> list[Handle]:
        return [attach(network, self.sites, self)] if self.m else []

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        if not self.m or "position_ids" not in batch.inputs:
            return batch
        moved = {"position_ids": batch.inputs["position_ids"] + self.m}
        return replace(batch, inputs={**batch.inputs, **moved})

    def keys_values(self, site: AttentionSite, queries: Tensor) -> tuple[Tensor, Tensor]:
        return self.K[_key(site.name)][None], self.V[_key(site.name)][None]


@dataclass(frozen=True)
class PrefixTuning(TuningMethod):
    """m keys and values in front of those of every attention; m = 0 changes nothing.

    They start as those of m tokens drawn from the vocabulary. The papers' network that makes them
    during training is left out, as in P-tuning v2.

    Parameters
    ----------
    m : int, default=10
        Keys and values of each attention.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=5e-3)
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    m: Annotated[int, Field(ge=0, le=4096)] = 10

    def build(self, base: Trunk, seed: int) -> Adapter:
        sites = attention_sites(base.network, base.sites)
        if not self.m:
            return Prefix(sites, {})
        base.make_room(self.m)
        g = torch.Generator().manual_seed(seed)
        ids = torch.randint(base.n_tokens, (1, self.m), generator=g).to(base.device)
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if base.kind == "seq2seq":
            given["decoder_input_ids"] = ids
        seen = _Seen()
        handle = attach(base.network, sites.values(), seen)
        try:
            with torch.no_grad():
                base.network(**given)
        finally:
            handle.remove()
        return Prefix(sites, {name: seen.pairs[name] for name in sites})


class _Seen(AttentionPart):
    """Keeps every attention's keys and values."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def observe(self, attention: Attention) -> None:
        keys, values = attention.keys[0].float().cpu(), attention.values[0].float().cpu()
        self.pairs[attention.site.name] = keys.clone(), values.clone()


def _key(name: str) -> str:
    return name.replace(".", "/")
