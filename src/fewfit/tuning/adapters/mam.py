"""The MAM adapter: He et al., ICLR 2022, arXiv 2110.04366. Read in the authors' code.

The paper's view of all adapters as one form, and what it found best: a short prefix for every
attention, a wide parallel adapter for every feed-forward. Its network that makes the prefix during
training is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fewfit.tuning.adapter import Adapter, Group, Together
from fewfit.tuning.adapters.bottleneck import ParallelAdapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.prompts.prefix_tuning import PrefixTuning
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

PREFIX_RATE = 5.0
"""Of the prefix, as a factor of the bottlenecks'."""


class MixAndMatch(Together):
    """A prefix and bottlenecks, each at its own rate."""

    def groups(self) -> Sequence[Group]:
        prefix = tuple(f"adapters.0.{name}" for name, _ in self.members[0].named_parameters())
        return [Group(prefix, PREFIX_RATE), *super().groups()] if prefix else super().groups()


@dataclass(frozen=True)
class MAM(TuningMethod):
    """A prefix of l keys and values in every attention, a parallel adapter at every feed-forward.

    Parameters
    ----------
    l : int, default=16
        Tokens of the prefix; 30 in the paper where data are large.
    r : int, default=16
        Width of the bottlenecks; 512 there.
    s : float, default=2
        Factor of what they add; 4 there.
    learn_s : bool, default=False
        Whether each of them trains its own, from there on.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)
    neutral: ClassVar[Mapping[str, Any]] = {"l": 0}

    l: Annotated[int, Field(ge=0, le=4096)] = 16  # noqa: E741
    r: Annotated[int, Field(ge=1, le=4096)] = 16
    s: float = 2.0
    learn_s: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        return MixAndMatch(
            PrefixTuning(m=self.l).build(base, seed),
            ParallelAdapter(r=self.r, s=self.s, learn_s=self.learn_s).build(base, seed),
        )
