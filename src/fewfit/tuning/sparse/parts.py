"""Parts of a network by their place, trained whole: all of it, norms, last blocks, both ends.

The last two are the light forms of Zlotchevski et al., ESEC/FSE 2022, arXiv 2208.13928; the norms
Zhao et al. 2023, arXiv 2312.11420; and drawing top blocks anew Tinn et al., Patterns 2023, arXiv
2112.07869. None has public code; this is from the texts.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import Run
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.sparse.weights import Weights, weights_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class _Part(Weights):
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-4)

    @abstractmethod
    def names(self, base: Trunk, everything: dict[str, Tensor]) -> list[str]:
        """Return which parameters are the part."""

    def build(self, base: Trunk, seed: int) -> Adapter:
        everything = weights_of(base, "all")
        mine = {name: everything[name] for name in self.names(base, everything)}
        if not mine:
            raise InputError(f"{type(self).__name__}: this network has no such part")
        return self.own(base, dict.fromkeys(self.free(base, mine)))


@dataclass(frozen=True)
class FullTuning(_Part):
    """All weights: what everything else saves.

    Parameters
    ----------
    reinitialise : int, default=0
        So many of the last blocks start anew, from the network's own N(0, initializer_range), with
        norms that scale nothing and no bias. Embeddings and head, tied or not, stay.
    """

    neutral: ClassVar = {"reinitialise": 0}

    reinitialise: Annotated[int, Field(ge=0)] = 0

    def names(self, base: Trunk, everything: dict[str, Tensor]) -> list[str]:
        return list(everything)

    def build(self, base: Trunk, seed: int) -> Adapter:
        adapter = super().build(base, seed)
        blocks = base.sites.blocks
        if self.reinitialise > len(blocks) - self.freeze:
            raise InputError(
                f"reinitialise: of {len(blocks)} blocks {self.freeze} are frozen, so that "
                f"{self.reinitialise} cannot start anew"
            )
        assert isinstance(adapter, OwnScalars)
        anew = blocks[len(blocks) - self.reinitialise :]
        _draw(
            adapter,
            [n for n in adapter.value if n.startswith(tuple(f"{b}." for b in anew))]
            if anew
            else [],
            base,
            seed,
        )
        return adapter

    def fresh(self, base: Trunk, run: Run) -> Adapter:
        if self.reinitialise and run.start is not None:
            raise InputError(
                "reinitialise: blocks that are drawn anew would be put back by a start; leave out "
                "one of the two"
            )
        return super().fresh(base, run)


@dataclass(frozen=True)
class LayerNorms(_Part):
    """Scales and shifts of all norms."""

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    def names(self, base: Trunk, everything: dict[str, Tensor]) -> list[str]:
        inside = tuple(f"{path}." for path in base.sites.norms)
        return [name for name in everything if name.startswith(inside)]


@dataclass(frozen=True)
class LastBlocks(_Part):
    """The last blocks.

    Parameters
    ----------
    n : int, default=1
    """

    n: Annotated[int, Field(ge=1)] = 1

    def names(self, base: Trunk, everything: dict[str, Tensor]) -> list[str]:
        if self.n > len(base.sites.blocks):
            raise InputError(f"n: the network has {len(base.sites.blocks)} blocks, not {self.n}")
        inside = tuple(f"{path}." for path in base.sites.blocks[-self.n :])
        return [name for name in everything if name.startswith(inside)]


@dataclass(frozen=True)
class EmbeddingsAndHead(_Part):
    """L-EO: the token embeddings and the layer over the vocabulary, once where they are tied."""

    def names(self, base: Trunk, everything: dict[str, Tensor]) -> list[str]:
        ends = [path for path in (base.sites.embeddings, base.sites.head) if path]
        own = {id(p) for path in ends for p in base.network.get_submodule(path).parameters()}
        named = base.network.named_parameters()  # BERT's head has a bias by two names
        return [name for name, p in named if id(p) in own and name in everything]


@torch.no_grad()
def _draw(adapter: OwnScalars, names: list[str], base: Trunk, seed: int) -> None:
    """Draw parameters anew as the network once began."""
    spread = getattr(base.network.config, "initializer_range", 0.02)
    scales = {f"{path}.weight": path for path in base.sites.norms}
    g = torch.Generator().manual_seed(seed)
    for name in names:
        value = adapter.value[name]
        if base.network.get_parameter(name).ndim > 1:
            value.copy_(torch.randn(value.shape, generator=g) * spread)
        else:
            value.fill_(_plain(base.network.get_submodule(scales[name])) if name in scales else 0)


def _plain(norm: Any) -> float:
    """What the scale of a norm is at first: 1, or 0 where 1 is added to it, as in Gemma."""
    twin = copy.deepcopy(norm)
    for parameter in twin.parameters():
        parameter.zero_()
    x = torch.arange(1, 1 + twin.weight.numel()).to(twin.weight)
    return 0.0 if bool(twin(x[None]).any()) else 1.0
