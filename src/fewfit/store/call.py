"""One call of a stored model: look up, ask what is missing, wait for what others ask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import BudgetExceededError, StoreError, StoreWarning
from fewfit.models.base import FrozenModel
from fewfit.models.similarity import is_pair
from fewfit.models.streams import rest
from fewfit.observations import Batch, Observations, Status, answered_whole, unanswered
from fewfit.prompts import Prompt
from fewfit.store import file, tables, upkeep
from fewfit.store.desk import Run, desk_of
from fewfit.store.rows import FirstKeys, Form, Found, Keys, model_digest, pack, sound, unpack
from fewfit.store.sizes import check_room, default_limit
from fewfit.store.spill import read_spilled, stranded
from fewfit.store.tables import Kind

_FIRST_SLICE = 128
_LAST_SLICE = 4096
_SHARED_SLICES = (8, 256)
_MOST_SECONDS = 0.05
_KEPT = 0.9  # of the limit, so that room is not made at each commit


class Call:
    """One call of a stored model: what it found, what it asks, what it has yet to write."""

    def __init__(
        self,
        model: FrozenModel,
        path: Path,
        prompts: Sequence[Prompt],
        words: Sequence[str],
        max_bytes: int | None,
    ) -> None:
        self.model, self.path = model, path
        self.prompts, self.words = prompts, tuple(words)
        self.limit = default_limit() if max_bytes is None else max_bytes
        identity, given = dict(model.identity), model.capabilities
        self.key, self.first_key = Keys(identity, words), FirstKeys(identity, words)
        if given.pairs and len(prompts) and is_pair(prompts[0]):
            identity["pairs"] = "yes"  # whose hidden states have a length of their own
        self.kind = Kind(model_digest(identity), _name(identity), 0)
        self.form = Form(given.scores)
        self.desk = desk_of(path)
        self.asking = Run()
        self.missing: list[int] = []
        self.replaced: set[bytes] = set()  # keys under which no good row is stored
        self.damaged = self.foreign = self.refused = self.answered = 0
        self.held: list[Batch] = []
        self.due = 0.0
        self.is_shared = False

    def run(self) -> Iterator[Batch]:
        for found in self.stored():
            yield from _batch(found)
        self._warn_of_rows()
        if not self.missing:
            return
        self._prepare()
        try:
            yield from self._settle()
        except BudgetExceededError as error:
            left = len(self.missing) - self.answered
            raise BudgetExceededError(
                f"{error}: {self.answered} prompts were answered now and are stored, {left} are "
                "left. Run again to go on from there",
                self.answered,
                left,
            ) from error
        finally:
            self._warn_of_rows()

    def stored(self) -> Iterator[Found]:
        """Look all prompts up, some at a time; the others are `missing` then."""
        for chunk in tables.chunks(range(len(self.prompts))):
            found = self._look({i: self.key(self.prompts[i]) for i in chunk})
            whole = set(found.positions)
            self.missing += [i for i in chunk if i not in whole]
            yield found

    def _look(self, keys: Mapping[int, bytes]) -> Found:
        """Read the rows under some keys, and note which of them are not good."""
        with file.opened(self.path) as connection:
            there = tables.tables_of(connection)
            stored: dict[bytes, bytes] = {}
            old: dict[bytes, Any] = {}
            firsts: dict[int, bytes] = {}
            if "answers" in there:
                self._expect(tables.width_of(connection, self.kind.digest))
                stored = tables.read(connection, list(keys.values()))
            if "observations" in there and self.first_key.are_safe:
                rest = (i for i, key in keys.items() if key not in stored)
                firsts = {i: self.first_key(self.prompts[i]) for i in rest}
                old = tables.read_first_schema(connection, list(firsts.values()))
        wanted = set(keys.values())
        stored |= {key: row for key, row in self._unwritten() if key in wanted}
        rows: dict[int, tuple[bytes, object]] = {
            i: (key, stored[key]) for i, key in keys.items() if key in stored
        }
        rows |= {i: (b"", old[key]) for i, key in firsts.items() if key in old and i not in rows}
        found = unpack(rows, self.words, self.form)
        if found.answers is not None:
            self._note(found.answers)
        # What was said already is not said again when it is looked at again.
        self.damaged += sum(keys[i] not in self.replaced for i in found.damaged)
        self.foreign += sum(keys[i] not in self.replaced for i in found.foreign)
        self.replaced |= {keys[i] for i in (*found.damaged, *found.foreign, *found.unlisted)}
        return found

    def _prepare(self) -> None:
        """Before anything is paid: prove that the store can be written, and write what waits."""
        numbers = (self.form.width or 0) + len(self.words)
        check_room(self.path, len(self.missing), tables.row_bytes(numbers), self.limit)
        spills = read_spilled(self.path)
        with self.desk.writing:
            with file.writing(self.path) as connection:
                for kind, rows in [
                    *((one.kind, one.rows) for one in spills),
                    *self.desk.unwritten.items(),
                ]:
                    if kind is not None:  # in place of what stands there: that was asked anew
                        tables.write(connection, kind, rows, instead=rows)
                tables.write(connection, self.kind, {})
            self.desk.unwritten.clear()
            for one in spills:
                one.place.unlink(missing_ok=True)

    def _settle(self) -> Iterator[Batch]:
        """Ask what is missing, slice by slice, and wait for what other threads are asking."""
        self.asking.resume()
        todo = np.array(self.missing, dtype=np.intp)
        waiting: list[int] = []
        size, is_shuffled = _FIRST_SLICE, False
        while len(todo) or waiting:
            if not len(todo):
                self.desk.wait([self.key(self.prompts[i]) for i in waiting])
                todo, waiting = np.array(waiting, dtype=np.intp), []
            if self.is_shared:
                least, most = _SHARED_SLICES
                size = min(max(len(todo) // 16, least), most)
                if not is_shuffled:
                    todo, is_shuffled = np.random.default_rng().permutation(todo), True
            some, todo = todo[:size], todo[size:]
            keys = {i: self.key(self.prompts[i]) for i in some.tolist()}
            taken = self.desk.claim(list(keys.values()), self.asking)
            own = {i: key for (i, key), mine in zip(keys.items(), taken, strict=True) if mine}
            waiting += [i for i in keys if i not in own]
            try:
                yield from self._fill(own)
            finally:
                self.desk.release(own.values(), self.asking)
            size = min(2 * size, _LAST_SLICE)

    def _fill(self, keys: Mapping[int, bytes]) -> Iterator[Batch]:
        """Answer what this call claimed: from the store if it came there meanwhile, or paid."""
        whole: set[int] = set()
        for some in tables.chunks(list(keys)):
            found = self._look({i: keys[i] for i in some})
            whole |= set(found.positions)
            for batch in _batch(found):
                yield from self._hand_on(batch)
        asked = [i for i in keys if i not in whole]
        if not asked:
            return
        where = np.array(asked, dtype=np.intp)
        asking: Any = self.model.stream([self.prompts[i] for i in asked], self.words)
        with closing(asking):  # a model that asks ahead stops when the store fails
            try:
                for local, answers in asking:
                    self.held.append(self._believed(where[local], answers))
                    if time.monotonic() >= self.due:
                        yield from self._flush(keys)
            except GeneratorExit:
                raise  # nothing is held while the caller has the word
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):  # while rows were written, more came
                    self.held += [self._believed(where[i], answers) for i, answers in rest(asking)]
                yield from self._flush(keys)
                raise
        yield from self._flush(keys)

    def _believed(self, positions: NDArray[np.intp], answers: Observations) -> Batch:
        """Return a batch as far as it can be believed: whole rows, of the length that is known."""
        answers = answered_whole(answers)
        given = 0 if answers.hidden is None else answers.hidden.shape[1]
        good = sound(answers)
        if not good.any():
            return positions, answers
        if self.form.width is None or self.form.width == given:
            self._note(answers)
            return positions, answers
        self.refused += int(good.sum())
        reason = f"hidden states of length {given}; of this model {self.form.width} are stored"
        blank = unanswered(self.words, len(positions), [reason] * len(positions))
        return positions, replace(blank, asked=answers.asked, n_tokens=answers.n_tokens)

    def _flush(self, keys: Mapping[int, bytes]) -> Iterator[Batch]:
        """Write what is held, and hand it on."""
        if not self.held:
            return
        start = time.monotonic()
        self._write(
            {
                keys[int(i)]: pack(keys[int(i)], answers, j)
                for positions, answers in self.held
                for j, (i, good) in enumerate(zip(positions, sound(answers), strict=True))
                if good
            }
        )
        batches, self.held = self.held, []
        end = time.monotonic()
        # Commits take a sixth of the time where the disk is fast; nothing is held back for long.
        self.due = end + min(_MOST_SECONDS, 5 * (end - start))
        for positions, answers in batches:
            self.desk.release((keys[int(i)] for i in positions), self.asking)
            self.answered += int((answers.status != Status.FAILED).sum())
            yield from self._hand_on((positions, answers))

    def _hand_on(self, batch: Batch) -> Iterator[Batch]:
        self.asking.pause()
        yield batch
        self.asking.resume()

    def _write(self, rows: dict[bytes, bytes]) -> None:
        if not rows:
            return
        kind = self.kind._replace(width=self.form.width or 0)
        with self.desk.writing:
            try:
                with file.writing(self.path) as connection:
                    met = tables.write(connection, kind, rows, instead=self.replaced)
                    if self.limit is not None and upkeep.used_bytes(connection) > self.limit:
                        upkeep.shrink(connection, int(_KEPT * self.limit))
            except StoreError as error:
                self.desk.unwritten.setdefault(kind, {}).update(rows)
                self.held = []
                raise stranded(error, self.path, kind, rows) from error
        self.replaced.difference_update(rows)
        self.is_shared |= met > 0  # another process paid for them, too

    def _unwritten(self) -> Iterable[tuple[bytes, bytes]]:
        for kind, rows in list(self.desk.unwritten.items()):
            if kind.digest == self.kind.digest:
                yield from list(rows.items())

    def _warn_of_rows(self) -> None:
        if self.damaged:
            _warn(f"{self.damaged} damaged rows in {self.path} are asked again")
        if self.foreign:
            _warn(
                f"{self.foreign} rows in {self.path} do not have the arrays, or the length of "
                "hidden states, of this model's others; they are asked again"
            )
        if self.refused:
            _warn(
                f"{self.refused} answers have hidden states of another length than the "
                f"{self.form.width} numbers of those that are stored: this is another model "
                "under the same name. They count as not answered. To forget the old ones: fewfit "
                f"cache drop {self.kind.name!r}"
            )
        self.damaged = self.foreign = self.refused = 0

    def _expect(self, width: int) -> None:
        """Expect hidden states of the length that is on record, if there is one."""
        if width and self.form.width is None:
            self.form = self.form._replace(width=width)

    def _note(self, answers: Observations) -> None:
        """Expect of all answers the form of the first."""
        width = 0 if answers.hidden is None else answers.hidden.shape[1]
        if self.form.width is None:
            self.form = self.form._replace(width=width)
        self.form = self.form._replace(censors=answers.censored is not None)


def _batch(found: Found) -> Iterator[Batch]:
    if found.answers is not None:
        yield np.array(found.positions, dtype=np.intp), found.answers


def _warn(message: str) -> None:
    warnings.warn(message, StoreWarning, stacklevel=4)


def _name(identity: Mapping[str, str]) -> str:
    """Say an identity to a person: its parts that are no hashes."""
    return " ".join(value for value in identity.values() if value and len(value) < 40)
