"""PET: patterns weighted by what they get right."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit import ZeroShot
from fewfit.decoders import (
    PET,
    ParaphraseMean,
)
from fewfit.decoders.pet import weighted_mean
from fewfit.errors import InputError
from tests.conftest import task_arrays


def test_pets_weighted_mean_in_numbers():
    s = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_allclose(weighted_mean(s, np.array([0.3, 0.9])), [[0.5, 0.75]])
    np.testing.assert_allclose(weighted_mean(s, np.ones(2)), [[1, 0.5]])
    with pytest.raises(InputError, match="2 views, but the decoder was fitted on 3"):
        weighted_mean(s, np.ones(3))


def test_pet_trusts_the_pattern_that_was_right():
    X, y, right = task_arrays()
    wrong = -right
    views = np.stack([5 * np.eye(3)[np.unique(y, return_inverse=True)[1]], wrong], axis=1)
    decoder = PET().fit(X, y, scores=views)
    assert decoder.w_[0] == 1.0 > decoder.w_[1]
    np.testing.assert_array_equal(PET("uniform").fit(X, y, scores=views).w_, [1, 1])
    never = PET().fit(X, y, scores=np.stack([wrong * 0 - np.eye(3)[views[:, 0].argmax(1)]], 1))
    np.testing.assert_array_equal(never.w_, [1])  # all patterns never right
    with pytest.raises(InputError, match="weights"):
        PET("odd").fit(X, y)


@pytest.mark.parametrize("decoder", [PET(), PET("uniform"), ParaphraseMean()])
def test_with_one_view_it_is_zero_shot(decoder):
    X, y, scores = task_arrays()
    zero = ZeroShot().fit(X, y, scores=scores).predict_proba(X, scores=scores)
    np.testing.assert_array_equal(
        decoder.fit(X, y, scores=scores).predict_proba(X, scores=scores), zero
    )
