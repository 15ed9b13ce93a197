"""Vectors of length one, and the way back through that for gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit(u: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ``u / ||u||`` along the last axis (a zero vector stays zero), and the lengths."""
    norm = np.linalg.norm(u, axis=-1, keepdims=True)
    return u / np.where(norm > 0, norm, 1), norm


def through_unit(dx: NDArray[Any], x: NDArray[Any], norm: NDArray[Any]) -> NDArray[Any]:
    """Return dL/du from dL/dx, where ``x = u / norm``; 0 at a zero vector."""
    du = dx - (dx * x).sum(axis=-1, keepdims=True) * x
    return np.divide(du, norm, out=np.zeros_like(du), where=norm > 0)
