"""A frozen model with a store in front of it."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError, StoreError, StoreWarning
from fewfit.models.base import FrontModel, FrozenModel
from fewfit.observations import Batch, Observations, unanswered
from fewfit.prompts import Prompt
from fewfit.store import file
from fewfit.store.desk import Desk, Run, desk_of
from fewfit.store.rows import (
    Row,
    answer_keys,
    first_keys,
    join,
    knowable,
    model_digest,
    pack,
    unpack,
)

LIMIT = "FEWFIT_CACHE_LIMIT"


class StoredModel(FrontModel):
    """Any frozen model, with a store in front: what it answered once is never asked again.

    The key of an answer is a hash of the model's identity, the rendered prompt in its parts, and
    the label words; no text is written. Each row carries a checksum: a damaged row counts as not
    there, is reported with a :class:`StoreWarning`, and is asked and written again. Answers are
    committed before they are handed on: batch by batch, or together where they arrive faster than
    the disk takes to commit, so that a killed process loses at most the batch that was in flight
    and those of the time that one commit takes. Answers that failed, hold a number that is not
    finite, or nothing but bounds are not stored.

    Any number of threads may ask one or several of these on one file: what one of them is asking,
    the others wait for. Processes share what is stored, not what is in flight.

    Parameters
    ----------
    model : FrozenModel
        Who is asked for what the store lacks.
    path : path
        The SQLite file; made, readable by its owner only, where there is none. If the environment
        has ``FEWFIT_CACHE_LIMIT`` (bytes, or as in ``500MB``), the oldest answers make room once
        the file holds more.

    Raises
    ------
    StoreError
        Before any query if the file is not a store, is of a newer version, read-only or locked;
        during a run if it can no longer be written. Rows that could not be written are kept in
        memory and written by the next call in this process; they are lost when it ends.

    Notes
    -----
    Rollback journal with ``synchronous=FULL``; the write-ahead log of SQLite before 3.51.3 can
    lose commits when several processes write. Hidden states of another length than those that are
    stored of the same model are another model's: such rows count as failed and are not stored.
    """

    def __init__(self, model: FrozenModel, path: str | Path) -> None:
        super().__init__(model)
        self.path = Path(path)

    @cached_property
    def _desk(self) -> Desk:
        return desk_of(self.path)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        with file.opened(self.path) as connection:
            asking = _Pass(self, connection, prompts, words)
            try:
                yield from asking.batches()
            finally:
                asking.end()

    def input_embeddings(self) -> NDArray[np.float32]:
        return self.model.input_embeddings()

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> StoredModel:
        return StoredModel(self.model.with_soft_prompt(vectors), self.path)

    def count(self, prompts: Sequence[Prompt], words: Sequence[str]) -> int:
        """Return how many of these distinct prompts need not be asked; nothing is asked."""
        if not self.path.exists():
            return 0
        with file.opened(self.path) as connection:
            looked = _Pass(self, connection, prompts, words)
            return sum(len(rows) for rows in looked.look_up(range(len(prompts))))


class _Pass:
    """One pass over prompts: look up, ask what is missing, wait for what others ask."""

    def __init__(
        self,
        owner: StoredModel,
        connection: sqlite3.Connection,
        prompts: Sequence[Prompt],
        words: Sequence[str],
    ) -> None:
        self._model, self._path, self._desk = owner.model, owner.path, owner._desk
        self._connection, self._prompts, self._words = connection, prompts, words
        identity, given = dict(owner.identity), owner.capabilities
        pairs = given.pairs and len(prompts) > 0 and len(prompts[0].fields) == 2
        if pairs:  # whose hidden states have a length of their own
            identity["pairs"] = "yes"
        self._digest, self._name = model_digest(identity), _name(identity)
        self._keys = answer_keys(owner.identity, prompts, words)
        self._old_keys: list[bytes] = []
        if file.has_first_schema(connection):
            self._old_keys = first_keys(owner.identity, prompts, words)
        self._space, self._hidden = given.scores, given.hidden
        self._width = file.width_of(connection, self._digest)
        self._run = Run()
        self._buffer: dict[bytes, bytes] = {}
        self._due = 0.0  # when the next commit may begin: commits take half the time at most
        self._limit = _limit()
        self.damaged = 0

    def batches(self) -> Iterator[Batch]:
        self._write_what_is_left()
        missing: list[int] = []
        for rows in self.look_up(range(len(self._prompts)), missing):
            yield self._batch(rows)
        if self.damaged:
            warnings.warn(
                f"{self.damaged} damaged rows in {self._path} are asked again",
                StoreWarning,
                stacklevel=4,
            )
        while missing:
            mine = self._desk.claim(self._run, [self._keys[i] for i in missing])
            ours = [i for i in missing if self._keys[i] in mine]
            missing = [i for i in missing if self._keys[i] not in mine]
            to_ask: list[int] = []
            for rows in self.look_up(ours, to_ask):  # stored between our look and our claim
                yield self._batch(rows)
            self._desk.release(self._run, mine - {self._keys[i] for i in to_ask})
            if to_ask:
                yield from self._ask(to_ask)
            elif missing:
                self._desk.wait(self._run, [self._keys[i] for i in missing])

    def look_up(
        self, positions: Sequence[int], missing: list[int] | None = None
    ) -> Iterator[dict[int, Row]]:
        """Yield what is stored; positions of what is not are added to `missing`."""
        for chunk in file.chunks(positions):
            found: dict[bytes, Any] = file.read(self._connection, [self._keys[i] for i in chunk])
            rows = {i: self._row(found[self._keys[i]]) for i in chunk if self._keys[i] in found}
            rest = [i for i in chunk if i not in rows]
            if rest and self._old_keys:
                old = [self._old_keys[i] for i in rest]
                found = file.read_first_schema(self._connection, old)
                rows |= {
                    i: self._row(found[self._old_keys[i]])
                    for i in rest
                    if self._old_keys[i] in found
                }
            self.damaged += sum(row is None for row in rows.values())
            hits = {i: row for i, row in rows.items() if row is not None and not row.only_bounds}
            if missing is not None:
                missing += [i for i in chunk if i not in hits]
            if hits:
                yield hits

    def _row(self, blob: object) -> Row | None:
        """Return a row that goes with the others; None if it does not, or is damaged."""
        row = unpack(blob, self._words)
        if row is None or row.space != self._space or (row.hidden is not None) != self._hidden:
            return None
        if self._width is None:
            self._width = row.width
        return row if row.width == self._width else None

    def _batch(self, rows: Mapping[int, Row]) -> Batch:
        return np.fromiter(rows, dtype=np.intp), join(list(rows.values()), self._words)

    def _ask(self, positions: Sequence[int]) -> Iterator[Batch]:
        where = np.array(positions, dtype=np.intp)
        waiting: list[Batch] = []
        asking: Any = self._model.stream([self._prompts[i] for i in positions], self._words)
        with closing(asking):  # a model that asks ahead stops when the store fails
            for local, answers in asking:
                for batch in self._checked(where[local], answers):
                    self._keep(*batch)
                    waiting.append(batch)
                if time.monotonic() >= self._due:
                    self._commit()
                    yield from waiting
                    waiting.clear()
            self._commit()
            yield from waiting
        self._desk.release(self._run, [self._keys[i] for i in positions])

    def _checked(self, where: NDArray[np.intp], answers: Observations) -> Iterator[Batch]:
        """Let through what goes with what is stored; other lengths are other models' answers."""
        H = 0 if answers.hidden is None else answers.hidden.shape[1]
        known = knowable(answers)
        if self._width is None and known.any():
            self._width = H
        if self._width == H or not known.any():
            yield where, answers
            return
        warnings.warn(
            f"{known.sum()} answers have hidden states of {H} numbers and those in {self._path} "
            f"of {self._width}: another model answers under the same name. They count as failed; "
            "forget the old ones with 'fewfit cache drop NAME', or give this model a fingerprint "
            "of its own",
            StoreWarning,
            stacklevel=6,
        )
        yield where, unanswered(self._words, len(where))

    def _keep(self, where: NDArray[np.intp], answers: Observations) -> None:
        for j in np.flatnonzero(knowable(answers)):
            self._buffer[self._keys[where[j]]] = pack(answers, int(j))

    def _commit(self) -> None:
        """Write what was answered, then let others find it (StoreError)."""
        rows, self._buffer = self._buffer, {}
        if not rows:
            return
        kind = (self._digest, self._name, self._width or 0)
        begun = time.monotonic()
        with self._desk.writing:
            self._write(kind, rows)
        self._desk.release(self._run, rows)
        ended = time.monotonic()
        self._due = ended + (ended - begun)

    def _write_what_is_left(self) -> None:
        with self._desk.writing:
            for kind in list(self._desk.unwritten):
                self._write(kind, self._desk.unwritten.pop(kind))

    def _write(self, kind: tuple[bytes, str, int], rows: dict[bytes, bytes]) -> None:
        try:
            file.write(self._connection, *kind, rows)
            if self._limit is not None and file.used_bytes(self._connection) > self._limit:
                file.shrink(self._connection, int(0.9 * self._limit))
        except sqlite3.Error as error:
            kept = self._desk.unwritten.setdefault(kind, {})
            kept.update(rows)
            raise StoreError(
                f"the store {self._path} cannot be written ({error}); {len(kept)} answers are "
                "kept in memory, until this process ends. Make room or free the file and run "
                "again: nothing that is in the store, or in memory, is asked again"
            ) from error

    def end(self) -> None:
        """Keep what was answered, however the pass ended, and let others ask the rest."""
        try:
            self._commit()
        finally:
            self._desk.release(self._run, list(self._run.held))


def _name(identity: Mapping[str, str]) -> str:
    """Say an identity to a person: its parts that are no hashes."""
    return " ".join(value for value in identity.values() if value and len(value) < 40)


def _limit() -> int | None:
    value = os.environ.get(LIMIT)
    return None if not value else read_size(value)


def read_size(text: str) -> int:
    """Return a size in bytes, given as in ``500MB``, ``2 GiB`` or ``1000000`` (InputError)."""
    units = {"": 1, "B": 1}
    units |= {f"{p}B": 1000**i for i, p in enumerate("KMGT", 1)}
    units |= {f"{p}IB": 1024**i for i, p in enumerate("KMGT", 1)}
    number = text.strip().upper().rstrip("KMGTIB ")
    unit = text.strip().upper()[len(number) :].strip()
    try:
        size = float(number) * units[unit]
        return int(size)
    except (ValueError, KeyError, OverflowError):
        raise InputError(f"{text!r} is not a size; write for example 500MB or 2GiB") from None
