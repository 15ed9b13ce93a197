"""The colour and the mark of a method: decided by its name, the same in every report and plot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

COLOURS = (
    *("#598dfe", "#736471", "#79976e", "#e37407"),
    *("#d21a2d", "#7335fe", "#b904b2", "#d46fbd"),
)
"""For light and dark paper alike; apart from each other for the colour-blind too, as tested."""

MARKS = ("circle", "square", "triangle", "diamond", "down", "flat", "tall", "left")

_OWN = {
    "offset-regression": 0,
    "zero-shot": 1,
    "tfidf": 2,
    "linear-probe": 3,
    "dect": 4,
    "protoverb": 5,
    "nearest-mean": 6,
    "in-context": 7,
}
"""Those that stand together most often differ in colour; every other name is hashed."""


class Style(NamedTuple):
    """Positions in :data:`COLOURS` and :data:`MARKS`."""

    colour: int
    mark: int


def style_of(name: str) -> Style:
    """Return the style of a method, variants behind a plus or a comma in the colour of the plain.

    Case and blanks do not matter: "Linear probe" is "linear-probe".
    """
    folded = "-".join(name.casefold().split())
    plain = folded.partition("+")[0].partition(",")[0]
    number = _OWN.get(plain, _digest(plain))
    mark = number if plain in _OWN else number // len(COLOURS)
    if folded != plain:
        mark += 1 + _digest(folded) % (len(MARKS) - 1)
    return Style(number % len(COLOURS), mark % len(MARKS))


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return the style of each; where two would be the same, the later takes another mark."""
    found: dict[str, Style] = {}
    for name in names:
        style = style_of(name)
        for step in range(len(MARKS)):
            other = style._replace(mark=(style.mark + step) % len(MARKS))
            if other not in found.values():
                style = other
                break
        found[name] = style
    return found


def _digest(name: str) -> int:
    return crc32(name.encode("utf-8", "replace"))
