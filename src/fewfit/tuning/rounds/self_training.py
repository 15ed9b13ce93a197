"""Lite self-training: Wang et al., Findings of NAACL 2022, arXiv 2110.06274."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.adapters.bottleneck import SeriesAdapter
from fewfit.tuning.checkpoint import digest
from fewfit.tuning.choices import Encoded
from fewfit.tuning.losses import TokenLogProbs, distillation_loss
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.reading import draw, encode_rows, scored
from fewfit.tuning.training import training_mode
from fewfit.tuning.trunk import Trunk

Wordings = Sequence[Sequence[Encoded]]


@dataclass(frozen=True)
class LiST(SeriesAdapter):
    """Adapters in series: a teacher labels texts, a fresh student learns these, then the labels.

    In the last steps on texts each of a batch weighs as much as a step along its gradient alone
    would help the labelled rows. That takes a backward pass for each text.

    Parameters
    ----------
    sessions : int, default=2
        How often a student becomes the teacher.
    temperature : float, default=1
    weighed : float, default=0.4
        Share of the steps on texts, the last ones, in which these weights are computed; before, all
        texts weigh the same.
    meta_batch : int, default=4
        Labelled rows that the weights are computed on.
    """

    unlabelled: ClassVar[bool] = True

    sessions: Annotated[int, Field(ge=1)] = 2
    temperature: Annotated[float, Field(gt=0)] = 1.0
    weighed: Annotated[float, Field(ge=0, le=1)] = 0.4
    meta_batch: Annotated[int, Field(ge=1)] = 4

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        pool = [row[:1] for row in encode_rows(base, data.unlabelled)]
        labelled = encode_rows(base, data.rows)
        teacher = self.fresh(base, run)
        learn(base, teacher, labelled, loss, run.part("0"), self.recipe)
        for session in range(1, self.sessions + 1):
            with teacher.on(base.network):
                found = scored(base, [row[0] for row in pool], adapter=teacher, meter=run.meter)
            soft = torch.from_numpy(found).to(base.device)
            student = self.fresh(base, run.part("", seed=run.seed + session))
            told = {"teacher": digest(soft), "labelled": digest(labelled)}
            part = run.part(f"{session}.texts")
            taught = self._from(soft, base, student, labelled, pool, loss, part)
            learn(base, student, pool, taught, part, self.recipe, decides=told)
            learn(base, student, labelled, loss, run.part(f"{session}.labels"), self.recipe)
            teacher = student
        return teacher

    def trainings(self, n_templates: int) -> int:
        return 1 + 2 * self.sessions

    def _from(
        self,
        soft: Tensor,
        base: Trunk,
        student: Adapter,
        labelled: Wordings,
        pool: Wordings,
        loss: Loss,
        run: Run,
    ) -> Loss:
        first = (1 - self.weighed) * (run.recipe or self.recipe).steps

        def read(items: Sequence[Encoded]) -> TokenLogProbs:
            return base.read(student.rewrite(base.pack(items).to(base.device), base))[0]

        def weights(rows: Sequence[int], step: int) -> Tensor:
            rng = np.random.default_rng([run.seed, step, len(pool)])
            some = rng.permutation(len(labelled))[: self.meta_batch].tolist()
            parameters = list(student.parts(base.network).values())
            with training_mode(base.network, dropout=False), torch.enable_grad():
                goal = loss(read([draw(labelled[i], run.seed, step, i) for i in some]), some, step)
                tokens, ones = read([pool[i][0] for i in rows]), torch.eye(len(rows))
                each = [
                    distillation_loss(
                        tokens,
                        soft[list(rows)],
                        temperature=self.temperature,
                        weights=one.to(base.device),
                    )
                    for one in ones
                ]
                return gains(goal, each, parameters)

        def from_teacher(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            own = weights(rows, step) if step >= first else None
            teacher = soft[list(rows)]
            return distillation_loss(tokens, teacher, temperature=self.temperature, weights=own)

        return from_teacher


def gains(goal: Tensor, each: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Return weights of losses, (B,), by how much a step along each one's gradient lowers `goal`.

    They are relu(<gradient of the goal, gradient of loss i>), divided by their sum: the derivative
    of the goal, after a step of gradient descent on the weighted losses, by the weights where these
    are 0. All are 0 where no step would help.
    """

    def gradient(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in found])

    towards = gradient(goal)
    w = torch.stack([towards @ gradient(loss) for loss in each]).clamp(min=0)
    return w / (w.sum() + 1e-6)
