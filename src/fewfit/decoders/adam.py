"""Adam (Kingma & Ba 2015, arXiv 1412.6980), full batch, on a few arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Gradients = Callable[[Sequence[NDArray[Any]]], tuple[float, Sequence[NDArray[Any]]]]
"""Arrays -> the loss at them and its gradient by each."""

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def minimise(
    function: Gradients, start: Sequence[NDArray[Any]], *, lr: float, n_steps: int
) -> list[NDArray[Any]]:
    """Return the arrays after `n_steps` of Adam; those of `start` are not changed."""
    arrays = [array.copy() for array in start]
    first = [np.zeros_like(array) for array in arrays]
    second = [np.zeros_like(array) for array in arrays]
    for step in range(1, n_steps + 1):
        _, gradients = function(arrays)
        for array, m, v, g in zip(arrays, first, second, gradients, strict=True):
            m += (1 - _BETA1) * (g - m)
            v += (1 - _BETA2) * (g * g - v)
            array -= lr * (m / (1 - _BETA1**step)) / (np.sqrt(v / (1 - _BETA2**step)) + _EPSILON)
    return arrays
