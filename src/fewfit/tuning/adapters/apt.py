"""APT: Wu et al. 2023, arXiv 2306.15706. Read in the authors' code.

What a prompt adds to an attention, softmax(q K_P) V_P at its share of the mass, is computed beside
it, and the sequence stays as long as it was. The weight is the code's: the largest activation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Place, SiteAdapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Approximated(nn.Module):
    """(x + w e) exp(s), with a = relu(u (T + T W_1 W_2)^T), e = a T and w = max a, a constant.

    Parameters
    ----------
    T : Tensor of shape (n, d)
        n tokens: keys, with a change of rank r, and values.
    W_1 : Tensor of shape (d, r)
        W_2 is 0 at first, and so is s.
    """

    def __init__(self, T: Tensor, W_1: Tensor) -> None:
        super().__init__()
        self.T, self.W_1 = nn.Parameter(T), nn.Parameter(W_1)
        self.W_2 = nn.Parameter(torch.zeros(W_1.shape[1], W_1.shape[0]))
        self.s = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        keys = self.T + self.T @ self.W_1 @ self.W_2
        a = torch.relu(u.float() @ keys.T)
        w = a.amax(-1, keepdim=True).detach()
        return ((x.float() + w * (a @ self.T)) * self.s.exp()).to(x.dtype)


@dataclass(frozen=True)
class APT(TuningMethod):
    """n tokens beside the output of every attention.

    Parameters
    ----------
    n : int, default=50
    r : int, default=4
        Rank of the change of the keys.
    std : float, default=0.02
        Of the tokens at first; 0 leaves the network as it is.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)
    neutral: ClassVar[Mapping[str, Any]] = {"std": 0.0}

    n: Annotated[int, Field(ge=1, le=4096)] = 50
    r: Annotated[int, Field(ge=1, le=4096)] = 4
    std: Annotated[float, Field(ge=0)] = 0.02

    def build(self, base: Trunk, seed: int) -> Adapter:
        g, sites = torch.Generator().manual_seed(seed), base.sites.sites
        places, modules = {}, {}
        for out in base.sites.select("self.o", "cross.o"):
            query = sites[f"{out.name.removesuffix('.o')}.q"]
            read = query._replace(side="input", start=0, size=out.size, run=0, every=0)
            places[out.name] = Place(out, read)
            T = torch.randn(self.n, out.size, generator=g) * self.std
            modules[out.name] = Approximated(T, torch.randn(out.size, self.r, generator=g))
        return SiteAdapter(places, modules)
