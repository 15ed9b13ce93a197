"""One queue in front of each frozen model: what waits while it is busy is asked together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from fewfit.errors import FewfitError
from fewfit.prompts import Row, read_rows
from fewfit.serve.tasks import Served, Tasks
from fewfit.serve.together import DOWN, Answered, Asked, answer, asked_once

_FORGETS = 0.8  # share of the last estimate of a prompt's seconds in the next
_GROWS = 1.05  # of the shortest batch, with each batch: it may have been long ago
_BATCHES = 3  # of the shortest may always wait: fewer, and none would be asked together


class BusyError(FewfitError):
    """The queue is full; `after` is in how many seconds there may be room."""

    def __init__(self, after: int) -> None:
        super().__init__(f"too many texts are waiting; try again in {after} s")
        self.after = after


class LateError(FewfitError):
    """The deadline has passed."""


@dataclass
class Limits:
    """What is asked at once, and what may wait.

    Parameters
    ----------
    batch : int, default=64
        Prompts that a frozen model is asked at once.
    waiting : int, default=1024
        Prompts that wait for one frozen model, at most.
    deadline : float, default=30
        Seconds until a request is given up.
    wait : float, default=1
        Seconds of work, as it went lately, behind which no request is queued: who is accepted
        waits about so long. A queue without it makes all wait for as long as callers have patience,
        and answers those who have gone.
    """

    batch: int = 64
    waiting: int = 1024
    deadline: float = 30.0
    wait: float = 1.0


@dataclass(eq=False)
class _Part:
    """Some rows of a request that are asked together; `once` says which prompts are the same."""

    asked: Asked
    once: frozenset[Hashable]
    until: float
    done: asyncio.Future[Answered]

    @property
    def size(self) -> int:
        return len(self.asked.queries)


class Engine:
    """The queue of one frozen model, and the thread in which it is asked.

    Parameters
    ----------
    limits : Limits
    note : callable
        Told of each batch: its prompts, seconds, and queries.
    """

    def __init__(self, limits: Limits, note: Callable[[int, float, int], object]) -> None:
        self.limits, self._note = limits, note
        self.failing: str | None = None
        """Which kind of error keeps the frozen model from answering; None if it has answered."""
        self.is_silent = False
        """Whether the last batch had no answer at all; it may be what was asked, or the model."""
        self.asked = False
        self._waiting: deque[_Part] = deque()
        self._size = 0
        self._seconds = 0.0  # a prompt takes, lately
        self._shortest = 0.0  # batch, lately
        self._thread = ThreadPoolExecutor(1, "fewfit-model")
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Prompts that wait or are being asked."""
        return self._size

    def admit(self, size: int) -> None:
        """Refuse a request of so many prompts where too much waits already (BusyError)."""
        if not self._size:
            return
        late = self._size * self._seconds
        longest = max(self.limits.wait, _BATCHES * self._shortest)
        if self._size + size > self.limits.waiting or late > longest:
            raise BusyError(max(1, math.ceil(late)))

    def put(self, task: Served, rows: Sequence[Row], deadline: float) -> list[_Part]:
        """Queue what a task is asked about rows."""
        own, model = task.estimator.task_, task.model
        queries = own.queries(rows)
        views = len(own.template.views)
        n = max(1, self.limits.batch // views) * views
        if not own.calibration.row_independent:
            n = len(queries)  # it looks at all rows at once
        loop, until = asyncio.get_running_loop(), time.monotonic() + deadline
        parts = [
            _Part(
                Asked(task.estimator, some),
                frozenset(asked_once(model, query) for query in some),
                until,
                loop.create_future(),
            )
            for some in (queries[i : i + n] for i in range(0, len(queries), n))
        ]
        self._waiting.extend(parts)
        self._size += len(queries)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        return parts

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._next()
            if not batch:
                continue
            size, begun = sum(part.size for part in batch), time.perf_counter()
            asked = [part.asked for part in batch]
            try:
                found = await loop.run_in_executor(self._thread, answer, asked)
            finally:
                self._size -= size
            took = time.perf_counter() - begun
            self._learn(size, took, found)
            for part, one in zip(batch, found, strict=True):
                if part.done.done():
                    continue
                if isinstance(one, Exception):
                    part.done.set_exception(one)
                else:
                    part.done.set_result(one)

    def _next(self) -> list[_Part]:
        """Take what is asked next: first come, first served, what was given up left out.

        What waits further back comes along where it asks nothing that is not asked anyway.
        """
        batch: list[_Part] = []
        left: deque[_Part] = deque()
        once: set[Hashable] = set()
        now = time.monotonic()
        for part in self._waiting:
            if part.done.done() or part.until < now:
                self._size -= part.size
                continue
            more = len(part.once - once)
            if not batch or not more or (not left and len(once) + more <= self.limits.batch):
                batch.append(part)
                once |= part.once
            else:
                left.append(part)
        self._waiting = left
        return batch

    def _learn(self, size: int, took: float, found: Sequence[Answered | Exception]) -> None:
        each = took / size
        if self._seconds:
            self._seconds = _FORGETS * self._seconds + (1 - _FORGETS) * each
            self._shortest = min(_GROWS * self._shortest, took)
        elif self.asked:  # the first batch loads the model, and says nothing of the next
            self._seconds, self._shortest = each, took
        self.asked = True
        answered = [one for one in found if isinstance(one, Answered)]
        self.is_silent = all(all(one.reasons) for one in answered)
        down = next((type(one).__name__ for one in found if isinstance(one, DOWN)), None)
        if not self.is_silent or down is not None:
            self.failing = down if self.is_silent else None
        self._note(size, took, sum(one.queries for one in answered))

    async def close(self) -> None:
        """Answer what waits, and end the thread."""
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])
        self._thread.shutdown(wait=False)


