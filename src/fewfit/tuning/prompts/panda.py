"""PANDA: Zhong et al., IEEE TKDE 2024, arXiv 2208.10160. Read in the authors' code.

A prompt that was learnt on another task is tuned on this one; what it then says is a teacher for a
prompt that begins afresh. The weight of the teacher is the code's constant; that it may follow the
tasks' likeness is the paper's, and the measure of that a reconstruction. The teacher is asked
once, without dropout, where theirs is asked in each step with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cosine_similarity

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.checkpoint import digest
from fewfit.tuning.choices import Encoded
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.prompts.prompt_tuning import PromptTuning
from fewfit.tuning.reading import answers, draw, encode_rows
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

LIKENESS_ROWS = 100
"""Inputs on which two prompts are compared."""


@dataclass(frozen=True)
class PANDA(PromptTuning):
    """A fresh prompt that is taught by one from another task, tuned on this one.

    The source is what the training starts from (``--start FOLDER``, an artifact of `prompt-tuning`
    with as many vectors). Without one the teacher is a prompt of drawn words: self-distillation.

    Parameters
    ----------
    weight : float, default=0.01
        lambda, of the mean squared distance to the teacher's scores, divided by the batch's size.
    by_likeness : bool, default=False
        Whether lambda is multiplied by the likeness of the source and the tuned prompt, if that is
        positive: the cosine of the mean last states.
    """

    recipe: ClassVar[Recipe] = PromptTuning.recipe

    weight: Annotated[float, Field(ge=0)] = 0.01
    by_likeness: bool = False

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        encoded = encode_rows(base, data.rows)
        first = run.part("transfer", seed=run.seed + (run.start is None))
        teacher = self.fresh(base, first)
        learn(base, teacher, encoded, loss, first, self.recipe)
        weight = self.weight
        if self.by_likeness and run.start is not None:
            rows = [row[0] for row in encoded[:LIKENESS_ROWS]]
            weight *= max(0.0, likeness(base, self.fresh(base, run), teacher, rows))
        student = self.fresh(base, replace(run, start=None))
        if not weight:
            learn(base, student, encoded, loss, run, self.recipe)
            return student
        said = [[scores(base, teacher, wording) for wording in row] for row in encoded]
        batch = min((run.recipe or self.recipe).batch_size, len(encoded))
        taught = self._taught(loss, said, weight / batch, run.seed)
        told = {"teacher": digest(torch.cat([one for row in said for one in row]))}
        learn(base, student, encoded, taught, run, self.recipe, decides=told)
        return student

    def trainings(self, n_templates: int) -> int:
        return 2

    def _taught(
        self, loss: Loss, said: Sequence[Sequence[Tensor]], weight: float, seed: int
    ) -> Loss:
        def taught(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            own = [draw(said[i], seed, step, i) for i in rows]
            apart = (tokens.beta - torch.cat(own).to(tokens.beta)).square()
            away = torch.stack([part.mean() for part in apart.split([len(o) for o in own])]).mean()
            return loss(tokens, rows, step) + weight * away

        return taught


def scores(base: Trunk, adapter: Adapter, item: Encoded) -> Tensor:
    """Return the scores of an example's choices, (K,), with an adapter at work."""
    with adapter.on(base.network):
        (_, tokens), *_ = answers(base, [item], None, adapter, 1)
    return tokens.beta.cpu()


def likeness(base: Trunk, one: Adapter, other: Adapter, rows: Sequence[Encoded]) -> float:
    """Return the cosine of the mean last states that two prompts give to the same rows."""
    means = []
    for adapter in (one, other):
        with adapter.on(base.network):
            found = [tokens.states for _, tokens in answers(base, rows, None, adapter, 32)]
        means.append(torch.cat([states for states in found if states is not None]).float().mean(0))
    return float(cosine_similarity(*means, dim=0))
