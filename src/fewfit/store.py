"""Observations already paid for, on disk, keyed by content."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import sys
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import StoreError, StoreWarning
from fewfit.models.base import FrontModel, FrozenModel
from fewfit.observations import Batch, Observations, ScoreSpace, Status
from fewfit.prompts import Prompt

APPLICATION_ID = 0x66657766  # "fewf"
SCHEMA_VERSION = 1

_LOOKUP = 500
_TIMEOUT_SECONDS = 30.0
_HEADER = struct.Struct("<BIIfiBB")  # space, W, H, label mass, tokens, status, can be censored
_SPACES = [None, *ScoreSpace]


def default_path() -> Path:
    """Return where observations are kept unless the user says otherwise.

    ``$FEWFIT_CACHE`` if it is set, else the platform's folder for caches; the file in it is
    ``observations.sqlite``.
    """
    named = os.environ.get("FEWFIT_CACHE")
    if named:
        folder = Path(named)
    elif sys.platform == "win32":
        folder = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "fewfit"
    elif sys.platform == "darwin":
        folder = Path.home() / "Library/Caches/fewfit"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewfit"
    return folder / "observations.sqlite"


class StoredModel(FrontModel):
    """Any frozen model, with a store in front: what it answered once is never asked again.

    The key of an answer is a hash of the model's identity, the rendered prompt in its parts, and
    the label words; no text is written. Each row carries a checksum: a damaged row counts as not
    there, is reported with a :class:`StoreWarning`, and is asked and written again. Answers are
    committed batch by batch, before they are handed on, so that a killed process loses at most
    the batch that was in flight. Failed answers are not stored, nor those of which every score is
    but a bound.

    Parameters
    ----------
    model : FrozenModel
        Who is asked for what the store lacks.
    path : path
        The SQLite file; made, readable by its owner only, where there is none.

    Raises
    ------
    StoreError
        Before any query if the file is not a store, is of a newer version, read-only or locked;
        during a run if it can no longer be written. What was answered stays answered: rows that
        could not be written are kept in memory and written by the next call.

    Notes
    -----
    Rollback journal with ``synchronous=FULL``; the write-ahead log of SQLite before 3.51.3 can
    lose commits when several processes write.
    """

    def __init__(self, model: FrozenModel, path: str | Path) -> None:
        super().__init__(model)
        self.path = Path(path)
        self._unwritten: dict[bytes, bytes] = {}

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        keys = _keys(self.identity, prompts, words)
        with _opened(self.path) as connection:
            self._write(connection, {})
            missing: list[int] = []
            damaged = 0
            for start in range(0, len(prompts), _LOOKUP):
                chunk = range(start, min(start + _LOOKUP, len(prompts)))
                found = _read(connection, [keys[i] for i in chunk])
                rows = {i: _unpack(found[keys[i]], words) for i in chunk if keys[i] in found}
                damaged += sum(row is None for row in rows.values())
                hits = {i: row for i, row in rows.items() if row is not None and _known(row)}
                missing += [i for i in chunk if i not in hits]
                if hits:
                    yield (
                        np.fromiter(hits, dtype=np.intp),
                        _join(list(hits.values()), words),
                    )
            if damaged:
                warnings.warn(
                    f"{damaged} damaged rows in {self.path} are asked again",
                    StoreWarning,
                    stacklevel=2,
                )
            if not missing:
                return
            positions = np.array(missing, dtype=np.intp)
            asking: Any = self.model.stream([prompts[i] for i in missing], words)
            with closing(asking):  # a model that asks ahead stops when the store fails
                for local, answers in asking:
                    where = positions[local]
                    unknown = (answers.status == Status.FAILED) | answers.unlisted
                    self._write(
                        connection,
                        {
                            keys[where[j]]: _pack(answers, j)
                            for j in range(len(where))
                            if not unknown[j]
                        },
                    )
                    yield where, answers

    def input_embeddings(self) -> NDArray[np.float32]:
        return self.model.input_embeddings()

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> StoredModel:
        return StoredModel(self.model.with_soft_prompt(vectors), self.path)

    def count(self, prompts: Sequence[Prompt], words: Sequence[str]) -> int:
        """Return how many of these distinct prompts need not be asked; nothing is asked."""
        if not self.path.exists():
            return 0
        keys = _keys(self.identity, prompts, words)
        held = 0
        with _opened(self.path) as connection:
            for start in range(0, len(keys), _LOOKUP):
                found = _read(connection, keys[start : start + _LOOKUP])
                rows = (_unpack(blob, words) for blob in found.values())
                held += sum(row is not None and _known(row) for row in rows)
        return held

    def _write(self, connection: sqlite3.Connection, rows: dict[bytes, bytes]) -> None:
        self._unwritten.update(rows)
        if not self._unwritten:
            return
        try:
            with connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO observations VALUES (?, ?)",
                    self._unwritten.items(),
                )
        except sqlite3.Error as error:
            raise StoreError(
                f"the store {self.path} cannot be written ({error}); {len(self._unwritten)} "
                "answers are kept in memory. Make room or free the file and run again: nothing "
                "that was answered is asked again"
            ) from error
        self._unwritten.clear()


def statistics(path: str | Path) -> dict[str, int]:
    """Return the number of stored answers and the size of the file in bytes.

    Raises
    ------
    StoreError
        If the file is not a store.
    """
    with _opened(Path(path)) as connection:
        rows = connection.execute("SELECT COUNT(*) FROM observations").fetchone()[0]
    return {"rows": rows, "bytes": Path(path).stat().st_size}


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the store, make it if needed, and prove that it can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        for place in (path, path.parent):  # SQLite would open it and fail at the first answer
            if not os.access(place, os.W_OK):
                raise PermissionError(f"{place} is read-only")
        connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"the store {path} cannot be opened: {error}") from error
    with closing(connection):
        try:
            _prepare(connection, path)
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"the store {path} cannot be used: {error}. Close whatever holds it, make it "
                "writable, or name another file"
            ) from error
        connection.isolation_level = "IMMEDIATE"
        yield connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
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
    if not tables:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.execute(
            "CREATE TABLE observations (key BLOB PRIMARY KEY, answer BLOB NOT NULL) WITHOUT ROWID"
        )
    connection.execute("COMMIT")


def _keys(
    identity: Mapping[str, str], prompts: Sequence[Prompt], words: Sequence[str]
) -> list[bytes]:
    """Hash each prompt with everything else that decides its answer; no two inputs collide."""
    common = hashlib.blake2b(digest_size=20, person=b"fewfit-v1")
    common.update(_joined((*sum(sorted(identity.items()), ()), "", *words)))
    keys = []
    for prompt in prompts:
        digest = common.copy()
        digest.update(_joined([text for part in prompt.parts for text in part]))
        keys.append(digest.digest())
    return keys


def _joined(texts: Iterable[str]) -> bytes:
    """Join texts so that no two lists of texts give the same bytes: each after its length."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return b"".join(
        [piece for data in encoded for piece in (len(data).to_bytes(8, "little"), data)]
    )


