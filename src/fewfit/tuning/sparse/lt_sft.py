"""LT-SFT: Ansell et al., ACL 2022, arXiv 2110.07560: train all, and again the K that moved.

Read in the authors' code. Both trainings have all of the recipe's steps and an optimiser of their
own; nothing decays, which would move what is not chosen. Theirs have one rate, 5e-5, for many
epochs and a twentieth of the scalars; in the few steps here a rate at which few scalars learn
enough would wreck the network where all do. Theirs leave the layer over the
vocabulary as it is. Here it may be the token embeddings too: rows of tokens that no training text
has and no choice names are not chosen. The softmax's normaliser moves them all alike, step by step
in one direction, and so further than what the task needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.selector import Masks
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.sparse.weights import Budgeted, none
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class LTSFT(Budgeted):
    """The lottery ticket: K scalars, by how far a first, dense training moved them.

    A start is a ticket that is there already, and is trained on.

    Parameters
    ----------
    l1 : float, default=0.1
        Weight of the mean distance |theta - theta_0| of all that is trained, in both trainings.
    dense : float, default=1/30
        Rate of the first training, as a factor of the recipe's; 1 in the paper.
    """

    l1: Annotated[float, Field(ge=0)] = 0.1
    dense: Annotated[float, Field(gt=0)] = 1 / 30

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        return none(base, self.candidates(base))

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        ticket: Any = self.fresh(base, run)
        if run.start is None:
            dense = self.own(base, dict.fromkeys(self.candidates(base)))
            usual = run.recipe or self.recipe
            slower = replace(usual, learning_rate=self.dense * usual.learning_rate)
            first = replace(run.part("dense"), recipe=slower)
            learn(base, dense, data.rows, self._near(base, dense, loss), first, slower)
            ticket = self.own(base, self._moved(base, dense, data))
        learn(base, ticket, data.rows, self._near(base, ticket, loss), run, self.recipe)
        return ticket

    def trainings(self, n_templates: int) -> int:
        return 2

    def _near(self, base: Trunk, adapter: OwnScalars, loss: Loss) -> Loss:
        theta_0 = {n: w.to(base.device) for n, w in adapter.found_in(base.network).items()}
        N = sum(value.numel() for value in theta_0.values())

        def near(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            total = loss(tokens, rows, step)
            if not self.l1:
                return total
            parts = [(adapter.value[n] - theta_0[n]).abs().sum() for n in adapter.value]
            return total + self.l1 / N * sum(parts[1:], parts[0])

        return near

    def _moved(self, base: Trunk, dense: OwnScalars, data: Data) -> Masks:
        weights, now = self.candidates(base), dense.value
        change = {
            n: (now[n].detach().cpu().view(w.shape) - w.float().cpu()).abs()
            for n, w in weights.items()
        }
        for name in vocabulary_parameters(base).intersection(change):
            unmet = torch.ones(len(change[name]), dtype=torch.bool)
            unmet[tokens_of(base, data)] = False
            change[name][unmet] = 0.0
        return self.chosen(base, change)


def vocabulary_parameters(base: Trunk) -> set[str]:
    """Return the names of the parameters that have a row for each token."""
    network = base.network
    layers = (network.get_input_embeddings(), network.get_output_embeddings())
    own = {id(p) for layer in layers if layer is not None for p in layer.parameters()}
    return {name for name, p in network.named_parameters() if id(p) in own}


def tokens_of(base: Trunk, data: Data) -> list[int]:
    """Return the tokens that rows have or name, each once."""
    found = {t for t in (base.pack.mask_id, base.pack.start_id) if t is not None}
    for item in (item for row in encode_rows(base, data.rows) for item in row):
        found.update(item.before, item.after, *item.choices)
    return sorted(found)
