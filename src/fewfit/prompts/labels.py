"""From whatever holds a user's labels to plain classes, checked before anything is paid for.

A class is text, a whole number or a boolean. This is the only reader of labels: of `y` in Python,
of a column of a file, of the keys of `labels`.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np

from fewfit.errors import InputError, InputWarning
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

Label = str | int
"""Booleans are integers, here as in Python."""

MAX_LENGTH = 1000
"""Characters of a class's name; what is longer is a text."""

EXACT = 2**53
"""From here on floating point numbers leave integers out."""

BROKEN = re.compile("[\x00\ud800-\udfff]")
"""What no label and no label word has: a NUL, a lone surrogate."""


def read_labels(
    y: Any, n: int | None = None, *, where: Callable[[int], str] = row_name, name: str = "y"
) -> list[Label]:
    """Return the labels of `n` examples as plain strings, integers or booleans.

    Read are lists, arrays, series and columns of pandas, polars, pyarrow, datasets and torch; a
    table or a two-dimensional array with one column; of values, text, booleans, whole numbers of
    any type and size (1.0 and ``Decimal(1)`` are 1), and the values of enumerations.

    Parameters
    ----------
    y : iterable
    n : int, optional
        How many there have to be.
    where : callable, default="row i", counted from 0
        Names a row in a message: where the reader of the message finds it.
    name : str, default="y"
        What a message begins with.

    Raises
    ------
    InputError
        For what is no sequence of single labels, another number of labels than examples, a missing
        label (of any library), one that is no class, or labels of different kinds.

    Warns
    -----
    InputWarning
        If all labels differ and are long, as in a column of texts.
    """
    values = _values(y, name)
    if n is not None and len(values) != n:
        raise InputError(f"{name}: {len(values)} labels for {n} examples")
    labels = plain_labels(values, lambda i: f"{name}: the label of {where(i)}")
    check_kinds(labels, lambda i: f"{where(i)} has", name=name)
    lengths = [len(label) for label in labels if isinstance(label, str)]
    if len(lengths) >= 10 and len(set(labels)) == len(labels) and statistics.median(lengths) > 40:
        warnings.warn(
            f"{name}: each of the {len(labels)} examples has a label of its own, half of them "
            f"longer than 40 characters, the first {shown(labels[0])}; is it the column of texts?",
            InputWarning,
            stacklevel=3,
        )
    return labels


def plain_labels(values: Iterable[Any], who: Callable[[int], str]) -> list[Label]:
    """Return each value as a plain class; `who` begins the message about value i (InputError)."""
    known: set[str] = set()
    labels: list[Label] = []
    for i, value in enumerate(values):
        if type(value) is not str or value not in known:
            try:
                value = plain_label(value)
            except ValueError as error:
                raise InputError(f"{who(i)} {error}") from None
            if isinstance(value, str):
                known.add(value)
        labels.append(value)
    return labels


def plain_label(value: Any) -> Label:
    """Return a class as a plain string, integer or boolean.

    Raises
    ------
    ValueError
        If it is none; the text says why, as in "is missing".
    """
    value = as_py(value)
    if is_missing(value):
        raise ValueError(f"is missing ({shown(value)})")
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = str.__str__(value)
        if not value.strip():
            raise ValueError(f"is missing: it is empty ({shown(value)})")
        if BROKEN.search(value):
            raise ValueError(f"is not valid text: got {shown(value)}")
        if len(value) > MAX_LENGTH:
            raise ValueError(
                f"has {len(value)} characters, at most {MAX_LENGTH} are a class; is this the "
                f"column of texts? It begins {shown(value)}"
            )
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | np.floating | Decimal | Fraction):
        whole = int(value) if np.isfinite(float(value)) else None
        if whole is not None and whole == value:
            if isinstance(value, float | np.floating) and abs(whole) > EXACT:
                raise ValueError(f"is too large to be exact as a number with a point: {value:g}")
            return whole
    hint = "; decode bytes to text first" if isinstance(value, bytes) else ""
    raise ValueError(f"is neither text nor a whole number nor a boolean: got {shown(value)}{hint}")