class Queue:
    """The engines of all tasks; what asks for predictions asks here.

    Parameters
    ----------
    tasks : Tasks
    limits : Limits, optional
    note : callable, optional
        As of :class:`Engine`.
    """

    def __init__(
        self,
        tasks: Tasks,
        limits: Limits | None = None,
        note: Callable[[int, float, int], object] | None = None,
    ) -> None:
        self.tasks, self.limits = tasks, limits or Limits()
        self._note = note or (lambda *_: None)
        self.engines: dict[str, Engine] = {}

    def engine(self, task: Served) -> Engine:
        """Return the engine of a task's frozen model."""
        if task.network not in self.engines:
            self.engines[task.network] = Engine(self.limits, self._note)
        return self.engines[task.network]

    async def answer(
        self, tasks: Sequence[Served], X: Sequence[Any], *, deadline: float | None = None
    ) -> dict[str, Answered]:
        """Return what several tasks say of N rows: all of it, or an error.

        Parameters
        ----------
        tasks : sequence of Served
        X : sequence of str or mapping, length N
        deadline : float, optional
            Seconds; at most that of the limits.

        Raises
        ------
        InputError
            Before anything is asked, if a task does not understand a row.
        BusyError, LateError
        FewfitError
        """
        rows = {task.name: read_rows(X, task.fields, name="texts") for task in tasks}
        seconds = min(deadline or self.limits.deadline, self.limits.deadline)
        sizes: dict[Engine, int] = {}
        for task in tasks:
            engine, views = self.engine(task), len(task.estimator.task_.template.views)
            sizes[engine] = sizes.get(engine, 0) + len(X) * views
        for engine, size in sizes.items():  # all of a request is accepted, or nothing
            engine.admit(size)
        parts: dict[str, list[_Part]] = {}
        try:
            for task in tasks:
                parts[task.name] = self.engine(task).put(task, rows[task.name], seconds)
            async with asyncio.timeout(seconds):
                return {
                    name: _joined([await part.done for part in own]) for name, own in parts.items()
                }
        except TimeoutError:
            raise LateError(f"no answer within {seconds:g} s") from None
        finally:
            for part in (part for own in parts.values() for part in own):
                # What has not begun is never asked.
                if not part.done.cancel() and not part.done.cancelled():
                    part.done.exception()

    async def predict(self, name: str, texts: Sequence[Any]) -> tuple[list[Any], Any]:
        """Return the classes of a task, and the probabilities of texts, shape (N, K).

        Raises
        ------
        KeyError
            If there is no such task.
        """
        task = self.tasks.get(name)
        found = await self.answer([task], texts)
        return task.classes, found[name].probabilities

    def forget(self) -> None:
        """Let go of engines of frozen models that no task is on, once they have nothing to do."""
        used = {task.network for task in self.tasks.all()}
        for key in list(self.engines.keys() - used):
            if not self.engines[key].waiting:
                self.engines.pop(key)._thread.shutdown(wait=False)

    def failing(self) -> Mapping[str, str]:
        """Return which frozen models do not answer, and the kind of error."""
        models = {task.network: str(task.model.spec) for task in self.tasks.all()}
        return {
            models[key]: engine.failing
            for key, engine in self.engines.items()
            if engine.failing is not None and key in models
        }

    async def close(self) -> None:
        """Answer what waits, and end all threads."""
        await asyncio.gather(*(engine.close() for engine in self.engines.values()))


def _joined(parts: Sequence[Answered]) -> Answered:
    return Answered(
        np.concatenate([part.probabilities for part in parts]),
        [reason for part in parts for reason in part.reasons],
        np.concatenate([part.cut for part in parts]),
        np.concatenate([part.tokens for part in parts]),
        sum(part.queries for part in parts),
    )
