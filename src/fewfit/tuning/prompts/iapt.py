"""IAPT: Zhu et al., ACL 2024, arXiv 2405.18203. A reconstruction: there is no public code.

Each layer makes a few keys and values of the instruction that it is reading. What the paper leaves
open is ours: where the pooling stands, that keys and values come of the frozen projections, and
that a generator reads what these do: behind the norm, where a network has one there, since what is
in front of it grows from layer to layer to where a rational function overflows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Group, Handle, PerThread
from fewfit.tuning.attention import (
    AttentionPart,
    AttentionSite,
    attach,
    attention_sites,
    by_key_head,
)
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.prompts.dept import numbered
from fewfit.tuning.sites import Site
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

DEGREES = 6, 5
"""p and q of a rational function."""

RATIONAL_RATE = 0.1
"""Of the rational functions' coefficients, as a factor of all else."""


class Generator(nn.Module):
    """Z = H W_down + b_down; R = softmax(Z W_sa)^T Z over the instruction; P = g(R) W_up + b_up."""

    def __init__(self, d: int, r: int, m: int, generator: torch.Generator) -> None:
        super().__init__()

        def normal(*shape: int, std: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * std)

        self.W_down, self.b_down = normal(d, r, std=d**-0.5), nn.Parameter(torch.zeros(r))
        self.W_sa = normal(r, m, std=r**-0.5)
        self.W_up, self.b_up = normal(r, d, std=0.02), nn.Parameter(torch.zeros(d))

    def forward(self, H: Tensor, own: Tensor, g: Rational) -> Tensor:
        """Return P, (B, m, d), of H, (B, T, d), where `own`, (B, T), says what is instruction."""
        Z = H.float() @ self.W_down + self.b_down
        A = (Z @ self.W_sa).masked_fill(~own[..., None], -torch.inf).softmax(1)
        return g(A.transpose(1, 2) @ Z) @ self.W_up + self.b_up


class Rational(nn.Module):
    """g(x) = sum_j a_j x^j / (1 + |sum_k b_k x^k|), at first GELU on [-3, 3]."""

    def __init__(self) -> None:
        super().__init__()
        a, b = gelu_coefficients()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor) -> Tensor:
        below = 1 + (_polynomial(self.b, x) * x).abs()
        return _polynomial(self.a, x) / below


def _polynomial(coefficients: Tensor, x: Tensor) -> Tensor:
    value = torch.zeros_like(x)
    for c in reversed(coefficients.unbind()):
        value = value * x + c
    return value


@cache
def gelu_coefficients() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a_0..a_p and b_1..b_q of least squares, linear as b's polynomial is positive."""
    p, q = DEGREES
    x = np.linspace(-3, 3, 601)
    gelu = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    even = range(2, q + 1, 2)
    design = np.stack([*(x**j for j in range(p + 1)), *(-gelu * x**k for k in even)], 1)
    found = np.linalg.lstsq(design, gelu, rcond=None)[0].tolist()
    b = dict(zip(even, found[p + 1 :], strict=True))
    return tuple(found[: p + 1]), tuple(b.get(k, 0.0) for k in range(1, q + 1))


class Instructed(Adapter, AttentionPart):
    """m keys and values of each attention over the text, made of what it reads.

    Parameters
    ----------
    sites : sequence of AttentionSite
    layers : sequence of (Site, Site)
        The frozen projections to keys and values.
    shared : int
        Adjacent blocks that share a generator.
    """

    def __init__(
        self,
        sites: Sequence[AttentionSite],
        layers: Sequence[tuple[Site, Site]],
        *,
        kind: str,
        sizes: tuple[int, int, int],
        shared: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.m, self.kind, self.shared = sizes[2], kind, shared
        self._sites = list(sites)
        self._layers = {site.name: pair for site, pair in zip(sites, layers, strict=True)}
        self._place = {site.name: i for i, site in enumerate(sites)}
        n = -(-len(sites) // shared)
        self.generators = nn.ModuleList(Generator(*sizes, generator) for _ in range(n))
        self.rational = nn.ModuleList(Rational() for _ in sites)
        self._now = PerThread()
        self._network: Any = None

    def groups(self) -> Sequence[Group]:
        names = tuple(n for n, _ in self.named_parameters() if n.startswith("rational."))
        return [Group(names, RATIONAL_RATE)]

    def act(self, network: nn.Module) -> list[Handle]:
        if not self.m:
            return []
        object.__setattr__(self, "_network", network)  # not a part of this module
        handles: list[Any] = [attach(network, self._sites, self), _Forget(self._now)]
        for i, site in enumerate(self._sites):
            module = network.get_submodule(site.module)
            handles.append(module.register_forward_pre_hook(self._read(i), with_kwargs=True))
        return handles

    def _read(self, i: int) -> Any:
        def read(_: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            self._now.kept[id(self), i] = args[0] if args else named["hidden_states"]

        return read

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        if not self.m:
            return batch
        self._now.kept.clear()
        self._now.kept[id(self), "own"] = numbered(batch, self.kind) >= 0
        if "position_ids" not in batch.inputs:
            return batch
        moved = {"position_ids": batch.inputs["position_ids"] + self.m}
        return replace(batch, inputs={**batch.inputs, **moved})

    def prompt(self, name: str) -> Tensor:
        """Return P_l of an attention, (B, m, d), while the network reads."""
        i, kept = self._place[name], self._now.kept
        H, own = kept[id(self), i], kept.get((id(self), "own"))
        if own is None or own.shape != H.shape[:2]:
            raise InputError("instruction: the network reads rows whose text was not marked")
        generator: Any = self.generators[i // self.shared]
        return generator(H, own, self.rational[i])

    def keys_values(self, site: AttentionSite, queries: Tensor) -> tuple[Tensor, Tensor]:
        kept, behind = self._now.kept, queries.shape[2] == 1
        if behind and (id(self), site.name) in kept:  # a token that is generated behind the text
            return kept[id(self), site.name]
        P = self.prompt(site.name)
        keys, values = (
            by_key_head(self._network, layer, site, P) for layer in self._layers[site.name]
        )
        if not torch.is_grad_enabled():
            kept[id(self), site.name] = keys, values
        return keys, values


class _Forget:
    """Lets go of what a pass has read."""

    def __init__(self, now: PerThread) -> None:
        self.now = now

    def remove(self) -> None:
        self.now.kept.clear()


@dataclass(frozen=True)
class IAPT(TuningMethod):
    """m keys and values in each layer, made of the text by a small generator.

    Parameters
    ----------
    m : int, default=4
        Keys and values of each layer.
    r : int, default=32
        Width of the generators.
    shared : int, default=2
        Adjacent layers that share one; each has a rational function of its own.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    m: Annotated[int, Field(ge=0, le=1024)] = 4
    r: Annotated[int, Field(ge=1, le=4096)] = 32
    shared: Annotated[int, Field(ge=1)] = 2

    def build(self, base: Trunk, seed: int) -> Adapter:
        base.make_room(self.m)
        first = base.sites.select("embeddings")[0]
        stack, found = first.name.split(".")[0], attention_sites(base.network, base.sites)
        own = [s for name, s in found.items() if name.startswith(f"{stack}.") and "self" in name]
        sites = base.sites.sites
        layers = [(sites[f"{site.name}.k"], sites[f"{site.name}.v"]) for site in own]
        return Instructed(
            own,
            layers,
            kind=base.kind,
            sizes=(first.size, self.r, self.m),
            shared=self.shared,
            generator=torch.Generator().manual_seed(seed),
        )
