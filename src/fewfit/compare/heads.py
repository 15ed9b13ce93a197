"""The head for several labels, where each example has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.compare.methods import Arrays, Features, Method
from fewfit.decoders import MultiLabel


@dataclass(frozen=True)
class MultiLabelHead(Method):
    """PTEC's head: one sigmoid a class on the hidden states, normalised over the classes."""

    asks: ClassVar[bool] = True
    requires: frozenset[str] = MultiLabel.requires

    def key(self) -> str:
        return "multi-label, one against the rest"

    def fit(self, sample: Features, classes: NDArray[Any]) -> MultiLabel:
        return MultiLabel().fit(sample.hidden, np.searchsorted(classes, sample.y))

    def predict_proba(self, fitted: MultiLabel, test: Features) -> NDArray[Any]:
        return fitted.predict_proba(test.hidden)

    def arrays(self, fitted: MultiLabel) -> Arrays:
        return {name: np.asarray(getattr(fitted, name)) for name in fitted.fitted_arrays}

    def parameters(self, fitted: MultiLabel) -> int:
        return fitted.coef_.size + fitted.intercept_.size
