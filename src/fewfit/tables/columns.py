"""From a table and options to the texts and labels that the library is called with."""

from __future__ import annotations

import datetime
import decimal
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fewfit.errors import InputError, InputWarning
from fewfit.tables import Row, Table
from fewfit.tables.names import find, position

SEPARATOR = ";"
JOINED = "\n"
"""Between the texts of several columns of one field."""
_NAMED = 5
LISTED = 3
"""Names and examples that a sentence holds."""

Places = Mapping[str, Sequence[int]]
"""Field of the template -> where its columns are in the table."""


class Examples(NamedTuple):
    """Rows of a table that have a text.

    Attributes
    ----------
    texts : dict of str to list of str
        Field of the template -> a text for each row.
    values : list
        What the label column holds; empty without one.
    lines : list of int
        The number of each row in its file.
    """

    texts: dict[str, list[str]]
    values: list[Any]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, rows: Sequence[int]) -> Examples:
        """Return some of the rows."""
        texts = {name: [column[i] for i in rows] for name, column in self.texts.items()}
        values = [self.values[i] for i in rows] if self.values else []
        return Examples(texts, values, [self.lines[i] for i in rows])


def column_names(
    fields: Sequence[str],
    given: Sequence[str] | None,
    remembered: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Return the columns of each field of a template, by name.

    Parameters
    ----------
    fields : sequence of str
    given : sequence of str or None
        Values of ``--text-column``.
    remembered : mapping, optional
        What an artifact was fitted on.
    """
    if not given:
        known = remembered or {}
        return {name: list(known.get(name, [name])) for name in fields}
    names: dict[str, list[str]] = {}
    for item in given:
        field, equals, column = item.partition("=")
        if equals and field in fields:
            names.setdefault(field, []).append(column)
        elif len(fields) == 1:
            names.setdefault(fields[0], []).append(item)
        else:
            raise InputError(
                f"--text-column: {item!r} is for a template with one field; this one has "
                f"{list(fields)}: say {fields[0]}={item}"
            )
    return {name: names.get(name, [name]) for name in fields}


def find_texts(
    table: Table,
    fields: Sequence[str],
    given: Sequence[str] | None,
    remembered: Mapping[str, Sequence[str]] | None = None,
) -> Places:
    """Return where the texts of a table are (InputError)."""
    names = column_names(fields, given, remembered)
    places: dict[str, list[int]] = {}
    if given:
        for field, own in names.items():
            places[field] = [find(table.columns, n, f"{table.path}: --text-column") for n in own]
            twice = [n for i, n in enumerate(own) if places[field][i] in places[field][:i]]
            if twice:
                raise InputError(f"--text-column: {twice[0]!r} is named twice; leave one out")
        return places
    for field, own in names.items():
        found = [position(table.columns, name) for name in own]
        if None in found:
            found = [position(table.columns, field)]
        if None in found:
            fitted = f" (the artifact was fitted on {own})" if own != [field] else ""
            raise InputError(
                f"{table.path}: the template needs column {field!r}{fitted}; there are "
                f"{sorted(table.columns)}. Rename it, or name the right one with --text-column; "
                "the first line of a file names its columns"
            )
        places[field] = [i for i in found if i is not None]
    return places


def texts_of(table: Table, rows: Sequence[Row], places: Places) -> dict[str, list[str]]:
    """Return the texts of some rows, several columns of one field joined by a line break."""
    texts: dict[str, list[str]] = {}
    for field, own in places.items():
        parts = [[_text(table, row, values[i], i) for row, values in rows] for i in own]
        texts[field] = [JOINED.join(filter(None, row)) for row in zip(*parts, strict=True)]
    return texts


def has_text(texts: Mapping[str, Sequence[str]]) -> list[bool]:
    """Return which rows have anything in a field but blanks."""
    return [any(text.strip() for text in row) for row in zip(*texts.values(), strict=True)]


def read_examples(table: Table, places: Places, label: int | None = None) -> Examples:
    """Read all rows; those without a text are left out, with a warning.

    Raises
    ------
    InputError
        If no row has a text, or the column of the labels is one of those of the texts: a
        classifier would read the answer.
    """
    if any(label in own for own in places.values()):
        raise InputError(
            f"{table.path}: column {table.columns[label or 0]!r} is named for the text and for the "
            "label; name another one with --text-column or --label-column"
        )
    rows = list(table.read())
    texts = texts_of(table, rows, places)
    kept = [i for i, there in enumerate(has_text(texts)) if there]
    values = [] if label is None else [row[label] for _, row in rows]
    lines = [number for number, _ in rows]
    examples = Examples(texts, values, lines)
    if len(kept) < len(rows):
        empty = sorted(set(range(len(rows))) - set(kept))
        warnings.warn(
            f"{table.path}: {count(len(empty), 'row')} without a text, left out "
            f"({named(table, [lines[i] for i in empty])})",
            InputWarning,
            stacklevel=2,
        )
    if not kept:
        raise InputError(f"{table.path}: no row has a text")
    return examples.select(kept)


def split_labelled(table: Table, examples: Examples, *, use: bool) -> tuple[Examples, Examples]:
    """Return the rows that have a label, and those that have none, with a warning.

    Parameters
    ----------
    use : bool
        Whether the others are learnt from; for the warning.
    """
    there = [not is_blank(value) for value in examples.values]
    kept = examples.select([i for i, yes in enumerate(there) if yes])
    rest = examples.select([i for i, yes in enumerate(there) if not yes])
    if not len(kept):
        raise InputError(f"{table.path}: no row has a label")
    if len(rest):
        what = "used as unlabelled texts" if use else "left out"
        warnings.warn(
            f"{table.path}: {count(len(rest), 'row')} without a label, {what} "
            f"({named(table, rest.lines)})",
            InputWarning,
            stacklevel=2,
        )
    return kept, rest


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing."""
    from fewfit.prompts.containers import is_missing

    return (isinstance(value, str) and not value.strip()) or is_missing(value)


def count(n: int, what: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{n:,} {what if n == 1 else many or what + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def named(table: Table, numbers: Sequence[int]) -> str:
    """Return the first few rows by the numbers that the file has."""
    listed = ", ".join(map(str, numbers[:_NAMED]))
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return f"{table.unit}{'s' * (len(numbers) > 1)} {listed}{more}"


def _text(table: Table, number: int, value: Any, place: int) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, int | float | decimal.Decimal | datetime.date | datetime.time):
        text = str(value)
    else:
        raise InputError(
            f"{table.path}: {table.where(number)}, column {table.columns[place]!r}: expected text, "
            f"got a {type(value).__name__}"
        )
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError(
            f"{table.path}: {table.where(number)}, column {table.columns[place]!r}: a lone "
            "surrogate is not valid Unicode; write the file again as UTF-8"
        )
    return text
