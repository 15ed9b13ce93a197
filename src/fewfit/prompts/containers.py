"""What holds a user's data: tables, columns and values of the usual libraries, none imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fewfit.errors import InputError

LONE = re.compile("[\ud800-\udfff]")
"""A lone surrogate, which no file in UTF-8 holds."""

BYTES = bytes | bytearray | memoryview

_SHOWN = 80


def row_name(i: int) -> str:
    """Return how a message names row i of what Python holds, counted from 0."""
    return f"row {i}"


def column_names(table: Any, name: str) -> list[Any] | None:
    """Return the names of the columns of a table, None for what is no table.

    A table is a frame of pandas or polars, a ``datasets.Dataset``, a table of pyarrow, or a
    mapping of columns.

    Raises
    ------
    InputError
        If two columns have the same name, or the table is a query that has not run, such as a
        ``LazyFrame`` of polars; `name` begins the message.
    """
    names: Any = None
    if isinstance(table, Mapping):
        names = list(table)
    elif hasattr(table, "collect"):
        raise InputError(
            f"{name}: a {type(table).__name__} is a query, and has no rows yet; collect it first"
        )
    else:
        for attribute in ("column_names", "columns"):  # datasets and pyarrow; pandas and polars
            found = getattr(table, attribute, None)
            if found is not None and not callable(found):
                names = list(found)
                break
    if names is None:
        return None
    twice = [key for i, key in enumerate(names) if key in names[:i]]
    if twice:
        raise InputError(f"{name}: two columns have the name {shown(twice[0])}; rename one")
    return names


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array or table, () of what has none."""
    shape = getattr(value, "shape", None)
    return tuple(shape) if isinstance(shape, tuple | list) else ()


def is_iterable(value: Any) -> bool:
    """Return whether one can go through it, which an array without axes does not say of itself."""
    try:
        iter(value)
    except TypeError:
        return False
    return True


def as_py(value: Any) -> Any:
    """Return a scalar of numpy, pyarrow or torch as Python's own; others as they are."""
    if hasattr(value, "as_py"):
        return value.as_py()
    if value is not np.ma.masked and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def is_missing(value: Any) -> bool:
    """Return whether a value is what a library writes where there is none.

    None, NaN of any type, NaT, ``pandas.NA``, ``numpy.ma.masked``, null of pyarrow and polars.
    """
    value = as_py(value)
    if value is None or value is np.ma.masked:
        return True
    try:
        return bool(value != value)
    except Exception:  # what does not compare, such as pandas.NA and a signalling NaN
        return type(value).__name__ in ("NAType", "Decimal")


def shown(value: Any) -> str:
    """Return a value as a message shows it: plain, on one line, not long."""
    value = as_py(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        text, items = "", list(value)
        for i, item in enumerate(items):
            if len(text) > 2 * _SHOWN:
                return f"[{text}, ... ({len(items) - i} more)]"
            text += f"{', ' * bool(i)}{shown(item)}"
        return f"[{text}]"
    if isinstance(value, Mapping):
        text = ""
        for i, (key, item) in enumerate(value.items()):
            if len(text) > 2 * _SHOWN:
                return f"{{{text}, ... ({len(value) - i} more)}}"
            text += f"{', ' * bool(i)}{shown(key)}: {shown(item)}"
        return f"{{{text}}}"
    text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}..."
