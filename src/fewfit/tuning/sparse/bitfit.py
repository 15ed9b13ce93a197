"""BitFit: Ben Zaken et al., ACL 2022, arXiv 2106.10199: the biases and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.sparse.weights import Weights, weights_of
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class BitFit(Weights):
    """All biases of the network, of its layer norms too."""

    def build(self, base: Trunk, seed: int) -> Adapter:
        found = weights_of(base, "all")
        names = {name: w for name, w in found.items() if name.split(".")[-1] == "bias"}
        if not names:
            raise InputError(f"bitfit: {type(base.network).__name__} has no bias to train")
        return self.own(base, dict.fromkeys(self.free(base, names)))
