"""What all methods on the network's own weights share: which there are, how deep, at which rates.

The options are the recipes for stable training on small sets of Tinn et al., Patterns 2023, arXiv
2112.07869: frozen lower layers and rates that fall layer by layer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import Data, Run, TuningMethod
from fewfit.tuning.selector import Level, Masks, top_k
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

Where = Literal["blocks", "all"]
"""The matrices of the blocks, or every parameter there is."""


def weights_of(base: Trunk, where: Where = "blocks") -> dict[str, Tensor]:
    """Return parameters by name; tied ones are there once.

    Parameters
    ----------
    where : {"blocks", "all"}, default="blocks"
        "blocks" are the matrices of the blocks: no embedding, bias or norm.

    Raises
    ------
    InputError
        If some are quantised, so that no small change of theirs can be kept.
    """
    named = {n: p.detach() for n, p in base.network.named_parameters()}
    if where == "blocks":
        inside = tuple(f"{path}." for path in base.sites.blocks)
        named = {n: p for n, p in named.items() if p.ndim == 2 and n.startswith(inside)}
    whole = [n for n, p in named.items() if not p.is_floating_point()]
    if whole:
        raise InputError(
            f"weights: {whole[0]!r} is quantised ({named[whole[0]].dtype}), and its scalars cannot "
            "take other values; load the checkpoint in float32 or bfloat16, or tune beside the "
            "weights: --method lora"
        )
    return named


def depths(base: Trunk) -> dict[str, int]:
    """Return l of each parameter: 1 to L in the blocks, an encoder's before its decoder's.

    Embeddings have 0, the head has L, a norm behind the blocks has what the last block of its stack
    has, and all else has that of the block that it is registered after.
    """
    sites, found, last = base.sites, {}, 0
    stacks: dict[str, int] = {}
    for i, path in enumerate(sites.blocks, 1):
        stacks[path.rpartition(".")[0].rpartition(".")[0]] = i
    norms = tuple(f"{path}." for path in sites.norms)
    for name, _ in base.network.named_parameters():
        here = (i for i, path in enumerate(sites.blocks, 1) if name.startswith(f"{path}."))
        block = next(here, None)
        last = last if block is None else block
        if sites.head and name.startswith(f"{sites.head}."):
            found[name] = len(sites.blocks)
        elif block is None and "embed" in name:
            found[name] = 0
        elif block is None and name.startswith(norms):
            own = [i for stack, i in stacks.items() if name.startswith(f"{stack}.")]
            found[name] = max(own, default=len(sites.blocks))
        else:
            found[name] = last
    return found


@dataclass(frozen=True)
class Weights(TuningMethod):
    """A method on scalars that the network has.

    Parameters
    ----------
    layer_decay : float, default=1
        xi: the rate of block l of L is xi^(L - l) times the recipe's, that of the embeddings xi^L.
    freeze : int, default=0
        So many of the lowest blocks stay as they are, and the embeddings with them.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    freeze: Annotated[int, Field(ge=0)] = 0

    def free(self, base: Trunk, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of some parameters that are not frozen (InputError if none is left)."""
        L = len(base.sites.blocks)
        if self.freeze > L:
            raise InputError(f"freeze: the network has {L} blocks, not {self.freeze}")
        deep = depths(base) if self.freeze else {}
        left = {n: p for n, p in names.items() if not self.freeze or deep[n] > self.freeze}
        if not left:
            raise InputError(f"freeze={self.freeze} leaves nothing to train")
        return left

    def own(self, base: Trunk, masks: Mapping[str, Tensor | None]) -> OwnScalars:
        """Return the adapter of chosen scalars, with the rates of their depth."""
        everything = dict(base.network.named_parameters())  # a start may have others
        return OwnScalars(base.network, masks, self.factors(base, everything))

    def fresh(self, base: Trunk, run: Run) -> Adapter:
        adapter = super().fresh(base, run)
        if run.start is not None and isinstance(adapter, OwnScalars):
            self.check_start(base, adapter.value)
        return adapter

    def check_start(self, base: Trunk, names: Iterable[str]) -> None:
        """Refuse a start that changes what these options leave as it is (InputError)."""
        named = dict(base.network.named_parameters())
        outside = sorted(set(names) - self.trainable(base, named).keys())
        if outside:
            raise InputError(
                f"start: it changes {outside[0]!r}, which these options (freeze, where) leave as "
                "it is; give those that it was made with"
            )

    def trainable(self, base: Trunk, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return those of the network's parameters that these options let change."""
        return self.free(base, named)

    def factors(self, base: Trunk, names: Iterable[str]) -> dict[str, float]:
        """Return what the rates of some parameters are times the recipe's; 1 is left out."""
        if self.layer_decay == 1:
            return {}
        deep, L = depths(base), len(base.sites.blocks)
        return {name: self.layer_decay ** (L - deep[name]) for name in names}


@dataclass(frozen=True)
class Budgeted(Weights):
    """Of the scalars that there are, so many.

    Parameters
    ----------
    budget : int, optional
        How many; all, where there are fewer. 10,000, if neither it nor a share is given.
    share : float, optional
        Instead: which share of them, for example 0.005.
    level : {"scalar", "tensor", "block"}, default="scalar"
        What is chosen as a whole. A tensor or block that does not fit into the budget is left out.
    where : {"blocks", "all"}, default="blocks"
        Among the matrices of the blocks, or all parameters. Embeddings are most of them.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=3e-3)
    otherwise: ClassVar[int | float] = 10_000
    """Budget, or share, where none is given."""

    budget: Annotated[int, Field(ge=1)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    level: Level = "scalar"
    where: Where = "blocks"

    def candidates(self, base: Trunk) -> dict[str, Tensor]:
        """Return the parameters that are chosen from."""
        return self.free(base, weights_of(base, self.where))

    def trainable(self, base: Trunk, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.candidates(base)

    def k(self, base: Trunk) -> int:
        """K, the number of scalars (InputError if the share is not one)."""
        total = sum(w.numel() for w in self.candidates(base).values())
        given = self.budget if self.share is None else self.share
        wanted = self.otherwise if given is None else given
        if isinstance(wanted, int):
            return min(wanted, total)
        if wanted * total < 1:
            raise InputError(f"share: {wanted} of {total:,} scalars is not one")
        return math.ceil(wanted * total - 1e-9)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.share is not None:
            raise InputError("budget: share says how many too; leave out one of them")

    def check(self, base: Trunk, data: Data) -> None:
        super().check(base, data)
        if self.level != "scalar":
            self.chosen(base, none(base, self.candidates(base)))  # whether one fits

    def chosen(self, base: Trunk, scores: Mapping[str, Tensor]) -> Masks:
        """Return masks of the K with the highest scores."""
        return top_k(scores, self.k(base), level=self.level, blocks=base.sites.blocks)

    def own(self, base: Trunk, masks: Mapping[str, Tensor | None]) -> OwnScalars:
        adapter = super().own(base, masks)
        adapter.flexible = self.level != "scalar"
        return adapter

    def build(self, base: Trunk, seed: int) -> Adapter:
        return self.own(base, self.chosen(base, self.scores(base, seed)))

    @abstractmethod
    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        """Return a score of each scalar, as far as the network alone has one."""


def none(base: Trunk, candidates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scores before anything was looked at, of which the first K are the highest."""
    return {
        name: w.new_zeros(w.shape, dtype=w.dtype).float().cpu() for name, w in candidates.items()
    }
