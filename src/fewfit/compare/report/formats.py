"""Summaries by method, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fewfit.compare.schema import Summary
from fewfit.markdown import NONE


def lines(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Group summaries by method and model, which is named where there are several."""
    several = len({item.model for item in summaries if item.model is not None}) > 1
    grouped: dict[str, list[Summary]] = {}
    for item in sorted(summaries, key=lambda item: item.shots):
        name = f"{item.method}, {item.model}" if several and item.model else item.method
        grouped.setdefault(name, []).append(item)
    return grouped


def largest_of(grouped: Mapping[str, Sequence[Summary]]) -> dict[str, Summary]:
    """Return the summaries at the largest number of shots; a method without one is left out."""
    largest = max((items[-1].shots for items in grouped.values()), default=0)
    return {name: items[-1] for name, items in grouped.items() if items[-1].shots == largest}


def seconds(value: float | None) -> str:
    """Return a duration for people."""
    if value is None:
        return NONE
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def flops(value: float | None) -> str:
    """Return a number of FLOPs for people."""
    if value is None:
        return NONE
    return f"{value:.1e}" if value else "0"


def count(value: int | None) -> str:
    """Return a number with its thousands apart."""
    return NONE if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Return a number of bytes for people."""
    if value is None:
        return NONE
    if value < 2**10:
        return f"{value} B"
    return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"
