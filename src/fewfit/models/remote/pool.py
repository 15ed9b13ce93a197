"""Many questions at once in a few threads, their answers handed on as they arrive.

Threads and not an event loop: the same code then runs inside a notebook, whose loop is already
running, and in a program's own threads.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from fewfit.errors import ModelError
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.streams import Enough

GROUP_SECONDS = 0.05

Arrived = list[tuple[int, Any]]


def answer_all(
    ask: Callable[[int], Any], n: int, session: Session
) -> Generator[Arrived, None, None]:
    """Call ``ask(i)`` for 0 <= i < n and yield what arrived, every 50 ms.

    Told that it is :class:`~fewfit.models.streams.Enough`, it cuts off what is under way.

    Parameters
    ----------
    ask : callable
        Returns an answer, or raises RowError if this prompt has none; anything else stops the run.
    n : int
    session : Session
        Whose requests `ask` makes.

    Yields
    ------
    list of (i, answer or RowError)

    Raises
    ------
    Exception
        What stopped the run, after everything that had arrived or was under way was yielded; on
        KeyboardInterrupt requests under way are cut off.
    ModelError
        If threads died of themselves, so that nobody is left to ask the rest.
    """
    numbers = itertools.count()
    arrived: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    stopped: list[BaseException] = []
    finished = threading.Event()
    size = min(n, session.transport.limits.connections)
    running = itertools.count(size - 1, -1)
    left = n

    def work() -> None:
        try:
            while not stopped and (i := next(numbers)) < n:
                try:
                    answer = ask(i)
                except RowError as error:
                    answer = error
                arrived.put((i, answer))
        except BaseException as error:
            stopped.append(error)
            session.halt()
        finally:
            if next(running) == 0:
                finished.set()

    def drained() -> Arrived:
        group: Arrived = []
        while True:
            try:
                group.append(arrived.get_nowait())
            except queue.Empty:
                return group

    try:
        threads = [threading.Thread(target=work, daemon=True) for _ in range(size)]
        for thread in threads:
            thread.start()
        done = False
        while not done:
            try:
                # A thread that dies before its first line (no memory, say) tells nobody.
                done = finished.wait(GROUP_SECONDS) or not any(t.is_alive() for t in threads)
            except KeyboardInterrupt as error:
                stopped.append(error)
                session.abort()
                done = True
            group = drained()
            left -= len(group)
            try:
                if group:
                    yield group
            except Enough as error:
                stopped.append(error)
                session.abort()
                if group := drained():
                    yield group
                return
        if stopped:
            raise next((e for e in stopped if isinstance(e, KeyboardInterrupt)), stopped[0])
        if left:
            raise ModelError(
                f"the threads that ask died, and {left} of {n} prompts were not asked; "
                "run it again, with fewer connections=. What the store has is not asked again"
            )
    finally:
        if not finished.is_set():  # the caller has gone away, or Ctrl-C
            stopped.append(GeneratorExit())
            session.abort()
