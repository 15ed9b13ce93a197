"""Transforms of texts that are data: a name, or a few lines of JSON, which can be saved."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fewfit.errors import InputError

Text = Callable[[str], str]


@dataclass(frozen=True)
class Transform:
    """A way to write a text otherwise, and the way back.

    Attributes
    ----------
    data : str or mapping
        What it is made of again by :func:`make_transform`; JSON.
    there, back : callable of str to str
    is_exact : bool
        Whether a text has to survive the way there and back, as where it is an encoding; a
        translation keeps the meaning.
    prepare : callable of sequence of str
        Does for many texts at once what `there` will be asked for.
    """

    data: str | Mapping[str, Any]
    there: Text
    back: Text
    is_exact: bool = True
    prepare: Callable[[Sequence[str]], None] = field(default=lambda texts: None)


def _from_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise InputError(f"transform: {text[:60]!r} is not base64: {error}") from error


def _from_json(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"transform: {text[:60]!r} is not JSON: {error}") from error
    return found if isinstance(found, str) else text


def _spelled(text: str) -> str:
    """Write a text letter by letter, as in "f-u-n it is": within words alone."""
    return " ".join("-".join(word) for word in text.replace("-", "\N{SOFT HYPHEN}").split(" "))


def _unspelled(text: str) -> str:
    words = ("".join(word.split("-")) for word in text.split(" "))
    return " ".join(words).replace("\N{SOFT HYPHEN}", "-")


ENCODINGS: dict[str, tuple[Text, Text]] = {
    "base64": (lambda s: base64.b64encode(s.encode("utf-8")).decode("ascii"), _from_base64),
    "json": (lambda s: json.dumps(s, ensure_ascii=False), _from_json),
    "reversed": (lambda s: s[::-1], lambda s: s[::-1]),
    "rot13": (lambda s: codecs.encode(s, "rot13"), lambda s: codecs.encode(s, "rot13")),
    "spelled": (_spelled, _unspelled),
    "swapcase": (str.swapcase, str.swapcase),
}
"""Name -> the way there and the way back."""


def make_transform(data: str | Mapping[str, Any]) -> Transform:
    """Return the transform that is a name of :data:`ENCODINGS`, a substitution, or a format.

    Parameters
    ----------
    data : str or mapping
        A name; ``{"characters": {"e": "3", "a": "4"}}``, a letter for a letter, both ways; or
        ``{"format": "<text>{text}</text>"}``, what stands around a text.

    Raises
    ------
    InputError
        If it is none of these, or a substitution cannot be undone.
    """
    if isinstance(data, str):
        if data not in ENCODINGS:
            raise InputError(f"transform: {data!r:.60} is not one of {', '.join(ENCODINGS)}")
        return Transform(data, *ENCODINGS[data])
    names = sorted(data) if isinstance(data, Mapping) else []
    if names == ["characters"]:
        return _substitution(data)
    if names == ["format"]:
        return _format(data)
    raise InputError(
        f"transform: {names or type(data).__name__} is none; expected a name, or an object with "
        "'characters', 'format', or 'language' and 'writer'"
    )


def _substitution(data: Mapping[str, Any]) -> Transform:
    table = data["characters"]
    if not isinstance(table, Mapping) or not table:
        raise InputError('transform: expected {"characters": {"a": "4", ...}}')
    for a, b in table.items():
        if not (isinstance(a, str) and isinstance(b, str) and len(a) == len(b) == 1):
            raise InputError(f"transform: characters: {a!r}: {b!r} is not a letter for a letter")
    if len(set(table.values())) < len(table):
        raise InputError("transform: characters: two letters become the same one")
    # What a letter becomes has to become something else, so that the way back is known.
    there = dict(table)
    back = {b: a for a, b in table.items()}
    for b in set(back) - set(table):
        there[b] = b
        while there[b] in back:
            there[b] = back[there[b]]
    inverse = {b: a for a, b in there.items()}
    ways = (str.maketrans(way) for way in (there, inverse))
    one, other = ways
    return Transform(data, lambda s: s.translate(one), lambda s: s.translate(other))


def _format(data: Mapping[str, Any]) -> Transform:
    given = data["format"]
    if not isinstance(given, str) or given.count("{text}") != 1 or given == "{text}":
        raise InputError('transform: expected {"format": "... {text} ..."}, with one {text}')
    before, _, after = given.partition("{text}")

    def back(text: str) -> str:
        whole = text.startswith(before) and text.endswith(after)
        return text[len(before) : len(text) - len(after)] if whole else text

    return Transform(data, lambda s: f"{before}{s}{after}", back)
