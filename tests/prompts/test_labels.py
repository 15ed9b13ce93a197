"""One reader of labels: what it reads, what it refuses, and in which words."""

from __future__ import annotations

import datetime
import warnings
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from fewfit import Verbalizer
from fewfit.errors import InputError, InputWarning
from fewfit.prompts import read_label_sets, read_labels
from fewfit.prompts.labels import check_distinct, class_array

HUGE = 10**30


class Mood(Enum):
    BAD = "bad"
    GOOD = "good"


class Tone(StrEnum):
    BAD = "bad"
    GOOD = "good"


class OldTone(str, Enum):  # noqa: UP042
    BAD = "bad"
    GOOD = "good"


class Grade(IntEnum):
    LOW = 0
    HIGH = 1


class Anonymous(Enum):
    OTHER = 1
    THING = b"bytes"


def class_label_column(values):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"label": datasets.ClassLabel(names=["bad", "good"])})
    return datasets.Dataset.from_dict({"label": values}, features=features)["label"]


def _matrix(values):
    with warnings.catch_warnings():  # SciPy hushes it where it is imported first
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(values)


TEXT = {
    "list": ["bad", "good"],
    "tuple": ("bad", "good"),
    "generator": (name for name in ["bad", "good"]),
    "values of a dict": {1: "bad", 2: "good"}.values(),
    "array": np.array(["bad", "good"]),
    "array of object": np.array(["bad", np.str_("good")], dtype=object),
    "masked array": np.ma.array(["bad", "good"]),
    "column vector": np.array([["bad"], ["good"]]),
    "matrix": _matrix([["bad"], ["good"]]),
    "list of numpy": [np.str_("bad"), np.array("good")],
    "series": pd.Series(["bad", "good"], index=[7, 7]),
    "series of string": pd.Series(["bad", "good"], dtype="string"),
    "series of pyarrow": pd.Series(["bad", "good"], dtype="string[pyarrow]"),
    "index": pd.Index(["bad", "good"]),
    "categorical": pd.Categorical(["bad", "good"], categories=["good", "bad", "unused"]),
    "frame": pd.DataFrame({"any": ["bad", "good"]}),
    "frame of categorical": pd.DataFrame({"any": pd.Categorical(["bad", "good"])}),
    "mapping": {"any": ["bad", "good"]},
    "arrow array": pa.array(["bad", "good"]),
    "arrow column": pa.chunked_array([["bad"], ["good"]]),
    "arrow dictionary": pa.array(["bad", "good"]).dictionary_encode(),
    "arrow table": pa.table({"any": ["bad", "good"]}),
    "enum": [Mood.BAD, Mood.GOOD],
    "str enum": [Tone.BAD, Tone.GOOD],
    "enum of str": [OldTone.BAD, OldTone.GOOD],
}

INTEGERS = {
    "list": [0, 1],
    "int64": np.array([0, 1]),
    "uint8": np.array([0, 1], dtype=np.uint8),
    "float of a column with gaps": [0.0, 1.0],
    "float32": np.array([0, 1], dtype=np.float32),
    "float16 and longdouble": [np.float16(0), np.longdouble(1)],
    "numpy in a list": [np.int64(0), np.int8(1)],
    "decimal": [Decimal("0"), Decimal("1.0")],
    "fraction": [Fraction(0), Fraction(2, 2)],
    "int enum": [Grade.LOW, Grade.HIGH],
    "Int64": pd.array([0, 1], dtype="Int64"),
    "range": range(2),
    "one column": np.array([[0], [1]]),
    "arrow": pa.array([0, 1]),
    "categorical": pd.Series([0, 1], dtype="category"),
    "object": np.array([0, 1], dtype=object),
}

