"""What the page keeps: tasks, their rows and every change of a label, in one SQLite file."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, StoreError
from fewfit.serve.tasks import PAGE_FILE

VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LONGEST = 200  # of the name of a class, or of a label word

_TABLES = f"""
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    model TEXT NOT NULL,
    columns TEXT NOT NULL,
    text_columns TEXT NOT NULL,
    label_column TEXT NOT NULL,
    words TEXT NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    fitted INTEGER,
    result TEXT
);
CREATE TABLE row (
    task INTEGER NOT NULL REFERENCES task (id),
    place INTEGER NOT NULL,
    cells TEXT NOT NULL,
    text TEXT NOT NULL,
    label TEXT,
    sure INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, place)
);
CREATE INDEX row_label ON row (task, label);
CREATE TABLE change (
    id INTEGER PRIMARY KEY,
    task INTEGER NOT NULL REFERENCES task (id),
    place INTEGER NOT NULL,
    before TEXT,
    after TEXT,
    at REAL NOT NULL
);
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class Kept:
    """A task as it is kept.

    Attributes
    ----------
    model : str
        The frozen model, as :func:`fewfit.load_model` knows it.
    columns : list of str
        Of the file that it was made of.
    text_columns : list of str
    label_column : str
        One of `columns`, or a new one.
    words : dict of str to list of str
        The label words of each class.
    revision : int
        How many times anything that a fit depends on has changed.
    fitted : int or None
        The revision that was fitted last.
    result : dict or None
        What that fit has found.
    """

    id: int
    name: str
    model: str
    columns: list[str]
    text_columns: list[str]
    label_column: str
    words: dict[str, list[str]]
    revision: int
    fitted: int | None
    result: dict[str, Any] | None


@dataclass(frozen=True)
class NewRow:
    """A row of a file: its cells as text, what is read of it, and its label if it has one."""

    cells: list[str]
    text: str
    label: str | None


