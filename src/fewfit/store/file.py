"""The SQLite file that holds answers: opened for each look and each write, held by nobody between.

A row is cut into pieces of a tenth of a page, so that a page is filled whatever the length of the
hidden states. Pieces are numbered in the order in which they were written. ``observations`` is what
the first schema had: where there is one, it is read, and no longer written.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fewfit.caches import cache_folder
from fewfit.errors import StoreError

T = TypeVar("T")

APPLICATION_ID = 0x66657766  # "fewf"
SCHEMA_VERSION = 2

LOOKUP = 500
"""Keys in one question to SQLite, which allows 999 in its oldest builds."""

_TIMEOUT_SECONDS = 30.0
_PAGE = 16384
_PER_PAGE = 10
_CELL = 30  # what SQLite adds to a piece, rounded up
_WIDTH_BITS = 24
_BROKEN = (
    *(sqlite3.Error, sqlite3.Warning, OSError, MemoryError),
    *(ValueError, TypeError, OverflowError),  # Python's, of a schema with flipped bits
)

_TABLES = (
    # A rowid table is filled page after page; in one ordered by hashes a third stays empty.
    "CREATE TABLE models (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, "
    "name TEXT NOT NULL, width INTEGER NOT NULL)",
    "CREATE TABLE pieces (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE answers (key BLOB PRIMARY KEY, model INTEGER NOT NULL, "
    "first INTEGER NOT NULL, n INTEGER NOT NULL) WITHOUT ROWID",
)


class Kind(NamedTuple):
    """Whose rows these are: one model, read one way.

    Attributes
    ----------
    digest : bytes
        A hash of the identity.
    name : str
        The model's, for people.
    width : int
        The length of its hidden states; 0 if it has none, or has not answered yet.
    """

    digest: bytes
    name: str
    width: int


def default_path() -> Path:
    """Return where observations are kept unless the user says otherwise.

    ``observations.sqlite`` in the folder of :func:`fewfit.caches.cache_folder`.

    Raises
    ------
    StoreError
        If there is neither a ``$FEWFIT_CACHE`` nor a home folder.
    """
    return cache_folder() / "observations.sqlite"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store to look into it; make an empty file if there is none.

    Raises
    ------
    StoreError
        From here and from the block, if the file cannot be opened or read, for whatever reason.
    """
    with _plainly(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS, isolation_level=None)
        with closing(connection):
            connection.execute(f"PRAGMA page_size={_PAGE}")  # of a file that is new
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA synchronous=FULL")
            _check(connection, path)
            yield connection


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store for one transaction, committed when the block ends.

    Raises
    ------
    StoreError
        If the file cannot be written; nothing of the block is, then.
    """
    with opened(path) as connection:
        for place in (path, path.parent):  # SQLite would notice at the commit
            if not os.access(place, os.W_OK):
                raise PermissionError(f"{place} is read-only")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _check(connection, path) < SCHEMA_VERSION:
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                for statement in _TABLES:
                    connection.execute(statement)
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _check(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema of a store, 0 if it is empty; refuse everything else (StoreError)."""
    # In this order: whoever makes the file just now commits its tables and its marks at once.
    tables, application, version = (
        connection.execute(query).fetchone()[0]
        for query in (
            "SELECT COUNT(*) FROM sqlite_master",
            "PRAGMA application_id",
            "PRAGMA user_version",
        )
    )
    if application != APPLICATION_ID and tables:
        raise StoreError(f"{path} is a database of another program; name another file")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the store {path} has schema {version}, this fewfit knows {SCHEMA_VERSION}; upgrade "
            "fewfit or name another file"
        )
    return version if tables else 0


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    """Turn whatever a damaged, missing, full or locked file leads to into a StoreError."""
    try:
        yield
    except StoreError:
        raise
    except _BROKEN as error:
        raise StoreError(f"the store {path} cannot be used: {error}. {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    text = str(error)
    if "locked" in text:
        return f"Another program has held it for {_TIMEOUT_SECONDS:g} s: end that, or wait"
    if "full" in text or "I/O" in text or isinstance(error, MemoryError):
        return "Make room on the disk, or name another file"
    if "malformed" in text or not isinstance(error, sqlite3.Error | OSError):
        return "It is damaged beyond single rows: move the file away"
    return "Make file and folder writable, or name another file, or a folder in $FEWFIT_CACHE"


def tables_of(connection: sqlite3.Connection) -> set[Any]:
    """Return the names of the tables that there are."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type='table'")
    return {name for (name,) in found}


def read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the rows that are there, of at most :data:`LOOKUP` keys."""
    pieces: dict[bytes, list[bytes]] = {}
    for key, data in connection.execute(
        "SELECT a.key, p.data FROM answers a JOIN pieces p ON p.id BETWEEN a.first AND "
        f"a.first + a.n - 1 WHERE a.key IN ({_marks(keys)}) ORDER BY a.key, p.id",
        keys,
    ):
        pieces.setdefault(key, []).append(data if isinstance(data, bytes) else b"")
    return {key: b"".join(parts) for key, parts in pieces.items()}


def has_first_schema(connection: sqlite3.Connection) -> bool:
    """Return whether the file holds rows of the first schema, under the keys of the first."""
    return "observations" in tables_of(connection)


def read_first_schema(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Any]:
    """Return the rows of the first schema that are there."""
    statement = f"SELECT key, answer FROM observations WHERE key IN ({_marks(keys)})"
    return dict(connection.execute(statement, keys))


def width_of(connection: sqlite3.Connection, digest: bytes) -> int:
    """Return the length of a model's stored hidden states; 0 if it is not known."""
    row = connection.execute("SELECT width FROM models WHERE digest=?", (digest,)).fetchone()
    sealed = row[0] if row else 0
    width = sealed % (1 << _WIDTH_BITS) if isinstance(sealed, int) else 0
    return width if sealed == _sealed(digest, width) else 0


def write(
    connection: sqlite3.Connection,
    kind: Kind,
    rows: Mapping[bytes, bytes],
    *,
    instead: Collection[bytes] = (),
) -> int:
    """Write rows of one model, in the order in which they come.

    Parameters
    ----------
    kind : Kind
    rows : mapping of bytes to bytes
        Key -> row.
    instead : collection of bytes
        The keys under which no good row is stored: they are written anew.

    Returns
    -------
    int
        How many of the others were there already, and stay as they are.
    """
    model = _model(connection, kind)
    found = [
        row
        for keys in chunks(list(rows))
        for row in connection.execute(
            f"SELECT key, first, n FROM answers WHERE key IN ({_marks(keys)})", keys
        )
    ]
    bad = [(first, first + n - 1) for key, first, n in found if key in instead]
    connection.executemany("DELETE FROM pieces WHERE id BETWEEN ? AND ?", bad)
    there = {key for key, *_ in found if key not in instead}
    page = connection.execute("PRAGMA page_size").fetchone()[0]
    most = page // _PER_PAGE - _CELL
    last = connection.execute("SELECT COALESCE(MAX(id), 0) FROM pieces").fetchone()[0]
    answers, pieces = [], []
    for key, row in rows.items():
        if key not in there:
            size = -(-len(row) // -(-len(row) // most))
            parts = [row[i : i + size] for i in range(0, len(row), size)]
            answers.append((key, model, last + 1, len(parts)))
            pieces += enumerate(parts, last + 1)
            last += len(parts)
    connection.executemany("INSERT INTO pieces VALUES (?, ?)", pieces)
    connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", answers)
    return len(there)


def _model(connection: sqlite3.Connection, kind: Kind) -> int:
    """Return the number of a model; it is written where it is new."""
    sealed = _sealed(kind.digest, kind.width)
    connection.execute(
        "INSERT OR IGNORE INTO models(digest, name, width) VALUES (?, ?, ?)",
        (kind.digest, kind.name, sealed),
    )
    if kind.width and not width_of(connection, kind.digest):
        change = "UPDATE models SET width=? WHERE digest=?"
        connection.execute(change, (sealed, kind.digest))
    found = connection.execute("SELECT id FROM models WHERE digest=?", (kind.digest,))
    return found.fetchone()[0]


def check_width(width: int) -> int:
    """Return a length of hidden states (ValueError if it can be none)."""
    if not 0 <= width < 1 << _WIDTH_BITS:
        raise ValueError(f"{width} is no length of a hidden state")
    return width


def _sealed(digest: bytes, width: int) -> int:
    """Return a width with its checksum in front: one flipped bit must not make all rows foreign."""
    checksum = zlib.crc32(width.to_bytes(_WIDTH_BITS // 8, "little"), zlib.crc32(digest))
    return checksum << _WIDTH_BITS | width


def row_bytes(numbers: int) -> int:
    """Return about how many bytes of the file a row of so many float32 numbers takes."""
    return int(1.12 * 4 * numbers) + 110


def chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cut a sequence into questions of at most :data:`LOOKUP` keys."""
    return (items[start : start + LOOKUP] for start in range(0, len(items), LOOKUP))


def _marks(keys: Sequence[bytes]) -> str:
    return ",".join("?" * len(keys))
