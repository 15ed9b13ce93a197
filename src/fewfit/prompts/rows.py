"""From whatever holds a user's examples to rows of text, checked before anything is paid for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fewfit.errors import InputError
from fewfit.prompts.containers import (
    BYTES,
    as_py,
    column_names,
    is_iterable,
    is_missing,
    row_name,
    shape_of,
    shown,
)

Row = Mapping[str, str]

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(
    X: Any, fields: Sequence[str], *, where: Callable[[int], str] = row_name, name: str = "X"
) -> list[Row]:
    """Return one mapping of field name to text for each example.

    Parameters
    ----------
    X : sequence of str, sequence of mapping, array, table
        A table is anything with named columns: a pandas or polars frame, a ``datasets.Dataset``,
        a table of pyarrow, a mapping of columns. Plain texts, and arrays with one column, are for
        templates with one field.
    fields : sequence of str
        The fields that the template needs; other columns are ignored.
    where : callable, default="row i", counted from 0
        Names a row in a message: where the reader of the message finds it.
    name : str, default="X"
        What a message begins with.

    Raises
    ------
    InputError
        For a single string or row, a missing column, or a value that is not text (missing values
        of any library included), with the row. Empty text is allowed.
    """
    if isinstance(X, str | BYTES):
        raise InputError(f"{name}: got a single string; pass a list of texts, even for one text")
    names = column_names(X, name)
    if names is not None:
        values = _columns(X, names, fields, name)
    else:
        if isinstance(X, set | frozenset):
            raise InputError(f"{name}: a set has no order; pass a list of texts")
        shape = shape_of(X)
        if len(shape) == 2 and shape[1] == 1 and not hasattr(X, "toarray"):
            X = np.asarray(X)[:, 0] if isinstance(X, np.matrix) else X[:, 0]
        elif len(shape) > 1:
            raise InputError(
                f"{name}: expected one text per example, got an array of shape {shape}"
            )
        if not is_iterable(X):
            raise InputError(f"{name}: expected a list of texts, got {type(X).__name__}")
        values = [
            (value,)
            if type(value) is str and len(fields) == 1
            else _values(value, fields, f"{name}: {where(i)}")
            for i, value in enumerate(X)
        ]

    def text(value: Any, i: int, field: str) -> str:
        plain = type(value) is str and not _SURROGATE.search(value)
        return value if plain else _text(value, f"{name}: {where(i)}, field {field!r}")

    return [
        {field: text(value, i, field) for field, value in zip(fields, row, strict=True)}
        for i, row in enumerate(values)
    ]


def _columns(X: Any, names: list[Any], fields: Sequence[str], name: str) -> list[tuple[Any, ...]]:
    keys = {str(key): key for key in names}
    for field in fields:
        if field not in keys:
            raise InputError(
                f"{name}: the template needs column {field!r}; the table has {shown(sorted(keys))}"
            )
    columns = {key: X[key] for key in ([*names] if isinstance(X, Mapping) else [])}
    columns |= {keys[field]: X[keys[field]] for field in fields}
    for key, values in columns.items():
        if isinstance(values, str | bytes) or not is_iterable(values):
            raise InputError(
                f"{name}: a mapping holds columns, and {shown(key)} holds a single value; pass a "
                "list of rows, even for one row"
            )
        columns[key] = list(values)
    if len({len(values) for values in columns.values()}) > 1:
        raise InputError(f"{name}: the columns of the mapping have different lengths")
    return list(zip(*(columns[keys[field]] for field in fields), strict=True))


def _values(row: Any, fields: Sequence[str], who: str) -> tuple[Any, ...]:
    if isinstance(row, Mapping):
        for field in fields:
            if field not in row:
                raise InputError(
                    f"{who} lacks the field {field!r} of the template; it has "
                    f"{shown(sorted(map(str, row)))}"
                )
        return tuple(row[field] for field in fields)
    if len(fields) > 1:
        _text(row, f"{who}, field {fields[0]!r}")
        raise InputError(
            f"{who} is a single text, but the template has the fields {list(fields)}; "
            "pass mappings or a table with these columns"
        )
    return (row,)


def _text(value: Any, who: str) -> str:
    if type(value) is not str:
        value = as_py(value)
    if not isinstance(value, str):
        advice = "drop or fill missing values first (empty text is allowed)"
        if isinstance(value, bytes):
            advice = "decode bytes first"
        elif not is_missing(value):
            advice = "make it text first"
        raise InputError(f"{who}: expected text, got {shown(value)}; {advice}")
    if _SURROGATE.search(value):
        raise InputError(
            f"{who}: a lone surrogate is not valid Unicode; decode the source as UTF-8 with "
            "errors='replace'"
        )
    return str.__str__(value)
