"""From whatever holds a user's examples to rows of text, checked before anything is paid for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewfit.errors import InputError
from fewfit.prompts.verbalizer import Label, sort_classes

Row = Mapping[str, str]

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(X: Any, fields: Sequence[str]) -> list[Row]:
    """Return one mapping of field name to text for each example.

    Parameters
    ----------
    X : sequence of str, sequence of mapping, array of object, table
        A table is anything with named columns: a pandas or polars frame, a ``datasets.Dataset``,
        a mapping of columns. Plain texts are for templates with one field.
    fields : sequence of str
        The fields that the template needs; other columns are ignored.

    Raises
    ------
    InputError
        For a single string, a missing column, or a value that is not text (None and NaN
        included), with the number of the row. Empty text is allowed.
    """
    if isinstance(X, str | bytes):
        raise InputError("X: got a single string; pass a list of texts, even for one text")
    columns = _column_names(X)
    if columns is not None:
        missing = [name for name in fields if name not in columns]
        if missing:
            raise InputError(
                f"X: the template needs column {missing[0]!r}; the table has {sorted(columns)}"
            )
        table = {name: list(X[name]) for name in fields}
        return [
            {name: _text(table[name][i], i, name) for name in fields}
            for i in range(len(table[fields[0]]))
        ]
    if getattr(X, "ndim", 1) != 1:
        raise InputError(f"X: expected one text per example, got an array of shape {X.shape}")
    if not isinstance(X, Iterable):
        raise InputError(f"X: expected a list of texts, got {type(X).__name__}")
    return [_row(value, i, fields) for i, value in enumerate(X)]


def read_labels(y: Any, n: int) -> list[Label]:
    """Return the labels of `n` examples as plain strings or integers.

    Raises
    ------
    InputError
        For a single string, another number of labels than examples, a missing label (None, NaN),
        or labels that are neither all text nor all integers.
    """
    if isinstance(y, str | bytes) or not isinstance(y, Iterable):
        raise InputError(f"y: expected a list of labels, got {type(y).__name__}")
    values = [value.item() if hasattr(value, "item") else value for value in y]
    if len(values) != n:
        raise InputError(f"y: {len(values)} labels for {n} examples")
    for i, value in enumerate(values):
        if value is None or value != value:
            raise InputError(f"y: the label of row {i} is missing ({value!r})")
    sort_classes(values)
    return values


def _column_names(X: Any) -> list[str] | None:
    if isinstance(X, Mapping):
        lengths = {len(column) for column in X.values()}
        if len(lengths) > 1:
            raise InputError("X: the columns of the mapping have different lengths")
        return list(X)
    for attribute in (
        "column_names",
        "columns",
    ):  # datasets and pyarrow; pandas and polars
        names = getattr(X, attribute, None)
        if names is not None and not callable(names):
            return [str(name) for name in names]
    return None


def _row(value: Any, index: int, fields: Sequence[str]) -> Row:
    if isinstance(value, Mapping):
        missing = [name for name in fields if name not in value]
        if missing:
            raise InputError(
                f"X: row {index} lacks the field {missing[0]!r} of the template; "
                f"it has {sorted(map(str, value))}"
            )
        return {name: _text(value[name], index, name) for name in fields}
    text = _text(value, index, fields[0])
    if len(fields) > 1:
        raise InputError(
            f"X: row {index} is a single text, but the template has the fields {list(fields)}; "
            "pass mappings or a table with these columns"
        )
    return {fields[0]: text}


def _text(value: Any, index: int, name: str) -> str:
    if not isinstance(value, str):
        raise InputError(
            f"X: row {index}, field {name!r}: expected text, got {value!r}; drop or fill missing "
            "values first (empty text is allowed)"
        )
    if _SURROGATE.search(value):
        raise InputError(
            f"X: row {index}, field {name!r}: a lone surrogate is not valid Unicode; decode the "
            "source as UTF-8 with errors='replace'"
        )
    return str(value)
