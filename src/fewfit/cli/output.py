"""What the command line shows: lines, one bar per phase, errors and exit codes."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import typer

from fewfit import progress
from fewfit.errors import FewfitError, FewfitWarning, InputError

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130
_COMMANDS = {i: f"\\u{i:04x}" for i in (*range(32), *range(127, 160)) if chr(i) not in "\t\n"}
_SHOWN = 3  # warnings of a kind; a run in many parts would repeat them


bar = functools.partial(progress.bar, always=False)
"""The one progress bar, where standard error is a terminal."""


def watched() -> bool:
    """Return whether standard error is a terminal, on which a bar is of use."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Print a line on standard output; what no terminal can show is printed with escapes."""
    typer.echo(visible(text))


def note(text: str) -> None:
    """Print a line of the program's own on standard error; where none can be, work goes on."""
    with suppress(OSError):  # no reader, or a full disk
        typer.echo(visible(f"fewfit: {' '.join(text.splitlines())}"), err=True)


def plain_errors(command: F) -> F:
    """Turn errors into one line on standard error and the exit code of their class."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _plain_warnings():
            try:
                _check_arguments(kwargs)
                done = command(*args, **kwargs)
                if sys.stdout is not None:
                    sys.stdout.flush()
                return done
            except FewfitError as error:
                note(f"error: {error}")
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt as error:
                note(f"interrupted{_left(kwargs)}")
                raise typer.Exit(INTERRUPTED) from error
            except BrokenPipeError as error:  # the reader of our output went away
                _silence_stdout()
                raise typer.Exit(0) from error
            except OSError as error:
                where = f": {error.filename}" if error.filename else ""
                note(f"error: {error.strerror or error}{where}")
                raise typer.Exit(InputError.exit_code) from error

    return wrapped  # pyright: ignore[reportReturnType]


def _left(arguments: dict[str, Any]) -> str:
    """Say what an interrupted command has left, as far as its arguments tell."""
    if arguments.get("checkpoint") is not None:
        return "; the same command goes on from what its --checkpoint holds"
    if "checkpoint" in arguments or arguments.get("store") == "none":
        return "; nothing is kept"
    return "; what was answered is in the store" if "store" in arguments else ""


def _check_arguments(arguments: dict[str, Any]) -> None:
    """Refuse text that no file, template or label can have (InputError)."""
    for name, value in arguments.items():
        for item in value if isinstance(value, list) else [value]:
            option = "--" + name.replace("_", "-")
            if isinstance(item, str | os.PathLike) and "\0" in str(item):
                raise InputError(f"{option}: holds a NUL character")
            if isinstance(item, str) and item != printable(item):
                raise InputError(f"{option}: is not valid Unicode: {printable(item)!r}")
            if isinstance(item, float) and not abs(item) < float("inf"):
                raise InputError(f"{option}: {item} is not a finite number")


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show our warnings as lines, the first few of each kind, and how many more there were."""
    seen: Counter[type[Warning]] = Counter()

    def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
        if not issubclass(category, FewfitWarning):
            original(message, category, *rest)
            return
        seen[category] += 1
        if seen[category] <= _SHOWN:
            note(f"warning: {message}")

    with warnings.catch_warnings():
        original = warnings.showwarning
        warnings.simplefilter("always", FewfitWarning)
        warnings.showwarning = show
        try:
            yield
        finally:
            more = sum(max(n - _SHOWN, 0) for n in seen.values())
            if more:
                note(f"warning: {more} more of these kinds")


def printable(text: str) -> str:
    """Return a text with escapes for what is not valid Unicode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def visible(text: str) -> str:
    """Return a text with escapes for what a terminal cannot show, or takes for a command."""
    return printable(text).translate(_COMMANDS)


def _silence_stdout() -> None:
    """Let what is still to be flushed go nowhere, so that the interpreter ends without a word."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
