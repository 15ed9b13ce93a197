"""A class that has no example yet: the model's scores speak for it, and for the others no less."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit import FewShotClassifier, LinearProbe, OffsetLogisticRegression
from fewfit.errors import InputError, InputWarning
from fewfit.estimators.examples import fit_decoder
from fewfit.estimators.expected import expectation
from fewfit.models import FakeModel
from tests.conftest import task_arrays

LABELS = {"a": "red", "b": "green", "c": "blue"}
TEXTS = ["red one", "green one", "so red", "very green", "red red", "green"]
Y = ["a", "b"] * 3


def make(model="fake", **options) -> FewShotClassifier:
    return FewShotClassifier(model, labels=LABELS, store=None, **options)


def without(k: int, *, bias: float = 0.0):
    """A decoder fitted without the examples of class k, and one without the class at all."""
    X, _, scores = task_arrays(20, n_classes=4)
    y = np.arange(80) % 4
    scores[:, k] += bias
    kept = y != k
    seen = [j for j in range(4) if j != k]
    known, told = OffsetLogisticRegression(), OffsetLogisticRegression()
    fit_decoder(known, y[kept], X[kept], scores[kept], range(4), {})
    told.fit(X[kept], y[kept], scores=scores[kept][:, seen])
    return known, told, seen, X, y, scores


@pytest.mark.parametrize("k", [0, 2, 3])
def test_among_the_others_nothing_changes(k):
    known, told, seen, X, _, scores = without(k)
    p = known.predict_proba(X, scores=scores)
    assert p.shape == (80, 4)
    among = p[:, seen] / p[:, seen].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(among, told.predict_proba(X, scores=scores[:, seen]), rtol=1e-9)


def test_the_scores_speak_for_it_without_the_models_bias():
    def of_class_1(bias):
        known, _, _, X, y, scores = without(1, bias=bias)
        return known.predict_proba(X, scores=scores)[:, 1], y

    free, y = of_class_1(0.0)
    assert free[y == 1].mean() > 2 * free[y != 1].mean()
    for bias in (4.0, -4.0):  # which the rows of the others show, all but 5 / 65 of it
        p, y = of_class_1(bias)
        assert p[y == 1].mean() > 2 * p[y != 1].mean()
        np.testing.assert_allclose(p.mean(), free.mean(), atol=0.1)


def test_a_row_that_weighs_nothing_says_nothing_of_it():
    X, _, scores = task_arrays(6, n_classes=3)
    y = np.arange(18) % 3
    kept = y != 2
    X, y, scores = X[kept], y[kept], scores[kept]
    scores[0, 2] = 30.0  # one row that is wrong of class 2

    def probabilities(rows, weight):
        found = OffsetLogisticRegression()
        fit_decoder(found, y[rows], X[rows], scores[rows], range(3), {}, weight)
        return found.predict_proba(X, scores=scores)

    every, rest = np.arange(len(y)), np.arange(1, len(y))
    light = np.ones(len(y))
    light[0] = 1e-9
    without = probabilities(rest, np.ones(len(rest)))
    np.testing.assert_allclose(probabilities(every, light), without, atol=1e-4)
    assert np.abs(probabilities(every, np.ones(len(y))) - without).max() > 0.05
    np.testing.assert_allclose(without, probabilities(rest, None), rtol=1e-6)


def test_a_class_without_examples_is_said_predicted_and_saved(tmp_path):
    for decoder in (None, "zero-shot"):
        with pytest.warns(InputWarning, match=r"class 'c' .* no example in y \(1 of 3"):
            clf = make(decoder=decoder).fit(TEXTS, Y)
        assert clf.predict(["blue", "red", "green"]).tolist() == ["c", "a", "b"]
        clf.save(tmp_path / "task")
        again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    with pytest.warns(InputWarning, match=r"class 'b' .*\(2 of 3 classes have none"):
        assert make(decoder="zero-shot").fit(["red"], ["a"]).predict(["green"]) == ["b"]


def test_nothing_is_expected_of_a_class_without_examples():
    with pytest.warns(InputWarning):
        found = make().fit(TEXTS, Y).expected_accuracy()
    assert (found.not_estimated, set(found.recall)) == (["c"], {"a", "b"})
    assert "Not estimated, for want of two different texts: c" in expectation(found)


def test_several_views_too():
    with pytest.warns(InputWarning):
        clf = make(template=["{text} {mask}", "{mask}: {text}"]).fit(TEXTS, Y)
    assert clf.predict(["blue"]) == ["c"]


@pytest.mark.parametrize(
    ("model", "decoder", "X", "y"),
    [
        (FakeModel(), LinearProbe(), TEXTS, Y),
        (FakeModel(), "dect", TEXTS, Y),
        (FakeModel(space=None), None, TEXTS, Y),  # no scores: nothing speaks for it
        (FakeModel(), None, ["red"], ["a"]),
    ],
)
def test_where_nothing_would_speak_for_it_it_is_refused_unasked(model, decoder, X, y):
    with pytest.raises(
        InputError, match=r"class '[bc]' has label words but no example .* ZeroShot"
    ):
        make(model, decoder=decoder).fit(X, y)
    assert model.queries == 0
