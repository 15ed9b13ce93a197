"""Which of a network's own parameters to train: scores to masks under an exact budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from fewfit.errors import InputError

Masks = dict[str, Tensor]
"""For some parameters, by name, a bool tensor of their shape: True where it may change."""

Level = Literal["scalar", "tensor", "block"]
"""What is chosen as a whole."""


def top_k(
    scores: Mapping[str, Tensor],
    budget: int,
    *,
    level: Level = "scalar",
    blocks: Sequence[str] = (),
) -> Masks:
    """Return masks of the `budget` scalars with the highest scores.

    Parameters
    ----------
    scores : mapping of str to Tensor
        A score of each scalar, in its parameter's shape; none is NaN.
    budget : int
    level : {"scalar", "tensor", "block"}, default="scalar"
        For tensors and blocks the mean score counts, and the best that still fit are taken, so
        that there may be fewer than `budget` scalars. Of equal scores the first is taken, in the
        order of the names.
    blocks : sequence of str
        Paths of the blocks, for the level "block".

    Raises
    ------
    InputError
        If the budget is none, or more than there is, or too small for any of them.
    """
    names = sorted(scores)
    sizes = [scores[name].numel() for name in names]
    if not 1 <= budget <= sum(sizes):
        raise InputError(f"selector: the budget is 1 to {sum(sizes)} scalars, not {budget}")
    if any(torch.isnan(scores[name]).any() for name in names):
        raise InputError("selector: a score is not a number")
    if level == "scalar":
        best = _best_scalars([scores[name] for name in names], budget)
        return {name: mask for name, mask in zip(names, best, strict=True) if mask.any()}
    groups = grouped(names, level, blocks)

    def mean(group: str) -> float:
        total = sum(float(scores[name].double().sum()) for name in groups[group])
        return total / sum(scores[name].numel() for name in groups[group])

    masks: Masks = {}
    left = budget
    for group in sorted(groups, key=lambda group: -mean(group)):
        size = sum(scores[name].numel() for name in groups[group])
        if size <= left:
            left -= size
            for name in groups[group]:
                masks[name] = torch.ones(scores[name].shape, dtype=torch.bool)
    if not masks:
        smallest = min(sum(scores[n].numel() for n in names) for names in groups.values())
        raise InputError(
            f"budget: no {level} has as few as {budget:,} scalars, the smallest has {smallest:,}; "
            "give a larger budget or share"
        )
    return masks


def grouped(names: Iterable[str], level: Level, blocks: Sequence[str]) -> dict[str, list[str]]:
    """Return the parameters of each tensor or block, in the order of their names."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        inside = (path for path in blocks if name.startswith(f"{path}."))
        groups.setdefault(next(inside, name) if level == "block" else name, []).append(name)
    return groups


def _best_scalars(scores: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Masks of the `budget` highest; one copy of the scores is partitioned, and nothing sorted."""
    flat = np.empty(sum(score.numel() for score in scores), dtype=np.float32)
    at = 0
    for score in scores:
        flat[at : at + score.numel()] = score.detach().cpu().flatten().numpy()
        at += score.numel()
    flat.partition(len(flat) - budget)
    least = flat[len(flat) - budget]
    ties = budget - int((flat[len(flat) - budget :] > least).sum())
    del flat
    masks: list[Tensor] = []
    for score in scores:
        part = score.detach().cpu().float().flatten()
        mask = part > float(least)
        equal = (part == float(least)).nonzero().flatten()[:ties]  # the first of equals
        mask[equal] = True
        ties -= len(equal)
        masks.append(mask.view(score.shape))
    return masks


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
        g = torch.Generator().manual_seed(self.seed)
        names = sorted(parameters)
        return top_k({n: torch.rand(parameters[n].shape, generator=g) for n in names}, budget)