BOOLEANS = {
    "list": [False, True],
    "numpy": np.array([False, True]),
    "numpy in a list": [np.False_, np.True_],
    "boolean": pd.array([False, True], dtype="boolean"),
    "arrow": pa.array([False, True]),
}


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        *(pytest.param(y, ["bad", "good"], id=f"text: {name}") for name, y in TEXT.items()),
        *(pytest.param(y, [0, 1], id=f"integers: {name}") for name, y in INTEGERS.items()),
        *(pytest.param(y, [False, True], id=f"booleans: {name}") for name, y in BOOLEANS.items()),
        ([-HUGE, HUGE], [-HUGE, HUGE]),
        ([float(2**53), 1], [2**53, 1]),
        ([2**63, -1], [2**63, -1]),
    ],
)
def test_labels_of_every_library_are_plain(y, expected):
    labels = read_labels(y, 2)
    assert labels == expected
    assert [type(label) for label in labels] == [type(label) for label in expected]


def test_torch_and_datasets_are_read_too():
    torch = pytest.importorskip("torch")
    assert read_labels(torch.tensor([0, 1]), 2) == [0, 1]
    assert read_labels(torch.tensor([[0], [1]]), 2) == [0, 1]
    assert read_labels(class_label_column([1, 0]), 2) == [1, 0]
    with pytest.raises(InputError, match="row 1 is missing"):
        read_labels(class_label_column([1, -1]), 2)  # how datasets writes "no label"


MISSING = {
    "None": ["a", None],
    "nan": ["a", float("nan")],
    "numpy nan": np.array([0.0, np.nan]),
    "float16 nan": [np.float16(1), np.float16("nan")],
    "NaT": ["a", pd.NaT],
    "numpy NaT": ["a", np.datetime64("NaT", "D")],
    "pandas.NA": ["a", pd.NA],
    "Int64": pd.array([1, None], dtype="Int64"),
    "string": pd.Series(["a", None], dtype="string"),
    "boolean": pd.Series([True, None], dtype="boolean"),
    "categorical": pd.Categorical(["a", None]),
    "masked": np.ma.array(["a", "b"], mask=[False, True]),
    "masked integers": np.ma.array([0, 1], mask=[False, True]),
    "masked in a list": ["a", np.ma.masked],
    "arrow": pa.array(["a", None]),
    "decimal": [Decimal(1), Decimal("NaN")],
    "signalling decimal": [Decimal(1), Decimal("sNaN")],
    "empty": ["a", ""],
    "blank": ["a", " \t"],
}


