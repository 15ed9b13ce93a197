"""A token policy: what the model is sure of weighs less. Lin et al. 2017, arXiv 1708.02002."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from fewfit.tuning.adapters.ia3 import ScaledActivations
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Loss, Rows
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class Focal(ScaledActivations):
    """(IA)^3 with the language-model loss whose tokens weigh (1 - p)^gamma, held fixed.

    The weights are divided by their sum over the batch, or over a process's share of it.

    Parameters
    ----------
    gamma : float, default=2
        0 is the mean over the tokens of the right answers.
    """

    gamma: Annotated[float, Field(ge=0)] = 2.0

    def loss(self, base: Trunk, rows: Rows) -> Loss:
        def focal(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            log_p = tokens.log_probs[tokens.correct[tokens.choice]]
            weight = (1 - log_p.detach().exp()) ** self.gamma
            return -(weight * log_p).sum() / weight.sum().clamp(min=1e-9)

        return focal

    @property
    def needs_wrong(self) -> bool:
        return False
