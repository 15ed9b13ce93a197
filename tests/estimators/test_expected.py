from __future__ import annotations

import math
import pickle
import warnings

import numpy as np
import pytest

from fewfit import FewShotClassifier, LinearProbe, MultiLabelClassifier
from fewfit.decoders import MultiLabel
from fewfit.errors import InputError, ModelWarning
from fewfit.estimators.expected import assign_folds
from fewfit.prompts import InContext

WORDS = {"n": "bad", "y": "good"}
TEXTS = ["so good", "quite bad", "good", "bad", "fine", "awful", "a good day", "a bad day"]
Y = list("ynynynyn")


def fitted(texts=TEXTS, y=Y, **options):
    options = {"labels": WORDS, "store": None, **options}
    return FewShotClassifier("fake", **options).fit(texts, y)


def wilson(hits, n, z=1.959963984540054):
    p, half = hits / n, z * math.sqrt(hits * (n - hits) / n**3 + z * z / (4 * n * n))
    return (p + z * z / (2 * n) - half) / (1 + z * z / n), (p + z * z / (2 * n) + half) / (
        1 + z * z / n
    )


@pytest.mark.parametrize("decoder", ["linear-probe", "offset-regression", "dect"])
def test_leave_one_out_is_what_fitting_without_each_row_gives(decoder):
    clf = fitted(decoder=decoder)
    right, told = [], []
    for i in range(len(TEXTS)):
        rest = [j for j in range(len(TEXTS)) if j != i]
        other = fitted([TEXTS[j] for j in rest], [Y[j] for j in rest], decoder=decoder)
        told.append(other.predict([TEXTS[i]])[0])
        right.append(told[-1] == Y[i])
    found = clf.expected_accuracy(n_folds=len(TEXTS))
    assert found.held_out == tuple(told)
    assert found.accuracy == np.mean(right)
    assert found.interval == pytest.approx(wilson(sum(right), len(TEXTS)))
    assert (found.n, found.n_folds) == (8, 8)
    for name, (hits, n) in found.recall.items():
        assert n == Y.count(name)
        assert hits == sum(r for r, own in zip(right, Y, strict=True) if own == name)


def test_labels_without_a_pattern_are_not_flattered_by_repeated_texts():
    """Each text occurs four times: a twin in the training part would give its label away."""
    rng = np.random.default_rng(0)
    texts = [f"item {i}" for i in range(40)]
    y = rng.permutation(["n", "y"] * 20).tolist()
    found = fitted(texts * 4, y * 4, decoder=LinearProbe()).expected_accuracy()
    assert found.n == 160
    assert found.accuracy < 0.7


def test_folds_are_stratified_and_keep_equal_texts_together():
    rows = [{"text": f"t{i % 30}"} for i in range(60)]
    codes = np.array([(i % 30) % 3 for i in range(60)])
    folds = assign_folds(rows, codes, 5, 0)
    np.testing.assert_array_equal(folds[:30], folds[30:])
    for k in range(3):
        assert np.bincount(folds[codes == k]).tolist() == [4] * 5
    assert (folds != assign_folds(rows, codes, 5, 1)).any()


def test_a_class_of_one_text_is_not_estimated():
    labels = {**WORDS, "m": "fine"}
    found = fitted([*TEXTS, "so so", "so so"], [*Y, "m", "m"], labels=labels).expected_accuracy()
    assert found.not_estimated == ["m"]
    assert set(found.recall) == {"n", "y"}
    assert found.n == 8


def test_nothing_is_claimed_where_nothing_can_be_held_out():
    found = fitted(["good", "bad"], ["y", "n"]).expected_accuracy()
    assert (found.accuracy, found.interval, found.n) == (None, None, 0)
    assert found.reason == "no class has two different texts"
    shown = fitted(template=InContext("{text} {mask}", n=2)).expected_accuracy()
    assert shown.accuracy is None
    assert "shows labelled examples" in shown.reason


def test_the_estimate_costs_no_query_and_stays_out_of_pickles():
    clf = fitted()
    before = clf.predict_proba(TEXTS)
    assert clf.expected_accuracy() == clf.expected_accuracy()
    assert clf.n_queries_ == 9
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), before)
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), before)
    with pytest.raises(InputError, match="answers of fit are not here"):
        again.expected_accuracy()
    for n_folds in (1, True, 2.0):
        with pytest.raises(InputError, match="n_folds"):
            clf.expected_accuracy(n_folds=n_folds)
    for seed in (-1, "0", 1.0):
        with pytest.raises(InputError, match="seed: expected an integer from 0 on"):
            clf.expected_accuracy(seed=seed)


SETS = [["n"], ["n", "y"], ["y"], [], ["n", "y"], ["y"], ["n"], ["y", "rare"]]


def test_leave_one_out_of_several_labels_is_what_fitting_without_each_row_gives():
    texts = ["bad", "good bad", "so good", "odd", "bad good day", "good fun", "so bad", "good x"]
    clf = MultiLabelClassifier("fake", store=None).fit(texts, SETS)
    right, found_y = [], 0
    for i in range(len(texts)):
        rest = [j for j in range(len(texts)) if j != i]
        Y = np.array([[name in own for name in ("n", "rare", "y")] for own in SETS])
        other = MultiLabel().fit(clf._training.hidden[rest], Y[rest].astype(int))
        told = other.predict(clf._training.hidden[[i]])[0]
        right.append((told == Y[i]).all())
        found_y += told[2] and Y[i][2]
    asked = clf.n_queries_
    found = clf.expected_accuracy(n_folds=len(texts))
    assert found.accuracy == np.mean(right)
    assert found.interval == pytest.approx(wilson(sum(right), len(texts)))
    assert found.recall["y"] == (found_y, 5)
    assert found.not_estimated == ["rare"]
    assert clf.n_queries_ == asked


def test_nothing_is_claimed_of_one_text_with_several_labels():
    clf = MultiLabelClassifier("fake", store=None).fit(["a", "a"], [["n"], ["n", "y"]])
    assert clf.expected_accuracy().reason == "there are no two different texts"


def test_what_is_said_of_the_texts_without_labels_is_said_of_the_fit_and_not_of_its_folds():
    clf = FewShotClassifier("fake", labels={"pos": "good", "neg": "bad"}, store=None)
    texts = [f"good day {i}" for i in range(4)] + [f"bad day {i}" for i in range(4)]
    with pytest.warns(ModelWarning, match="change nothing"):
        clf.fit(texts, ["pos"] * 4 + ["neg"] * 4, unlabelled=["so so", "a day"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        clf.expected_accuracy()