@pytest.mark.parametrize("y", [pytest.param(y, id=name) for name, y in MISSING.items()])
def test_a_missing_label_is_missing_whoever_wrote_it(y):
    with pytest.raises(InputError, match=r"^y: the label of row 1 is missing") as error:
        read_labels(y, 2)
    assert_plain(error)
    with pytest.raises(InputError, match=r"^column 'c': the label of line 3 is missing"):
        read_labels(y, 2, where=lambda i: f"line {i + 2}", name="column 'c'")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ("ab", "got str"),
        (b"ab", "got bytes"),
        (np.str_("ab"), "got str_"),
        (np.array("ab"), "got ndarray"),
        (7, "got int"),
        ({"a", "b"}, "a set has no order"),
        ({"label": "ab"}, "expected a list of labels, got str"),
        (["a"], "1 labels for 2 examples"),
        (bytearray(b"ab"), "got bytearray"),
        (memoryview(b"ab"), "got memoryview"),
        (np.float64, "got type"),
        ([1, float(2**60)], "row 1 is too large to be exact .* 1.15292e"),
        ([1.5, 2], "row 0 is neither text nor a whole number nor a boolean: got 1.5"),
        ([1, float("inf")], "row 1 .* got inf"),
        ([Decimal("0.1"), 1], "got Decimal"),
        ([1, 1j], "row 1 .* got 1j"),
        ([b"a", b"b"], "got b'a'; decode bytes"),
        (np.array([b"a", b"b"]), "got b'a'; decode bytes"),
        ([["a"], ["b"]], r"got \['a'\]"),
        ([np.array(["a", "b"]), "b"], r"got \['a', 'b'\]"),
        ([{"a"}, "b"], r"got \['a'\]"),
        ([datetime.date(2026, 1, 2), "b"], "got datetime.date"),
        ([pd.Timestamp(0), "b"], "got Timestamp"),
        ([Anonymous.OTHER, Anonymous.THING], "row 1 is neither text"),
        (["a", "b\x00"], "row 1 is not valid text"),
        (["a", "\ud800"], "row 1 is not valid text"),
        (["a", "b" * 1001], "row 1 has 1001 characters"),
        (["a", 1], "strings or all integers .* row 0 has 'a', row 1 has 1$"),
        ([np.True_, np.int64(1)], "row 0 has True, row 1 has 1"),
        (np.eye(2), r"the shape \(2, 2\)"),
        (np.zeros((2, 1, 1)), r"the shape \(2, 1, 1\)"),
        (np.zeros((2, 0)), r"the shape \(2, 0\)"),
        (sparse.csr_array(np.eye(2)), r"the shape \(2, 2\)"),
        (pd.DataFrame({"a": [0, 1], "b": [1, 0]}), r"the columns \['a', 'b'\]"),
        (pd.get_dummies(pd.Series(["a", "b"])), "idxmax"),
        (pa.table({"a": [0, 1], "b": [1, 0]}), "MultiLabelClassifier"),
        (pd.DataFrame([[0, 1], [1, 0]], columns=["a", "a"]), "two columns have the name 'a'"),
    ],
)
def test_what_is_no_label_is_refused_in_plain_words(y, message):
    with pytest.raises(InputError, match=message) as error:
        read_labels(y, 2)
    assert_plain(error)


def assert_plain(error):
    text = str(error.value)
    assert "np." not in text
    assert "array(" not in text
    assert "\n" not in text
    assert len(text) < 500


def test_classes_that_names_do_not_tell_apart_blame_their_rows():
    for y, names in [
        (["Pos", "neg", "pos"], "'Pos' (row 0) and 'pos' (row 2)"),
        (np.array(["pos", "neg", "pos "]), "'pos' (row 0) and 'pos ' (row 2)"),
        (["very_good", "very good"], "'very_good' (row 0) and 'very good' (row 1)"),
        (["é", "e\u0301"], "'é' (row 0) and 'e\u0301' (row 1)"),
        (["a", "a\u200b"], "'a' (row 0) and 'a\\u200b' (row 1)"),
    ]:
        with pytest.raises(InputError) as error:
            check_distinct(read_labels(y))
        assert str(error.value).startswith(f"y: the classes {names} differ only")
        assert_plain(error)
    with pytest.raises(InputError, match=r"column 'c': .*line 2.*line 3"):
        check_distinct(["a", "A"], where=lambda i: f"line {i + 2}", name="column 'c'")
    check_distinct(["a", "b", "a"])


def test_a_column_of_texts_is_noticed():
    texts = [f"this is sentence number {i}, which says something at length" for i in range(12)]
    with pytest.warns(InputWarning, match=r"each of the 12 examples .* column of texts"):
        read_labels(texts, 12)
    read_labels([f"class {i}" for i in range(12)], 12)  # one example each is no mistake
    read_labels([*texts, texts[0]], 13)


def test_an_array_of_classes_holds_them_exactly():
    for classes in [("a", "b"), (0, 1), (False, True), (-1, 2**63), (1, HUGE), (2**63, 2**63 + 1)]:
        array = class_array(classes)
        assert array.tolist() == list(classes)
        assert array.shape == (2,)


