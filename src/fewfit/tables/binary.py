"""Parquet and Excel, read by the libraries that know them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, MissingExtraError
from fewfit.tables.source import Source

_BATCH = 10_000


def open_parquet(source: Source) -> Any:
    """Open a Parquet file (InputError, MissingExtraError)."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError(
            'reading Parquet needs pyarrow: pip install "fewfit[parquet]"'
        ) from error
    try:
        if Path(source.path).is_file() and source.packing is None:
            return parquet.ParquetFile(source.path)
        with source.open() as stream:
            return parquet.ParquetFile(io.BytesIO(stream.read()))
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(_damaged(source, "a Parquet file", error)) from error


def read_parquet(source: Source, file: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows, counted from 1."""
    from pyarrow import ArrowException

    number = 0
    batches = file.iter_batches(_BATCH)
    while True:
        try:
            batch = next(batches, None)
        except (ArrowException, OSError, ValueError) as error:
            raise InputError(_damaged(source, "a Parquet file", error)) from error
        if batch is None:
            return
        named = zip(batch.schema.names, batch.columns, strict=True)
        columns = [_values(source, name, column, number) for name, column in named]
        for row in zip(*columns, strict=True):
            number += 1
            yield number, list(row)


def _values(source: Source, name: str, column: Any, number: int) -> list[Any]:
    """Return the values of a column behind row `number`, which the file may hold and Python not."""
    from pyarrow import ArrowException

    try:
        return column.to_pylist()
    except (ArrowException, OverflowError, ValueError) as error:
        dated = isinstance(error, OverflowError)  # Python's dates end with the year 9999
        what = "a date or a time that is out of range" if dated else "what cannot be read"
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source.name}: column {name!r} holds, behind row {number:,}, {what}: {reason}; "
            "write that column as text in UTF-8, or leave it out"
        ) from error


def read_excel(source: Source) -> tuple[list[list[Any]], list[str]]:
    """Return the rows of the first sheet, the header with them, and the names of all sheets."""
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise MissingExtraError(
            'reading Excel needs python-calamine: pip install "fewfit[excel]"'
        ) from error
    with source.open() as stream:
        data = stream.read()
    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(data))
        sheet = book.get_sheet_by_index(0)
        rows = sheet.to_python(skip_empty_area=False)
    except (CalamineError, OSError, ValueError, IndexError) as error:
        raise InputError(_damaged(source, "an Excel workbook", error)) from error
    whole = [[_whole(value) for value in row] for row in rows]
    return whole, list(book.sheet_names)


def is_binary(source: Source) -> str | None:
    """Return which other format a file's first bytes belong to, None for text."""
    with source.open() as stream:
        start = stream.read(8)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return "excel"
    return None


def _whole(value: Any) -> Any:
    """A sheet has no integers, only numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _damaged(source: Source, kind: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"{source.name}: not {kind}, or cut short or damaged: {reason}; copy or download "
        f"{Path(source.path).name} again"
    )
