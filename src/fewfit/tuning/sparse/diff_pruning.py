"""Diff pruning: Guo, Rush & Kim, ACL 2021, arXiv 2012.07463. Read in the authors' code.

theta = theta_0 + delta, delta = z z_g w: a gate z for each scalar, a gate z_g for each parameter g.
Left out is their classification head, which a network that scores label words does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Group
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.sparse.gates import Gated, draw, key, opens, uniform
from fewfit.tuning.sparse.weights import Budgeted, none
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class DiffPruning(Budgeted):
    """A sparse difference, under a penalty on the number of its scalars; then its K largest, tuned.

    Both trainings have all of the recipe's steps.

    Parameters
    ----------
    structured : bool, default=True
        Whether there are gates of whole parameters too.
    penalty : float, default=42.5
        lambda times the number of scalars: the weight of the expected share of open gates. The
        paper's 1.25e-7 for the 3.4e8 of its network.
    alpha : float, default=5
        Log-odds of an open gate at the start.
    alpha_rate : float, default=0.1
        Learning rate of the log-odds, at its peak.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=5e-4)

    structured: bool = True
    penalty: Annotated[float, Field(ge=0)] = 42.5
    alpha: float = 5.0
    alpha_rate: Annotated[float, Field(gt=0)] = 0.1

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        return none(base, self.candidates(base))

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        if run.start is not None:  # has chosen already
            return super().fit(base, data, run)
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        factor = self.alpha_rate / (run.recipe or self.recipe).learning_rate
        candidates = self.candidates(base)
        gated = Differences(base.network, candidates, self.alpha, factor)
        gated.factors = self.factors(base, candidates)
        gated.structured = self.structured
        gated.to(base.device)
        learn(base, gated, data.rows, self._sparse(gated, loss), run.part("gates"), self.recipe)
        delta = gated.drawn(run.seed)
        ticket = self.own(base, self.chosen(base, {name: d.abs() for name, d in delta.items()}))
        for name, index in ticket.index.items():
            ticket.value[name].data += delta[name].flatten()[index].to(base.device)
        learn(base, ticket, data.rows, loss, run, self.recipe)
        return ticket

    def trainings(self, n_templates: int) -> int:
        return 2

    def _sparse(self, gated: Differences, loss: Loss) -> Loss:
        def sparse(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            return loss(tokens, rows, step) + self.penalty * gated.expected_share()

        return sparse


class Differences(Gated):
    """The gates of scalars and of parameters; see :class:`DiffPruning`."""

    structured: bool = True

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str] | dict[str, Tensor],
        alpha: float,
        factor: float,
    ) -> None:
        super().__init__(network, names)
        self.factor = factor
        self.scalar = nn.ParameterDict(
            {name: torch.full(w.shape, alpha) for name, w in self.w.items()}
        )
        self.group = nn.ParameterDict({name: torch.full((), alpha) for name in self.w})

    def z(self, name: str, *, generator: torch.Generator | None = None) -> Tensor:
        alpha, alpha_g = self.scalar[key(name)], self.group[key(name)]
        z = draw(alpha, uniform(alpha, generator))
        return z * draw(alpha_g, uniform(alpha_g, generator)) if self.structured else z

    def expected_share(self) -> Tensor:
        """E ||delta||_0 / d = (1/d) sum over g and i in g of P(z_i > 0) P(z_g > 0)."""
        d = sum(w.numel() for w in self.w.values())
        parts = [
            opens(alpha).sum() * (opens(self.group[name]) if self.structured else 1)
            for name, alpha in self.scalar.items()
        ]
        return torch.stack(parts).sum() / d

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        found = dict(self.named_parameters())
        return {n: p for n, p in found.items() if self.structured or not n.startswith("group.")}

    def groups(self) -> Sequence[Group]:
        rest = tuple(n for n in self.parts(self) if not n.startswith("w."))
        return [Group(rest, self.factor), *super().groups()]