def test_keys_and_words_are_read_as_labels_are():
    made = Verbalizer({np.str_("b"): np.str_("x"), "a": np.array(["y", "z"])})
    assert made.labels == {"a": ["y", "z"], "b": ["x"]}
    assert "np." not in repr(made)
    assert Verbalizer({np.int64(1): "x", np.uint8(0): "y"}).classes == (0, 1)
    assert Verbalizer({True: "x", False: "y"}).classes == (False, True)
    with pytest.raises(InputError, match="two keys are the same class"):
        Verbalizer({Mood.BAD: "x", "bad": "y", "good": "z"})
    for weights in ({"x": "y"}, {"x": None}, {"x": -1}, {"x": float("nan")}, {"x": 0}):
        with pytest.raises(InputError, match="labels: the weights"):
            Verbalizer({"a": weights, "b": "y"})
    wrong = {None: "None", 3: "3", b"x": "b'x'", "\ud800": r"'\\ud800'", (None,): "None"}
    for words, shown in wrong.items():
        with pytest.raises(InputError, match=f"class 'a' has the label word {shown}"):
            Verbalizer({"a": words, "b": "y"})


# ------------------------------------------------------------------------------- several labels

Y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])
SETS = [{"price"}, ["speed"], ("price", "speed"), []]

FORMS = {
    "sets": SETS,
    "generators": (iter(own) for own in SETS),
    "frozen sets": [frozenset(own) for own in SETS],
    "arrays": [np.array(list(own), dtype=str) for own in SETS],
    "series": pd.Series(SETS),
    "column of a frame": pd.DataFrame({"any": [list(own) for own in SETS]}),
    "arrow": pa.array([list(own) for own in SETS]),
    "frame": pd.DataFrame(Y, columns=["price", "speed"]),
    "frame of bool": pd.DataFrame(Y == 1, columns=["price", "speed"]),
    "nullable frame": pd.DataFrame(Y, columns=["price", "speed"]).convert_dtypes(),
    "sparse frame": pd.DataFrame(Y, columns=["price", "speed"]).astype("Sparse[int]"),
    "mapping": {"price": [1, 0, 1, 0], "speed": np.array([0, 1, 1, 0])},
    "arrow table": pa.table({"price": [1, 0, 1, 0], "speed": [0, 1, 1, 0]}),
}

UNNAMED = {
    "array": Y,
    "array of float": Y.astype(float),
    "array of bool": Y == 1,
    "array of object": Y.astype(object),
    "lists": Y.tolist(),
    "tuples of bool": [tuple(row) for row in (Y == 1).tolist()],
    "list of arrays": list(Y),
    "sparse": sparse.csr_matrix(Y),
    "sparse array": sparse.coo_array(Y),
    "masked": np.ma.array(Y),
    "unnamed frame": pd.DataFrame(Y),
}


@pytest.mark.parametrize("y", [pytest.param(y, id=name) for name, y in FORMS.items()])
def test_sets_and_named_columns_are_the_same_labels(y):
    read = read_label_sets(y, 4)
    np.testing.assert_array_equal(read.Y, Y)
    assert read.classes == ("price", "speed")
    assert read.Y.dtype == np.int64


@pytest.mark.parametrize("y", [pytest.param(y, id=name) for name, y in UNNAMED.items()])
def test_columns_of_0_and_1_are_never_the_labels_0_and_1(y):
    read = read_label_sets(y, 4)
    np.testing.assert_array_equal(read.Y, Y)
    assert read.classes == (0, 1)
    assert read.indicator
    named = read_label_sets(y, 4, labels=["speed", "price"])
    np.testing.assert_array_equal(named.Y, Y)
    assert named.classes == ("speed", "price")  # in the order of the columns


