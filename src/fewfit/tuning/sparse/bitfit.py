"""BitFit: Ben Zaken et al., ACL 2022, arXiv 2106.10199: the biases and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class BitFit(TuningMethod):
    """All biases of the network, of its layer norms too."""

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    def build(self, base: Trunk, seed: int) -> Adapter:
        names = [n for n, _ in base.network.named_parameters() if n.split(".")[-1] == "bias"]
        if not names:
            raise InputError(f"bitfit: {type(base.network).__name__} has no bias to train")
        return OwnScalars(base.network, dict.fromkeys(names))
