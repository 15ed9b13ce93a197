"""A learning rate by trial: a few rates, each judged on labelled rows that are held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fewfit.errors import DivergenceError, InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import LOOKS, Data, Rows, Run, TuningMethod
from fewfit.tuning.reading import encode_rows, scored
from fewfit.tuning.trunk import Trunk

FACTORS = (1 / 3, 1.0, 3.0)
"""The rates that are tried, as shares of the recipe's."""

HELD_OUT = 0.25
"""Share of each class that is held out; one row at least, where there are two."""


class Try(NamedTuple):
    """A rate, what it led to on the rows that were held out, and where its training ended.

    Attributes
    ----------
    rate : float
    loss : float
        Mean cross-entropy, nats.
    accuracy : float
    steps : int
        Until the loss was lowest; all that were made where a method does not look on the way.
    """

    rate: float
    loss: float
    accuracy: float
    steps: int


class Chosen(NamedTuple):
    """An adapter trained on all rows, the try that it follows, all of them, and its steps."""

    adapter: Adapter
    best: Try
    tries: list[Try]
    n_held_out: int
    steps: int


def check_trials(method: TuningMethod) -> None:
    """Refuse a method of which trials would say nothing (InputError)."""
    if method.decoded:
        raise InputError(
            "rate: trials are judged by how the choices are ranked, and what "
            f"{type(method).__name__} learns is read by a decoder instead; name the rate"
        )


def fit_at_best_rate(
    method: TuningMethod, base: Trunk, data: Data, run: Run, factors: Sequence[float] = FACTORS
) -> Chosen:
    """Fit a method at the best of a few rates.

    A quarter of each class is held out. At each rate the method is trained on the others, and ends
    early where the held-out loss has stopped to fall; the rate with the lowest loss is taken. The
    method is then trained on all rows at this rate, to the end of its schedule: cut off where the
    loss was lowest, at a rate that has not fallen yet, it does worse (``python -m benchmarks
    rate_end``). A method with a `fit` of its own makes all its steps each time. A rate at which it
    diverges is out.

    Parameters
    ----------
    method : TuningMethod
    base : Trunk
    data : Data
    run : Run
        Its recipe's rate is the middle of the grid. A meter is told of all trainings.
    factors : sequence of float
        Of the recipe's rate.

    Raises
    ------
    InputError
        If no class has two rows, rows have several labels, or a decoder reads what is learnt.
    DivergenceError
        If it diverges at every rate.
    """
    if data.sets is not None:
        raise InputError(
            "rate: trials are judged by one answer for each row, and these have several labels; "
            "name the rate"
        )
    check_trials(method)
    held = held_out([row[0].answer for row in data.rows], run.seed)
    if not held:
        raise InputError(
            "rate: to choose one, rows are held out, and no class has two; give more, or name the "
            "rate"
        )
    kept: Rows = [data.rows[i] for i in held]
    rest: Rows = [row for i, row in enumerate(data.rows) if i not in set(held)]
    truth = torch.tensor([row[0].answer for row in kept])
    encoded = [row[0] for row in encode_rows(base, kept)]
    recipe = run.recipe or method.usual()
    met = run.meter.steps if run.meter and method.trainings(len(data.rows[0])) == 1 else None

    def made(since: int) -> int:
        """Steps of a training; it may have ended before the recipe does."""
        return recipe.steps if met is None else sum(met[since:])

    tries: list[Try] = []
    failed: DivergenceError | None = None
    for i, factor in enumerate(factors):
        rate = recipe.learning_rate * factor
        part = replace(run.part(f"rate{i}"), recipe=replace(recipe, learning_rate=rate))
        looks: list[float] = []
        n_before = len(met or ())
        if type(method).fit is TuningMethod.fit:
            part = replace(part, held_out=kept, looks=looks)
        try:
            adapter = method.fit(base, data._replace(rows=rest), part)
        except DivergenceError as error:
            failed = error
            continue
        with adapter.on(base.network):
            beta = torch.from_numpy(scored(base, encoded, adapter=adapter, meter=run.meter))
        right = float((beta.argmax(1) == truth).float().mean())
        steps = made(n_before)
        if looks:
            steps = min(recipe.steps, (1 + int(np.argmin(looks))) * max(1, recipe.steps // LOOKS))
        loss = float(cross_entropy(beta, truth))
        if math.isfinite(loss):
            tries.append(Try(rate, loss, right, steps))
    if not tries:
        raise DivergenceError(
            f"rate: none of {', '.join(f'{recipe.learning_rate * f:.3g}' for f in factors)} led to "
            "finite scores; name a lower one, or use float32 weights"
        ) from failed
    best = min(tries, key=lambda one: one.loss)
    final = replace(run, recipe=replace(recipe, learning_rate=best.rate))
    n_before = len(met or ())
    return Chosen(method.fit(base, data, final), best, tries, len(kept), made(n_before))


def held_out(answers: Sequence[int], seed: int) -> list[int]:
    """Return which rows are held out: a share of each class, drawn with the seed."""
    y, found = np.asarray(answers), []
    for k in np.unique(y):
        mine = np.random.default_rng([seed, int(k)]).permutation(np.flatnonzero(y == k))
        n = max(1, round(HELD_OUT * len(mine))) if len(mine) > 1 else 0
        found += mine[:n].tolist()
    return sorted(found)