def test_columns_keep_their_order_and_labels_may_check_them():
    frame = pd.DataFrame(Y, columns=["speed", "price"])
    assert read_label_sets(frame, 4).classes == ("speed", "price")
    assert read_label_sets(frame, 4, labels=["price", "speed"]).classes == ("speed", "price")
    assert read_label_sets([{3, 1}, {2}], 2).classes == (1, 2, 3)
    assert read_label_sets([[0], [1], [0, 1], []], 4).classes == (0, 1)  # ragged: no columns
    assert read_label_sets([{0}, {1}], 2).classes == (0, 1)
    assert read_label_sets(SETS, 4, labels={"speed", "price"}).classes == ("price", "speed")


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        ([[1], [0]], None, "can be read as columns of 0 and 1 and as sets"),
        ([[0, 1], [1, 0]], None, "can be read as columns of 0 and 1 and as sets"),
        ([[1, -1], [-1, 1]], None, "every example has all the labels"),
        ([[1, -1, -1], [-1, 1, 1]], None, "row 0 has a label twice"),
        (np.array([[1, -1], [-1, 1]]), None, "row 0, column 1: expected 0 or 1, .* got -1"),
        (np.array([[0.2, 0.8], [1, 0]]), None, "row 0, column 0: .* got 0.2"),
        ([[0.2, 0.8], [1, 0]], None, "a label of row 0 is neither text"),
        (np.array([[1, np.nan], [0, 1]]), None, "row 0, column 1: .* got nan"),
        (np.ma.array([[1, 0], [0, 1]], mask=[[0, 0], [1, 0]]), None, "row 1, column 0"),
        (pd.DataFrame({"a": [1, 0], "b": [None, 1]}), None, "row 0, column 'b': .* got nan"),
        (pd.DataFrame({"a": [1, 0], "b": ["no", "x"]}), None, "row 0, column 'b': .* got 'no'"),
        (pd.DataFrame({"a": [1, 0], "b": [0, 1]}), ["a", "c"], r"\['a', 'b'\] and labels names"),
        (np.eye(2), ["a", "b", "c"], "2 columns, and labels names 3"),
        (np.eye(2), ["a", "a"], "a label is named twice"),
        (np.eye(2), "ab", "expected a list of labels, got 'ab'"),
        (np.eye(3), None, "labels for 3 examples, and 2"),
        (np.zeros((2, 2, 2)), None, "the shape"),
        (["a", "b"], None, "row 0: expected a set of labels, got 'a'"),
        (np.array([0, 1]), None, "row 0: expected a set of labels, got 0"),
        ("ab", None, "expected a list of sets"),
        ({"a": 1, "b": 0}, None, "a mapping holds columns, 'a' holds one value"),
        (np.float64, None, "expected a list of sets of labels, got type"),
        ({"a", "b"}, None, "a set has no order"),
        ([{"a": 1, "b": 0}, {"a": 0, "b": 1}], None, "row 0: expected a set of labels"),
        ([["a"], None], None, "the labels of row 1 are missing"),
        ([["a"], float("nan")], None, "the labels of row 1 are missing"),
        ([["a"], pd.NA], None, "the labels of row 1 are missing"),
        ([["a"], ["b", pd.NA]], None, "a label of row 1 is missing"),
        ([["a"], [1]], None, "row 0 has 'a', row 1 has 1"),
        ([["Good"], ["good"]], None, r"'Good' \(row 0\) and 'good' \(row 1\)"),
        ([["a"], ["b"]], ["a", "c"], "row 1: 'b' is not in labels"),
        (np.eye(2).astype(int).astype(str), None, "columns of 0 and 1 that are text"),
        (np.eye(2).astype(str), ["a", "b"], "columns of 0 and 1 that are text"),
        ([["1", "0"], [" 0", "1 "]], None, r"rows such as \['1', '0'\] look like columns"),
        ([[{"a": np.int64(1)}], ["b"]], None, r"got \{'a': 1\}$"),
    ],
)
def test_label_sets_that_could_mean_something_else_are_refused(y, labels, message):
    with pytest.raises(InputError, match=message) as error:
        read_label_sets(y, 2, labels=labels)
    assert_plain(error)


@pytest.mark.parametrize("words", [{"good", "fine"}, frozenset(["good"])])
def test_words_without_an_order_are_refused(words):
    with pytest.raises(InputError, match="'x' has a set of words, which has no order"):
        Verbalizer({"x": words, "y": ["bad"]})
