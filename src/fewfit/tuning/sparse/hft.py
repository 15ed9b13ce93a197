"""Half fine-tuning: Hui et al., ACL 2025, arXiv 2404.18466.

From the text and a public re-implementation of its rule; the authors' own code is not public.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import Data, Run, learn
from fewfit.tuning.site import feature_axis
from fewfit.tuning.sparse.own import OwnScalars, put
from fewfit.tuning.sparse.weights import Weights, weights_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

Masked = dict[str, Tensor | None]
Member = tuple[str, slice | list[int] | None]
"""Path of a module, and which of its output's features, if it plays several roles."""


@dataclass(frozen=True)
class HFT(Weights):
    """In every block half of each kind of weights is trained, drawn anew each round.

    Of the attention's four matrices two are frozen, and half of the norms; of a feed-forward's
    three matrices two in a random half of the blocks and one in the others, of its two one. A bias
    goes with its matrix. Embeddings, head, and what is of no kind are trained.

    Parameters
    ----------
    rounds : int, default=1
        The recipe's steps are trained in each.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-4)

    rounds: Annotated[int, Field(ge=1)] = 1

    def build(self, base: Trunk, seed: int) -> Adapter:
        """Return an adapter of all that any round trains."""
        union: Masked = {}
        for round in range(self.rounds):
            masks = self.half(base, seed, round)
            union = {name: _either(union, masks, name) for name in {**union, **masks}}
        return self.own(base, union)

    def half(self, base: Trunk, seed: int, round: int = 0) -> Masked:
        """Return what is trained in a round: None for all of a parameter, or a mask."""
        rng = np.random.default_rng([seed, round])
        everything = weights_of(base, "all")
        frozen: dict[str, Tensor] = {}
        for category in categories(base):
            more = set(rng.permutation(len(category))[: len(category) // 2].tolist())
            for i, members in enumerate(category):
                n = (len(members) + (i in more)) // 2
                for j in rng.permutation(len(members))[:n]:
                    _freeze(base, members[int(j)], everything, frozen)
        masks: Masked = {name: None for name in everything if name not in frozen}
        masks |= {name: ~mask for name, mask in frozen.items() if not mask.all()}
        return {name: masks[name] for name in self.free(base, {n: everything[n] for n in masks})}

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        if self.rounds == 1:
            return super().fit(base, data, run)
        if run.start is not None:
            raise InputError("start: rounds draw anew what they train; start with rounds=1")
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        before = {name: w.clone() for name, w in weights_of(base, "all").items()}
        try:
            for round in range(self.rounds):
                adapter = self.own(base, self.half(base, run.seed, round))
                part = run.part(str(round), seed=run.seed + round)
                learn(base, adapter, data.rows, loss, part, self.recipe)
                adapter.merge(base.network)
            return self.build(base, run.seed)
        finally:
            put(dict(base.network.named_parameters()), {}, before)

    def trainings(self, n_templates: int) -> int:
        return self.rounds


def half_reset(adapter: OwnScalars, masks: Mapping[str, Tensor | None], base: Trunk) -> None:
    """Put the scalars of a choice back to what the base model has: the paper's Half-Reset."""
    for name, value in adapter.value.items():
        theta_0 = base.network.get_parameter(name).detach().flatten().float()
        index = adapter.index.get(name)
        was = theta_0 if index is None else theta_0[index.to(theta_0.device)]
        if name not in masks:
            continue
        mask = masks[name]
        if mask is None:
            back = torch.ones_like(was, dtype=torch.bool)
        else:
            back = mask.flatten() if index is None else mask.flatten()[index]
        value.data = torch.where(back.to(was.device), was, value.data)


def categories(base: Trunk) -> Iterator[list[list[Member]]]:
    """Yield the kinds of weights; each is a list of blocks, each block a list of modules."""
    sites = base.sites
    names = [name.removesuffix(".block") for name in sites.sites if name.endswith(".block")]
    for which in ("self", "cross"):
        found = [
            [_member(base, sites.sites[f"{name}.{which}.{part}"]) for part in "qkvo"]
            for name in names
            if f"{name}.{which}.q" in sites.sites
        ]
        yield found
    layers = [*sites.layers.get("ffn.in", ()), *sites.layers.get("ffn.out", ())]
    inside = [[path for path in layers if path.startswith(f"{b}.")] for b in sites.blocks]
    yield [[(path, None) for path in paths] for paths in inside if paths]
    norms = [[path for path in sites.norms if path.startswith(f"{b}.")] for b in sites.blocks]
    yield [[(path, None) for path in paths] for paths in norms if paths]


def _member(base: Trunk, site: Any) -> Member:
    layer: Any = base.network.get_submodule(site.module)
    whole = layer.weight.shape[feature_axis(layer, "output")] == site.size
    return site.module, None if whole else site.where


def _freeze(
    base: Trunk, member: Member, everything: Mapping[str, Tensor], frozen: dict[str, Tensor]
) -> None:
    path, where = member
    layer: Any = base.network.get_submodule(path)
    for own, parameter in layer.named_parameters(recurse=False):
        name = f"{path}.{own}"
        if name not in everything:  # tied to one that is
            continue
        mask = frozen.setdefault(name, torch.zeros(parameter.shape, dtype=torch.bool))
        if where is None:
            mask[:] = True
        elif parameter.ndim == 1 or feature_axis(layer, "output") == 0:
            mask[where] = True
        else:
            mask[:, where] = True


def _either(one: Masked, other: Masked, name: str) -> Tensor | None:
    """The union of what two rounds have trained."""
    both = [masks[name] for masks in (one, other) if name in masks]
    kept = [mask for mask in both if mask is not None]
    if len(kept) < len(both):
        return None
    return kept[0] if len(kept) == 1 else kept[0] | kept[1]
