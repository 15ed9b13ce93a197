"""The one rule by which a prompt is cut to what a model reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from fewfit.prompts import Part, Prompt

Frame = tuple[Part, ...]
"""The parts of a prompt with every field empty: the template, as far as a model can see it."""

Ids = TypeVar("Ids")


def frame_of(prompt: Prompt) -> Frame:
    """Return what the prompts of one template have in common."""
    return tuple(emptied(prompt.parts))


def joined(parts: Sequence[Part]) -> str:
    """Return the text of parts that follow each other."""
    return "".join(part.text for part in parts)


def emptied(parts: Sequence[Part]) -> list[Part]:
    """Return the parts with every field empty."""
    return [Part("field", "") if part.kind == "field" else part for part in parts]


def shortened(
    parts: Sequence[Part],
    limit: int,
    spell: Callable[[Sequence[Part]], tuple[Ids, int, Sequence[tuple[int, int]]]],
) -> Ids:
    """Spell a prompt in at most `limit` tokens, or as its template alone.

    Its fields lose tokens, always the longest one and from its end; the template stays whole.

    Parameters
    ----------
    parts : sequence of Part
    limit : int
    spell : callable
        From parts to what they are in tokens, how many these are, and where in the joined text
        each of them that comes from it starts and ends.
    """
    parts = list(parts)
    while True:
        ids, length, offsets = spell(parts)
        excess = length - limit
        if excess <= 0:
            return ids
        inside = _tokens_of_fields(parts, offsets)
        keep = {i: len(ends) for i, ends in inside.items()}
        for _ in range(excess if keep else 0):
            longest = max(keep, key=keep.__getitem__)
            keep[longest] = max(0, keep[longest] - 1)
        if not any(keep[i] < len(ends) for i, ends in inside.items()):
            return spell(emptied(parts))[0]
        for i, ends in inside.items():
            if keep[i] < len(ends):
                text = parts[i].text[: ends[keep[i] - 1] if keep[i] else 0]
                # Bytes of one character can be several tokens: always lose at least one.
                text = text if len(text) < len(parts[i].text) else text[:-1]
                parts[i] = Part("field", text)


def _tokens_of_fields(
    parts: Sequence[Part], offsets: Sequence[tuple[int, int]]
) -> dict[int, list[int]]:
    """For each field, where in its text each of its tokens ends."""
    found: dict[int, list[int]] = {}
    start = 0
    for i, part in enumerate(parts):
        stop = start + len(part.text)
        if part.kind == "field" and part.text:
            found[i] = [
                min(b, stop) - start for a, b in offsets if start < b and a < stop and a < b
            ]
        start = stop
    return found