def check_kinds(labels: Sequence[Label], who: Callable[[int], str], *, name: str) -> None:
    """Refuse classes of different kinds; `who` begins what is said of class i (InputError)."""
    first: dict[type, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(type(label), i)
    if len(first) > 1:
        seen = ", ".join(f"{who(i)} {shown(labels[i])}" for i in list(first.values())[:2])
        raise InputError(
            f"{name}: classes are all strings or all integers or all booleans, not both: {seen}"
        )


def sort_classes(classes: Iterable[object], *, name: str = "labels") -> tuple[Label, ...]:
    """Return the distinct classes sorted, after checking that they are of one kind.

    Raises
    ------
    InputError
        For a class that is missing, of another type, or of mixed types.
    """
    plain = list(dict.fromkeys(plain_labels(classes, lambda _: f"{name}: a class")))
    check_kinds(plain, lambda _: "there is", name=name)
    return tuple(sorted(plain))


def check_distinct(
    labels: Iterable[Label],
    *,
    where: Callable[[int], str] = row_name,
    name: str = "y",
    advice: str = "tell the model how they differ with labels={class: word}",
) -> None:
    """Refuse classes that a model cannot tell apart by their names.

    Parameters
    ----------
    labels : iterable of str or int
        As :func:`read_labels` returned them.
    where, name
        As for :func:`read_labels`.
    advice : str
        What else to do where they are meant to be two.

    Raises
    ------
    InputError
        For two classes that differ in case, blanks or underscores only, with the first row of each.
    """
    seen: dict[str, tuple[Label, int]] = {}
    known: set[Label] = set()
    for i, label in enumerate(labels):
        if label in known:
            continue
        known.add(label)
        folded = _folded(str(label))
        other, j = seen.setdefault(folded, (label, i))
        if other != label:
            raise InputError(
                f"{name}: the classes {shown(other)} ({where(j)}) and {shown(label)} ({where(i)}) "
                "differ only in case, blanks, underscores or how characters are encoded; make them "
                f"one, or {advice}"
            )


def _folded(name: str) -> str:
    text = unicodedata.normalize("NFKC", name.replace("_", " ").casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")  # zero width, byte order
    return " ".join(text.split())


def class_array(classes: Sequence[Label]) -> np.ndarray[Any, Any]:
    """Return classes as an array that holds each of them exactly, shape (K,)."""
    array = np.array(classes)
    exact = array.dtype.kind in "iubU"
    return array if exact else np.array(classes, dtype=object)


def _values(y: Any, name: str) -> list[Any]:
    """Return the values of one column, whatever holds it."""
    if isinstance(y, set | frozenset):
        raise InputError(f"{name}: a set has no order; pass a list of labels, one per example")
    names = column_names(y, name)
    shape = shape_of(y)
    width = len(names) if names is not None else shape[1] if len(shape) == 2 else 1
    if width != 1 or len(shape) > 2 or hasattr(y, "toarray"):
        what = f"the columns {shown(names)}" if names is not None else f"the shape {shape}"
        raise InputError(
            f"{name}: expected one label per example, got {what}. Of one column per class "
            "(one-hot) make labels first, as frame.idxmax(axis=1) does; several labels per example "
            "are MultiLabelClassifier's"
        )
    if names is not None:
        y = y[names[0]]
    elif len(shape) == 2:
        y = np.asarray(y)[:, 0] if isinstance(y, np.matrix) else y[:, 0]
    if isinstance(y, str | BYTES | Mapping) or not is_iterable(y):
        raise InputError(f"{name}: expected a list of labels, got {type(y).__name__}")
    values = list(y)
    kind = getattr(y, "features", None)  # a column of datasets
    if type(kind).__name__ == "ClassLabel":
        values = [None if value == -1 else value for value in values]
    return values
