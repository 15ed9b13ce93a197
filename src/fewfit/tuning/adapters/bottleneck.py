"""Bottleneck adapters, in series (Houlsby et al. 2019) and parallel, scaled (He et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Place, SiteAdapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Bottleneck(nn.Module):
    """h + s (W_u relu(W_d x + b_d) + b_u), with W_u = 0 and b_u = 0 at first."""

    def __init__(self, d_in: int, d_out: int, r: int, s: float, generator: torch.Generator) -> None:
        super().__init__()
        self.W_d = nn.Parameter(torch.randn(r, d_in, generator=generator) / d_in**0.5)
        self.W_u = nn.Parameter(torch.zeros(d_out, r))
        self.b_d, self.b_u = nn.Parameter(torch.zeros(r)), nn.Parameter(torch.zeros(d_out))
        self.s = s

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        inner = torch.relu(x.float() @ self.W_d.T + self.b_d)
        return h + (self.s * (inner @ self.W_u.T + self.b_u)).to(h.dtype)


Where = Literal["both", "attention", "ffn"]
"""Sublayers that have a bottleneck."""

PARTS: dict[Where, tuple[str, ...]] = {
    "both": ("self.o", "cross.o", "ffn.out"),
    "attention": ("self.o", "cross.o"),
    "ffn": ("ffn.out",),
}
"""What the last layer of each sublayer writes."""


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
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    r: Annotated[int, Field(ge=1, le=4096)] = 16
    s: float = 1.0
    where: Where = "both"

    def build(self, base: Trunk, seed: int) -> Adapter:
        g = torch.Generator().manual_seed(seed)
        sites = base.sites.select(*PARTS[self.where])
        return SiteAdapter(
            {site.name: Place(site) for site in sites},
            {site.name: Bottleneck(site.size, site.size, self.r, self.s, g) for site in sites},
        )


@dataclass(frozen=True)
class ParallelAdapter(TuningMethod):
    """Bottlenecks beside a sublayer: they read what it reads, and add to what it writes.

    Parameters
    ----------
    r : int, default=16
        Width of the bottleneck.
    s : float, default=4
        Factor of what it adds.
    where : {"both", "attention", "ffn"}, default="ffn"
        Beside what it stands.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    r: Annotated[int, Field(ge=1, le=4096)] = 16
    s: float = 4.0
    where: Where = "ffn"

    def build(self, base: Trunk, seed: int) -> Adapter:
        g, sites = torch.Generator().manual_seed(seed), base.sites.sites
        places, modules = {}, {}
        for out in base.sites.select(*PARTS[self.where]):
            read = sites[f"{out.name.rpartition('.')[0]}.in"]
            places[out.name] = Place(out, read)
            modules[out.name] = Bottleneck(read.size, out.size, self.r, self.s, g)
        return SiteAdapter(places, modules)
