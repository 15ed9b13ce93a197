"""What every decoder promises: one matrix over all of them, entered by being listed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewfit import ZeroShot
from fewfit.decoders import (
    DECODERS,
    IPET,
    KNNPrompting,
    OffsetLogisticRegression,
    PromptBoosting,
)
from fewfit.testing import DECODER_CHECKS
from tests.conftest import task_arrays

ALL = [pytest.param(kind(), id=name) for name, kind in DECODERS.items()]


@parametrize_with_checks([kind() for kind in DECODERS.values()])
def test_scikit_learns_own_checks(estimator, check):
    repeats = check.func.__name__ == "check_sample_weight_equivalence_on_dense_data"
    if repeats and isinstance(estimator, OffsetLogisticRegression):
        with pytest.raises(AssertionError):  # copies of a text are one row, which has one weight
            check(estimator)
        return
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


def test_who_draws_by_class_says_so(data):
    """check_names_of_classes is not asked of these: were one of them to pass, it would be wrong."""
    X, y, scores, X_new, scores_new = data
    drawing = {name for name, kind in DECODERS.items() if kind.draws_by_class}
    assert drawing == {"dect", "mpd", "protoverb"}
    swapped = np.array([{"ant": "cat", "bee": "bee", "cat": "ant"}[name] for name in y])
    for name in drawing:
        assert "class by class" in " ".join((DECODERS[name].__doc__ or "").split())
        one = DECODERS[name]().fit(X, y, scores=scores)
        two = DECODERS[name]().fit(X, swapped, scores=scores[:, ::-1])
        again = two.predict_proba(X_new, scores=scores_new[:, ::-1])[:, ::-1]
        assert np.abs(again - one.predict_proba(X_new, scores=scores_new)).max() > 1e-3


@pytest.mark.parametrize("max_combinations", [20_000, 50])
def test_sampled_verbalizers_do_not_depend_on_the_names_of_the_classes(max_combinations, data):
    X, y, _, X_new, _ = data
    swapped = np.array([{"ant": "cat", "bee": "ant", "cat": "bee"}[name] for name in y])
    X, X_new = np.hstack([X, -X]), np.hstack([X_new, -X_new])
    options = {"max_combinations": max_combinations, "n_rounds": 5}
    one = PromptBoosting(**options).fit(X, y).predict_proba(X_new)
    two = PromptBoosting(**options).fit(X, swapped).predict_proba(X_new)
    np.testing.assert_allclose(two[:, [2, 0, 1]], one, atol=1e-9)


def test_a_tie_of_votes_goes_to_the_name_that_comes_first_as_is_said():
    anchors, between = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), np.log([[0.4, 0.4, 0.2]])
    for y in (["ant", "bee"], ["bee", "ant"]):
        assert KNNPrompting(k=1).fit(anchors, y).predict(between) == ["ant"]
    both = np.vstack([anchors, anchors])
    for y in (["ant", "bee"] * 2, ["bee", "ant"] * 2):
        assert KNNPrompting(k=2).fit(both, y).predict(between) == ["ant"]
    said = " ".join(Path("docs/methods.md").read_text(encoding="utf-8").split())
    told = said[said.index("The order and the names of the classes") :]
    assert "ties" in told[: told.index("knn-prompting")]
    assert "prompt-boosting" in told[: told.index(". ")]


def test_pseudo_labels_do_not_depend_on_the_names_of_the_classes(data):
    X, y, _, X_new, _ = data
    pool = np.vstack([X_new, 1.1 * X, X + 0.3])
    swapped = np.array([{"ant": "cat", "bee": "ant", "cat": "bee"}[name] for name in y])
    for P in (1, 3):
        options = {"pool": pool}
        one = IPET(n_views=P).fit(X, y, **options).predict_proba(X_new)
        two = IPET(n_views=P).fit(X, swapped, **options).predict_proba(X_new)
        np.testing.assert_allclose(two[:, [2, 0, 1]], one, atol=1e-4)


SCALE_FREE = ("linear-probe", "nearest-mean", "offset-regression", "protoverb")


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", SCALE_FREE)
def test_the_scale_of_the_scores_changes_no_label(name, n_classes):
    """Where the scale of the scores is of no account, rounding decides nothing."""
    X, y, scores = task_arrays(5, n_classes=n_classes)
    rng = np.random.default_rng(3)
    X_new = rng.standard_normal((2000, X.shape[1]))
    scores_new = rng.standard_normal((2000, n_classes))
    plain = DECODERS[name]().fit(X, y, scores=scores).predict(X_new, scores=scores_new)
    for scale in (3.7, 0.1, 1e-4, 8.0):
        again = DECODERS[name]().fit(X, y, scores=scale * scores)
        assert (again.predict(X_new, scores=scale * scores_new) != plain).sum() == 0


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
