"""Bottleneck adapters, in series (Houlsby et al. 2019) and parallel, scaled (He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Place, SiteAdapter
from fewfit.tuning.attention import attention_sites
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Bottleneck(nn.Module):
    """h + s (W_u relu(W_d x + b_d) + b_u), with W_u = 0 and b_u = 0 at first.

    With `heads` h is as many heads' one behind the other, of which each has its own W_d and W_u.
    """

    s: float | Tensor

    def __init__(
        self,
        d_in: int,
        d_out: int,
        r: int,
        s: float,
        generator: torch.Generator,
        *,
        learn_s: bool = False,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.W_d = nn.Parameter(torch.randn(heads * r, d_in, generator=generator) / d_in**0.5)
        self.W_u = nn.Parameter(torch.zeros(d_out, r))
        self.b_d, self.b_u = nn.Parameter(torch.zeros(heads * r)), nn.Parameter(torch.zeros(d_out))
        self.s, self.heads = nn.Parameter(torch.tensor(s)) if learn_s else s, heads

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        inner = torch.relu(x.float() @ self.W_d.T + self.b_d)
        if self.heads == 1:
            made = inner @ self.W_u.T
        else:
            of_head = self.W_u.unflatten(0, (self.heads, -1)).mT
            made = (inner.unflatten(-1, (self.heads, 1, -1)) @ of_head).flatten(-3)
        return h + (self.s * (made + self.b_u)).to(h.dtype)


Where = Literal["both", "attention", "ffn"]
"""Sublayers that have a bottleneck."""

PARTS: dict[str, tuple[str, ...]] = {
    "heads": ("self.context", "cross.context"),
    "both": ("self.o", "cross.o", "ffn.out"),
    "attention": ("self.o", "cross.o"),
    "ffn": ("ffn.out",),
}
"""What the last layer of each sublayer writes, or what the attention's reads of its heads."""


@dataclass(frozen=True)
class SeriesAdapter(TuningMethod):
    """Bottlenecks behind the attention's and the feed-forward's output, which they read.

    Parameters
    ----------
    r : int, default=16
        Width of the bottleneck.
    s : float, default=1
        Factor of what it adds.
    where : {"both", "attention", "ffn"}, default="both"
        Behind what it stands; Pfeiffer et al. (2021) have it behind the feed-forward alone.
    learn_s : bool, default=False
        Whether each of them trains its own s, from there on.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    r: Annotated[int, Field(ge=1, le=4096)] = 16
    s: float = 1.0
    where: Where = "both"
    learn_s: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        g, places, modules = torch.Generator().manual_seed(seed), {}, {}
        for out in base.sites.select(*PARTS[self.where]):
            sizes = out.size, out.size
            places[out.name] = Place(out)
            modules[out.name] = Bottleneck(*sizes, self.r, self.s, g, learn_s=self.learn_s)
        return SiteAdapter(places, modules)


@dataclass(frozen=True)
class ParallelAdapter(TuningMethod):
    """Bottlenecks beside a sublayer: they read what it reads, and add to what it writes.

    Parameters
    ----------
    r : int, default=16
        Width of the bottleneck.
    s : float, default=4
        Factor of what it adds.
    where : {"both", "attention", "ffn", "heads"}, default="ffn"
        Beside what it stands. Heads: each head of the attention has one of its own, which adds to
        what the head gives; a prefix of r keys and values is of this form.
    learn_s : bool, default=False
        Whether each of them trains its own s, from there on.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    r: Annotated[int, Field(ge=1, le=4096)] = 16
    s: float = 4.0
    where: Where | Literal["heads"] = "ffn"
    learn_s: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        g, sites = torch.Generator().manual_seed(seed), base.sites.sites
        per_head = attention_sites(base.network, base.sites) if self.where == "heads" else {}
        places, modules = {}, {}
        for out in base.sites.select(*PARTS[self.where]):
            sublayer = out.name.rpartition(".")[0]
            read = sites[f"{sublayer}.in"]
            places[out.name] = Place(out, read)
            modules[out.name] = Bottleneck(
                *(read.size, out.size, self.r, self.s, g),
                learn_s=self.learn_s,
                heads=per_head[sublayer].heads if per_head else 1,
            )
        return SiteAdapter(places, modules)
