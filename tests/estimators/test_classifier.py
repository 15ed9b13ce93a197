from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline

from fewfit import DecT, FewShotClassifier, LinearProbe, ZeroShot
from fewfit.datasets import load_support_desk
from fewfit.errors import (
    CalibrationError,
    CapabilityError,
    InputError,
    ModelError,
    ModelWarning,
    TruncationWarning,
)
from fewfit.models import FakeModel

LABELS = {"neg": "bad", "pos": ["good", "fine"]}
TEXTS = ["a good film", "bad bad", "fine by me", "truly bad stuff", "good", "bad it was"]
Y = ["pos", "neg", "pos", "neg", "pos", "neg"]


def make(model=None, **options) -> FewShotClassifier:
    options = {"labels": LABELS, "store": None, **options}
    return FewShotClassifier(model or FakeModel(), **options)


def test_one_query_per_example_and_one_for_the_calibration():
    model = FakeModel()
    clf = make(model).fit(TEXTS, Y)
    assert clf.n_queries_ == model.queries == len(TEXTS) + 1
    clf.predict(["new one", "new two"])
    assert model.queries == len(TEXTS) + 3
    none = make(model, calibration="none").fit(TEXTS, Y)
    assert none.n_queries_ == len(TEXTS) + 1  # the text by which an artifact is verified


def test_a_second_fit_asks_nothing(tmp_path):
    model = FakeModel()
    store = tmp_path / "store.sqlite"
    first = make(model, store=store).fit(TEXTS, Y)
    asked = model.queries
    second = make(model, store=store, decoder=LinearProbe()).fit(TEXTS, Y)
    assert model.queries == asked
    assert second.n_queries_ == 0
    third = make(model, store=store).fit(TEXTS, Y)
    np.testing.assert_array_equal(first.predict_proba(TEXTS), third.predict_proba(TEXTS))


def test_classes_are_sorted_and_columns_follow():
    clf = make().fit(TEXTS, Y)
    assert clf.classes_.tolist() == ["neg", "pos"]
    proba = clf.predict_proba(TEXTS)
    assert proba.dtype == np.float64
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(clf.predict(TEXTS), clf.classes_[proba.argmax(axis=1)])
    assert clf.score(TEXTS, Y) == 1.0


def test_answers_to_another_question_are_not_decoded():
    clf, other = make().fit(TEXTS, Y), make(labels={0: "bad", 1: "good"})
    other.fit(TEXTS, [int(name == "pos") for name in Y])
    more = make(labels={**LABELS, "odd": "odd"}, decoder=ZeroShot()).fit([], [])
    views = make(template=["{text} {mask}", "so {text} {mask}"]).fit(TEXTS, Y)
    for answers in (other.observe(["good"]), more.observe(["good"])):
        with pytest.raises(InputError, match=r"not those of this classifier, .*\['neg', 'pos'\]"):
            clf.decode(answers)
    with pytest.raises(InputError, match=r"1 answers about \['neg', 'pos'\] are not .* 2 views"):
        views.decode(clf.observe(["good"]))
    assert views.decode(views.observe(["good"])).shape == (1, 2)


def test_probabilities_sum_to_one_as_closely_as_their_type_says():
    labels = {f"c{k}": f"w{k}" for k in range(7)}
    texts = [f"text {i}" for i in range(28)]
    for decoder in ("offset-regression", "zero-shot", "dect"):
        clf = make(labels=labels, decoder=decoder).fit(texts, [f"c{i % 7}" for i in range(28)])
        proba = clf.predict_proba([f"new {i}" for i in range(200)])
        assert proba.dtype == np.float64
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=0, atol=1e-15)


def test_integer_classes_work_too():
    clf = make(labels={1: "good", 0: "bad"}).fit(TEXTS, [int(name == "pos") for name in Y])
    assert clf.predict(["good"]).tolist() == [1]
    assert clf.classes_.dtype.kind == "i"


def test_classes_spell_themselves_where_no_words_are_given():
    clf = make(labels=None).fit(TEXTS, ["very_good" if name == "pos" else "bad" for name in Y])
    assert clf.task_.verbalizer.words == ("bad", "very good")


