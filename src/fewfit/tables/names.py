"""Columns by name: blanks and case do not matter where that leaves one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

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
    none = columns.count("") > 1
    return _placed(columns, lambda name: not name and none, "column {place}")


def distinct(columns: Sequence[str]) -> list[str]:
    """Return the names, those that several columns have with their places: ``a (column 1)``."""
    times = Counter(columns)
    return _placed(columns, lambda name: name != "" and times[name] > 1, "{name} (column {place})")


def _placed(columns: Sequence[str], which: Callable[[str], bool], form: str) -> list[str]:
    taken, names = {*columns}, []
    for place, column in enumerate(columns, start=1):
        name = column
        if which(column):
            name = form.format(name=column, place=place)
            while name in taken:
                name += "'"
        names.append(name)
    return names


def _folded(name: str) -> str:
    return " ".join(name.replace("\ufeff", "").split()).casefold()
