"""What every decoder promises: one matrix over all of them, entered by being listed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewfit import FewShotClassifier, ZeroShot
from fewfit.decoders import DECODERS, KNNPrompting
from fewfit.errors import ArtifactError, InputError
from fewfit.models import FakeModel
from tests.conftest import task_arrays
from tests.estimators.test_classifier import TEXTS, Y

ALL = [pytest.param(kind(), id=name) for name, kind in DECODERS.items()]
DRAWS_PER_CLASS = {"dect", "mpd", "protoverb"}
"""Decoders that draw random numbers for each class, so that another order is another draw."""


def but(names: set[str]) -> list:
    return [param for param in ALL if param.id not in names]


@parametrize_with_checks([kind() for kind in DECODERS.values()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    X, y, scores = task_arrays(5)
    rng = np.random.default_rng(11)
    return X, y, scores, rng.standard_normal((17, 12)), rng.standard_normal((17, 3))


@pytest.mark.parametrize("decoder", ALL)
def test_rows_are_independent(decoder, data):
    X, y, scores, X_new, scores_new = data
    fitted = clone(decoder).fit(X, y, scores=scores)
    whole = fitted.predict_proba(X_new, scores=scores_new)
    for rows in (slice(3, 4), slice(5, 12), np.arange(17)[::-1]):
        part = fitted.predict_proba(X_new[rows], scores=scores_new[rows])
        np.testing.assert_allclose(part, whole[rows], atol=1e-12)
    np.testing.assert_allclose(whole.sum(axis=1), 1)
    np.testing.assert_array_equal(
        fitted.predict(X_new, scores=scores_new), fitted.classes_[whole.argmax(axis=1)]
    )


@pytest.mark.parametrize("decoder", ALL)
def test_a_constant_on_a_rows_scores_changes_nothing(decoder, data):
    X, y, scores, X_new, scores_new = data
    shift = np.linspace(-3, 3, len(X))[:, None]
    one = clone(decoder).fit(X, y, scores=scores)
    two = clone(decoder).fit(X, y, scores=scores + shift)
    np.testing.assert_allclose(
        one.predict_proba(X_new, scores=scores_new),
        two.predict_proba(X_new, scores=scores_new + 1.5),
        atol=1e-9,
    )


@pytest.mark.parametrize("decoder", ALL)
def test_the_order_of_the_examples_does_not_matter(decoder, data):
    X, y, scores, X_new, scores_new = data
    order = np.random.default_rng(2).permutation(len(X))
    one = clone(decoder).fit(X, y, scores=scores)
    two = clone(decoder).fit(X[order], y[order], scores=scores[order])
    np.testing.assert_allclose(
        one.predict_proba(X_new, scores=scores_new),
        two.predict_proba(X_new, scores=scores_new),
        atol=1e-9,
    )


@pytest.mark.parametrize("decoder", but(DRAWS_PER_CLASS))
def test_renaming_the_classes_permutes_the_columns(decoder, data):
    X, y, scores, X_new, scores_new = data
    renamed = np.array([{"ant": "z", "bee": "x", "cat": "y"}[name] for name in y])
    columns = [1, 2, 0]  # x is bee, y is cat, z is ant
    one = clone(decoder).fit(X, y, scores=scores).predict_proba(X_new, scores=scores_new)
    two = clone(decoder).fit(X, renamed, scores=scores[:, columns])
    again = two.predict_proba(X_new, scores=scores_new[:, columns])
    np.testing.assert_allclose(again, one[:, columns], atol=1e-9)


@pytest.mark.parametrize("decoder", ALL)
def test_saved_arrays_are_all_there_is(decoder, data):
    X, y, scores, X_new, scores_new = data
    fitted = clone(decoder).fit(X, y, scores=scores)
    arrays = {name: np.array(getattr(fitted, name)) for name in fitted.fitted_arrays}
    again = clone(decoder).restore(arrays, fitted.classes_)
    np.testing.assert_array_equal(
        again.predict_proba(X_new, scores=scores_new),
        fitted.predict_proba(X_new, scores=scores_new),
    )
    with pytest.raises(ArtifactError, match="has the arrays"):
        clone(decoder).restore({**arrays, "odd": np.zeros(1)}, fitted.classes_)
    axes = [axis for shape in fitted.fitted_arrays.values() for axis in shape]
    for name, array in arrays.items():
        first = fitted.fitted_arrays[name][:1]
        if first and (first[0] == "K" or axes.count(first[0]) > 1):  # else any length is right
            with pytest.raises(ArtifactError, match="does not fit"):
                clone(decoder).restore({**arrays, name: array[:-1]}, fitted.classes_)


@pytest.mark.parametrize("decoder", ALL)
def test_two_equal_views_say_what_one_says(decoder, data):
    X, y, scores, X_new, scores_new = data
    one = clone(decoder).fit(X, y, scores=scores)
    two = clone(decoder).fit(np.hstack([X, X]), y, scores=np.stack([scores, scores], axis=1))
    doubled = two.predict_proba(
        np.hstack([X_new, X_new]), scores=np.stack([scores_new, scores_new], axis=1)
    )
    assert doubled.shape == (17, 3)
    if decoder.requires == {"scores"} or isinstance(decoder, KNNPrompting):
        np.testing.assert_allclose(doubled, one.predict_proba(X_new, scores=scores_new))
    rows = two.predict_proba(
        np.hstack([X_new, X_new])[:5], scores=np.stack([scores_new, scores_new], axis=1)[:5]
    )
    np.testing.assert_allclose(rows, doubled[:5], atol=1e-12)
    with pytest.raises(InputError, match="for P views"):
        two.predict_proba(np.hstack([X_new, X_new]), scores=np.zeros((17, 2, 4)))


@pytest.mark.parametrize("decoder", ALL)
def test_what_a_method_declares(decoder):
    assert decoder.requires <= {"scores", "word_scores", "hidden", "full_vocabulary"}
    assert not decoder.reference or "arXiv" in decoder.reference
    model = FakeModel(vocabulary=["good", "bad", "so"] if decoder.requires else ())
    clf = FewShotClassifier(
        model, labels={"neg": "bad", "pos": "good"}, decoder=decoder, store=None
    ).fit(TEXTS, Y)
    assert model.queries == clf.n_queries_
    assert len(TEXTS) <= model.queries <= len(TEXTS) + 1
    assert np.isfinite(clf.predict_proba(TEXTS)).all()


@pytest.mark.parametrize("decoder", ALL)
def test_single_precision_stays_close_to_double(decoder, data):
    X, y, scores, X_new, scores_new = data
    double = clone(decoder).fit(X, y, scores=scores)
    single = clone(decoder).fit(X.astype(np.float32), y, scores=scores.astype(np.float32))
    np.testing.assert_allclose(
        single.predict_proba(X_new.astype(np.float32), scores=scores_new),
        double.predict_proba(X_new, scores=scores_new),
        atol=1e-3,
    )


@pytest.mark.parametrize("decoder", ALL)
def test_bad_scores_are_refused(decoder, data):
    X, y, scores, X_new, _ = data
    with pytest.raises(InputError, match="one column per class"):
        clone(decoder).fit(X, y, scores=scores[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        clone(decoder).fit(X, y, scores=scores * np.nan)
    fitted = clone(decoder).fit(X, y, scores=scores)
    with pytest.raises(InputError, match="one column per class"):
        fitted.predict_proba(X_new, scores=scores)
    with pytest.raises(InputError, match="at least two classes"):
        clone(decoder).fit(X, np.repeat("ant", len(X)), scores=scores[:, :1])


def test_zero_shot_believes_the_model():
    X, y, scores = task_arrays()
    fitted = ZeroShot().fit(np.empty((len(X), 0)), y, scores=scores)
    np.testing.assert_array_equal(
        fitted.predict(np.empty((len(X), 0)), scores=scores),
        fitted.classes_[scores.argmax(axis=1)],
    )
    np.testing.assert_allclose(ZeroShot().fit(X, y).predict_proba(X), 1 / 3)
