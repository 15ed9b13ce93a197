"""CSV and TSV: which delimiter a file has, and its rows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from fewfit.errors import InputError
from fewfit.tables.source import Source

DELIMITERS = (",", ";", "\t", "|")
_NONE = "\x1f"  # of a file with one column, whose values may hold every delimiter
_TRIED = 50
_QUOTED = re.compile('"(?:[^"]|"")*"')

Rows = Iterator[tuple[int, list[Any]]]


def find_delimiter(
    source: Source, encoding: str, given: str | None, known: Callable[[list[str]], bool]
) -> str:
    """Return the delimiter of a CSV file.

    Of those that the first line has, it is one with which the columns asked for are there, then one
    with which the first rows can be read, then one with which they have as many values as the
    header, then the one with most columns.

    Parameters
    ----------
    given : str or None
        What the user said; ``\\t`` and ``tab`` are tabs.
    known : callable
        Whether a header has the columns that will be asked for.
    """
    if given is not None:
        delimiter = {"\\t": "\t", "tab": "\t", "TAB": "\t"}.get(given, given)
        if len(delimiter) != 1 or delimiter in '"\r\n\0 ':
            raise InputError(
                f"--delimiter: expected one character or 'tab', got {given!r}, which is none"
            )
        return delimiter
    rated: list[tuple[bool, bool, float, int, int]] = []
    for place, delimiter in enumerate(DELIMITERS):
        rows: list[list[Any]] = []
        whole = True
        try:
            for _, row in islice(_read(source, encoding, delimiter, True), _TRIED):
                rows.append(row)
        except csv.Error:  # of which the reader will say the line
            whole = False
        if rows and len(rows[0]) > 1:
            alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
            rated.append((known(rows[0]), whole, alike, len(rows[0]), -place))
    return DELIMITERS[-max(rated)[-1]] if rated else _NONE


def quotes_around_values(source: Source, encoding: str) -> bool:
    """Whether quotes in a TSV stand around values, as spreadsheets write them, or are text.

    They stand around values where every name in the first line has them; where a line break or a
    tab in a value leaves lines with too few or too many values, unless quotes hold it together; and
    where whatever begins with a quote ends with one, with quotes in it that are doubled.
    """
    header: list[Any] = []
    doubled, plain = False, False
    for _, row in _read(source, encoding, "\t", False):
        if not header:
            header = row
            if all(len(name) > 1 and name[0] == name[-1] == '"' for name in row):
                return True
        if len(row) != len(header):
            return _as_many_values(source, encoding)
        for value in row:
            if value.startswith('"'):
                plain = plain or _QUOTED.fullmatch(value) is None
                doubled = doubled or '""' in value[1:-1]
    return doubled and not plain


def _as_many_values(source: Source, encoding: str) -> bool:
    """Whether all rows of a TSV have as many values, with quotes around values."""
    try:
        return len({len(row) for _, row in _read(source, encoding, "\t", True)}) == 1
    except csv.Error:
        return False


def blank_before_quotes(source: Source, encoding: str, delimiter: str) -> bool:
    """Whether a value stands in quotes behind a blank, which is then no part of any value.

    A quoted value with such a thing in it has its quotes doubled. Where the file cannot be read
    like that, as text goes on behind such quotes, they are text themselves.
    """
    d = re.escape(delimiter)
    quoted = re.compile(f'{d} +"(?!{d})[^"\r\n]+" *(?:{d}|[\r\n]|$)')
    with source.open() as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        try:
            found = any(quoted.search(line) for line in text)
        finally:
            if not text.closed:
                text.detach()
    try:
        return found and all(True for _ in _read(source, encoding, delimiter, True, True))
    except csv.Error:
        return False


def read_delimited(
    source: Source, encoding: str, delimiter: str, *, quotes: bool, blanks: bool
) -> Rows:
    """Yield the rows after the header, each with the number of the line it begins on.

    Parameters
    ----------
    quotes : bool
        Whether a value that begins with a quote ends with one, or a quote is text (some TSV).
    blanks : bool
        Whether blanks behind a delimiter are no part of the value.

    Raises
    ------
    InputError
        If a row has not as many values as the header, or a quote is not closed.
    """
    shown = "" if delimiter == _NONE else f" (delimiter {delimiter!r})"
    # Another delimiter than a tab is nothing that a TSV can have: quotes are text there alone.
    other = ", or name it with --delimiter" if quotes else ""
    begun, header = 1, None
    try:
        for begun, row in _read(source, encoding, delimiter, quotes, blanks):
            if header is None:
                header = row
            elif len(row) != len(header):
                raise InputError(
                    f"{source.name}: line {begun} has {len(row)} values for {len(header)} columns"
                    f"{shown}; quote values that hold the delimiter or a line break{other}"
                )
            yield begun, row
    except csv.Error as error:
        text = "; where quotes are text, add --format tsv" * (delimiter == "\t")
        raise InputError(
            f"{source.name}: after line {begun}: {error}{shown}. A value that begins with a quote "
            f'ends with one, and quotes in it are doubled: """so"" he said"{text}'
        ) from error


def _read(
    source: Source, encoding: str, delimiter: str, quotes: bool, blanks: bool = False
) -> Rows:
    csv.field_size_limit(2**31 - 1)
    quoting: Any = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    with source.open() as stream:
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        reader = csv.reader(
            text,
            delimiter=delimiter,
            strict=quotes,
            quoting=quoting,
            doublequote=quotes,
            skipinitialspace=blanks,
        )
        try:
            begun = 1
            for row in reader:
                if row and not (begun == 1 and _says_separator(row)):
                    yield begun, row
                begun = reader.line_num + 1
        finally:
            if not text.closed:
                text.detach()


def _says_separator(row: Sequence[str]) -> bool:
    """Whether the first line is Excel's ``sep=;``."""
    return row[0].lower().startswith("sep=") and len("".join(row)) <= len("sep=;")
