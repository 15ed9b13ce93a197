"""Who in this process is asking what just now: what one thread asks, another waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

_SECONDS = 60.0  # between looks at whether a thread that is waited for is still alive


class Run:
    """One pass over prompts, by one thread."""

    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.held: set[bytes] = set()


class Desk:
    """The questions of one store file that are being asked in this process.

    Claims are held while a model is asked, the lock never is.
    """

    def __init__(self) -> None:
        self.writing = threading.Lock()
        self.unwritten: dict[tuple[bytes, str, int], dict[bytes, bytes]] = {}
        self._changed = threading.Condition()
        self._claims: dict[bytes, Run] = {}

    def claim(self, run: Run, keys: Iterable[bytes]) -> set[bytes]:
        """Return those of `keys` that `run` may ask; others are being asked by other threads."""
        with self._changed:
            free = {key for key in keys if self._free(self._claims.get(key), run)}
            self._claims.update(dict.fromkeys(free, run))
            run.held |= free
            return free

    def release(self, run: Run, keys: Iterable[bytes]) -> None:
        """Let others ask, or find, what `run` had claimed."""
        with self._changed:
            for key in [key for key in keys if self._claims.get(key) is run]:
                del self._claims[key]
                run.held.discard(key)
            self._changed.notify_all()

    def wait(self, run: Run, keys: Sequence[bytes]) -> None:
        """Wait until one of `keys` can be claimed, or is answered."""
        with self._changed:
            while not any(self._free(self._claims.get(key), run) for key in keys):
                self._changed.wait(_SECONDS)

    @staticmethod
    def _free(holder: Run | None, run: Run) -> bool:
        # A thread never waits for itself: two passes of one thread may be half done at once.
        return holder is None or holder.thread is run.thread or not holder.thread.is_alive()


_DESKS: dict[str, Desk] = {}
_LOCK = threading.Lock()


def desk_of(path: Path) -> Desk:
    """Return the desk of a store file, one in a process however many objects are on the file."""
    with _LOCK:
        name = str(path.absolute())
        return _DESKS.setdefault(name, Desk())
