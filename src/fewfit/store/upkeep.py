"""What is in a store, and how to make it smaller."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, StoreError
from fewfit.store import file, tables


def statistics(path: str | Path) -> dict[str, Any]:
    """Return what a store holds; an index is read for it, not the answers.

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
    models: dict[str, int] = {}
    with file.opened(Path(path)) as connection:
        there = tables.tables_of(connection)
        if "answers" in there:
            for name, rows in connection.execute(
                "SELECT COALESCE(name, '(unknown)') AS shown, COUNT(*) FROM answers "
                "LEFT JOIN models ON models.id = model GROUP BY shown ORDER BY shown"
            ):
                models[str(name)] = rows
        if "observations" in there:
            [models["(older)"]] = connection.execute("SELECT COUNT(*) FROM observations").fetchone()
        size = Path(path).stat().st_size
    return {"rows": sum(models.values()), "bytes": size, "models": models}


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
    with file.writing(Path(path)) as connection:
        gone = shrink(connection, keep_bytes)
    _compact(Path(path))
    return gone


def drop(path: str | Path, model: str) -> int:
    """Forget every answer of the models whose name contains a text; return how many there were.

    Raises
    ------
    InputError
        If the text is empty, which every name contains.
    StoreError
        If the file is not a store, or cannot be written.
    """
    if not model.strip():
        raise InputError("model: part of a name that 'fewfit cache' shows is needed")
    named = "SELECT id FROM models WHERE instr(name, ?) > 0"
    with file.writing(Path(path)) as connection:
        connection.execute(
            "DELETE FROM pieces WHERE id IN (SELECT pieces.id FROM answers JOIN pieces ON "
            f"pieces.id BETWEEN first AND first + n - 1 WHERE model IN ({named}))",
            (model,),
        )
        gone = connection.execute(f"DELETE FROM answers WHERE model IN ({named})", (model,))
        rows = gone.rowcount
        connection.execute("DELETE FROM models WHERE instr(name, ?) > 0", (model,))
    _compact(Path(path))
    return rows


def clear(path: str | Path) -> int:
    """Forget everything; return how many answers there were.

    Raises
    ------
    StoreError
        If the file is not a store, or cannot be written.
    """
    with file.writing(Path(path)) as connection:
        [gone] = connection.execute("SELECT COUNT(*) FROM answers").fetchone()
        if tables.has_first_schema(connection):
            gone += connection.execute("SELECT COUNT(*) FROM observations").fetchone()[0]
            connection.execute("DROP TABLE observations")
        for table in ("answers", "pieces", "models"):
            connection.execute(f"DELETE FROM {table}")
    _compact(Path(path))
    return gone


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the size of what the file holds, free pages not counted."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def shrink(connection: sqlite3.Connection, keep_bytes: int) -> int:
    """Delete the oldest answers until the used pages fit; the file keeps its length.

    Returns
    -------
    int
        How many were deleted.
    """
    gone = 0
    if used_bytes(connection) > keep_bytes and tables.has_first_schema(connection):
        gone += connection.execute("SELECT COUNT(*) FROM observations").fetchone()[0]
        connection.execute("DROP TABLE observations")
    while (used := used_bytes(connection)) > keep_bytes:
        low, high = connection.execute("SELECT MIN(first), MAX(first) FROM answers").fetchone()
        if low is None:
            break
        share = min(0.9, 1.02 - keep_bytes / used)
        cut = low + max(1, int(share * (high - low + 1)))
        gone += connection.execute("DELETE FROM answers WHERE first < ?", (cut,)).rowcount
        connection.execute(
            "DELETE FROM pieces WHERE id < (SELECT COALESCE(MIN(first), ?) FROM answers)",
            (high + 1,),
        )
    return gone


def _compact(path: Path) -> None:
    """Give free pages back to the disk; without room for a copy the file keeps its length."""
    with file.opened(path) as connection:
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if "malformed" in str(error):
                raise StoreError(f"the store {path} is damaged: {error}; move it away") from error
