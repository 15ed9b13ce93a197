"""Whatever is given as labels or texts is read or refused in words; FEWFIT_FUZZ says how often."""

from __future__ import annotations

import os
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.errors import FewfitError

EXAMPLES = int(os.environ.get("FEWFIT_FUZZ", "150"))

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(0, 3),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["a", "b", "A", " a", "", "0", "1"]),
    st.binary(max_size=2),
    st.decimals(),
    st.sampled_from([pd.NA, pd.NaT, np.ma.masked, np.nan, np.str_("a"), np.int8(1), np.True_]),
    st.sampled_from([np.float16(1), np.array(1), np.array([1]), Decimal("sNaN"), object(), int]),
)
columns = st.lists(values, min_size=3, max_size=3)
rows = st.lists(st.lists(values, max_size=3) | values, min_size=3, max_size=3)


def array(column):
    """As an array of object, of whatever shape it is."""
    made = np.empty(len(column), dtype=object)
    made[:] = column
    return made


held = st.one_of(
    columns,
    rows,
    columns.map(tuple),
    columns.map(array),
    columns.map(lambda column: pd.Series(column, dtype=object)),
    columns.map(lambda column: pd.DataFrame({"a": pd.Series(column, dtype=object)})),
    st.dictionaries(st.text(max_size=2) | st.integers() | st.none(), columns, max_size=2),
    st.dictionaries(st.text(max_size=2), values, max_size=2),
    values,
)


def tried(call) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except FewfitError as error:
        text = str(error)
        assert "np." not in text
        assert "array(" not in text
        assert "\n" not in text
        assert len(text) < 700


@settings(max_examples=EXAMPLES, deadline=None)
@given(y=held, labels=st.none() | st.dictionaries(st.text(max_size=2), values, max_size=3))
def test_labels(y, labels):
    texts = ["one", "two", "three"]
    tried(lambda: FewShotClassifier("fake", labels=labels, store=None).fit(texts, y).predict(texts))
    tried(lambda: MultiLabelClassifier("fake", store=None).fit(texts, y).predict(texts))


@settings(max_examples=EXAMPLES, deadline=None)
@given(X=held)
def test_texts(X):
    tried(lambda: FewShotClassifier("fake", store=None).fit(X, ["a", "b", "a"]))
