"""The user's files: CSV with any delimiter, TSV, JSON lines and arrays, Parquet, Excel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from fewfit.choices import choose
from fewfit.errors import InputError
from fewfit.tables.binary import is_binary, open_parquet, read_excel, read_parquet
from fewfit.tables.delimited import (
    blank_before_quotes,
    find_delimiter,
    quotes_around_values,
    read_delimited,
)
from fewfit.tables.encoding import find_encoding
from fewfit.tables.names import distinct, position
from fewfit.tables.records import begins_as_json, is_array, read_array, read_lines
from fewfit.tables.source import SUFFIXES, Source

__all__ = ["FORMATS", "Row", "Table", "open_table"]

FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "excel")
_BY_SUFFIX = {
    "csv": (".csv", ".txt"),
    "tsv": (".tsv", ".tab"),
    "jsonl": (".jsonl", ".ndjson"),
    "json": (".json",),
    "parquet": (".parquet", ".pq"),
    "excel": (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
}

Row = tuple[int, Sequence[Any]]
"""The number of the line or row in the file, and its values in the order of the columns."""

Say = Callable[[str], object]


@dataclass(frozen=True)
class Table:
    """A file that was read once to its end, and can be read again without holding it.

    Attributes
    ----------
    path : str
    columns : tuple of str
    n : int
        How many rows there are.
    unit : str
        What the numbers of the rows count: "line" or "row", as the file's own programs do.
    read : callable
        Returns an iterator over the rows.
    """

    path: str
    columns: tuple[str, ...]
    n: int
    unit: str
    read: Callable[[], Iterator[Row]]

    def chunks(self, size: int) -> Iterator[list[Row]]:
        """Yield the rows in lists of `size`."""
        rows = self.read()
        while chunk := list(islice(rows, size)):
            yield chunk

    def where(self, number: int) -> str:
        """Return how a message names a row."""
        return f"{self.unit} {number}"


def open_table(
    path: str,
    format: str | None = None,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    wanted: Sequence[str] = (),
    say: Say = lambda _: None,
) -> Table:
    """Read a file to its end, and return it as a table; ``-`` is standard input.

    Parameters
    ----------
    path : str
        Compressed where its first bytes say so (gzip, bzip2, xz).
    format : str, optional
        One of :data:`FORMATS`; left out, the name tells it, and what is piped is CSV, or JSON
        where it begins as JSON does.
    delimiter, encoding : str, optional
        Of CSV, and of what is text; left out, they are found.
    wanted : sequence of str
        Columns that will be asked for, by which a delimiter is chosen.
    say : callable
        Gets a line where encoding, delimiter or sheet are not the usual ones, and where columns
        have the same name: they are told apart by their places, and no one of them is the one.

    Raises
    ------
    InputError
        If the file cannot be read, is cut short or damaged, is not what its format says, or holds
        no rows.
    """
    table = _read(path, format, delimiter, encoding, wanted, say)
    columns = tuple(distinct(table.columns))
    renamed = [own for own, name in zip(columns, table.columns, strict=True) if own != name]
    if renamed:
        more = f", and {len(renamed) - 4:,} more" * (len(renamed) > 4)
        listed = ", ".join(map(repr, renamed[:4]))
        say(f"{table.path}: columns of the same name are read as {listed}{more}")
    return replace(table, columns=columns)


def _read(
    path: str,
    format: str | None,
    delimiter: str | None,
    encoding: str | None,
    wanted: Sequence[str],
    say: Say,
) -> Table:
    given = choose("--format", format, FORMATS)
    source = Source(path)  # whether it is there comes before what its name tells
    kind = given or ("json" if path == "-" and begins_as_json(source) else _format_of(path))
    other = is_binary(source)
    if other is not None and kind != other:
        raise InputError(
            f"{path}: is not {kind}; it begins as {'a zip archive or ' * (other == 'excel')}"
            f"{other} does. Unpack it, or add --format {other}"
        )
    if delimiter is not None and kind != "csv":
        raise InputError(
            f"--delimiter: {path} is {kind}, not CSV; leave it out or add --format csv"
        )
    if encoding is not None and kind in ("parquet", "excel"):
        raise InputError(f"--encoding: {path} is {kind}, which has its own; leave it out")
    if kind == "parquet":
        file = open_parquet(source)
        names = tuple(file.schema_arrow.names)
        return _table(source, names, "row", lambda: read_parquet(source, file))
    if kind == "excel":
        return _excel(source, say)
    found = find_encoding(source, encoding)
    if kind in ("csv", "tsv"):
        return _delimited(source, kind, found, delimiter, wanted, say if encoding is None else None)
    _say_encoding(source, found, say if encoding is None else None)
    if kind == "json" and not is_array(source, found):
        kind = "jsonl" if _has_lines(source, found) else kind
    if kind == "json":
        records = read_array(source, found)
        return _of_records(source, "item", lambda: iter(records))
    return _of_records(source, "line", lambda: read_lines(source, found))


def _delimited(
    source: Source,
    kind: str,
    encoding: str,
    given: str | None,
    wanted: Sequence[str],
    say: Say | None,
) -> Table:
    quotes, blanks, delimiter = True, False, "\t"
    if kind == "csv":

        def known(header: list[str]) -> bool:
            return all(position(header, name) is not None for name in wanted)

        delimiter = find_delimiter(source, encoding, given, known)
        blanks = blank_before_quotes(source, encoding, delimiter)
    else:
        quotes = quotes_around_values(source, encoding)
    how: dict[str, Any] = {"quotes": quotes, "blanks": blanks}
    rows = read_delimited(source, encoding, delimiter, **how)
    _, header = next(rows, (0, []))
    usual = given is not None or kind == "tsv" or delimiter in (",", "\x1f")
    _say_encoding(source, encoding, say, "" if usual else f", delimiter {delimiter!r}")

    def read() -> Iterator[Row]:
        again = read_delimited(source, encoding, delimiter, **how)
        next(again, None)
        return again

    return _table(source, tuple(header), "line", read)


def _excel(source: Source, say: Say) -> Table:
    rows, sheets = read_excel(source)
    if len(sheets) > 1:
        say(f"{source.name}: the first of {len(sheets)} sheets is read, {sheets[0]!r}")
    filled = [(i, row) for i, row in enumerate(rows, start=1) if any(v != "" for v in row)]
    header = tuple(str(value) for value in filled[0][1]) if filled else ()
    return _table(source, header, "row", lambda: iter(filled[1:]))


def _of_records(
    source: Source, unit: str, read: Callable[[], Iterator[tuple[int, dict[str, Any]]]]
) -> Table:
    names: dict[str, None] = {}
    for _, record in read():
        names.update(dict.fromkeys(record))
    columns = tuple(names)
    return _table(
        source, columns, unit, lambda: ((i, [r.get(name) for name in columns]) for i, r in read())
    )


def _table(
    source: Source, columns: tuple[str, ...], unit: str, read: Callable[[], Iterator[Row]]
) -> Table:
    """Read all rows once, so that what is wrong with the last is said before the first is paid."""
    n = sum(1 for _ in read())
    if not n:
        raise InputError(f"{source.name}: no rows" + " after the header" * bool(columns))
    return Table(source.name, columns, n, unit, read)


def _say_encoding(source: Source, encoding: str, say: Say | None, more: str = "") -> None:
    usual = encoding in ("utf-8", "utf-8-sig")
    if say is None or (usual and not more):
        return
    read = "utf-8" if usual else encoding
    flags = " and ".join(["--encoding"] * (not usual) + ["--delimiter"] * bool(more))
    say(f"{source.name}: read as {read}{more}; {flags} can say otherwise")


def _has_lines(source: Source, encoding: str) -> bool:
    """Whether there is an object on each line, and not one that holds all of them."""
    try:
        lines = list(islice(read_lines(source, encoding), 2))
    except InputError:
        return False
    values = list(lines[0][1].values()) if len(lines) == 1 else []
    rows = any(isinstance(v, list) and v and isinstance(v[0], dict) for v in values)
    plain = any(not isinstance(value, list | dict) for value in values)
    return len(lines) > 1 or (plain and not rows)


def _format_of(path: str) -> str:
    if path == "-":
        return "csv"
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in SUFFIXES:
        suffixes.pop()
    for kind, known in _BY_SUFFIX.items():
        if suffixes and suffixes[-1] in known:
            return kind
    raise InputError(f"{path}: the name does not tell the format; add --format {'|'.join(FORMATS)}")
