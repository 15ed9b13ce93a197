"""Inside scikit-learn: scorers, searches, and meta-estimators that number the classes."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils import get_tags

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.decoders import MultiLabel
from fewfit.errors import InputError, InputWarning, LabelWordWarning
from fewfit.models import FakeModel

WORDS = {"neg": "bad", "pos": "good"}
TEXTS = [
    f"{text} {i}" for i, text in enumerate(["so good", "quite bad", "a good", "bad it was"] * 4)
]
Y = ["pos", "neg"] * 8
COLUMN = np.array(TEXTS, dtype=object)[:, None]


def make(labels=WORDS, **options) -> FewShotClassifier:
    return FewShotClassifier("fake", labels=labels, store=None, **options)


META = {
    "voting": lambda one: VotingClassifier([("a", one), ("b", clone(one))], voting="soft"),
    "voting, hard": lambda one: VotingClassifier([("a", one), ("b", clone(one))]),
    "stacking": lambda one: StackingClassifier([("a", one)], cv=2),
    "one against the rest": OneVsRestClassifier,
    "bagging": lambda one: BaggingClassifier(one, n_estimators=2, random_state=0),
}


@pytest.mark.parametrize("meta", [pytest.param(value, id=name) for name, value in META.items()])
def test_classes_that_a_meta_estimator_numbers_keep_their_words(meta):
    X = COLUMN if meta is META["bagging"] else TEXTS
    listed = meta(make(["bad", "good"])).fit(X, Y)  # says what is meant: no warning
    assert listed.score(X, Y) == 1.0
    assert set(listed.predict(X)) == {"neg", "pos"}
    with pytest.warns(InputWarning, match="0 is 'neg', 1 is 'pos'"):
        named = meta(make()).fit(X, Y)
    if hasattr(named, "predict_proba"):
        np.testing.assert_array_equal(named.predict_proba(X), listed.predict_proba(X))
    assert named.score(X, Y) == 1.0


def test_numbered_classes_are_the_named_ones():
    expected = make().fit(TEXTS, Y).predict_proba(TEXTS)
    numbers = [WORDS[name] == "good" for name in Y]
    for y in (np.array(numbers, dtype=int), [int(number) for number in numbers]):
        clf = make(["bad", "good"]).fit(TEXTS, y)
        assert clf.classes_.tolist() == [0, 1]
        np.testing.assert_array_equal(clf.predict_proba(TEXTS), expected)
    clf = make().fit(TEXTS, Y)
    np.testing.assert_allclose(np.exp(clf.predict_log_proba(TEXTS)), expected)
    assert clf.score(TEXTS, ["pos"] * 16, sample_weight=[3.0, 1.0] * 8) == 0.75
    out = cross_val_predict(make(["bad", "good"]), TEXTS, Y, cv=2, method="predict_proba")
    assert out.shape == (16, 2)
    assert CalibratedClassifierCV(make(), cv=2).fit(TEXTS, Y).score(TEXTS, Y) == 1.0
    assert TunedThresholdClassifierCV(make(), cv=2).fit(TEXTS, Y).score(TEXTS, Y) == 1.0


@pytest.mark.parametrize(
    ("labels", "y", "message"),
    [
        ({"a": "red", "b": "green", "c": "blue"}, [0, 1] * 8, "class 0 has no label words"),
        ({"a": "red", "b": "green"}, [1, 2] * 8, "class 1 has no label words"),
        ({"a": "red", "b": "green"}, [True, False] * 8, "class True has no label words"),
        (["red", "green", "blue"], [0, 1] * 8, "3 are given and y has 2 classes"),
        (["pos", "neg"], Y, "'pos' stands in the place of 'neg'"),
    ],
)
def test_numbers_that_could_mean_another_class_are_refused(labels, y, message):
    with pytest.raises(InputError, match=message):
        make(labels).fit(TEXTS, y)


def test_bare_numbers_are_asked_about_with_a_word():
    for y in (np.array([0, 1] * 8), ["0", "1"] * 8, [False, True] * 8):
        with pytest.warns(LabelWordWarning, match="which tell it nothing"):
            clf = make(None).fit(TEXTS, y)
        assert clf.classes_.tolist() == list(y[:2])
        assert clf.predict(TEXTS[:1])[0] in y
    clf = make({0: "bad", 10**30: "good"}).fit(TEXTS, [10**30, 0] * 8)
    assert clf.score(TEXTS, [10**30, 0] * 8) == 1.0
    with pytest.raises(InputError, match="row 0 is too large to be exact"):
        clf.score(TEXTS, [10.0**30, 0.0] * 8)
    make(None, decoder="linear-probe").fit(TEXTS, [0, 1] * 8)  # does not read the words


@pytest.mark.parametrize("classes", [(0, 1), (False, True), (-(10**30), 10**30), (-1, 2**63)])
def test_classes_of_every_kind_are_saved_and_predicted_as_they_are(classes, tmp_path):
    labels = dict(zip(classes, ["bad", "good"], strict=True))
    for decoder in (None, "dect", "zero-shot", "linear-probe"):
        clf = make(labels, decoder=decoder).fit(TEXTS, [classes[1], classes[0]] * 8)
        told = clf.predict(TEXTS).tolist()
        assert told == [classes[1], classes[0]] * 8
        assert {type(name) for name in told} == {type(classes[0])}
        clf.save(tmp_path / "task")
        again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
        assert again.predict(TEXTS).tolist() == told
        assert {type(name) for name in again.classes_.tolist()} == {type(classes[0])}


def test_a_decoder_or_a_calibration_may_be_a_name():
    from fewfit import DecT

    named, made = make(decoder="dect").fit(TEXTS, Y), make(decoder=DecT()).fit(TEXTS, Y)
    np.testing.assert_array_equal(named.predict_proba(TEXTS), made.predict_proba(TEXTS))
    grid = GridSearchCV(make(), {"decoder": ["dect", "linear-probe", None]}, cv=2).fit(TEXTS, Y)
    assert grid.best_score_ == 1.0
    for options, message in [
        ({"decoder": "DecT"}, "decoder: 'DecT' is not one of .*; did you mean 'dect'"),
        ({"decoder": "linear_probe"}, "did you mean 'linear-probe'"),
        ({"decoder": DecT}, r"got the class DecT; pass DecT\(\)"),
        ({"decoder": MultiLabel()}, "which is MultiLabelClassifier's"),
        ({"decoder": 3}, "got a int"),
        ({"calibration": "contextal"}, "did you mean 'contextual'"),
        ({"calibration": 3}, "calibration: The 'calibration' parameter"),
        ({"model": "embeded"}, "did you mean 'embedded'"),
        ({"model": "roberta-large"}, "is 'hf:roberta-large'"),
        ({"model": "http://localhost:8000"}, "'vllm:http://...'"),
        ({"model": None}, "model: The 'model' parameter"),
        ({"errors": "ignore"}, "Got 'ignore'"),
        ({"max_queries": -1}, "Got -1"),
        ({"max_queries": True}, "takes no True"),
        ({"max_censored": 1.1}, r"\[0.0, 1.0\]. Got 1.1"),
        ({"labels": "pos"}, "Got 'pos'"),
        ({"store": 3}, "Got 3"),
    ]:
        with pytest.raises(InputError, match=message):
            FewShotClassifier(**{"model": "fake", "store": None, **options}).fit(TEXTS, Y)


def test_progress_is_a_bar_or_a_function(capsys):
    told: list[int] = []
    clf = make().fit(TEXTS, Y, progress=told.append)
    assert sum(told) == 17
    clf.predict(TEXTS[:3], progress=True)
    assert "3/3" in capsys.readouterr().err
    clf.predict(["x", "x", "y"], progress=True)
    assert "3/3" in capsys.readouterr().err  # a bar ends full, though two are one
    clf.predict(TEXTS[:3], progress=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match="progress: expected True, or a function"):
        clf.predict(TEXTS[:3], progress="yes")


def test_many_classes_warn_of_nothing():
    names = [f"class {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(150)]
    for decoder in (None, "dect", "linear-probe", "zero-shot", "nearest-mean"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            clf = make(None, decoder=decoder).fit([f"text {name}" for name in names], names)
            texts = [f"text {name}" for name in names]
            assert clf.score(texts, names) == np.mean(clf.predict(texts) == np.array(names))


# ------------------------------------------------------------------------------- several labels

MANY = ["cheap and quick", "quick one", "so cheap", "neither", "all quick", "a cheap"] * 4
BITS = np.array([[1, 1], [0, 1], [1, 0], [0, 0], [0, 1], [1, 0]] * 4)


def several(**options) -> MultiLabelClassifier:
    return MultiLabelClassifier("fake", store=None, **options)


def test_an_indicator_comes_back_as_one_and_sets_as_lists():
    sets = [{name for name, bit in zip("ab", row, strict=True) if bit} for row in BITS]
    of_sets = several().fit(MANY, sets)
    assert of_sets.predict(MANY)[:4] == [["a", "b"], ["b"], ["a"], []]
    for y, names in [
        (BITS, [0, 1]),
        (BITS.tolist(), [0, 1]),
        (sparse.csr_matrix(BITS), [0, 1]),
        (pd.DataFrame(BITS, columns=["z", "b"]), ["z", "b"]),
    ]:
        clf = several().fit(MANY, y)
        assert clf.classes_.tolist() == names
        np.testing.assert_array_equal(clf.predict(MANY), BITS)
        np.testing.assert_allclose(clf.predict_proba(MANY), of_sets.predict_proba(MANY), atol=1e-9)
        assert clf.score(MANY, y) == 1.0
    assert several(labels=["z", "b"]).fit(MANY, BITS).classes_.tolist() == ["z", "b"]


def test_columns_out_of_order_are_saved_in_their_order(tmp_path):
    frame = pd.DataFrame(BITS, columns=["z", "b"])
    clf = several().fit(MANY, frame)
    clf.save(tmp_path / "many")
    again = MultiLabelClassifier.load(tmp_path / "many", store=None, verify=True)
    assert again.classes_.tolist() == ["z", "b"]
    np.testing.assert_array_equal(again.predict_proba(MANY), clf.predict_proba(MANY))
    np.testing.assert_array_equal(again.predict_indicator(MANY), BITS)
    assert again.predict(["cheap and quick"]) == [["b", "z"]]


def test_scores_count_examples_with_exactly_their_labels():
    clf = several().fit(MANY, BITS)
    wrong = BITS.copy()
    wrong[0, 0] = 0
    assert clf.score(MANY, wrong) == pytest.approx(23 / 24)
    sets = [{int(k) for k in np.flatnonzero(row)} for row in BITS]
    assert clf.score(MANY, sets) == 1.0
    assert clf.score(MANY, [*sets[:-1], {0, 7}]) == pytest.approx(23 / 24)
    with pytest.raises(InputError, match="the columns are"):
        clf.score(MANY, np.hstack([BITS, BITS]))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([0] * 16, "one of them is above 0"),
        ([1] * 3, r"sample_weight: expected shape \(16,\), got \(3,\)"),
        ([-1] + [1] * 15, "finite and not negative"),
    ],
)
def test_what_cannot_be_scored_is_refused_unasked(weight, message):
    model = FakeModel()
    numbers = [int(y == "pos") for y in Y]
    one = FewShotClassifier(model, labels={0: "bad", 1: "good"}, store=None).fit(TEXTS, numbers)
    many = MultiLabelClassifier(model, store=None).fit(TEXTS, [{k} for k in numbers])
    asked = model.queries
    for clf, y in ((one, numbers), (many, [{k} for k in numbers])):
        with pytest.raises(InputError, match=message):
            clf.score(TEXTS, y, sample_weight=weight)
    kinds = "all strings or all integers .* fit knew 0, there is '[01]'"
    with pytest.raises(InputError, match=kinds):
        one.score(TEXTS, [str(k) for k in numbers])
    with pytest.raises(InputError, match=kinds):
        many.score(TEXTS, [{str(k)} for k in numbers])
    assert model.queries == asked
    assert one.score(TEXTS, [bool(k) for k in numbers]) == 1.0, "True is 1, as in Python"
    assert many.score(TEXTS, [set()] * 16) == 0.0


@pytest.mark.parametrize("scoring", [None, "f1_micro", "f1_macro", "accuracy", "roc_auc"])
def test_scikit_learns_scorers_take_it(scoring):
    frame = pd.DataFrame({"z": BITS[:, 0], "b": BITS[:, 1], "m": BITS[:, 0] & BITS[:, 1]})
    for y in (frame, frame.to_numpy()):
        scores = cross_val_score(
            several(), MANY, y, cv=KFold(2), scoring=scoring, error_score="raise"
        )
        np.testing.assert_array_equal(scores, 1.0)
    grid = {"decoder": ["multi-label", MultiLabel(C=3)]}
    assert (
        GridSearchCV(several(), grid, cv=KFold(2), scoring="f1_micro").fit(MANY, BITS).best_score_
    )


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("K", [2, 3])
def test_scorers_that_rank_take_two_labels_as_they_take_three(scoring, K):
    y = np.column_stack([BITS, BITS[:, 0] & BITS[:, 1]])[:, :K]
    named = several(labels=["z", "b", "m"][:K])
    for clf in (several(), *([named] if scoring == "roc_auc" else [])):
        scores = cross_val_score(clf, MANY, y, cv=KFold(2), scoring=scoring, error_score="raise")
        np.testing.assert_array_equal(scores, 1.0)


def test_log_odds_rank_as_the_probabilities_do_and_are_finite():
    clf = several().fit(MANY, BITS)
    p, odds = clf.predict_proba(MANY), clf.decision_function(MANY)
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), atol=1e-6)
    clf.decode = lambda _: np.array([[0.0, 1.0]])
    assert np.isfinite(clf.decision_function(["any"])).all()


def test_tags_say_what_is_taken():
    one, many = get_tags(make()), get_tags(several())
    for tags in (one, many):
        assert tags.input_tags.string
        assert tags.input_tags.one_d_array
        assert not tags.input_tags.two_d_array
    assert is_classifier(make())
    assert is_classifier(several())
    assert many.classifier_tags.multi_label
    assert not one.classifier_tags.multi_label
