"""The SQLite file that holds answers: opened for each look and write, held by nobody between."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from fewfit.caches import cache_folder
from fewfit.errors import StoreError

APPLICATION_ID = 0x66657766  # "fewf"
SCHEMA_VERSION = 2

_TIMEOUT_SECONDS = 30.0
_PAGE = 16384
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
    if "not a database" in text:
        return "It is no store: name another file, or move it away"
    if "full" in text or "I/O" in text or isinstance(error, MemoryError):
        return "Make room on the disk, or name another file"
    if "malformed" in text or not isinstance(error, sqlite3.Error | OSError):
        return "It is damaged beyond single rows: move the file away"
    return "Make file and folder writable, or name another file, or a folder in $FEWFIT_CACHE"
