"""Few-shot samples, drawn as DecT's experiments draw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError


def sample_shots(
    y: Sequence[object] | NDArray[np.generic], shots: int, *, seed: int
) -> NDArray[np.intp]:
    """Draw `shots` examples of each class.

    The draw of OpenPrompt's sampler, which DecT's experiments use: a ``RandomState(seed)``;
    classes in order of first appearance; the rows of each class shuffled and the first `shots`
    taken; the sample shuffled once more.

    Parameters
    ----------
    y : sequence of length N
        Labels.
    shots : int
        Examples per class.
    seed : int

    Returns
    -------
    ndarray of shape (K * shots,), int
        Positions in `y`.

    Raises
    ------
    InputError
        If a class has fewer than `shots` examples (the original silently takes what there is).

    Examples
    --------
    >>> sample_shots(["a", "b", "a", "b", "a"], 1, seed=0)
    array([1, 4])
    """
    if shots < 1:
        raise InputError(f"shots: at least 1 is needed, got {shots}")
    rows: dict[object, list[int]] = {}
    for i, label in enumerate(np.asarray(y).tolist()):
        rows.setdefault(label, []).append(i)
    rng = np.random.RandomState(seed)
    chosen: list[NDArray[np.intp]] = []
    for label, where in rows.items():
        if len(where) < shots:
            raise InputError(f"class {label!r} has {len(where)} examples, fewer than {shots} shots")
        positions = np.array(where, dtype=np.intp)
        rng.shuffle(positions)
        chosen.append(positions[:shots])
    sample = np.concatenate(chosen)
    rng.shuffle(sample)
    return sample