def test_every_way_to_pass_examples_gives_the_same():
    datasets = pytest.importorskip("datasets")
    frame = pd.DataFrame({"text": TEXTS, "other": 1}, index=range(10, 16))
    expected = make().fit(TEXTS, Y).predict_proba(TEXTS)
    for X, y in [
        (frame, pd.Series(Y, index=frame.index)),
        (frame["text"], pd.Categorical(Y)),
        (np.array(TEXTS, dtype=object), np.array(Y)),
        ([{"text": text} for text in TEXTS], np.array(Y, dtype=object)),
        (datasets.Dataset.from_pandas(frame), tuple(Y)),
    ]:
        clf = make().fit(X, y)
        proba = clf.predict_proba(X)
        assert type(proba) is np.ndarray
        np.testing.assert_array_equal(proba, expected)
        assert type(clf.predict(X)) is np.ndarray


def test_two_fields():
    clf = make(template="{premise} ? {mask}, {hypothesis}")
    rows = [{"premise": text, "hypothesis": "so"} for text in TEXTS]
    assert clf.fit(rows, Y).score(rows, Y) == 1.0
    with pytest.raises(InputError, match="row 0 lacks the field 'hypothesis'"):
        clf.predict([{"premise": "x"}])


def test_a_grid_over_the_decoder_costs_no_new_query(tmp_path):
    model = FakeModel()
    clf = make(model, store=tmp_path / "store.sqlite", decoder=DecT()).fit(TEXTS, Y)
    asked = model.queries
    grid = GridSearchCV(clf, {"decoder__lam": [0.0, 0.5, "1/n"], "decoder__n_steps": [5, 30]}, cv=3)
    grid.fit(TEXTS, Y)
    assert grid.best_score_ > 0.5
    GridSearchCV(clf, {"decoder": [ZeroShot(), LinearProbe()]}, cv=3).fit(TEXTS, Y)
    assert cross_val_score(clf, TEXTS, Y, cv=3).shape == (3,)
    assert model.queries == asked


def test_clone_and_pipeline():
    clf = make(decoder=DecT(lam=0.5))
    copy = clone(clf)
    assert copy.get_params()["decoder__lam"] == 0.5
    assert copy.model is clf.model
    assert copy.decoder is not clf.decoder
    pipeline = Pipeline([("classifier", clf)]).fit(TEXTS, Y)
    assert pipeline.score(TEXTS, Y) == 1.0
    with pytest.raises(NotFittedError):
        clone(clf).predict(TEXTS)


def test_fit_changes_no_parameter_and_no_global_state():
    clf = make()
    before = clf.get_params()
    state = np.random.get_state()[1].copy()
    clf.fit(TEXTS, Y)
    assert clf.get_params() == before
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    ("options", "X", "y", "message"),
    [
        ({}, "a string", ["pos"], "single string"),
        ({}, TEXTS, Y[:-1], "5 labels for 6 examples"),
        ({"labels": None}, [], [], "no examples; with none, labels"),
        ({"decoder": DecT()}, [], [], "no examples, and DecT needs 1 per class; leave decoder out"),
        ({}, TEXTS, ["pos"] * 6, "class 'neg' has label words but no example"),
        ({"labels": None}, TEXTS, ["pos"] * 6, "at least two classes"),
        ({}, TEXTS, ["pos", "odd", *Y[2:]], "class 'odd' has no label words"),
        ({}, ["a", None], ["pos", "neg"], "row 1"),
        ({}, ["a", "b"], ["pos", float("nan")], "row 1 is missing"),
        ({"template": "{text} none"}, TEXTS, Y, "exactly one {mask}"),
        ({"template": "{a} {b} {mask}"}, TEXTS, Y, "single text"),
        ({"labels": {"neg": "x", "pos": "X"}}, TEXTS, Y, "stands for"),
        ({"calibration": "magic"}, TEXTS, Y, "'magic' is not one of"),
    ],
)
def test_bad_input_is_refused_before_any_query(options, X, y, message):
    model = FakeModel()
    with pytest.raises(InputError, match=message):
        make(model, **options).fit(X, y)
    assert model.queries == 0


