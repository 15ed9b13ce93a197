"""Scalable weight reparametrization: Kim et al. 2023, arXiv 2302.13435.

A reconstruction: there is no public code, and the text leaves the policy's form open. Here it is a
network of two layers that reads a learnt vector of each parameter and gives the log-odds of its
gate, which is diff pruning's gate of whole parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Group
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.selector import Level
from fewfit.tuning.sparse.gates import Gated, draw, key, opens, uniform
from fewfit.tuning.sparse.weights import Budgeted, none
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class SWR(Budgeted):
    """Whole parameters, which a policy opens and shuts while they are trained; then it is gone.

    What is left is W + Delta for the parameters most likely open, as many as fit into the budget: a
    quarter of all scalars, if none is given.

    Parameters
    ----------
    penalty : float, default=100
        Weight of the square of the expected share of scalars beyond the budget's.
    policy_rate : float, default=0.01
        Learning rate of the policy, at its peak.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=5e-4)

    otherwise: ClassVar[int | float] = 0.25

    level: Level = "tensor"
    penalty: Annotated[float, Field(ge=0)] = 100.0
    policy_rate: Annotated[float, Field(gt=0)] = 0.01

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        return none(base, self.candidates(base))

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        if run.start is not None:
            raise InputError("start: swr learns which parameters to change anew; leave it out")
        self.check(base, data)
        run = self.named(run)
        factor = self.policy_rate / (run.recipe or self.recipe).learning_rate
        candidates = self.candidates(base)
        gated = Policy(base.network, candidates, factor, run.seed).to(base.device)
        gated.factors = self.factors(base, candidates)
        budget = self.k(base) / sum(w.numel() for w in candidates.values())
        loss = self._within(gated, budget, self.loss(base, data.rows))
        learn(base, gated, data.rows, loss, run, self.recipe)
        open_ = {name: opens(alpha).detach().cpu() for name, alpha in gated.alphas().items()}
        masks = self.chosen(base, {n: open_[n].expand(w.shape) for n, w in candidates.items()})
        adapter = self.own(base, masks)
        for name in masks:
            adapter.value[name].data += gated.w[key(name)].detach().flatten()
        return adapter

    def _within(self, gated: Policy, budget: float, loss: Loss) -> Loss:
        def within(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            beyond = (gated.expected_share() - budget).clamp(min=0)
            return loss(tokens, rows, step) + self.penalty * beyond**2

        return within


class Policy(Gated):
    """A gate for each parameter, whose log-odds a small network gives."""

    def __init__(
        self, network: nn.Module, names: Iterable[str], factor: float, seed: int, width: int = 16
    ) -> None:
        super().__init__(network, names)
        self.factor = factor
        g = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=g) / shape[-1] ** 0.5)

        self.vectors = normal(len(self.w), width)
        self.first, self.second = normal(width, width), normal(1, width)
        self.bias = nn.Parameter(torch.full((1,), 2.0))

    def alphas(self) -> dict[str, Tensor]:
        """Return the log-odds of each parameter's gate."""
        found = (self.vectors @ self.first.T).relu() @ self.second.T + self.bias
        return dict(zip(self.names, found.flatten(), strict=True))

    def z(self, name: str, *, generator: torch.Generator | None = None) -> Tensor:
        alpha = self.alphas()[name]
        return draw(alpha, uniform(alpha, generator))

    def expected_share(self) -> Tensor:
        """E[updated]: the expected share of scalars whose gate is open."""
        d = sum(w.numel() for w in self.w.values())
        parts = [opens(a) * self.w[key(name)].numel() for name, a in self.alphas().items()]
        return torch.stack(parts).sum() / d

    def groups(self) -> Sequence[Group]:
        rest = tuple(n for n in self.parts(self) if not n.startswith("w."))
        return [Group(rest, self.factor), *super().groups()]
