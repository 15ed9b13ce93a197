"""From whatever holds the sets of labels of a user's examples to an array of 0 and 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.prompts.containers import (
    BYTES,
    column_names,
    is_iterable,
    is_missing,
    row_name,
    shape_of,
    shown,
)
from fewfit.prompts.labels import (
    Label,
    check_distinct,
    check_kinds,
    plain_label,
    plain_labels,
    read_labels,
)


class LabelSets(NamedTuple):
    """Which labels the examples have.

    Attributes
    ----------
    Y : ndarray of int64, shape (N, K)
        1 where an example has a label.
    classes : tuple of str or of int, length K
        The labels: sorted, or, of an indicator, in the order of its columns.
    indicator : bool
        Whether they were given as such an array, and not as sets.
    """

    Y: NDArray[np.int64]
    classes: tuple[Label, ...]
    indicator: bool


def read_label_sets(
    y: Any,
    n: int,
    *,
    labels: Any = None,
    where: Callable[[int], str] = row_name,
    name: str = "y",
) -> LabelSets:
    """Return the labels of `n` examples of which each has any number.

    Parameters
    ----------
    y : sequence of collections of labels, or indicator of shape (N, K)
        An indicator has one column of 0 and 1 for each label: an array, a sparse array, a list of
        lists of 0 and 1, or a table, whose columns name the labels. A column of a table may also
        hold the collections.
    n : int
    labels : sequence of str or of int, optional
        The labels that there are. Left out, those that occur; of an indicator without names,
        0 to K - 1. It names the columns of an indicator that has no names, in their order.
    where, name
        As for :func:`fewfit.prompts.read_labels`.

    Raises
    ------
    InputError
        For what is neither, such as single labels; missing values; labels that are not in `labels`;
        lists of 0 and 1 that can be read as sets of the labels 0 and 1 as well.
    """
    given = None
    if labels is not None:
        if isinstance(labels, str | BYTES | Mapping) or not is_iterable(labels):
            raise InputError(f"labels: expected a list of labels, got {shown(labels)}")
        listed = sorted(labels, key=str) if isinstance(labels, set | frozenset) else labels
        given = read_labels(listed, name="labels", where=lambda i: f"position {i}")
        _check_once(given, "labels")
    table, names = _indicator(y, name, where)
    if table is None:
        return _read_sets(names, n, given, name, where)
    columns = _name_columns(names, table.shape[1], given, name)
    if len(table) != n:
        raise InputError(f"{name}: labels for {len(table)} examples, and {n} examples")
    return LabelSets(table.astype(np.int64), columns, True)


def _read_sets(
    rows: list[Any],
    n: int,
    given: list[Label] | None,
    name: str,
    where: Callable[[int], str],
) -> LabelSets:
    sets: list[list[Label]] = []
    for i, own in enumerate(rows):
        if is_missing(own):
            raise InputError(f"{name}: the labels of {where(i)} are missing; no label is []")
        if isinstance(own, str | BYTES | Mapping) or not is_iterable(own):
            raise InputError(
                f"{name}: {where(i)}: expected a set of labels, got {shown(own)}; one label is "
                "['label'], none is []"
            )
        listed = plain_labels(own, lambda _, i=i: f"{name}: a label of {where(i)}")
        if len(set(listed)) < len(listed) and not isinstance(listed[0], str):
            raise InputError(f"{name}: {where(i)} has a label twice: {shown(listed)}")
        sets.append(listed)
    if len(sets) != n:
        raise InputError(f"{name}: labels for {len(sets)} examples, and {n} examples")
    flat = [(label, i) for i, own in enumerate(sets) for label in own]
    check_kinds([label for label, _ in flat], lambda j: f"{where(flat[j][1])} has", name=name)
    classes = tuple(sorted({label for label, _ in flat} if given is None else given))
    place = {label: k for k, label in enumerate(classes)}
    Y = np.zeros((n, len(classes)), dtype=np.int64)
    for label, i in flat:
        if label not in place:
            raise InputError(f"{name}: {where(i)}: {shown(label)} is not in labels")
        Y[i, place[label]] = 1
    if n > 1 and Y.size and Y.all() and not isinstance(classes[0], str):
        raise InputError(
            f"{name}: every example has all the labels {shown(list(classes))}, so there is nothing "
            "to tell; columns per label hold 0 and 1"
        )
    if given is None:
        check_distinct(
            (label for label, _ in flat),
            where=lambda j: where(flat[j][1]),
            name=name,
            advice="name all that there are in labels=[...]",
        )
    return LabelSets(Y, classes, False)


def _indicator(y: Any, name: str, where: Callable[[int], str]) -> tuple[Any, Any]:
    """Return an array (N, K) and the names of its columns or None; or None and the rows of sets."""
    if isinstance(y, set | frozenset):
        raise InputError(f"{name}: a set has no order; pass a list of sets, one per example")
    names = column_names(y, name)
    if names is not None:
        columns = []
        for key in names:
            if isinstance(y[key], str | BYTES) or not is_iterable(y[key]):
                raise InputError(f"{name}: a mapping holds columns, {shown(key)} holds one value")
            columns.append(list(y[key]))
        first = next((v for v in columns[0] if not is_missing(v)), None) if columns else None
        if len(names) == 1 and not isinstance(first, str | bytes) and is_iterable(first):
            return None, columns[0]
        if len({len(values) for values in columns}) > 1:
            raise InputError(f"{name}: the columns have different lengths")
        rows = list(zip(*columns, strict=True))
        return _bits(rows, name, where, names).reshape(len(rows), len(names)), names
    if hasattr(y, "toarray"):
        y = y.toarray()
    shape = shape_of(y)
    if len(shape) > 2:
        raise InputError(f"{name}: expected one row of 0 and 1 per example, got the shape {shape}")
    if isinstance(y, str | BYTES) or not is_iterable(y):
        raise InputError(f"{name}: expected a list of sets of labels, got {type(y).__name__}")
    if len(shape) == 2:
        y = y if isinstance(y, np.ma.MaskedArray) else np.asarray(y)
        if y.dtype.kind in "biuf":
            return _bits(y, name, where), None
    rows = [
        own if isinstance(own, str | BYTES | Mapping) or not is_iterable(own) else _listed(own)
        for own in y
    ]
    if not _look_like_bits(rows):
        _check_spelled(rows, name)
        return None, rows
    table = _bits(rows, name, where)
    if len(shape) == 2:
        return table, None
    K = table.shape[1]
    if K == 1 or (K == 2 and (table.sum(axis=1) == 1).all()):
        raise InputError(
            f"{name}: rows such as {shown(rows[0])} can be read as columns of 0 and 1 and as sets "
            "of the labels 0 and 1; pass a numpy array for the first, sets for the second"
        )
    return table, None


def _listed(own: Any) -> Any:
    """A collection that is gone through once, ordered where it has an order."""
    return own if isinstance(own, list | tuple | set | frozenset) else list(own)


def _look_like_bits(rows: Sequence[Any]) -> bool:
    if not rows or not all(isinstance(own, list | tuple) for own in rows):
        return False
    if len({len(own) for own in rows}) > 1 or not rows[0]:
        return False
    return all(_bit(value) is not None for own in rows for value in own)


def _check_spelled(rows: Sequence[Any], name: str) -> None:
    """Refuse columns of 0 and 1 that are text, as a file gives them: as sets they are '0', '1'."""
    if len(rows) < 2 or not all(isinstance(own, list | tuple) and len(own) > 1 for own in rows):
        return
    if len({len(own) for own in rows}) > 1:
        return
    spelled = {item for own in rows for item in own if isinstance(item, str)}
    if {text.strip() for text in spelled} <= {"0", "1", "0.0", "1.0"} and spelled:
        raise InputError(
            f"{name}: rows such as {shown(rows[0])} look like columns of 0 and 1 that are text; "
            "make them numbers, as y.astype(float).astype(int) does"
        )


def _bit(value: Any) -> int | None:
    """Return 0 or 1, None for everything else, text included."""
    try:
        label = plain_label(value)
    except ValueError:
        return None
    return int(label) if not isinstance(label, str) and label in (0, 1) else None


def _bits(
    rows: Any, name: str, where: Callable[[int], str], names: list[Any] | None = None
) -> NDArray[Any]:
    """Return rows of 0 and 1 as an array (N, K)."""
    if isinstance(rows, np.ndarray) and not isinstance(rows, np.ma.MaskedArray):
        table = rows
    else:
        found = [[_bit(value) for value in own] for own in rows]
        table = np.array([[-1 if bit is None else bit for bit in own] for own in found])
    bad = np.argwhere(~np.isin(table, (0, 1)))
    if len(bad):
        i, k = bad[0].tolist()
        raise InputError(
            f"{name}: {where(i)}, column {shown(names[k]) if names else k}: expected 0 or 1, one "
            f"column per label, got {shown(rows[i][k])}"
        )
    return table


def _name_columns(
    names: list[Any] | None, K: int, given: list[Label] | None, name: str
) -> tuple[Label, ...]:
    """Return the labels of the K columns, in their order."""
    unnamed = names is None or names == list(range(K))
    if given is not None and unnamed:
        if len(given) != K:
            raise InputError(f"{name}: {K} columns, and labels names {len(given)}")
        return tuple(given)
    own = read_labels(list(range(K)) if names is None else names, name=f"{name}: the columns")
    if given is not None and set(given) != set(own):
        odd = sorted(set(given) ^ set(own), key=str)[0]
        raise InputError(
            f"{name}: the columns are {shown(own)} and labels names {shown(given)}; "
            f"{shown(odd)} is in one of them only"
        )
    _check_once(own, name)
    return tuple(own)


def _check_once(labels: list[Label], name: str) -> None:
    if len(set(labels)) < len(labels):
        raise InputError(f"{name}: a label is named twice in {shown(labels)}")
