"""From a table and options to what the library is called with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewfit.cli.tables import Table
from fewfit.errors import InputError


def pick_columns(table: Table, fields: tuple[str, ...], text_column: str | None) -> Table:
    """Pick the template's fields; `text_column` renames the only one."""
    if text_column is not None:
        if len(fields) != 1:
            raise InputError(
                f"--text-column is for a template with one field; this one has {list(fields)}, "
                "which are the columns that are read"
            )
        if text_column not in table:
            raise InputError(f"--text-column: no column {text_column!r}; there are {sorted(table)}")
        return {fields[0]: table[text_column]}
    for name in fields:
        if name not in table:
            raise InputError(
                f"the template needs column {name!r}; there are {sorted(table)}. Rename it, or "
                "name the right one with --text-column"
            )
    return {name: table[name] for name in fields}


def pick_labels(table: Table, name: str) -> list[str]:
    """Return the labels as text; each row has one."""
    if name not in table:
        raise InputError(f"--label-column: no column {name!r}; there are {sorted(table)}")
    for i, value in enumerate(table[name]):
        if value is None or value == "" or value != value:
            raise InputError(f"column {name!r}: the label of row {i} is missing")
    return [str(value) for value in table[name]]


def read_label_words(inline: list[str] | None, path: Path | None) -> dict[str, Any] | None:
    """Return the label words that the user gave, None if there are none."""
    if inline and path is not None:
        raise InputError("--label and --labels say the same thing; give one of them")
    if path is not None:
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"--labels: {path} is not a JSON object of words: {error}") from error
    if not inline:
        return None
    words: dict[str, Any] = {}
    for item in inline:
        name, equals, listed = item.partition("=")
        if not equals or name in words:
            raise InputError(f"--label: expected CLASS=word[,word] once per class, got {item!r}")
        words[name] = listed.split(",")
    return words
