"""Predictions to a file or to standard output, part by part."""

from __future__ import annotations

import csv
import json
import math
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from fewfit.cli.output import printable
from fewfit.errors import InputError

_LINES = (".jsonl", ".ndjson")
_PACKED = (".parquet", ".pq", ".xlsx", ".xls", ".ods", ".gz", ".bz2", ".xz", ".zip")
_TEXT = (".tsv", ".json")
_STANDARD = Path("/dev/stdin"), Path("/dev/stdout")  # which the shell may have led to a file


class Output:
    """Where predictions go; nothing that is there is touched before the first of them.

    Parameters
    ----------
    path : str
        ``-`` is standard output.
    header : sequence of str
        Of CSV.
    as_json : bool
        Whether to write JSON lines.
    not_over : sequence of path
        Files that are still needed; of a folder all that is in it, ``default`` is the user's own
        store, and ``-`` is what standard input is read from.

    Raises
    ------
    InputError
        If it cannot be written, or is one of `not_over`.
    """

    def __init__(
        self, path: str, header: Sequence[str], *, as_json: bool, not_over: Iterable[str | Path]
    ) -> None:
        self.path, self.header = path, header
        suffix = Path(path).suffix.lower()
        self.as_json = as_json or suffix in _LINES
        self.rows = 0
        self._stream: IO[str] | None = None
        if path == "-":
            if sys.stdout is None or sys.stdout.closed:
                raise InputError("standard output is closed; name a file with --output")
            _check_apart(path, _STANDARD[1], not_over)
            return
        if suffix in _PACKED or (suffix in _TEXT and not as_json):
            raise InputError(
                f"--output: {path}: predictions are CSV, or JSON lines; name a .csv or .jsonl file"
            )
        check_output(path, not_over)

    def write(self, rows: Iterable[Sequence[Any]], objects: Iterable[dict[str, Any]]) -> None:
        """Write rows under the header, or, as JSON, the objects; what is written is on its way."""
        # all of a part is made before the file is opened: a value that fails must not empty it
        lines = [_line(o) for o in objects] if self.as_json else [*map(_record, rows)]
        with self._plainly():
            stream = self._opened()
            stream.writelines(lines)
            stream.flush()
        self.rows += len(lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._plainly():
                self._opened().flush()
        if self._stream is not None and self._stream is not sys.stdout:
            with suppress(OSError):  # of what could not be flushed before
                self._stream.close()

    @contextmanager
    def _plainly(self) -> Iterator[None]:
        """Say what cannot be written, and after how many rows (InputError)."""
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(
                f"--output: {self.path}: cannot be written after {self.rows:,} rows: "
                f"{error.strerror or error}"
            ) from error

    def _opened(self) -> IO[str]:
        if self._stream is not None:
            return self._stream
        if self.path == "-":
            stream: IO[str] = sys.stdout
        else:
            stream = Path(self.path).open("w", encoding="utf-8", newline="")  # noqa: SIM115
        self._stream = stream
        if not self.as_json:
            stream.write(_record(self.header))
        return stream


def check_output(path: str, not_over: Iterable[str | Path]) -> None:
    """Refuse a file that cannot be written, or is still needed, without touching it (InputError).

    Parameters
    ----------
    path : str
    not_over : iterable of path
        As for :class:`Output`.
    """
    try:
        _check_writable(Path(path))
        _check_apart(path, Path(path), not_over)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        text = getattr(error, "strerror", None) or error
        raise InputError(f"--output: {path}: cannot be written: {text}") from error


def _check_apart(name: str, path: Path, not_over: Iterable[str | Path]) -> None:
    """Refuse a file that is still needed, by whatever name (InputError)."""
    if path.is_file() and any(o.exists() and o.samefile(path) for o in _files(not_over)):
        raise InputError(f"--output: {name} is also read; name another file")


def _files(needed: Iterable[str | Path]) -> Iterator[Path]:
    from fewfit.store import default_path

    for one in needed:
        path = default_path() if one == "default" else _STANDARD[0] if one == "-" else Path(one)
        yield from path.iterdir() if path.is_dir() else [path]


def _check_writable(path: Path) -> None:
    """Try it without touching what is there (OSError)."""
    if path.exists():
        if path.is_dir():
            raise InputError(f"--output: {path} is a folder; name a file")
        if stat.S_ISREG(path.stat().st_mode):
            path.open("ab").close()
        return
    with path.open("xb"):
        pass
    path.unlink()


class _Echo:
    """What a CSV writer writes to, so that it returns its line."""

    write = staticmethod(str)


_CSV = csv.writer(_Echo(), lineterminator="\n")


def _record(row: Sequence[Any]) -> str:
    """Return a line of CSV."""
    return _CSV.writerow([_cell(value) for value in row])


def _line(item: dict[str, Any]) -> str:
    """Return a line of JSON; what is not valid Unicode has the escapes that JSON has for it."""
    return printable(json.dumps(_plain(item), ensure_ascii=False)) + "\n"


def _cell(value: Any) -> Any:
    """Lists as JSON; what is not valid Unicode, which JSON can hold and a file cannot, escaped."""
    if isinstance(value, list | tuple | dict):
        value = json.dumps(_plain(value), ensure_ascii=False)
    return printable(value) if isinstance(value, str) and not value.isascii() else value


def _plain(value: Any) -> Any:
    """Return what JSON has: dates, decimals and bytes of a cell as text, no number as null."""
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
