"""JSON lines and JSON arrays."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from fewfit.errors import InputError
from fewfit.tables.source import Source

Record = tuple[int, dict[str, Any]]
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{\s*[\"}]|\[\s*[{\]])")


def read_lines(source: Source, encoding: str) -> Iterator[Record]:
    """Yield the object on each line that is not empty, with the number of the line."""
    with source.open() as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="\n")
        try:
            for number, line in enumerate(text, start=1):
                if line.strip():
                    yield number, _object(line, f"{source.name}: line {number}")
        finally:
            if not text.closed:
                text.detach()


def read_array(source: Source, encoding: str) -> list[Record]:
    """Return the objects of an array, counted from 1.

    An object that holds one array, as ``{"data": [...]}``, is that array.
    """
    with source.open() as stream:
        content = parse_json(stream.read().decode(encoding), source.name)
    if isinstance(content, dict):
        arrays = [value for value in content.values() if isinstance(value, list)]
        content = arrays[0] if len(arrays) == 1 else content
    if not isinstance(content, list):
        raise InputError(
            f"{source.name}: expected an array of objects, [{{...}}, ...]; for an object on each "
            "line add --format jsonl"
        )
    for number, record in enumerate(content, start=1):
        if not isinstance(record, dict):
            raise InputError(f"{source.name}: item {number} is not a JSON object")
    return list(enumerate(content, start=1))


def begins_as_json(source: Source) -> bool:
    """Whether an object with a name, or an array of objects, begins here; no header of CSV does."""
    with source.open() as stream:
        return _BEGINS.match(stream.read(4096)) is not None


def is_array(source: Source, encoding: str) -> bool:
    """Whether the first character is a bracket, as of an array, and the line is not complete."""
    with source.open() as stream:
        text = io.TextIOWrapper(stream, encoding=encoding)
        first = text.read(4096).lstrip()[:1]
        text.detach()
    return first == "["


def parse_json(text: str, where: str) -> Any:
    """Read JSON (InputError, with the place)."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{where}: {twice!r} stands twice in one object; keep one")
        return entries

    try:
        return json.loads(text, object_pairs_hook=once)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{where} is JSON that is nested too deeply") from error
    except json.JSONDecodeError as error:
        place = f" at line {error.lineno}, column {error.colno}" if "\n" in text.strip() else ""
        raise InputError(f"{where} is not JSON: {error.msg}{place}; is it cut short?") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(
            f"{where} is JSON that cannot be read: it holds a number of thousands of digits; write "
            "it as text"
        ) from error


def _object(line: str, where: str) -> dict[str, Any]:
    record = parse_json(line, where)
    if not isinstance(record, dict):
        raise InputError(f"{where} is not a JSON object")
    return record
