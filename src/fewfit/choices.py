"""Values of options that come from a list: checked, with the nearest one named."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from fewfit.errors import InputError

SEEDS = 2**32
"""How many seeds there are, from 0: those that NumPy's older generator takes."""


def choose(option: str, value: str | None, known: Iterable[str], default: str = "") -> str:
    """Return a value that is one of those known (InputError), the default where it is left out."""
    names = list(known)
    if value is None:
        return default
    if value in names:
        return value
    raise InputError(f"{option}: {value!r} is not one of {names}{did_you_mean(value, names)}")


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """Return "; did you mean ...?" where something known is near, else nothing."""
    folded = {_folded(name): name for name in known}
    near = difflib.get_close_matches(_folded(value), list(folded), 1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _folded(name: str) -> str:
    return " ".join(name.replace("_", "-").split()).casefold()
