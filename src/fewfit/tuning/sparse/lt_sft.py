"""LT-SFT: Ansell et al., ACL 2022, arXiv 2110.07560: train all, and again the K that moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import Data, Run, TuningMethod, learn
from fewfit.tuning.selector import Masks, top_k
from fewfit.tuning.sparse.masks import weights_of
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class LTSFT(TuningMethod):
    """The lottery ticket: K scalars, by how far a first, dense training moved them.

    Both trainings have all of the recipe's steps.

    Parameters
    ----------
    budget : int, default=10000
        K; all, where there are fewer.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=5e-4)

    budget: Annotated[int, Field(ge=1)] = 10_000

    def build(self, base: Trunk, seed: int) -> Adapter:
        """Return the ticket of a network that nothing has moved yet: the first K scalars."""
        weights = weights_of(base)
        masks = top_k({n: w.float().cpu() * 0 for n, w in weights.items()}, self._k(base))
        return OwnScalars(base.network, masks)

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        dense = OwnScalars(base.network, dict.fromkeys(weights_of(base)))
        learn(base, dense, data.rows, loss, run.part("dense"), self.recipe)
        ticket = OwnScalars(base.network, self._moved(base, dense))
        if run.start is not None:
            ticket.restore(run.start)
        learn(base, ticket, data.rows, loss, run, self.recipe)
        return ticket

    def trainings(self, n_templates: int) -> int:
        return 2

    def _moved(self, base: Trunk, dense: OwnScalars) -> Masks:
        weights, now = weights_of(base), dense.value
        change = {
            n: (now[n].detach().cpu().view(w.shape) - w.float().cpu()).abs()
            for n, w in weights.items()
        }
        return top_k(change, self._k(base))

    def _k(self, base: Trunk) -> int:
        return min(self.budget, sum(w.numel() for w in weights_of(base).values()))