def _read(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    marks = ",".join("?" * len(keys))
    query = f"SELECT key, answer FROM observations WHERE key IN ({marks})"
    try:
        return dict(connection.execute(query, keys))
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"the store is damaged beyond single rows ({error}); move the file away"
        ) from error


def _pack(answers: Observations, j: int) -> bytes:
    def raw(array: Any) -> bytes:
        return b"" if array is None else array[j].astype("<f4").tobytes()

    body = (
        _HEADER.pack(
            _SPACES.index(answers.space),
            0 if answers.scores is None else answers.scores.shape[1],
            0 if answers.hidden is None else answers.hidden.shape[1],
            float(answers.label_mass[j]),
            int(answers.n_tokens[j]),
            int(answers.status[j]),
            answers.censored is not None,
        )
        + raw(answers.scores)
        + raw(answers.hidden)
        + (b"" if answers.censored is None else np.packbits(answers.censored[j]).tobytes())
    )
    return body + zlib.crc32(body).to_bytes(4, "little")


def _unpack(blob: object, words: Sequence[str]) -> tuple[Any, ...] | None:
    """Return the fields of a stored row, or None if it is damaged."""
    if not isinstance(blob, bytes) or len(blob) < _HEADER.size + 4:
        return None
    body, checksum = blob[:-4], blob[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        return None
    space, n_words, n_hidden, mass, tokens, status, censors = _HEADER.unpack_from(body)
    scored = space != 0
    end = _HEADER.size + 4 * (n_words + n_hidden)
    if len(body) != end + censors * -(-n_words // 8) or (scored and n_words != len(words)):
        return None
    numbers = np.frombuffer(body[_HEADER.size : end], dtype="<f4")
    bits = np.frombuffer(body[end:], dtype=np.uint8)
    return (
        _SPACES[space],
        numbers[:n_words] if scored else None,
        numbers[n_words:] if n_hidden else None,
        mass,
        tokens,
        status,
        np.unpackbits(bits, count=n_words).astype(bool) if censors else None,
    )


def _known(row: tuple[Any, ...]) -> bool:
    """Whether a stored row has at least one score that is not a bound, if it has such."""
    censored = row[-1]
    return censored is None or not censored.size or not censored.all()


def _join(rows: Sequence[tuple[Any, ...]], words: Sequence[str]) -> Observations:
    spaces, scores, hidden, mass, tokens, status, censored = zip(*rows, strict=True)
    return Observations(
        columns=tuple(words),
        scores=None if scores[0] is None else np.stack(scores),
        space=spaces[0],
        hidden=None if hidden[0] is None else np.stack(hidden),
        label_mass=np.array(mass),
        n_tokens=np.array(tokens),
        status=np.array(status),
        asked=np.zeros(len(rows), dtype=bool),
        censored=None if censored[0] is None else np.stack(censored),
    )
