"""The command ``fewfit cache``: where answers are kept, how many, and how to have fewer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.cli.options import AsJson
from fewfit.cli.output import plain_errors
from fewfit.cli.terminal import show
from fewfit.errors import InputError
from fewfit.markdown import Table

cache = typer.Typer(
    invoke_without_command=True,
    help="Say where the models' answers are kept and how large that is; make it smaller.",
)

Where = Annotated[
    Path | None, typer.Option("--store", help="The file. [default: the user's own store]")
]


@cache.callback()
@plain_errors
def status(context: typer.Context, store: Where = None, as_json: AsJson = False) -> None:
    """Say where the models' answers are kept, how many there are, and how large the file is."""
    command = context.invoked_subcommand
    if command is not None:
        # It would be another file, the user's own, that the command then makes smaller.
        if store is not None or as_json:
            option = "--json" if store is None else f"--store {store}"
            raise InputError(
                f"{option.split()[0]}: goes behind the command, 'fewfit cache {command} {option}'"
            )
        return
    from fewfit.store import statistics

    path = _path(store)
    found: dict[str, Any] = {"rows": 0, "bytes": 0, "models": {}}
    if path.exists():
        found = statistics(path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), **found}, ensure_ascii=False))
        return
    said = f"{path}: {found['rows']:,} answers, {found['bytes'] / 1e6:,.1f} MB"
    rows = [[name, f"{n:,}"] for name, n in found["models"].items()]
    show(said, *([Table(["model", "answers"], rows)] if rows else []))


@cache.command()
@plain_errors
def prune(
    keep: Annotated[str | None, typer.Argument(help="What may stay, as in 500MB or 2GiB.")] = None,
    keep_bytes: Annotated[str | None, typer.Option(help="The same, by name.")] = None,
    store: Where = None,
    as_json: AsJson = False,
) -> None:
    """Forget the answers that were written first until the file is no larger than this."""
    from fewfit import store as stores
    from fewfit.store.sizes import read_size

    size = read_size(_one(keep, keep_bytes, "--keep-bytes"))
    _forget(store, lambda path: stores.prune(path, size), as_json)


@cache.command()
@plain_errors
def drop(
    name: Annotated[
        str | None, typer.Argument(help="Part of a name that 'fewfit cache' shows.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The same, by name.")] = None,
    store: Where = None,
    as_json: AsJson = False,
) -> None:
    """Forget all answers of the models whose name contains this."""
    from fewfit import store as stores

    part = _one(name, model, "--model")
    _forget(store, lambda path: stores.drop(path, part), as_json)


@cache.command()
@plain_errors
def clear(store: Where = None, as_json: AsJson = False) -> None:
    """Forget all answers: whatever is asked again is paid for again."""
    from fewfit import store as stores

    _forget(store, stores.clear, as_json)


def _path(store: Path | None) -> Path:
    from fewfit.store import default_path

    if store is not None and not store.exists():
        raise InputError(f"--store: there is no file {store}")
    return default_path() if store is None else store


def _one(argument: str | None, option: str | None, name: str) -> str:
    if (argument is None) == (option is None):
        raise InputError(f"{name}: give it once, as an argument or as {name}")
    return argument if option is None else option  # pyright: ignore[reportReturnType]


def _forget(store: Path | None, forget: Any, as_json: bool) -> None:
    path = _path(store)
    gone = forget(path) if path.exists() else 0
    left = path.stat().st_size if path.exists() else 0
    if as_json:
        typer.echo(json.dumps({"path": str(path), "forgotten": gone, "bytes": left}))
        return
    typer.echo(f"{path}: {gone:,} answers forgotten, {left / 1e6:,.1f} MB left")
