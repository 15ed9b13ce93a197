"""Reading and writing the user's files: CSV, TSV, JSON lines, Parquet; plain, gzipped or piped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fewfit.errors import InputError, MissingExtraError

FORMATS = ("csv", "tsv", "jsonl", "parquet")
_SUFFIXES = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_SUFFIXES |= {".parquet": "parquet", ".pq": "parquet"}

Table = dict[str, list[Any]]


def read_table(path: str, format: str | None = None) -> Table:
    """Read a table by column; ``-`` is standard input.

    The format follows from the suffix, ``.gz`` aside, unless it is given; piped input is CSV unless
    it is given. In CSV every value is text.

    Raises
    ------
    InputError
        If the file cannot be read, is not what its format says, or holds no rows.
    """
    kind = format or _format_of(path)
    try:
        with _open_binary(path) as stream:
            table = _READERS[kind](stream, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; convert it first") from error
    if not table or not len(next(iter(table.values()))):
        raise InputError(f"{path}: no rows")
    return table


@contextmanager
def writing(path: str) -> Iterator[IO[str]]:
    """Open a file for text, or standard output for ``-``.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    if path == "-":
        yield sys.stdout
        return
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_csv(columns: Mapping[str, Sequence[Any]], stream: IO[str]) -> None:
    """Write columns as CSV with a header."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def _format_of(path: str) -> str:
    if path == "-":
        return "csv"
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    kind = _SUFFIXES.get(suffixes[-1]) if suffixes else None
    if kind is None:
        raise InputError(
            f"{path}: the name does not tell the format; add --format {'|'.join(FORMATS)}"
        )
    return kind


@contextmanager
def _open_binary(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield stream  # pyright: ignore[reportReturnType]
    else:
        with Path(path).open("rb") as stream:
            yield stream


def _read_csv(stream: IO[bytes], path: str, *, delimiter: str = ",") -> Table:
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InputError(f"{path}: two columns have the same name in {header}")
        rows = []
        for row in reader:
            if len(row) != len(header) and row:
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(row)} values for {len(header)} "
                    "columns; quote values that hold the delimiter"
                )
            if row:
                rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from error
    finally:
        text.detach()
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def _read_tsv(stream: IO[bytes], path: str) -> Table:
    return _read_csv(stream, path, delimiter="\t")


def _read_jsonl(stream: IO[bytes], path: str) -> Table:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: line {number} is not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}: line {number} is not a JSON object")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_parquet(stream: IO[bytes], path: str) -> Table:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError(
            'reading Parquet needs pyarrow: pip install "fewfit[parquet]"'
        ) from error
    try:
        return parquet.read_table(io.BytesIO(stream.read())).to_pydict()
    except ArrowException as error:
        raise InputError(f"{path}: not a Parquet file: {error}") from error


_READERS = {"csv": _read_csv, "tsv": _read_tsv, "jsonl": _read_jsonl, "parquet": _read_parquet}
