"""Multi-label from text: the head's answer, one query per text, sets checked before any query."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.preprocessing import MultiLabelBinarizer

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.decoders import MultiLabel
from fewfit.errors import ArtifactError, CapabilityError, InputError, ModelError, ModelWarning
from fewfit.models import FakeModel
from tests.test_task import Partial

TEXTS = ["cheap and quick", "quick one", "so cheap", "neither", "quick quick", "cheap stuff"]
Y = [{"speed", "price"}, ["speed"], ("price",), set(), ["speed"], np.array(["price"])]
NEW = ["cheap", "a quick ride", "hm", "cheap quick"]


def make(model=None, **options) -> MultiLabelClassifier:
    return MultiLabelClassifier(model or FakeModel(), **{"store": None, **options})


def test_it_is_the_head_on_the_models_hidden_states():
    model = FakeModel()
    clf = make(model, decoder=MultiLabel(C=0.3)).fit(TEXTS, Y)
    assert model.queries == clf.n_queries_ == len(TEXTS) + 1  # and what verifies an artifact
    words = MultiLabelBinarizer().fit([list(own) for own in Y])
    assert clf.classes_.tolist() == words.classes_.tolist() == ["price", "speed"]
    prompts = [clf.task_.template.render({"text": text}) for text in [*TEXTS, *NEW]]
    hidden = FakeModel().observe(prompts, ["price", "speed"]).hidden
    head = MultiLabel(C=0.3).fit(hidden[:6], words.transform([list(own) for own in Y]))
    np.testing.assert_allclose(clf.predict_proba(NEW), head.predict_proba(hidden[6:]))
    np.testing.assert_array_equal(clf.predict_indicator(NEW), head.predict(hidden[6:]))
    assert clf.predict(NEW) == [
        list(own) for own in words.inverse_transform(head.predict(hidden[6:]))
    ]
    assert make().fit(TEXTS, Y).predict(NEW) == [["price"], ["speed"], [], ["price", "speed"]]


def test_labels_may_be_numbers_and_are_given_in_any_order():
    numbers = [
        {2, 7} if len(own) > 1 else {7 if "speed" in own else 2} if len(own) else [] for own in Y
    ]
    clf = make(labels=[7, 2]).fit(TEXTS, numbers)
    assert clf.classes_.tolist() == [2, 7]
    assert clf.predict(["cheap quick"]) == [[2, 7]]
    assert clone(clf).get_params()["labels"] == [7, 2]


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (["speed"] * 6, {}, "row 0: expected a set of labels, got 'speed'"),
        ("speed", {}, "expected a list of sets"),
        (Y[:5], {}, "labels for 5 examples, and 6"),
        ([[None], *Y[1:]], {}, "a label of row 0 is missing"),
        ([["price", 3], *Y[1:]], {}, "not both"),
        (Y, {"labels": ["price", "size"]}, "row 0: 'speed' is not in labels"),
        (Y, {"labels": ["price", "speed", "size"]}, "'size' has no example"),
        (Y, {"labels": "price"}, "expected a list of labels"),
        ([["price"]] * 6, {}, "at least two"),
    ],
)
def test_labels_that_do_not_fit_are_refused_before_any_query(y, options, message):
    model = FakeModel()
    with pytest.raises(InputError, match=message):
        make(model, **options).fit(TEXTS, y)
    with pytest.raises(InputError, match="no examples"):
        make(model).fit([], [])
    assert model.queries == 0


def test_a_model_without_hidden_states_is_refused():
    with pytest.raises(CapabilityError, match="MultiLabel needs 'hidden'"):
        make(FakeModel(hidden_size=0)).fit(TEXTS, Y)


def test_a_text_without_an_answer_gets_no_label():
    model = Partial(fails=[("lost", "")])
    with pytest.raises(ModelError, match="no usable answer"):
        make(model).fit([*TEXTS, "lost"], [*Y, ["price"]])
    clf = make(model, errors="nan")
    with pytest.warns(ModelWarning, match="1 of 7 examples"):
        clf.fit([*TEXTS, "lost"], [*Y, ["price"]])
    assert clf.n_examples_ == 6
    proba = clf.predict_proba(["cheap", "lost"])
    np.testing.assert_array_equal(np.isnan(proba).all(axis=1), [False, True])
    np.testing.assert_allclose(proba[0], make().fit(TEXTS, Y).predict_proba(["cheap"])[0])
    with pytest.raises(ModelError, match="1 of 2 examples"):
        clf.predict(["cheap", "lost"])
    with pytest.warns(ModelWarning), pytest.raises(ModelError, match="example of label 'odd'"):
        clf.fit([*TEXTS, "lost"], [*Y, ["odd"]])


def test_it_is_saved_and_read_again_and_is_not_a_classifiers(tmp_path):
    clf = make(template=["{text} {mask}", "{mask}: {text}"], decoder=MultiLabel(threshold="f1"))
    clf.fit(TEXTS, Y).save(tmp_path / "many")
    again = MultiLabelClassifier.load(tmp_path / "many", model=FakeModel(), store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    assert again.predict(NEW) == clf.predict(NEW)
    assert again.get_params()["decoder"].threshold == "f1"
    again.save(tmp_path / "again")
    first, second = (tmp_path / name / "manifest.json" for name in ("many", "again"))
    assert first.read_text() == second.read_text()
    with pytest.raises(ArtifactError, match="holds a MultiLabel, which FewShotClassifier"):
        FewShotClassifier.load(tmp_path / "many", model=FakeModel(), store=None)
    single = FewShotClassifier(FakeModel(), labels={"a": "x", "b": "y"}, store=None)
    single.fit(TEXTS[:2], ["a", "b"]).save(tmp_path / "one")
    with pytest.raises(ArtifactError, match="which MultiLabelClassifier does not"):
        MultiLabelClassifier.load(tmp_path / "one", model=FakeModel(), store=None)


@pytest.mark.parametrize(
    ("labels", "named"), [(None, "column 2 is"), (["price", "speed", "odd"], "column 2 .'odd'. is")]
)
def test_a_column_without_an_example_is_called_what_it_is(labels, named):
    Y = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1]])
    clf = make(labels=labels)
    with pytest.raises(InputError, match=f"^y: {named} 0 in every row, so .* leave the column out"):
        clf.fit(TEXTS[:3], Y[:3])
    with pytest.raises(InputError, match=f"{named} 0 in every row with a weight"):
        clf.fit(TEXTS[:4], Y, sample_weight=[1, 1, 1, 0])
    with pytest.raises(InputError, match=r"^labels: 'odd' has no example"):
        make(labels=["price", "speed", "odd"]).fit(TEXTS[:2], [["price"], ["speed"]])


@pytest.mark.parametrize("names", [["C", "c"], ["a_b", "a b"], ["_", "__"], ["x 1", "X 1"]])
def test_labels_need_no_words_and_so_none_that_a_model_tells_apart(tmp_path, names):
    Y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
    frame = pd.DataFrame(Y, columns=names)
    sets = [{name for name, yes in zip(names, row, strict=True) if yes} for row in Y]
    clf = make().fit(TEXTS[:4], frame)
    assert clf.classes_.tolist() == names
    np.testing.assert_array_equal(clf.predict_indicator(TEXTS[:4]), Y)
    named = make(labels=names).fit(TEXTS[:4], sets)
    assert {*named.classes_.tolist()} == {*names}
    assert [set(own) for own in named.predict(TEXTS[:4])] == sets
    named.save(tmp_path / "task")
    again = MultiLabelClassifier.load(tmp_path / "task", model=FakeModel(), store=None)
    assert again.fit(TEXTS[:4], sets).predict(TEXTS[:4]) == named.predict(TEXTS[:4])


def test_labels_that_differ_in_case_alone_are_asked_about():
    with pytest.raises(InputError, match=r"make them one, or name all that there are in labels="):
        make().fit(TEXTS[:2], [["price"], ["Price"]])
