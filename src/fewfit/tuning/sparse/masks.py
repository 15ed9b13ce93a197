"""Masks that are chosen without looking at the task: by chance, and by magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewfit.tuning.selector import grouped
from fewfit.tuning.sparse.weights import Budgeted
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class RandomMask(Budgeted):
    """Scalars, tensors or blocks drawn alike: what any other mask is measured against."""

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        g = torch.Generator().manual_seed(seed)
        weights = self.candidates(base)
        if self.level == "scalar":
            return {name: torch.rand(weights[name].shape, generator=g) for name in sorted(weights)}
        # One draw for each: the mean of many has the less spread the larger a tensor is.
        groups = grouped(weights, self.level, base.sites.blocks)
        drawn = {group: float(torch.rand((), generator=g)) for group in groups}
        return {
            name: torch.full(weights[name].shape, drawn[group])
            for group, names in groups.items()
            for name in names
        }


@dataclass(frozen=True)
class MagnitudeMask(Budgeted):
    """The largest, or the smallest, scalars by their absolute value.

    Parameters
    ----------
    largest : bool, default=True
    """

    largest: bool = True

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        sign = 1 if self.largest else -1
        weights = self.candidates(base)
        return {name: sign * w.abs().float().cpu() for name, w in weights.items()}
