"""One reader of texts: rows of every library, and nothing read as what it is not."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fewfit.errors import InputError
from fewfit.prompts import read_labels, read_rows


class Text(str, Enum):  # noqa: UP042
    A = "one"


EXPECTED = [{"text": "one"}, {"text": "two"}]


@pytest.mark.parametrize(
    "X",
    [
        ["one", "two"],
        ("one", "two"),
        (text for text in ("one", "two")),
        {1: "one", 2: "two"}.values(),
        [Text.A, np.str_("two")],
        np.array(["one", "two"]),
        np.array([["one"], ["two"]]),
        np.array([["one"], ["two"]], dtype=object),
        pd.Series(["one", "two"], dtype="string"),
        pd.Series(["one", "two"], dtype="category"),
        pd.DataFrame({"text": ["one", "two"], "other": [b"1", None]}, index=[3, 3]),
        pd.DataFrame({"text": ["one", "two"], 0: [1, 2]}),
        pa.array(["one", "two"]),
        pa.table({"text": ["one", "two"], "id": [1, 2]}),
        pa.record_batch({"text": ["one", "two"]}),
        {"text": ["one", "two"], "id": range(2)},
        {"text": (text for text in ("one", "two"))},
        [{"text": "one", "id": 1}, {"text": np.str_("two")}],
    ],
)
def test_texts_of_every_library_are_plain(X):
    rows = read_rows(X, ("text",))
    assert rows == EXPECTED
    assert all(type(row["text"]) is str for row in rows)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (b"bytes", "single string"),
        (np.str_("one"), "single string"),
        (np.array("one"), "expected a list of texts, got ndarray"),
        ({"one", "two"}, "a set has no order"),
        ({"text": "one"}, "'text' holds a single value; pass a list of rows"),
        ({"text": ["one"], "id": 3}, "'id' holds a single value"),
        (pd.DataFrame([["a", "b"]], columns=["text", "text"]), "two columns have the name 'text'"),
        (["one", pd.NA], "row 1, field 'text': expected text, got <NA>; drop or fill"),
        (pd.Series(["one", None], dtype="string"), "row 1, field 'text'"),
        (pd.DataFrame({"text": ["one", float("nan")]}), "got nan; drop or fill"),
        (pa.array(["one", None]), "got None; drop or fill"),
        (np.ma.array(["one", "two"], mask=[0, 1]), "row 1, field 'text'"),
        (["one", np.float64("nan")], "got nan; drop or fill"),
        (["one", np.int64(3)], "got 3; make it text first"),
        (["one", b"two"], "got b'two'; decode bytes first"),
        (["one", Path("two")], "got PosixPath"),
        (["one", ["two"]], r"got \['two'\]; make it text"),
        ([["one", "two"]], r"row 0, field 'text': expected text, got \['one', 'two'\]"),
        (np.zeros((2, 3)), r"array of shape \(2, 3\)"),
        ([{"text": None}], "row 0, field 'text': expected text, got None"),
        (["one", "x" * 10_000 + "\ud800"], "row 1, field 'text': a lone surrogate"),
    ],
)
def test_what_is_no_text_is_refused_in_plain_words(X, message):
    with pytest.raises(InputError, match=message) as error:
        read_rows(X, ("text",))
    assert "np." not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_message_says_where_its_reader_finds_the_row():
    with pytest.raises(InputError, match=r"^in\.csv: line 3, field 'text'"):
        read_rows(["one", None], ("text",), where=lambda i: f"line {i + 2}", name="in.csv")
    with pytest.raises(InputError, match=r"^X: line 2 lacks the field 'b'"):
        read_rows([{"a": "x"}], ("a", "b"), where=lambda i: f"line {i + 2}")


def test_a_query_that_has_not_run_is_told_to_be_collected():
    class LazyFrame:  # as polars has it: column names, but no column
        columns = ("text", "label")

        def collect(self):
            raise AssertionError("run by whoever wrote it, not by us")

    with pytest.raises(InputError, match=r"^X: a LazyFrame is a query, .* collect it first$"):
        read_rows(LazyFrame(), ["text"])
    with pytest.raises(InputError, match=r"^y: a LazyFrame is a query"):
        read_labels(LazyFrame(), 2)
