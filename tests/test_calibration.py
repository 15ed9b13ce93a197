from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from fewfit.calibration import (
    ContextualCalibration,
    NoCalibration,
    RatioCalibration,
    make_calibration,
)
from fewfit.errors import CalibrationError, CapabilityError, InputError
from fewfit.observations import ScoreSpace

LOGPROB, LOGIT, SIMILARITY = ScoreSpace.LOGPROB, ScoreSpace.LOGIT, ScoreSpace.SIMILARITY


def test_contextual_equals_the_papers_division():
    # Zhao et al. 2021: p=(.7,.3), p_cf=(.8,.2) gives q=(.875,1.5), normalised (.368421,.631579).
    calibration = ContextualCalibration()
    prior = calibration.prior(np.log([[0.8, 0.2]]), LOGPROB)
    removed = calibration.remove(np.log([[0.7, 0.3]]), prior)
    np.testing.assert_allclose(np.exp(removed), [[0.875, 1.5]])
    np.testing.assert_allclose(softmax(removed), [[0.368421, 0.631579]], atol=1e-6)


def test_contextual_averages_probabilities_not_logarithms():
    calibration = ContextualCalibration(("N/A", ""))
    prior = calibration.prior(np.log([[0.9, 0.1], [0.5, 0.5]]), LOGPROB)
    np.testing.assert_allclose(np.exp(prior), [0.7, 0.3])


def test_contextual_ignores_what_softmax_ignores():
    calibration = ContextualCalibration()
    scores = np.array([[1.0, 2.0, 0.5]])
    for space in (LOGPROB, LOGIT):
        prior = calibration.prior(scores, space)
        np.testing.assert_allclose(calibration.prior(scores - 7, space), prior)
        same = calibration.remove(scores + 3, prior)
        np.testing.assert_allclose(softmax(same), np.full((1, 3), 1 / 3))


def test_contextual_subtracts_similarities():
    calibration = ContextualCalibration()
    prior = calibration.prior(np.array([[0.1, 0.3]]), SIMILARITY)
    np.testing.assert_allclose(calibration.remove(np.array([[0.2, 0.2]]), prior), [[0.1, -0.1]])


def test_ratio_is_dects_division_of_logits():
    calibration = RatioCalibration()
    prior = calibration.prior(np.array([[4.0, 2.0, 6.0]]), LOGIT)
    scores = np.array([[8.0, 4.0, 12.0], [5.0, 5.0, 5.0]])
    before = scores.copy()
    expected = [[8, 8, 8], [5, 10, 10 / 3]]
    np.testing.assert_allclose(calibration.remove(scores, prior), expected)
    np.testing.assert_allclose(calibration.remove(scores, prior), expected)  # nothing in place
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("content_free", [(2, -1, 5), (0, 1, 2), (-1, -2, -3), (1, -1, 0)])
def test_ratio_refuses_a_prior_that_explodes_or_flips(content_free):
    with pytest.raises(CalibrationError, match="contextual"):
        RatioCalibration().prior(np.array([content_free], dtype=float), LOGIT)


def test_ratio_is_for_logits_only():
    RatioCalibration().check(LOGIT)
    for space in (LOGPROB, SIMILARITY):
        with pytest.raises(CapabilityError, match=space.value):
            RatioCalibration().check(space)


def test_none_changes_nothing_and_names_are_looked_up():
    scores = np.array([[1.0, 2.0]])
    none = make_calibration("none")
    assert isinstance(none, NoCalibration)
    assert none.content_free == ()
    np.testing.assert_array_equal(none.remove(scores, none.prior(scores[:0], LOGPROB)), scores)
    assert make_calibration(none) is none
    with pytest.raises(InputError, match="'batch' is not one of"):
        make_calibration("batch")
