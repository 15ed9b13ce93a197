"""Tables in, tables out: what an engine of bulk data relies on."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.artifacts.schema import ColumnsEntry
from fewfit.bulk import Predictor
from fewfit.errors import InputError
from tests.fake_server import FakeServer, Reply

pa = pytest.importorskip("pyarrow")

TEXTS = ["so good", "very bad", "good good", "bad day"]
LABELS = ["yes", "no", "yes", "no"]


@pytest.fixture(scope="module")
def classifier():
    return FewShotClassifier("fake", store=None).fit(TEXTS, LABELS)


def test_labels_stand_beside_their_rows_whatever_the_batches(classifier):
    texts = [f"{word} {i}" for i in range(20) for word in ("good", "bad", "odd")]
    table = pa.table({"n": pa.array([*range(59), None], pa.int64()), "text": texts})
    whole = Predictor(classifier, proba=True)(table)
    probabilities = classifier.predict_proba(texts)
    assert whole.column_names == [
        *("n", "text", "prediction", "probability", "probability_no", "probability_yes")
    ]
    assert whole.select(["n", "text"]).equals(table)  # an integer with a null stays an integer
    assert whole["prediction"].to_pylist() == classifier.predict(texts).tolist()
    np.testing.assert_array_equal(whole["probability"].to_numpy(), probabilities.max(axis=1))
    np.testing.assert_array_equal(whole["probability_yes"].to_numpy(), probabilities[:, 1])
    predictor = pickle.loads(pickle.dumps(Predictor(classifier, proba=True)))
    parts = [predictor(table.slice(i, 7)) for i in range(0, 60, 7)]
    assert pa.concat_tables(parts).equals(whole)


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(LABELS, "string"), ([1, 2, 1, 2], "int64"), ([True, False, True, False], "bool")],
)
def test_the_types_of_a_batch_without_a_text_are_those_of_any_other(labels, kind):
    words = dict.fromkeys(labels, "good") | {labels[1]: "bad"}
    classifier = FewShotClassifier("fake", labels=words, store=None, errors="nan")
    classifier.fit(TEXTS, labels)
    predictor = Predictor(classifier, proba=True)
    empty = predictor(pa.table({"text": pa.array([None, " "], pa.string())}))
    full = predictor(pa.table({"text": ["so good", ""]}))
    none = predictor(pa.table({"text": pa.array([], pa.string())}))
    assert empty.schema == full.schema == none.schema
    assert str(full.schema.field("prediction").type) == kind
    assert empty["prediction"].to_pylist() == empty["probability"].to_pylist() == [None, None]
    assert full["prediction"].to_pylist() == [labels[0], None]
    assert full["prediction_status"].to_pylist() == ["ok", "failed: no text"]


@pytest.mark.parametrize("labels", [[2**63, -1], [2**70, 1], [2**63, 1]])
def test_integers_that_no_column_of_integers_holds_are_text(labels):
    words = dict(zip(labels, ["good", "bad"], strict=True))
    classifier = FewShotClassifier("fake", labels=words, store=None).fit(TEXTS, labels * 2)
    found = Predictor(classifier)(pa.table({"text": ["so good", None]}))
    told = [str(label) for label in classifier.predict(["so good"])]
    assert found["prediction"].to_pylist() == [*told, None]
    several = MultiLabelClassifier("fake", store=None).fit(TEXTS, [[n] for n in labels * 2])
    found = Predictor(several)(pa.table({"text": ["so good", None]}))
    told = [[str(label) for label in own] for own in several.predict(["so good"])]
    assert found["prediction"].to_pylist() == [*told, None]
    assert found.schema.field("prediction").type == pa.list_(pa.string())


def test_several_labels_of_a_row_are_a_list():
    classifier = MultiLabelClassifier("fake", store=None)
    classifier.fit(TEXTS, [["a"], ["b"], ["a", "b"], ["b"]])
    found = Predictor(classifier)(pa.table({"text": ["so good", None, "very bad"]}))
    names = [list(own) for own in classifier.predict(["so good", "very bad"])]
    assert found.column_names == ["text", "prediction"]
    assert found["prediction"].to_pylist() == [names[0], None, names[1]]
    assert found.schema.field("prediction").type == pa.list_(pa.string())


def test_fields_are_found_by_the_names_given_or_those_of_the_fit(classifier):
    table = pa.table({"title": ["so", None], "body": ["good", "bad"], "text": ["bad", "good"]})
    found = Predictor(classifier, columns={"text": ["title", "body"]})(table)
    assert found["prediction"].to_pylist() == classifier.predict(["so\ngood", "bad"]).tolist()
    with pytest.raises(InputError, match=r"no field 'body'"):
        Predictor(classifier, columns={"body": "text"})
    with pytest.raises(InputError, match=r"in column 'mail', and the table has \['n'\]"):
        Predictor(classifier, columns={"text": "mail"})(pa.table({"n": [1]}))


def test_a_column_that_was_named_and_is_missing_is_no_other_and_one_remembered_may_be():
    table = pa.table({"text": ["so good"], "n": [1]})
    fitted = FewShotClassifier("fake", store=None).fit(TEXTS, LABELS)
    for columns in ({"text": "mail"}, {"text": ["text", "mail"]}):
        with pytest.raises(InputError, match="in column 'mail', and the table has"):
            Predictor(fitted, columns=columns)(table)
    fitted.columns_ = ColumnsEntry(fields={"text": ["mail"]}, label="label", separator=None)
    assert Predictor(fitted)(table)["prediction"].to_pylist() == ["yes"]


def test_what_no_label_can_come_of_is_refused_before_anything_is_asked(classifier):
    with pytest.raises(InputError, match="column 'text': row 1, field 'text': expected text"):
        Predictor(classifier)(pa.table({"text": pa.array([None, 3], pa.int64())}))
    with pytest.raises(InputError, match="has a column 'prediction' already"):
        Predictor(classifier)(pa.table({"text": ["a"], "prediction": ["b"]}))
    twice = pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"])
    with pytest.raises(InputError, match="two columns 'text'; rename one"):
        Predictor(classifier)(twice)
    with pytest.raises(InputError, match="columns: field 'text' has no column"):
        Predictor(classifier, columns={"text": []})
    with pytest.raises(InputError, match="batch_format='pyarrow'"):
        Predictor(classifier)({"text": np.array(["a"])})
    together = FewShotClassifier("fake", decoder="zero-shot", calibration="batch", store=None)
    together.fit(TEXTS, LABELS)
    with pytest.raises(InputError, match="'batch' looks at all rows at once"):
        Predictor(together)


def test_a_row_without_an_answer_says_why_and_leaves_the_others(tmp_path):
    def fails(request, before):
        return Reply({"error": "no"}, status=500) if "odd" in request.text else None

    with FakeServer(fails) as server:
        spec = f"embeddings:{server.url}?model=toy&retries=0"
        classifier = FewShotClassifier(spec, store=tmp_path / "store", errors="nan")
        predictor = Predictor(classifier.fit(TEXTS, LABELS))
        table = pa.table({"text": ["so good", "odd", "very bad"]})
        with pytest.warns(match="1 of 1 prompts got no usable answer"):
            found = predictor(table)
        asked = len(server.requests)
        again = pickle.loads(pickle.dumps(predictor))(table.take([0, 2]))
    status = found["prediction_status"].to_pylist()
    assert status[0] == status[2] == "ok"
    assert status[1].startswith("failed: HTTP 500")
    assert found["prediction"].to_pylist()[1] is None
    assert again.equals(found.take([0, 2]))
    assert len(server.requests) == asked  # the store's answers are not asked for again
