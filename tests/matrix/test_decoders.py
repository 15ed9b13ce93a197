"""What every decoder promises: one matrix over all of them, entered by being listed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewfit import ZeroShot
from fewfit.decoders import DECODERS, KNNPrompting
from fewfit.testing import DECODER_CHECKS
from tests.conftest import task_arrays

ALL = [pytest.param(kind(), id=name) for name, kind in DECODERS.items()]
DRAWS_PER_CLASS = {"dect", "mpd", "protoverb"}
"""Decoders that draw random numbers for each class, so that another order is another draw."""


def but(names: set[str]) -> list:
    return [param for param in ALL if param.id not in names]


@parametrize_with_checks([kind() for kind in DECODERS.values()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("decoder", ALL)
@pytest.mark.parametrize("check", DECODER_CHECKS, ids=lambda check: check.__name__)
def test_what_is_checked_of_anyones_decoder(check, decoder):
    check(decoder)


@pytest.fixture
def data():
    X, y, scores = task_arrays(5)
    rng = np.random.default_rng(11)
    return X, y, scores, rng.standard_normal((17, 12)), rng.standard_normal((17, 3))


@pytest.mark.parametrize("decoder", but(DRAWS_PER_CLASS))
def test_renaming_the_classes_permutes_the_columns(decoder, data):
    X, y, scores, X_new, scores_new = data
    renamed = np.array([{"ant": "z", "bee": "x", "cat": "y"}[name] for name in y])
    columns = [1, 2, 0]  # x is bee, y is cat, z is ant
    one = clone(decoder).fit(X, y, scores=scores).predict_proba(X_new, scores=scores_new)
    two = clone(decoder).fit(X, renamed, scores=scores[:, columns])
    again = two.predict_proba(X_new, scores=scores_new[:, columns])
    np.testing.assert_allclose(again, one[:, columns], atol=1e-9)


def test_two_equal_views_say_what_one_says(data):
    X, y, scores, X_new, scores_new = data
    both, both_new = np.stack([scores, scores], axis=1), np.stack([scores_new] * 2, axis=1)
    for name, kind in DECODERS.items():
        if kind.requires != {"scores"} and kind is not KNNPrompting:
            continue
        one = kind().fit(X, y, scores=scores).predict_proba(X_new, scores=scores_new)
        two = clone(kind()).fit(np.hstack([X, X]), y, scores=both)
        doubled = two.predict_proba(np.hstack([X_new, X_new]), scores=both_new)
        np.testing.assert_allclose(doubled, one, err_msg=name)


@pytest.mark.parametrize("decoder", ALL)
def test_a_reference_has_a_number(decoder):
    assert not decoder.reference or "arXiv" in decoder.reference


def test_zero_shot_believes_the_model():
    X, y, scores = task_arrays()
    fitted = ZeroShot().fit(np.empty((len(X), 0)), y, scores=scores)
    np.testing.assert_array_equal(
        fitted.predict(np.empty((len(X), 0)), scores=scores),
        fitted.classes_[scores.argmax(axis=1)],
    )
    np.testing.assert_allclose(ZeroShot().fit(X, y).predict_proba(X), 1 / 3)
