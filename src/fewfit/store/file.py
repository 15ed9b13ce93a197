"""The SQLite file that holds answers: opened, read, written, made smaller."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fewfit.errors import InputError, StoreError

T = TypeVar("T")

APPLICATION_ID = 0x66657766  # "fewf"
SCHEMA_VERSION = 2

LOOKUP = 500
"""Keys in one question to SQLite, which allows 999 in its oldest builds."""

_TIMEOUT_SECONDS = 30.0
_PAGE = 16384
_PIECE = 1600  # at most: ten in a page, so that little of it stays empty whatever the width
_BROKEN = (sqlite3.Error, UnicodeError, OverflowError)
"""What SQLite raises where a bit of the file has flipped: names in its schema are text too."""

_TABLES = (
    # A rowid table is filled page after page; in one ordered by hashes a third stays empty.
    "CREATE TABLE IF NOT EXISTS models"
    " (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, name TEXT NOT NULL,"
    " width INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, model INTEGER NOT NULL,"
    " first INTEGER NOT NULL, n INTEGER NOT NULL) WITHOUT ROWID",
)


def default_path() -> Path:
    """Return where observations are kept unless the user says otherwise.

    ``$FEWFIT_CACHE`` if it is set, else the platform's folder for caches; the file in it is
    ``observations.sqlite``.

    Raises
    ------
    StoreError
        If there is neither a ``$FEWFIT_CACHE`` nor a home folder.
    """
    named = os.environ.get("FEWFIT_CACHE")
    try:
        if named:
            folder = Path(named)
        elif sys.platform == "win32":
            local = os.environ.get("LOCALAPPDATA")
            folder = (Path(local) if local else Path.home() / "AppData/Local") / "fewfit"
        elif sys.platform == "darwin":
            folder = Path.home() / "Library/Caches/fewfit"
        else:
            cache = os.environ.get("XDG_CACHE_HOME")
            folder = (Path(cache) if cache else Path.home() / ".cache") / "fewfit"
    except RuntimeError as error:
        raise StoreError(
            "there is no home folder to keep the model's answers in; name a folder in "
            "$FEWFIT_CACHE, or a store, or keep nothing (store=None, --store none)"
        ) from error
    return folder / "observations.sqlite"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store, make it if needed, and prove that it can be written (StoreError)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        for place in (path, path.parent):  # SQLite would open it and fail at the first answer
            if not os.access(place, os.W_OK):
                raise PermissionError(f"{place} is read-only")
        connection = sqlite3.connect(
            path, timeout=_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
    except (OSError, ValueError, sqlite3.Error) as error:
        raise StoreError(
            f"the store {path} cannot be opened: {error}. Name another file, or a folder in "
            "$FEWFIT_CACHE"
        ) from error
    with closing(connection):
        try:
            _prepare(connection, path)
        except _BROKEN as error:
            raise StoreError(
                f"the store {path} cannot be used: {error}. Close whatever holds it, make it "
                "writable, or name another file"
            ) from error
        connection.isolation_level = "IMMEDIATE"
        yield connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(f"PRAGMA page_size={_PAGE}")  # of a file that is new
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("BEGIN IMMEDIATE")  # fails now, not after the first paid batch
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and tables:
        connection.execute("ROLLBACK")
        raise StoreError(f"{path} is a database of another program; name another file")
    if version > SCHEMA_VERSION:
        connection.execute("ROLLBACK")
        raise StoreError(
            f"the store {path} has schema {version}, this fewfit knows {SCHEMA_VERSION}; upgrade "
            "fewfit or name another file"
        )
    if version < SCHEMA_VERSION or not tables:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        for statement in _TABLES:
            connection.execute(statement)
    connection.execute("COMMIT")


def has_first_schema(connection: sqlite3.Connection) -> bool:
    """Return whether the file holds rows of the first schema, under the keys of the first."""
    found = query(
        connection, "SELECT COUNT(*) FROM sqlite_master WHERE name='observations' AND type='table'"
    )
    return bool(found[0][0])


def read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the rows that are there, of at most :data:`LOOKUP` keys."""
    pieces: dict[bytes, list[bytes]] = {}
    for key, data in query(
        connection,
        "SELECT a.key, p.data FROM answers a JOIN pieces p ON p.id BETWEEN a.first AND "
        f"a.first + a.n - 1 WHERE a.key IN ({_marks(keys)}) ORDER BY p.id",
        keys,
    ):
        pieces.setdefault(key, []).append(data if isinstance(data, bytes) else b"")
    return {key: b"".join(parts) for key, parts in pieces.items()}


def read_first_schema(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Any]:
    """Return the rows of the first schema that are there."""
    statement = f"SELECT key, answer FROM observations WHERE key IN ({_marks(keys)})"
    return dict(query(connection, statement, keys))


def width_of(connection: sqlite3.Connection, digest: bytes) -> int | None:
    """Return the length of the hidden states that are kept of a model; None if it is new."""
    found = query(connection, "SELECT width FROM models WHERE digest=?", (digest,))
    return found[0][0] if found else None


