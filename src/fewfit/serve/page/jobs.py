"""Fits in the background: one after the other, each with its progress, each to be cancelled."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from fewfit.errors import FewfitError, StoreError
from fewfit.serve.guard import kind_and_place, logged

_log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Raised inside a fit that somebody has cancelled."""


@dataclass
class Job:
    """A fit that waits, runs or has ended.

    Attributes
    ----------
    state : {"waiting", "running", "done", "cancelled", "failed"}
    done, total : int
        Texts that the model has answered, and at most has to.
    error : str
        Why it failed.
    """

    state: str = "waiting"
    done: int = 0
    total: int = 0
    error: str = ""
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def progress(self, n: int) -> None:
        """Count `n` answers more; raise Cancelled if that is wished."""
        self.done += n
        self.check()

    def check(self) -> None:
        """Raise Cancelled if that is wished."""
        if self.is_cancelled:
            raise Cancelled

    def cancel(self) -> None:
        """Wish that it ends; what was answered so far is in the store."""
        self._stop.set()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return {
            "state": "cancelling" if self.active and self.is_cancelled else self.state,
            "done": self.done,
            "total": self.total,
            "error": self.error,
        }

    @property
    def is_cancelled(self) -> bool:
        """Whether it is wished that it ends."""
        return self._stop.is_set()

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.state in ("waiting", "running")


class Jobs:
    """One job a name at most; a second wish while it runs is fulfilled after it.

    Parameters
    ----------
    work : callable
        Does the job of a name. It calls ``progress`` of the job.
    """

    def __init__(self, work: Callable[[str, Job], object]) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="fewfit-page")
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._again: set[str] = set()

    def start(self, name: str) -> Job:
        """Begin a job, or have the one that runs or was cancelled followed by another."""
        with self._lock:
            job = self._jobs.get(name)
            if job is not None and job.active:
                if job.state == "running" or job.is_cancelled:
                    self._again.add(name)
                return job
            return self._submit(name)

    def cancel(self, name: str) -> None:
        """End the job of a name, if there is one, and what is to follow it."""
        with self._lock:
            self._again.discard(name)
            job = self._jobs.get(name)
            if job is not None and job.active:
                job.cancel()

    def get(self, name: str) -> Job | None:
        """Return the job of a name: the one that runs, or the last."""
        with self._lock:
            return self._jobs.get(name)

    def end(self, name: str, work: Callable[[], object]) -> None:
        """Cancel the job of a name, do something while none runs, and forget the name."""
        self.cancel(name)
        self._pool.submit(work).result()
        with self._lock:
            self._jobs.pop(name, None)

    def close(self) -> None:
        """Cancel everything, and wait for it."""
        with self._lock:
            self._again.clear()
            for job in self._jobs.values():
                job.cancel()
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, name: str) -> Job:
        job = self._jobs[name] = Job()
        self._pool.submit(self._run, name, job)
        return job

    def _run(self, name: str, job: Job) -> None:
        state = "done"
        try:
            with self._lock:
                job.state = "running"
            job.check()
            self._work(name, job)
        except Cancelled:
            state = "cancelled"
        except FewfitError as error:
            state, job.error = "failed", str(error)
            if isinstance(error, StoreError):
                _log.warning("the fit of %r failed: %s", name, logged(error))
        except Exception as error:
            state, job.error = "failed", "The fit failed unexpectedly; the server's log says why"
            _log.error("the fit of %r failed: %s", name, kind_and_place(error))
        with self._lock:
            job.state = state
            if name in self._again:
                self._again.discard(name)
                self._submit(name)
