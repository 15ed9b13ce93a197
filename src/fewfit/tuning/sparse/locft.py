"""LocFT-BF: Yang et al., ICLR 2026, arXiv 2509.22072. Read in the authors' code.

Many facts go into one matrix of a language model, in ordinary epochs over all of them: breadth
first. To train on each until it is learnt, one after the other, is what made others look worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.choices import ChoiceExample
from fewfit.tuning.losses import TokenLogProbs, language_model_loss
from fewfit.tuning.method import Data, Loss, Rows, Run, learn
from fewfit.tuning.sparse.weights import Weights, weights_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading


@dataclass(frozen=True)
class BreadthFirst(Recipe):
    """Epochs at a constant rate; what is known already changes nothing, and ends the training.

    Parameters
    ----------
    known : float, default=0.01
        Loss of a batch below which it is skipped, and of an epoch's mean that is enough.
    epochs : int, default=25
        At most; so are the recipe's steps.
    """

    known: float = 0.01
    epochs: int = 25
    n_rows: int = 0

    def rate(self, step: int) -> float:
        return self.learning_rate

    def skips(self, loss: float) -> bool:
        return loss < self.known

    def rows(self, step: int, n_rows: int, seed: int) -> list[int]:
        """Return the rows of a step: in an epoch each fact comes up, in batches of like size."""
        epoch, place = divmod(step, self.epoch(n_rows))
        order = np.random.default_rng([seed, epoch]).permutation(n_rows)
        return np.array_split(order, self.epoch(n_rows))[place].tolist()

    def longest(self, n_rows: int) -> int:
        return min(self.steps, self.epochs * self.epoch(n_rows))

    def epoch(self, n_rows: int) -> int:
        """Return the steps of an epoch."""
        return max(1, -(-n_rows // self.batch_size))

    def done(self, history: Sequence[float]) -> bool:
        epoch = self.epoch(self.n_rows)
        full = len(history) and len(history) % epoch == 0
        return bool(full) and sum(history[-epoch:]) / epoch < self.known


@dataclass(frozen=True)
class LocFT(Weights):
    """One matrix of one block, trained on facts; an answer is closed by the end token.

    Where it should be differs from model to model, so that it is worth a try or two.

    Parameters
    ----------
    block : int, optional
        Number of the block, from 0. Left out, the one at 0.7 of the depth.
    layer : {"ffn.out", "ffn.in", "q", "k", "v", "o"}, default="ffn.out"
    depth_first : bool, default=False
        The other way, to compare with: each fact until it is known, then the next.
    """

    recipe: ClassVar[Recipe] = BreadthFirst(
        steps=10**6, batch_size=100, learning_rate=5e-4, warmup=0, optimizer="adamw", dropout=False
    )
    reading: ClassVar[Reading] = "answers"

    block: Annotated[int, Field(ge=0)] | None = None
    layer: str = "ffn.out"
    depth_first: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        blocks, layers = base.sites.blocks, base.sites.layers
        if self.layer not in layers:
            raise InputError(f"layer: {self.layer!r} is not one of {sorted(layers)}")
        block = int(0.7 * len(blocks)) if self.block is None else self.block
        if block >= len(blocks):
            raise InputError(f"block: the network has {len(blocks)} blocks, 0 to {len(blocks) - 1}")
        inside = [p for p in layers[self.layer] if p.startswith(f"{blocks[block]}.")]
        names = [f"{path}.weight" for path in inside[-1:]]
        everything = weights_of(base, "all")
        return self.own(base, dict.fromkeys(self.free(base, {n: everything[n] for n in names})))

    def loss(self, base: Trunk, rows: Rows) -> Loss:
        def loss(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            return language_model_loss(tokens)

        return loss

    @property
    def needs_wrong(self) -> bool:
        return False

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        given = run.recipe or self.recipe
        recipe = given
        if isinstance(given, BreadthFirst):
            n = 1 if self.depth_first else len(data.rows)
            recipe = replace(given, steps=given.longest(n), n_rows=n)
        adapter = self.fresh(base, run)
        parts = (
            [[i] for i in range(len(data.rows))] if self.depth_first else [range(len(data.rows))]
        )
        for number, part in enumerate(parts):
            now = replace(run.part(str(number)), recipe=recipe)
            rows = [data.rows[i] for i in part]
            learn(base, adapter, rows, loss, now, recipe, only_answer=True)
        return adapter


@torch.inference_mode()
def recalled(
    base: Trunk, facts: Sequence[ChoiceExample], adapter: Adapter | None = None
) -> list[bool]:
    """Return of each fact whether a greedy continuation of its prompt is the answer, to its end.

    It is if each of the answer's tokens is the likeliest behind those before it, which one forward
    pass over the answer says.

    Parameters
    ----------
    adapter : Adapter, optional
        Attached by the caller; what it says the network reads instead is read.
    """
    found: list[bool] = []
    logits: list[Tensor] = []
    head = base.network.get_output_embeddings()
    handle = head.register_forward_hook(lambda _, __, output: logits.append(output))
    try:
        for fact in facts:
            batch = base.pack([base.encoder.encode(fact, only_answer=True)]).to(base.device)
            base.read(batch if adapter is None else adapter.rewrite(batch, base))
            last = logits.pop()
            likeliest = last.reshape(-1, last.shape[-1]).argmax(-1)
            found.append(bool((likeliest == batch.targets).all()))
    finally:
        handle.remove()
    return found