class Records:
    """The tasks of a workspace. Each call is one transaction, so that threads may share it.

    Parameters
    ----------
    folder : path
        Made if it is not there.

    Raises
    ------
    StoreError
        If the file is of a later version, or no such file.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / PAGE_FILE
        if not self.path.exists():  # what SQLite makes itself anybody can read
            with suppress(OSError):  # of which SQLite says why
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        with self._open() as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    db.execute(statement)
            elif found != VERSION:
                raise StoreError(
                    f"{self.path}: written by a later fewfit (version {found} of the file, this "
                    f"one knows {VERSION}); update fewfit, or name another workspace"
                )

    def names(self) -> list[str]:
        """Return the names of all tasks, sorted."""
        with self._open() as db:
            return [name for (name,) in db.execute("SELECT name FROM task ORDER BY name")]

    def create(
        self,
        name: str,
        rows: Sequence[NewRow],
        *,
        model: str,
        columns: Sequence[str],
        text_columns: Sequence[str],
        label_column: str,
    ) -> Kept:
        """Keep a new task; its classes are those of the rows, spelled by their own names."""
        check_name(name)
        classes = sorted({row.label for row in rows if row.label is not None})
        words = {label: [spelled(label)] for label in classes}
        check_words(words)
        given = [list(columns), list(text_columns)]
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                done = db.execute(
                    "INSERT INTO task (name, model, columns, text_columns, label_column, words) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (name, model, *map(json.dumps, given), label_column, json.dumps(words)),
                )
            except sqlite3.IntegrityError:
                raise InputError(f"name: there is a task {name!r} already; take another") from None
            db.executemany(
                "INSERT INTO row (task, place, cells, text, label) VALUES (?, ?, ?, ?, ?)",
                (
                    (done.lastrowid, place, json.dumps(row.cells), row.text, row.label)
                    for place, row in enumerate(rows)
                ),
            )
        return self.get(name)

    def get(self, name: str) -> Kept:
        """Return a task (KeyError)."""
        with self._open() as db:
            return _get(db, name)

    def counts(self, task: Kept) -> dict[str | None, int]:
        """Return how many rows each class has; None counts those without a label."""
        query = "SELECT label, COUNT(*) FROM row WHERE task = ? GROUP BY label"
        with self._open() as db:
            found = dict(db.execute(query, (task.id,)))
        return {**dict.fromkeys(task.words, 0), None: 0, **found}

    def labelled(self, task: Kept) -> list[tuple[int, str, str]]:
        """Return place, text and label of the rows that have one."""
        query = "SELECT place, text, label FROM row WHERE task = ? AND label IS NOT NULL"
        with self._open() as db:
            return list(db.execute(f"{query} ORDER BY place", (task.id,)))

    def pool(self, task: Kept, n: int) -> list[tuple[int, str]]:
        """Return place and text of at most `n` rows without a label, spread over the file.

        Which they are does not change as others are labelled: their answers are paid for.
        """
        query = (
            "SELECT place, text FROM row WHERE task = ? AND label IS NULL "
            "ORDER BY (place * 2654435761) % 4294967296 LIMIT ?"
        )
        with self._open() as db:
            return list(db.execute(query, (task.id, n)))

    def rows(
        self,
        task: Kept,
        *,
        label: str | None = None,
        blank: bool = False,
        search: str = "",
        places: Sequence[int] | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[int, list[dict[str, Any]]]:
        """Return how many rows there are of a kind, and some of them."""
        where, values = "task = ?", [task.id]
        given: list[Any] = list(values)
        if label is not None:
            where += " AND label = ?"
            given.append(label)
        if blank:
            where += " AND label IS NULL"
        if search:
            where += " AND has(text, ?)"
            given.append(search.casefold())
        if places is not None:
            where += " AND place IN (SELECT value FROM json_each(?))"
            given.append(json.dumps(list(places)))
        with self._open() as db:
            # LIKE knows the case of ASCII alone.
            db.create_function("has", 2, lambda text, part: part in text.casefold())
            db.execute("BEGIN")
            (n,) = db.execute(f"SELECT COUNT(*) FROM row WHERE {where}", given).fetchone()
            found = db.execute(
                f"SELECT place, text, label, sure FROM row WHERE {where} "
                "ORDER BY place LIMIT ? OFFSET ?",
                (*given, limit, offset),
            )
            names = ("place", "text", "label", "sure")
            return n, [dict(zip(names, row, strict=True)) for row in found]

    def table(self, task: Kept) -> list[tuple[list[str], str | None]]:
        """Return the cells and the label of every row, in the order of the file."""
        query = "SELECT cells, label FROM row WHERE task = ? ORDER BY place"
        with self._open() as db:
            return [(json.loads(cells), label) for cells, label in db.execute(query, (task.id,))]

    def set_label(self, name: str, place: int, label: str | None) -> Kept:
        """Give a row a label, or none (KeyError, InputError).

        The label that it has already says that a person has looked again, and is sure.
        """
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            task = _get(db, name)
            if label is not None and label not in task.words:
                raise InputError(f"label: {label!r:.80} is no class of {name!r}; add it first")
            before = _label(db, task, place)
            if before != label:
                db.execute(
                    "INSERT INTO change (task, place, before, after, at) VALUES (?, ?, ?, ?, ?)",
                    (task.id, place, before, label, time.time()),
                )
                _write(db, task, place, label)
            else:
                query = "UPDATE row SET sure = 1 WHERE task = ? AND place = ?"
                db.execute(query, (task.id, place))
            return _get(db, name)

    def undo(self, name: str) -> tuple[Kept, int]:
        """Take the last change of a label back; return the place of its row (InputError)."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            task = _get(db, name)
            query = "SELECT id, place, before FROM change WHERE task = ? ORDER BY id DESC LIMIT 1"
            last = db.execute(query, (task.id,)).fetchone()
            if last is None:
                raise InputError("undo: no label was changed here")
            if last[2] is not None and last[2] not in task.words:
                raise InputError(f"undo: the class {last[2]!r} is no more; add it first")
            db.execute("DELETE FROM change WHERE id = ?", (last[0],))
            _write(db, task, last[1], last[2])
            return _get(db, name), last[1]

    def set_words(self, name: str, words: Mapping[str, Sequence[str]]) -> Kept:
        """Replace the classes and their label words; a class that a row has must stay."""
        clean = {label.strip(): [w.strip() for w in own] for label, own in words.items()}
        clean = {label: own or [spelled(label)] for label, own in clean.items()}
        check_words(clean)
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            task = _get(db, name)
            used = db.execute("SELECT DISTINCT label FROM row WHERE task = ?", (task.id,))
            for (label,) in used.fetchall():
                if label is not None and label not in clean:
                    raise InputError(f"words: rows have the class {label!r}; relabel them first")
            if clean != task.words:
                db.execute(
                    "UPDATE task SET words = ?, revision = revision + 1 WHERE id = ?",
                    (json.dumps(clean), task.id),
                )
            return _get(db, name)

    def set_result(self, task: Kept, result: Mapping[str, Any]) -> None:
        """Keep what a fit of this revision has found."""
        with self._open() as db:
            db.execute(
                "UPDATE task SET fitted = ?, result = ? WHERE id = ?",
                (task.revision, json.dumps(result), task.id),
            )

    def delete(self, name: str) -> None:
        """Delete a task, its texts and its labels, from the file's bytes too (KeyError)."""
        with self._open() as db:
            db.execute("PRAGMA secure_delete = ON")
            db.execute("BEGIN IMMEDIATE")
            task = _get(db, name)
            for table in ("change", "row"):
                db.execute(f"DELETE FROM {table} WHERE task = ?", (task.id,))
            db.execute("DELETE FROM task WHERE id = ?", (task.id,))
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Open the file; what was begun is committed at the end, or undone by an error."""
        try:
            with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as db:
                db.execute("PRAGMA foreign_keys = ON")
                db.execute("PRAGMA synchronous = FULL")
                yield db
                if db.in_transaction:
                    db.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be used: {error}") from error


def check_name(name: str) -> None:
    """Refuse what is no name of a task of the page (InputError)."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"name: {name!r:.80} is no name of a task: letters, digits, - and _, at most 64"
        )


