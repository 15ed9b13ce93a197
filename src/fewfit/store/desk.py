"""What the threads of this process share about one store: who asks what, what is unwritten."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewfit.store.tables import Kind

_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 1.0


class Run:
    """One call that asks; it is idle while its caller has the answers and does not come back."""

    def __init__(self) -> None:
        self.resume()

    def pause(self) -> None:
        """Note that the caller has the word."""
        self._idle_since = time.monotonic()

    def resume(self) -> None:
        """Note that this thread is at work on it."""
        self._idle_since: float | None = None
        self._thread = threading.get_ident()

    def is_given_up(self) -> bool:
        """Whether there is no use in waiting: this thread has it, or its caller went away."""
        since = self._idle_since
        idle = since is not None and time.monotonic() - since > _PATIENCE_SECONDS
        return idle or self._thread == threading.get_ident()


class Desk:
    """The keys that are being asked, and the rows that could not be written.

    No lock is held while a model is asked.

    Attributes
    ----------
    writing : Lock
        Held while rows are written, so that threads do not wait for each other inside SQLite,
        which waits in naps.
    unwritten : dict of Kind to dict
        Key -> row of each kind of model. Changed only under `writing`.
    """

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.unwritten: dict[Kind, dict[bytes, bytes]] = {}
        self._changed = threading.Condition()
        self._claims: dict[bytes, Run] = {}

    def claim(self, keys: Sequence[bytes], run: Run) -> list[bool]:
        """Take the keys that nobody asks; return for each whether it was taken."""
        with self._changed:
            taken = [self._is_free(key) for key in keys]
            for key, own in zip(keys, taken, strict=True):
                if own:
                    self._claims[key] = run
        return taken

    def release(self, keys: Iterable[bytes], run: Run) -> None:
        """Give back what of the keys is still this run's."""
        with self._changed:
            for key in keys:
                if self._claims.get(key) is run:
                    del self._claims[key]
            self._changed.notify_all()

    def wait(self, keys: Sequence[bytes]) -> None:
        """Wait until one of the keys can be taken."""
        with self._changed:
            while not any(map(self._is_free, keys)):
                self._changed.wait(_LOOK_SECONDS)

    def _is_free(self, key: bytes) -> bool:
        run = self._claims.get(key)
        return run is None or run.is_given_up()


_desks: dict[str, Desk] = {}
_lock = threading.Lock()


def desk_of(path: Path) -> Desk:
    """Return what this process shares about the store at `path`."""
    with _lock:
        return _desks.setdefault(os.path.realpath(path), Desk())


def _forget() -> None:
    """In a forked child: the threads that held the claims and the locks are not there."""
    global _lock
    _lock = threading.Lock()
    _desks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
