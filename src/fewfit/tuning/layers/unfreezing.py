"""Gradual unfreezing with rates by layer: Howard & Ruder, ACL 2018, arXiv 1801.06146."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fewfit.tuning.adapter import Adapter, Group
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Layers(OwnScalars):
    """Blocks, from the last one down: the one at depth i is trained from step i * every on."""

    def __init__(self, base: Trunk, every: int, decay: float) -> None:
        named = dict(base.network.named_parameters())
        self.depths: list[list[str]] = []
        for path in reversed(base.sites.blocks):
            self.depths.append([name for name in named if name.startswith(f"{path}.")])
        super().__init__(base.network, {name: None for own in self.depths for name in own})
        self.every, self.decay = every, decay

    def groups(self) -> Sequence[Group]:
        return [Group(tuple(own), self.decay**i) for i, own in enumerate(self.depths)]

    def replan(self, step: int, active: Collection[str]) -> Collection[str]:
        thawed = 1 + step // self.every if self.every else len(self.depths)
        return [name for own in self.depths[:thawed] for name in own]


@dataclass(frozen=True)
class GradualUnfreezing(TuningMethod):
    """The blocks' own weights: the last block first, then one more every so many steps.

    What the paper says of its rate's shape over the steps is left to the recipe; embeddings and
    head stay as they are.

    Parameters
    ----------
    every : int, default=100
        Steps after which the next block down is trained too; 0 trains all from the start, which
        with a decay of 1 is fine-tuning of all blocks.
    decay : float, default=0.3846
        How much slower each block is than the one above: 1 / 2.6 in the paper.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=2e-4)

    every: Annotated[int, Field(ge=0)] = 100
    decay: Annotated[float, Field(gt=0, le=1)] = 1 / 2.6

    def build(self, base: Trunk, seed: int) -> Adapter:
        return Layers(base, self.every, self.decay)
