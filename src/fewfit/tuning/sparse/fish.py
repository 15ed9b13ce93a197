"""FISH masks: Sung, Nair & Raffel, NeurIPS 2021, arXiv 2111.09839; and plain gradients beside it.

Read in the authors' code. Left out is their new classification head, which a network that scores
label words does not have.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Run, learn
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.sparse.weights import Budgeted, none
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class LooksFirst(Budgeted):
    """Looks at labelled rows once, chooses, and trains what it chose; a start has chosen already.

    Parameters
    ----------
    samples : int, default=1024
        At so many rows, drawn; all, where there are fewer. Each in its first wording.
    """

    samples: Annotated[int, Field(ge=1)] = 1024

    def scores(self, base: Trunk, seed: int) -> dict[str, Tensor]:
        return none(base, self.candidates(base))

    @abstractmethod
    def seen(self, base: Trunk, data: Data, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the scores of some parameters' scalars on rows."""

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        if run.start is not None:
            return super().fit(base, data, run)
        self.check(base, data)
        run = self.named(run)
        order = np.random.default_rng([run.seed, 1]).permutation(len(data.rows))
        some = Data([data.rows[i] for i in sorted(order[: self.samples].tolist())])
        names = list(self.candidates(base))
        scores = run.counted(lambda: self.seen(base, some, names))
        adapter = self.own(base, self.chosen(base, scores))
        learn(base, adapter, data.rows, self.loss(base, data.rows), run, self.recipe)
        return adapter


@dataclass(frozen=True)
class FISH(LooksFirst):
    """The scalars with the largest Fisher information on the labelled rows.

    F_i = sum over rows of (d log p(y | x) / d theta_i)^2, p over the choices. Each row has a
    backward pass of its own: the square of a batch's gradient is another number.

    Parameters
    ----------
    expected : bool, default=False
        Whether y runs over all choices, each weighing p(y | x), and not over the right one alone.
    """

    expected: bool = False

    def seen(self, base: Trunk, data: Data, names: Sequence[str]) -> dict[str, Tensor]:
        F = {name: torch.zeros(base.network.get_parameter(name).shape) for name in names}
        with reading(base, names) as read:
            for row in encode_rows(base, data.rows):
                tokens = read([row[0]])
                log_p = tokens.beta.log_softmax(0)
                right = int(tokens.correct.nonzero())
                for y in range(len(log_p)) if self.expected else [right]:
                    weight = float(log_p[y].detach().exp()) if self.expected else 1.0
                    g = torch.autograd.grad(
                        log_p[y],
                        [base.network.get_parameter(name) for name in names],
                        retain_graph=self.expected,
                        allow_unused=True,
                    )
                    for name, part in zip(names, g, strict=True):
                        if part is not None:
                            F[name] += weight * part.float().square().cpu()
        return F


@dataclass(frozen=True)
class GradientMask(LooksFirst):
    """The scalars with the largest absolute gradient of the loss over the labelled rows."""

    def seen(self, base: Trunk, data: Data, names: Sequence[str]) -> dict[str, Tensor]:
        found = gradient(base, data, names, self.loss(base, data.rows))
        return {name: g.abs() for name, g in found.items()}


@contextmanager
def reading(
    base: Trunk, names: Sequence[str]
) -> Iterator[Callable[[Sequence[object]], TokenLogProbs]]:
    """Let some parameters have gradients inside the block; gives what reads encoded rows."""
    parameters = [base.network.get_parameter(name) for name in names]

    def read(rows: Sequence[object]) -> TokenLogProbs:
        return base.read(base.pack(list(rows)).to(base.device))[0]  # pyright: ignore[reportArgumentType]

    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield read
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def gradient(
    base: Trunk, data: Data, names: Sequence[str], loss: Callable[..., Tensor]
) -> Mapping[str, Tensor]:
    """Return the gradient of the mean loss over rows, row by row, without dropout, float32."""
    total = {name: torch.zeros(base.network.get_parameter(name).shape) for name in names}
    with reading(base, names) as read:
        encoded = encode_rows(base, data.rows)
        for i, row in enumerate(encoded):
            value = loss(read([row[0]]), [i], 0) / len(encoded)
            g = torch.autograd.grad(
                value, [base.network.get_parameter(name) for name in names], allow_unused=True
            )
            for name, part in zip(names, g, strict=True):
                if part is not None:
                    total[name] += part.float().cpu()
    return total