def write(
    connection: sqlite3.Connection,
    digest: bytes,
    name: str,
    width: int,
    rows: Mapping[bytes, bytes],
) -> None:
    """Write rows of one model in one transaction (sqlite3.Error)."""
    with connection:
        connection.execute(
            "INSERT OR IGNORE INTO models(digest, name, width) VALUES (?, ?, ?)",
            (digest, name, width),
        )
        [model] = connection.execute("SELECT id FROM models WHERE digest=?", (digest,)).fetchone()
        old = [
            found
            for keys in chunks(list(rows))
            for found in connection.execute(
                f"SELECT first, first + n - 1 FROM answers WHERE key IN ({_marks(keys)})", keys
            )
        ]
        connection.executemany("DELETE FROM pieces WHERE id BETWEEN ? AND ?", old)
        [last] = connection.execute("SELECT COALESCE(MAX(id), 0) FROM pieces").fetchone()
        answers, pieces = [], []
        for key, blob in rows.items():
            size = -(-len(blob) // -(-len(blob) // _PIECE))
            parts = [blob[i : i + size] for i in range(0, len(blob), size)]
            answers.append((key, model, last + 1, len(parts)))
            pieces += enumerate(parts, last + 1)
            last += len(parts)
        connection.executemany("INSERT INTO pieces VALUES (?, ?)", pieces)
        connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", answers)


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of what the file holds, free pages not counted."""
    pages, free, size = (
        query(connection, f"PRAGMA {name}")[0][0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def query(connection: sqlite3.Connection, statement: str, values: Sequence[Any] = ()) -> list[Any]:
    """Return the rows that a statement finds (StoreError if the file is damaged)."""
    try:
        return connection.execute(statement, values).fetchall()
    except _BROKEN as error:
        raise StoreError(
            f"the store is damaged beyond single rows, or gone ({error}); move the file away"
        ) from error


def chunks(items: Sequence[T]) -> Iterable[Sequence[T]]:
    """Cut a sequence into questions of at most :data:`LOOKUP` keys."""
    return (items[start : start + LOOKUP] for start in range(0, len(items), LOOKUP))


def _marks(keys: Sequence[bytes]) -> str:
    return ",".join("?" * len(keys))


def statistics(path: str | Path) -> dict[str, Any]:
    """Return what a store holds.

    Returns
    -------
    dict
        ``rows``: stored answers; ``bytes``: size of the file; ``models``: name -> stored answers
        of each frozen model. Rows of files that fewfit 0.1.0 began are under "(older)".

    Raises
    ------
    StoreError
        If the file is not a store.
    """
    with opened(Path(path)) as connection:
        models = dict(
            query(
                connection,
                "SELECT name, COUNT(*) FROM answers JOIN models ON models.id = model GROUP BY name"
                " ORDER BY name",
            )
        )
        if has_first_schema(connection):
            models["(older)"] = query(connection, "SELECT COUNT(*) FROM observations")[0][0]
    return {
        "rows": sum(models.values()),
        "bytes": Path(path).stat().st_size,
        "models": models,
    }


def prune(path: str | Path, keep_bytes: int) -> int:
    """Forget the answers that were written first until the rest fits; return how many were.

    Raises
    ------
    InputError
        If `keep_bytes` is negative.
    StoreError
        If the file is not a store, or cannot be written.
    """
    if keep_bytes < 0:
        raise InputError(f"keep_bytes: a size, not {keep_bytes}")
    with opened(Path(path)) as connection:
        gone = shrink(connection, keep_bytes)
        _compact(connection)
    return gone


def shrink(connection: sqlite3.Connection, keep_bytes: int) -> int:
    """Delete the oldest answers until the used pages fit; the file keeps its length."""
    gone = 0
    if used_bytes(connection) > keep_bytes and has_first_schema(connection):
        gone += query(connection, "SELECT COUNT(*) FROM observations")[0][0]
        _change(connection, "DROP TABLE observations")
    while used_bytes(connection) > keep_bytes:
        low, high = query(connection, "SELECT MIN(first), MAX(first) FROM answers")[0]
        if low is None:
            break
        share = min(0.9, 1.1 - keep_bytes / used_bytes(connection))
        cut = low + max(1, int(share * (high - low + 1)))
        gone += _change(connection, "DELETE FROM answers WHERE first < ?", cut)
        _change(
            connection,
            "DELETE FROM pieces WHERE id < (SELECT COALESCE(MIN(first), ?) FROM answers)",
            cut,
        )
    return gone


def drop(path: str | Path, model: str) -> int:
    """Forget every answer of the models whose name contains a text; return how many there were."""
    with opened(Path(path)) as connection:
        named = "SELECT id FROM models WHERE instr(name, ?) > 0"
        _change(
            connection,
            "DELETE FROM pieces WHERE id IN (SELECT pieces.id FROM answers JOIN pieces ON "
            f"pieces.id BETWEEN first AND first + n - 1 WHERE model IN ({named}))",
            model,
        )
        gone = _change(connection, f"DELETE FROM answers WHERE model IN ({named})", model)
        _change(connection, "DELETE FROM models WHERE instr(name, ?) > 0", model)
        _compact(connection)
    return gone


def clear(path: str | Path) -> int:
    """Forget everything; return how many answers there were."""
    with opened(Path(path)) as connection:
        gone = query(connection, "SELECT COUNT(*) FROM answers")[0][0]
        if has_first_schema(connection):
            gone += query(connection, "SELECT COUNT(*) FROM observations")[0][0]
            _change(connection, "DROP TABLE observations")
        for table in ("answers", "pieces", "models"):
            _change(connection, f"DELETE FROM {table}")
        _compact(connection)
    return gone


def _change(connection: sqlite3.Connection, statement: str, *values: Any) -> int:
    try:
        with connection:
            return max(0, connection.execute(statement, values).rowcount)
    except _BROKEN as error:
        raise StoreError(f"the store cannot be changed: {error}") from error


def _compact(connection: sqlite3.Connection) -> None:
    """Give free pages back to the disk; without room for a copy the file keeps its length."""
    connection.isolation_level = None
    try:
        connection.execute("VACUUM")
    except sqlite3.OperationalError:
        pass
    except _BROKEN as error:
        raise StoreError(f"the store is damaged: {error}; move the file away") from error
