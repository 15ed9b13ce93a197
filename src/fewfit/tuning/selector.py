"""Which of a network's own parameters to train: the contract, and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fewfit.errors import InputError

Masks = dict[str, Tensor]
"""For some parameters, by name, a bool tensor of their shape: True where it may change."""


class Selector(Protocol):
    """Chooses scalars under a budget, from the parameters and their gradients on some data."""

    def select(
        self,
        parameters: Mapping[str, Tensor],
        budget: int,
        gradients: Mapping[str, Tensor] | None = None,
    ) -> Masks:
        """Return masks with exactly `budget` scalars chosen in all.

        Parameters
        ----------
        parameters : mapping of str to Tensor
        budget : int
        gradients : mapping of str to Tensor, optional
            For a selector that looks at data.
        """
        ...


@dataclass(frozen=True)
class RandomSelector:
    """Every scalar with the same probability: what any other selector is measured against."""

    seed: int = 0

    def select(
        self,
        parameters: Mapping[str, Tensor],
        budget: int,
        gradients: Mapping[str, Tensor] | None = None,
    ) -> Masks:
        names = sorted(parameters)
        sizes = [parameters[name].numel() for name in names]
        if not 1 <= budget <= sum(sizes):
            raise InputError(f"selector: the budget is 1 to {sum(sizes)} scalars, not {budget}")
        generator = torch.Generator().manual_seed(self.seed)
        flat = torch.zeros(sum(sizes), dtype=torch.bool)
        flat[torch.randperm(len(flat), generator=generator)[:budget]] = True
        return {
            name: part.view(parameters[name].shape)
            for name, part in zip(names, flat.split(sizes), strict=True)
            if part.any()
        }
