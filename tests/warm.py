"""Processes for tests of what survives one: forked from one that has imported fewfit already.

They start in a hundredth of the time of an interpreter and are killed like any other. What is
tested about the start of an interpreter itself needs a real one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import textwrap
from pathlib import Path

CONTEXT = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
if sys.platform != "win32":
    CONTEXT.set_forkserver_preload(
        ["fewfit.cli.app", "fewfit.estimators.classifier", "fewfit.compare", "tests.warm"]
    )


class Program:
    """A program that runs in a process of its own, used like ``subprocess.Popen``.

    Parameters
    ----------
    code : str
        Python, as ``python -c`` takes it.
    *arguments : object
        What it finds in ``sys.argv[1:]``, as text.
    **environment : str
        What is other than in the environment of this process.
    """

    def __init__(self, code: str, *arguments: object, **environment: str) -> None:
        self._said: list[str] = []
        self._files = [_new_file(), _new_file()]
        argv, places = ["-c", *map(str, arguments)], list(map(str, self._files))
        self._process = CONTEXT.Process(
            target=_run, args=(textwrap.dedent(code), argv, {**os.environ, **environment}, places)
        )
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, minus the signal where one ended it, or None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 60) -> int:
        """Return the exit code when it has ended."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"still running after {seconds} s"
        for file in self._files:
            self._said.append(file.read_text("utf-8"))
            file.unlink()
        self._files = []
        return code

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._process.kill()
        self.wait()

    def send_signal(self, which: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, which)

    def communicate(self) -> tuple[str, str]:
        """Wait until it has ended; return what it said, on stdout and on stderr."""
        self.wait()
        out, errors = self._said
        return out, errors


def run(code: str, *arguments: object, **environment: str) -> str:
    """Run a program to its end, which must be a good one; return what it said on stdout."""
    program = Program(code, *arguments, **environment)
    out, errors = program.communicate()
    assert program.poll() == 0, errors
    return out


def lines_of(path: Path) -> int:
    """Return how many lines a file has that another process writes, and may take away again."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _new_file() -> Path:
    number, name = tempfile.mkstemp()
    os.close(number)
    return Path(name)


def _run(code: str, argv: list[str], environment: dict[str, str], places: list[str]) -> None:
    for number, place in enumerate(places, start=1):
        os.dup2(os.open(place, os.O_WRONLY | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    exec(compile(code, "<warm>", "exec"), {"__name__": "__main__"})
