"""Columns by name: blanks and case do not matter where that leaves one."""

from __future__ import annotations

from collections.abc import Sequence

from fewfit.choices import did_you_mean
from fewfit.errors import InputError


def position(columns: Sequence[str], name: str) -> int | None:
    """Return where a column is, None if it is not there or there are several like it."""
    if name in columns:
        return list(columns).index(name)
    like = [i for i, column in enumerate(columns) if _folded(column) == _folded(name)]
    return like[0] if len(like) == 1 else None


def find(columns: Sequence[str], name: str, where: str) -> int:
    """Return where a column is (InputError, which `where` begins)."""
    found = position(columns, name)
    if found is not None:
        return found
    like = [column for column in columns if _folded(column) == _folded(name)]
    if like:
        raise InputError(f"{where}: {name!r} can be {' or '.join(map(repr, like))}; name one")
    raise InputError(
        f"{where}: no column {name!r}; there are {sorted(columns)}{did_you_mean(name, columns)}"
    )


def told_apart(columns: Sequence[str]) -> list[str]:
    """Return a name for each column, where several have none: ``column 1``, by its place."""
    if columns.count("") < 2:
        return list(columns)
    taken, names = {*columns}, []
    for place, column in enumerate(columns, start=1):
        name = column or f"column {place}"
        while not column and name in taken:
            name += "'"
        names.append(name)
    return names


def _folded(name: str) -> str:
    return " ".join(name.replace("\ufeff", "").split()).casefold()
