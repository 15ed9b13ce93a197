"""What stands in a store's file: rows of answers, cut into pieces, and whose they are.

A row is cut into pieces of a tenth of a page, so that a page is filled whatever the length of the
hidden states. Pieces are numbered in the order in which they were written. ``observations`` is what
the first schema had: where there is one, it is read, and no longer written.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LOOKUP = 500
"""Keys in one question to SQLite, which allows 999 in its oldest builds."""

_PER_PAGE = 10
_CELL = 30  # what SQLite adds to a piece, rounded up
_WIDTH_BITS = 24


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
