"""What the command line shows: one bar per phase, errors and exit codes."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from tqdm import tqdm

from fewfit.errors import FewfitError, FewfitWarning

F = TypeVar("F", bound=Callable[..., Any])

INTERRUPTED = 130


@contextmanager
def bar(phase: str, total: int, unit: str = "prompt") -> Iterator[Callable[[int], object]]:
    """Show one progress bar on standard error, or nothing where that is not a terminal."""
    with tqdm(total=total, desc=phase, unit=unit, disable=None, leave=True) as shown:
        yield shown.update


def plain_errors(command: F) -> F:
    """Turn errors into one line on standard error and the exit code of their class."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if issubclass(category, FewfitWarning):
                typer.echo(f"fewfit: warning: {message}", err=True)
            else:
                original(message, category, *rest)

        original = warnings.showwarning
        with warnings.catch_warnings():
            warnings.simplefilter("always", FewfitWarning)
            warnings.showwarning = show
            try:
                return command(*args, **kwargs)
            except FewfitError as error:
                typer.echo(f"fewfit: error: {error}", err=True)
                raise typer.Exit(error.exit_code) from error
            except KeyboardInterrupt as error:
                typer.echo("fewfit: interrupted; what was answered is in the store", err=True)
                raise typer.Exit(INTERRUPTED) from error
            except BrokenPipeError as error:  # the reader of our output went away
                sys.stderr.close()
                raise typer.Exit(0) from error

    return wrapped  # pyright: ignore[reportReturnType]