def spelled(label: str) -> str:
    """Return the label word of a class that has no other."""
    return label.replace("_", " ")


def check_words(words: Mapping[str, Sequence[str]]) -> None:
    """Refuse classes or label words that the model could not tell apart (InputError)."""
    from fewfit.prompts import Verbalizer
    from fewfit.prompts.labels import check_distinct

    for text in (*words, *(word for own in words.values() for word in own)):
        if not text.strip() or len(text) > _LONGEST or not text.isprintable():
            raise InputError(
                f"words: {text!r:.80} is no name of a class, or label word: expected a line of 1 "
                f"to {_LONGEST} characters; look whether this is the column of the labels"
            )
    check_distinct(list(words), where=lambda i: f"class {i + 1}", name="words")
    if len(words) > 1:
        Verbalizer({label: list(own) for label, own in words.items()})


def _get(db: sqlite3.Connection, name: str) -> Kept:
    row = db.execute("SELECT * FROM task WHERE name = ? COLLATE BINARY", (name,)).fetchone()
    if row is None:
        raise KeyError(name)
    id, name, model, columns, texts, label, words, revision, fitted, result = row
    return Kept(
        id,
        name,
        model,
        json.loads(columns),
        json.loads(texts),
        label,
        json.loads(words),
        revision,
        fitted,
        None if result is None else json.loads(result),
    )


def _label(db: sqlite3.Connection, task: Kept, place: int) -> str | None:
    query = "SELECT label FROM row WHERE task = ? AND place = ?"
    row = db.execute(query, (task.id, place)).fetchone()
    if row is None:
        raise KeyError(place)
    return row[0]


def _write(db: sqlite3.Connection, task: Kept, place: int, label: str | None) -> None:
    query = "UPDATE row SET label = ?, sure = 0 WHERE task = ? AND place = ?"
    db.execute(query, (label, task.id, place))
    db.execute("UPDATE task SET revision = revision + 1 WHERE id = ?", (task.id,))
