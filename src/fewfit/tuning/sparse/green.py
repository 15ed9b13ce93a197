"""GreenTrainer: Huang et al., ICLR 2024, arXiv 2309.13192. Read in the authors' code.

What a parameter's gradient costs is measured here, on the network at hand, where they have
formulas for each architecture; the knapsack takes O(N bins). The optimiser begins anew with each
plan, where theirs keeps what it knew of parameters that had left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Group, Handle
from fewfit.tuning.measure import flops_of
from fewfit.tuning.method import Data, Run, learn
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.site import feature_axis
from fewfit.tuning.sparse.fish import gradient, reading
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.sparse.weights import Weights, weights_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

BINS = 1000
"""T_q: the budget is cut into so many parts."""

FLOOR = 0.05
"""Of the backward pass, where the forward pass alone takes the budget."""

PROBE = 0.1
"""The step that gains are looked up at, as a share of the recipe's.

A whole one, of all parameters at once and by their signs, is too far for its gradient to tell what
each of them does.
"""


@dataclass(frozen=True)
class GreenTrainer(Weights):
    """The parameters whose training helps most within a share of full training's operations.

    Parameters
    ----------
    rho : float, default=0.5
        The share, forward pass included; of training all that is not frozen.
    interval : int, default=2
        Epochs after which parameters are chosen anew.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-4)

    rho: Annotated[float, Field(gt=0, le=1)] = 0.5
    interval: Annotated[int, Field(ge=1)] = 2

    def build(self, base: Trunk, seed: int) -> Adapter:
        adapter = self.own(base, dict.fromkeys(self.free(base, weights_of(base, "all"))))
        adapter.flexible = True  # what no plan took is not kept
        return adapter

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        recipe = run.recipe or self.recipe
        names = list(self.free(base, weights_of(base, "all")))
        some = Data([data.rows[i] for i in recipe.rows(0, len(data.rows), run.seed)])
        costs = run.counted(lambda: costs_of(base, some, names, loss))
        adapter = _Chosen(base.network, dict.fromkeys(names), self.factors(base, names))
        if run.start is not None:
            self.check_start(base, [k[6:] for k in run.start if k.startswith("value.")])
            adapter.restore(adapter.tensors() | dict(run.start))
        epoch = max(1, len(data.rows) // min(recipe.batch_size, len(data.rows)))
        length = self.interval * epoch
        for begin in range(0, recipe.steps, length):
            rows = recipe.rows(begin, len(data.rows), run.seed)
            probe = Data([data.rows[i] for i in rows])
            gains = run.counted(partial(self._importance, base, adapter, probe, loss, recipe))
            adapter.open = frozenset(self.plan(costs, gains))
            part = Part.of(recipe, begin, min(length, recipe.steps - begin))
            now = replace(run.part(str(begin)), recipe=part, start=None)
            learn(base, adapter, data.rows, loss, now, part)
        theta_0 = dict(base.network.named_parameters())
        moved = {
            f"value.{name}": value.detach()
            for name, value in adapter.value.items()
            if not torch.equal(value, theta_0[name].detach().flatten().float())
        }
        return self.fresh(base, replace(run, start=None)).restore(moved)

    def plan(self, costs: Costs, importance: Mapping[str, float]) -> list[str]:
        """Return which parameters to train until the next plan."""
        ratio = costs.forward / costs.backward
        left = self.rho * (1 + ratio) - ratio  # rho_bp
        backward = left if left > 0 else FLOOR
        order = costs.order
        chosen = select(
            [costs.weight[n] for n in order],
            [costs.pass_on[n] for n in order],
            [importance[n] for n in order],
            backward * costs.backward,
        )
        return [order[k] for k in chosen] or [order[0]]

    def _importance(
        self, base: Trunk, adapter: OwnScalars, data: Data, loss: Any, recipe: Recipe
    ) -> dict[str, float]:
        """I_k = -sum g1_k dw_k, dw a first step of Adam, by the largest; nothing is kept."""
        names, factors = list(adapter.value), self.factors(base, adapter.value)
        was = {name: value.detach().clone() for name, value in adapter.value.items()}
        with adapter.on(base.network):
            g0 = gradient(base, data, names, loss)
        for name, value in adapter.value.items():
            step = PROBE * recipe.learning_rate * factors.get(name, 1.0)
            g = g0[name].flatten().to(value.device)
            value.data -= step * g / (g.abs() + 1e-8)
        with adapter.on(base.network):
            g1 = gradient(base, data, names, loss)
        found: dict[str, float] = {}
        for name, value in adapter.value.items():
            dw = (value.detach() - was[name]).cpu()
            found[name] = -float((g1[name].flatten() * dw).sum())
            value.data.copy_(was[name])
        largest = max(map(abs, found.values())) or 1.0
        return {name: gain / largest for name, gain in found.items()}


@dataclass(frozen=True)
class Costs:
    """Operations of a training step.

    Attributes
    ----------
    order : list of str
        Parameters from the output to the input, as they are reached on the way back.
    weight, pass_on : dict of str to float
        t_dw, for a parameter's own gradient, and t_dy, to take the gradient past it.
    forward, backward : float
        Of the whole step, all parameters trained.
    """

    order: list[str]
    weight: dict[str, float]
    pass_on: dict[str, float]
    forward: float
    backward: float


def costs_of(base: Trunk, data: Data, names: Sequence[str], loss: Any) -> Costs:
    """Measure a step on some rows: each layer for itself, and the whole.

    What no layer with weights accounts for, the attention's own products, is booked where queries,
    keys and values are made: a gradient has to come past them to all that lies before.
    """
    encoded = [row[0] for row in encode_rows(base, data.rows)]
    wanted = {id(base.network.get_parameter(name)): name for name in names}
    reached: list[str] = []
    size: dict[str, float] = {}
    attention = {p: p.rpartition(".")[0] for role in "qkv" for p in base.sites.layers.get(role, ())}
    last: dict[str, str] = {}
    late: list[tuple[str, float]] = []

    def note(path: str) -> Any:
        def called(layer: Any, args: tuple[Any, ...], output: Any) -> None:
            for own, parameter in layer.named_parameters(recurse=False):
                name = wanted.get(id(parameter))
                if name is None:
                    continue
                again = name in reached  # as a head that is tied to the embeddings
                if not again:
                    reached.append(name)
                shape = output.shape if isinstance(output, Tensor) else ()
                if own == "weight" and parameter.ndim == 2 and not isinstance(layer, nn.Embedding):
                    inputs = parameter.shape[feature_axis(layer, "input")]
                    operations = 2.0 * math.prod(shape) * inputs
                    size[name] = size.get(name, 0.0) + operations
                    if again:
                        late.append((name, operations))
                if path in attention:
                    last[attention[path]] = name

        return called

    handles = [m.register_forward_hook(note(p)) for p, m in base.network.named_modules()]
    try:
        with reading(base, names) as read:
            total = flops_of(lambda: loss(read(encoded), range(len(encoded)), 0))
    finally:
        for handle in handles:
            handle.remove()
    for name in names:  # not reached on these rows
        if name not in reached:
            reached.insert(0, name)
    pass_on = {name: size.get(name, 0.0) for name in reached}
    rest = max(0.0, total.backward - 2 * sum(size.values()))
    for name in last.values():
        pass_on[name] += rest / len(last)
    for name, operations in late:  # every gradient comes past the last use first
        pass_on[name] -= operations
        pass_on[reached[-1]] += operations
    weight = {name: size.get(name, 0.0) for name in reached}
    return Costs(reached[::-1], weight, pass_on, float(total.forward), float(total.backward))


def select(
    weight: Sequence[float], pass_on: Sequence[float], importance: Sequence[float], budget: float
) -> list[int]:
    """Maximise the importance of a set S of tensors, ordered from the output to the input.

    Its cost is sum over S of t_dw, and of t_dy down to the deepest of S; at most the budget. For
    each deepest tensor what is left is a knapsack over those above it, and one table holds them
    all.

    Parameters
    ----------
    weight, pass_on : sequence of N float
        t_dw and t_dy.
    importance : sequence of N float
        What is not positive is never taken.
    budget : float

    Returns
    -------
    list of int
        Positions, ascending.
    """
    whole = all(float(x).is_integer() for x in (*weight, *pass_on)) and budget <= BINS
    scale = 1.0 if whole else BINS / max(budget, 1e-30)
    dw, T = [math.floor(x * scale) for x in weight], math.floor(min(budget * scale, BINS) + 1e-9)
    passed = np.cumsum(pass_on) * scale
    best: NDArray[np.float64] = np.zeros(T + 1)
    taken = np.zeros((len(dw), T + 1), dtype=bool)
    found, deepest, at = 0.0, -1, 0
    for k, gain in enumerate(importance):
        left = T - math.floor(passed[k]) - dw[k]
        if gain > 0 and left >= 0 and best[left] + gain > found:
            found, deepest, at = best[left] + gain, k, left
        if gain > 0 and dw[k] <= T:
            fresh = np.full(T + 1, -np.inf)
            fresh[dw[k] :] = best[: T + 1 - dw[k]] + gain
            taken[k] = fresh > best
            best = np.maximum(best, fresh)
    if deepest < 0:
        return []
    chosen = [deepest]
    for k in range(deepest - 1, -1, -1):
        if taken[k, at]:
            chosen.append(k)
            at -= dw[k]
    return chosen[::-1]


@dataclass(frozen=True)
class Part(Recipe):
    """Some steps of a longer recipe."""

    begin: int = 0
    whole: int = 1

    @classmethod
    def of(cls, recipe: Recipe, begin: int, steps: int) -> Part:
        """Return `steps` steps from the one with number `begin`."""
        return cls(**{**vars(recipe), "steps": steps}, begin=begin, whole=recipe.steps)

    def rate(self, step: int) -> float:
        return replace(self._all(), steps=self.whole).rate(step + self.begin)

    def rows(self, step: int, n_rows: int, seed: int) -> list[int]:
        return self._all().rows(step + self.begin, n_rows, seed)

    def _all(self) -> Recipe:
        return Recipe(**{k: v for k, v in vars(self).items() if k not in ("begin", "whole")})


class _Chosen(OwnScalars):
    """All parameters have values of their own; those that are open have gradients."""

    open: frozenset[str] | None = None

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return {n: v for n, v in self.value.items() if self.open is None or n in self.open}

    def groups(self) -> Sequence[Group]:
        mine = self.parts(self)
        kept = (g._replace(names=tuple(n for n in g.names if n in mine)) for g in super().groups())
        return [group for group in kept if group.names]

    def act(self, network: nn.Module) -> list[Handle]:
        handles = super().act(network)
        for name, parameter in self._named.items():
            parameter.requires_grad_(self.open is None or name in self.open)
        return handles