def test_what_the_model_cannot_give_is_refused_before_any_query():
    for model, options, message in [
        (FakeModel(hidden_size=0), {"decoder": LinearProbe()}, "LinearProbe needs 'hidden'"),
        (FakeModel(space=None), {"decoder": ZeroShot()}, "ZeroShot needs 'scores'"),
        (FakeModel(), {"calibration": "ratio"}, "gives 'logprob' scores"),
    ]:
        with pytest.raises(CapabilityError, match=message):
            make(model, **options).fit(TEXTS, Y)
        assert model.queries == 0


def test_scores_alone_and_hidden_states_alone():
    for decoder in (None, DecT(), ZeroShot()):
        scores_only = make(FakeModel(hidden_size=0), decoder=decoder).fit(TEXTS, Y)
        assert scores_only.score(TEXTS, Y) == 1.0
    for decoder in (None, DecT(), LinearProbe()):
        hidden_only = make(FakeModel(space=None), decoder=decoder).fit(TEXTS, Y)
        assert hidden_only.n_queries_ == len(TEXTS) + 1
        assert hidden_only.score(TEXTS, Y) == 1.0


def test_ratio_calibration_is_for_safely_positive_logits():
    class Lifted(FakeModel):
        def stream(self, prompts, words):
            for positions, answers in super().stream(prompts, words):
                yield positions, replace(answers, scores=answers.scores + lift)

    for lift in (10, -10):
        clf = make(Lifted(space="logit"), calibration="ratio", decoder=ZeroShot())
        if lift > 0:
            assert clf.fit(TEXTS, Y).score(TEXTS, Y) == 1.0
        else:
            with pytest.raises(CalibrationError, match="contextual"):
                clf.fit(TEXTS, Y)


def test_long_texts_are_reported():
    with pytest.warns(TruncationWarning, match="1 of 7 texts"):
        make(FakeModel(max_words=5)).fit(["good " * 9, *TEXTS[1:]], Y)


def test_a_failed_answer_is_never_a_guess():
    clf = make(FakeModel(faults={9: ModelError("server gone")})).fit(TEXTS, Y)
    with pytest.raises(ModelError, match="server gone"):
        clf.predict(["a", "b", "c"])


def test_empty_text_is_an_example_like_any_other():
    clf = make().fit(["", *TEXTS[1:]], Y)
    assert clf.n_queries_ == len(TEXTS)  # the calibration asks the same prompt
    assert clf.predict_proba([""]).shape == (1, 2)


def test_nothing_to_predict():
    clf = make().fit(TEXTS, Y)
    with pytest.raises(InputError, match="no examples"):
        clf.predict([])


def test_the_support_desk_on_the_embedded_model(embedded):
    from fewfit.compare import sample_shots
    from fewfit.demo import LABELS, TEMPLATE

    texts, labels = load_support_desk()
    texts, labels = np.array(texts), np.array(labels)
    rows = sample_shots(labels, 4, seed=0)
    rest = np.setdiff1d(np.arange(len(labels)), rows)[::5]
    clf = FewShotClassifier(embedded, template=TEMPLATE, labels=LABELS).fit(
        texts[rows], labels[rows]
    )
    assert clf.score(texts[rest], labels[rest]) > 0.45  # chance is 0.1


def test_without_examples_the_model_is_believed(tmp_path):
    clf = FewShotClassifier("fake", labels=LABELS, store=None)
    with pytest.warns(ModelWarning, match="no examples"):
        clf.fit([], [])
    assert clf.n_queries_ == 1  # the empty text, which the calibration asks about anyway
    told = FewShotClassifier("fake", labels=LABELS, decoder=ZeroShot(), store=None).fit(TEXTS, Y)
    np.testing.assert_array_equal(clf.predict_proba(TEXTS), told.predict_proba(TEXTS))
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
