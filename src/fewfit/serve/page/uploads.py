"""A file that was dropped or pasted, as the command line would read it."""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, StoreError
from fewfit.prompts import read_labels
from fewfit.serve.page.records import NewRow
from fewfit.tables import Row, Table, open_table
from fewfit.tables.columns import has_text, is_blank, texts_of
from fewfit.tables.names import position
from fewfit.tables.source import Source

MAX_BYTES = 64 * 2**20
MAX_UNPACKED = 4 * MAX_BYTES
"""Of workbooks and Parquet files, which are compressed: small ones may hold any amount."""

MAX_SECONDS = 300.0
MAX_ROWS = 100_000
MAX_CLASSES = 200

# What a reader of tables says is for the command line, and the page has none of its options.
_OTHERWISE = re.compile(r"; --\w+( and --\w+)? can say otherwise")
_OPTION = re.compile(r"(^| )--[a-z]")
_INSTEAD = ". The page has no such option: save the file as .csv in UTF-8, or use 'fewfit fit'"

_SHOWN = 5
_SUFFIX = re.compile(r"\.[a-z0-9]{1,16}")
_LABELS = ("label", "class", "category", "topic", "intent", "tag", "target", "y")
_TEXTS = ("text", "message", "sentence", "body", "comment", "review", "question", "content")


def preview(data: bytes, file: str) -> dict[str, Any]:
    """Return the columns of a file, its first rows, and which columns are likely what."""
    with _table(data, file) as (table, said):
        rows = list(table.read())
    columns = [
        {"name": name, "labels": _distribution([values[i] for _, values in rows])}
        for i, name in enumerate(table.columns)
    ]
    label = _named(table, _LABELS)
    if label is None:
        label = min(
            (i for i, own in enumerate(columns) if own["labels"] and len(columns) > 1),
            key=lambda i: len(columns[i]["labels"]["counts"]),
            default=None,
        )
    text = _named(table, _TEXTS)
    if text is None or text == label:
        text = max(
            (i for i in range(len(columns)) if i != label),
            key=lambda i: sum(len(_cell(values[i])) for _, values in rows),
            default=None,
        )
    return {
        "file": file,
        "n": len(rows),
        "columns": columns,
        "rows": [[_cell(value)[:300] for value in values] for _, values in rows[:_SHOWN]],
        "text": [] if text is None else [table.columns[text]],
        "label": None if label is None else table.columns[label],
        "said": said,
    }


def read_rows(
    data: bytes, file: str, text: Sequence[str], label: str | None
) -> tuple[list[str], list[NewRow], int]:
    """Return the columns of a file, its rows that have a text, and how many have none.

    Raises
    ------
    InputError
        If it cannot be read, a column is not there, or a label is no label.
    """
    with _table(data, file) as (table, _):
        for name in [*text, *([label] if label is not None else [])]:
            if name not in table.columns:
                raise InputError(f"{table.path}: no column {name!r:.80}")
        if not text or label in text:
            raise InputError("columns: choose the texts' columns, and another one for the labels")
        rows = list(table.read())
        places = {"text": [table.columns.index(name) for name in text]}
        texts = texts_of(table, rows, places)
        there = has_text(texts)
        labels: list[str | None] = [None] * len(rows)
        if label is not None:
            place = table.columns.index(label)
            given = [i for i, (_, values) in enumerate(rows) if not is_blank(values[place])]
            told = read_labels(
                [rows[i][1][place] for i in given],
                len(given),
                where=lambda i: table.where(rows[given[i]][0]),
                name=f"{table.path}, column {label!r}",
            )
            for i, value in zip(given, told, strict=True):
                labels[i] = str(value)
    kept = [
        NewRow([_cell(value) for value in values], own, name)
        for (_, values), own, name, yes in zip(rows, texts["text"], labels, there, strict=True)
        if yes
    ]
    if not kept:
        raise InputError(f"{file}: no row has a text in {' or '.join(text)}")
    if len({row.label for row in kept}) > MAX_CLASSES + 1:
        raise InputError(
            f"{file}, column {label!r}: more than {MAX_CLASSES} classes; is it that of the labels?"
        )
    return list(table.columns), kept, len(rows) - len(kept)


@contextmanager
def _table(data: bytes, file: str) -> Iterator[tuple[Table, list[str]]]:
    """Open bytes as the table that they are, under the name that the user knows them by."""
    said: list[str] = []
    suffix = Path(file).suffix.lower()
    suffix = suffix if _SUFFIX.fullmatch(suffix) else ""  # it becomes that of a file here
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            own = Path(folder).name  # that nobody's text holds: what is said of it is of the user's
            path = str(Path(folder) / f"{own}{suffix}")
            Path(path).write_bytes(data)
        except OSError as error:
            raise StoreError(
                "the server's folder for temporary files does not take the file "
                f"({os.strerror(error.errno or 0)}); make room there, or name another in $TMPDIR"
            ) from error

        def named(text: str) -> str:
            text = _OTHERWISE.sub("", text)
            text += _INSTEAD * bool(_OPTION.search(text))
            return text.replace(path, file).replace(f"{own}{suffix}", file)

        try:
            if Source(path).packing is not None:
                raise InputError(f"{path}: is compressed; unpack it first")
            _check_unpacked(path)
            table = open_table(path, wanted=["text", "label"], say=said.append)
            if table.n > MAX_ROWS:
                raise InputError(
                    f"{path}: {table.n:,} rows; the page takes {MAX_ROWS:,}, and 'fewfit fit' more"
                )
            columns = tuple(_cell(name) for name in table.columns)
            read = partial(_bounded, table)
            yield replace(table, columns=columns, read=read), [named(line) for line in said]
        except InputError as error:
            raise InputError(named(str(error))) from error


def _check_unpacked(path: str) -> None:
    """Refuse a workbook, which is an archive, that is much larger unpacked (InputError)."""
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        _check_size(path, sum(part.file_size for part in archive.infolist()))


def _bounded(table: Table) -> Iterator[Row]:
    """Yield rows as long as they are no more than a file may unpack to (InputError)."""
    size = 0
    for row in table.read():
        size += sum(len(value) for value in row[1] if isinstance(value, str))
        _check_size(table.path, size)
        yield row


def _check_size(path: str, size: int) -> None:
    if size > MAX_UNPACKED:
        raise InputError(
            f"{path}: is more than {MAX_UNPACKED >> 20} MB unpacked; the page takes no more, and "
            "'fewfit fit' does"
        )


def _named(table: Table, names: Sequence[str]) -> int | None:
    """Return the first column that has one of these names."""
    found = (position(table.columns, name) for name in names)
    return next((place for place in found if place is not None), None)


def _distribution(values: Sequence[Any]) -> dict[str, Any] | None:
    """Return how often each label occurs, None where these are hardly labels."""
    there = [_cell(value) for value in values if not is_blank(value)]
    counts = Counter(there)
    if len(counts) > min(MAX_CLASSES, max(2, len(there) // 2)) or not counts:
        return None
    return {"counts": counts.most_common(), "blank": len(values) - len(there)}


def _cell(value: Any) -> str:
    """Return a cell as text; what is not valid Unicode, which JSON can hold, with escapes."""
    text = "" if value is None or value != value else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
