"""Lite self-training: Wang et al., Findings of NAACL 2022, arXiv 2110.06274."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapter import Adapter
from fewfit.tuning.adapters.bottleneck import SeriesAdapter
from fewfit.tuning.losses import TokenLogProbs, distillation_loss
from fewfit.tuning.method import Data, Loss, Run, learn
from fewfit.tuning.reading import encode_rows, scored
from fewfit.tuning.training import digest
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class LiST(SeriesAdapter):
    """Adapters in series: a teacher labels texts, a fresh student learns these, then the labels.

    The paper's weights of the texts, by how much the labelled ones gain from each, are left out:
    all weigh the same.

    Parameters
    ----------
    sessions : int, default=2
        How often a student becomes the teacher.
    temperature : float, default=1
    """

    unlabelled: ClassVar[bool] = True

    sessions: Annotated[int, Field(ge=1)] = 2
    temperature: Annotated[float, Field(gt=0)] = 1.0

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        pool = [row[:1] for row in encode_rows(base, data.unlabelled)]
        teacher = self.fresh(base, run)
        learn(base, teacher, data.rows, loss, run.part("0"), self.recipe)
        for session in range(1, self.sessions + 1):
            with teacher.on(base.network):
                found = scored(base, [row[0] for row in pool], adapter=teacher, meter=run.meter)
            soft = torch.from_numpy(found).to(base.device)
            student = self.fresh(base, run.part("", seed=run.seed + session))
            told = {"teacher": digest(soft)}
            part = run.part(f"{session}.texts")
            learn(base, student, pool, self._from(soft), part, self.recipe, decides=told)
            learn(base, student, data.rows, loss, run.part(f"{session}.labels"), self.recipe)
            teacher = student
        return teacher

    def trainings(self, n_templates: int) -> int:
        return 1 + 2 * self.sessions

    def _from(self, soft: Tensor) -> Loss:
        def from_teacher(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            return distillation_loss(tokens, soft[list(rows)], temperature=self.temperature)

        return from_teacher
