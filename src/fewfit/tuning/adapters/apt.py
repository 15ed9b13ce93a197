"""APT: Wu et al. 2023, arXiv 2306.15706. Read in the authors' code.

What a prompt adds to an attention, softmax(q K_P) V_P at its share of the mass, is computed beside
it, and the sequence stays as long as it was. The paper's own form is an approximation, whose weight
is the code's: the largest activation. The form that it approximates is here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Handle, Place, SiteAdapter
from fewfit.tuning.attention import (
    Attention,
    AttentionPart,
    AttentionSite,
    attach,
    attention_sites,
    by_key_head,
)
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.site import Site, features
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Tokens(nn.Module):
    """T, (n, d): n tokens as values, and with a change of rank r as keys, T + T W_1 W_2.

    Parameters
    ----------
    T : Tensor of shape (n, d)
    W_1 : Tensor of shape (d, r)
        W_2 is 0 at first.
    """

    def __init__(self, T: Tensor, W_1: Tensor) -> None:
        super().__init__()
        self.T, self.W_1 = nn.Parameter(T), nn.Parameter(W_1)
        self.W_2 = nn.Parameter(torch.zeros(W_1.shape[1], W_1.shape[0]))

    def keys(self) -> Tensor:
        """Return T + T W_1 W_2."""
        return self.T + self.T @ self.W_1 @ self.W_2


class Approximated(Tokens):
    """(x + w e) exp(s), with a = relu(u (T + T W_1 W_2)^T), e = a T and w = max a, a constant.

    s is 0 at first.
    """

    def __init__(self, T: Tensor, W_1: Tensor) -> None:
        super().__init__(T, W_1)
        self.s = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        a = torch.relu(u.float() @ self.keys().T)
        w = a.amax(-1, keepdim=True).detach()
        return ((x.float() + w * (a @ self.T)) * self.s.exp()).to(x.dtype)


class Exact(Adapter, AttentionPart):
    """(1 - lambda) A + lambda softmax(q K^T) V, K = (T + T W_1 W_2) W_k + b_k, V = T W_v + b_v.

    W_k and W_v are the network's own, A is what its attention gives, and lambda is the share that
    the tokens have of the mass of both. That is a prefix of K and V, whose keys are not rotated and
    in front of which no position of the text moves.

    Parameters
    ----------
    sites : sequence of AttentionSite
    layers : sequence of (Site, Site)
        The frozen projections of each to keys and values.
    tokens : sequence of Tokens
    """

    def __init__(
        self,
        sites: Sequence[AttentionSite],
        layers: Sequence[tuple[Site, Site]],
        tokens: Sequence[Tokens],
    ) -> None:
        super().__init__()
        self.sites, self.at = list(sites), nn.ModuleList(tokens)
        self._of = {
            site.name: (own, *pair) for site, own, pair in zip(sites, tokens, layers, strict=True)
        }
        self._network: Any = None

    def act(self, network: nn.Module) -> list[Handle]:
        object.__setattr__(self, "_network", network)  # not a part of this module
        return [attach(network, self.sites, self)] if self.sites else []

    def branch(self, attention: Attention, output: Tensor) -> Tensor:
        site = attention.site
        tokens, to_keys, to_values = self._of[site.name]
        K = by_key_head(self._network, to_keys, site, tokens.keys())[None]
        V = by_key_head(self._network, to_values, site, tokens.T)[None]
        beside = replace(attention, keys=K, values=V, bias=None, prefix=0).scores()
        share = torch.sigmoid(beside.logsumexp(-1) - attention.scores().logsumexp(-1))
        V = V.repeat_interleave(site.heads // site.key_heads, dim=1).to(beside.dtype)
        added = (beside.softmax(-1) @ V).transpose(1, 2)
        return torch.lerp(output.to(added.dtype), added, share.transpose(1, 2)[..., None])


@dataclass(frozen=True)
class APT(TuningMethod):
    """n tokens beside the output of every attention; n = 0 changes nothing.

    Parameters
    ----------
    n : int, default=50
        Tokens.
    r : int, default=4
        Rank of the change of the keys.
    std : float, default=0.02
        Of the tokens at first; 0 leaves the network as it is, if it is approximated.
    form : {"approximate", "exact"}, default="approximate"
        Exact, the tokens go through the frozen projections to keys and values and have their true
        share of the attention: a prefix, but for the rows' length.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)
    neutral: ClassVar[Mapping[str, Any]] = {"n": 0}

    n: Annotated[int, Field(ge=0, le=4096)] = 50
    r: Annotated[int, Field(ge=1, le=4096)] = 4
    std: Annotated[float, Field(ge=0)] = 0.02
    form: Literal["approximate", "exact"] = "approximate"

    def build(self, base: Trunk, seed: int) -> Adapter:
        g, sites = torch.Generator().manual_seed(seed), base.sites.sites

        def drawn(d: int) -> tuple[Tensor, Tensor]:
            T = torch.randn(self.n, d, generator=g) * self.std
            return T, torch.randn(d, self.r, generator=g)

        if self.form == "exact":
            found = list(attention_sites(base.network, base.sites).values())
            found = found if self.n else []
            layers = [(sites[f"{site.name}.k"], sites[f"{site.name}.v"]) for site in found]
            read_by = [base.network.get_submodule(to_keys.module) for to_keys, _ in layers]
            tokens = [Tokens(*drawn(features(layer, "input"))) for layer in read_by]
            return Exact(found, layers, tokens)
        places, modules = {}, {}
        for out in base.sites.select("self.o", "cross.o") if self.n else ():
            query = sites[f"{out.name.removesuffix('.o')}.q"]
            read = query._replace(side="input", start=0, size=out.size, run=0, every=0)
            places[out.name] = Place(out, read)
            modules[out.name] = Approximated(*drawn(out.size))
        return SiteAdapter(places, modules)
