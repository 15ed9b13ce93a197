"""One optimiser for all decoders that have no closed form."""

from __future__ import annotations

import numpy as np

from fewfit.decoders.adam import minimise


def test_adam_takes_steps_of_its_rate_and_finds_the_minimum():
    def bowl(arrays):
        return float(((arrays[0] - 3) ** 2).sum()), [2 * (arrays[0] - 3)]

    start = np.zeros(2)
    np.testing.assert_allclose(minimise(bowl, [start], lr=0.1, n_steps=1)[0], 0.1)
    np.testing.assert_allclose(minimise(bowl, [start], lr=0.1, n_steps=500)[0], 3, atol=1e-3)
    np.testing.assert_array_equal(start, 0)
