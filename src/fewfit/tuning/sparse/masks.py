"""Masks that are chosen without looking at the task: by chance, and by magnitude."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.selector import Level, top_k
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


def weights_of(base: Trunk) -> dict[str, Tensor]:
    """Return the matrices of the blocks, by name: no embedding, bias or norm."""
    inside = tuple(f"{path}." for path in base.sites.blocks)
    named = base.network.named_parameters()
    return {n: p.detach() for n, p in named if p.ndim == 2 and n.startswith(inside)}


@dataclass(frozen=True)
class _Masked(TuningMethod):
    """The scalars of the blocks' matrices with the highest scores.

    Parameters
    ----------
    budget : int, default=10000
        How many; all, where there are fewer.
    level : {"scalar", "tensor", "block"}, default="scalar"
        What is chosen as a whole. A tensor or block that does not fit into the budget is left out.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    budget: Annotated[int, Field(ge=1)] = 10_000
    level: Level = "scalar"

    @abstractmethod
    def scores(self, weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Return a score of each scalar."""

    def build(self, base: Trunk, seed: int) -> Adapter:
        weights = weights_of(base)
        budget = min(self.budget, sum(w.numel() for w in weights.values()))
        masks = top_k(
            self.scores(weights, seed), budget, level=self.level, blocks=base.sites.blocks
        )
        return OwnScalars(base.network, masks)


@dataclass(frozen=True)
class RandomMask(_Masked):
    """Scalars drawn with the same probability: what any other mask is measured against."""

    def scores(self, weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        return {name: torch.rand(weights[name].shape, generator=g) for name in sorted(weights)}


@dataclass(frozen=True)
class MagnitudeMask(_Masked):
    """The largest, or the smallest, scalars by their absolute value.

    Parameters
    ----------
    largest : bool, default=True
    """

    largest: bool = True

    def scores(self, weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
        sign = 1 if self.largest else -1
        return {name: sign * w.abs().float().cpu() for name, w in weights.items()}
