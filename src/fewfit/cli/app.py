"""The application, and the commands of the house: ``fewfit demo`` and ``--version``."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fewfit._version import __version__
from fewfit.cli.analyse import analyse
from fewfit.cli.cache import cache
from fewfit.cli.compare import compare
from fewfit.cli.doctor import doctor
from fewfit.cli.download import download
from fewfit.cli.edit import edit
from fewfit.cli.evaluate import evaluate
from fewfit.cli.fit import fit
from fewfit.cli.generate import generate
from fewfit.cli.methods import methods
from fewfit.cli.options import Store, store_path
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.predict import predict
from fewfit.cli.pretrain import pretrain
from fewfit.cli.search import search
from fewfit.cli.serve import serve
from fewfit.cli.suggest import suggest
from fewfit.cli.task_file import COMMANDS, TaskCommand, takes_task
from fewfit.cli.terminal import show
from fewfit.cli.tune import compose, merge, tune
from fewfit.cli.words import words

app = typer.Typer(
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # "rich" takes [default: ...] for a style, and does not show it
    help="Adapt a frozen pre-trained model to your task from a handful of labels.",
    epilog="Exit codes: 0 done, 2 bad input, 3 model, 4 artifact, 5 store, "
    "6 query budget used up, 130 interrupted.",
)


def main() -> None:
    """Run the command line."""
    if sys.stderr is None:  # it is closed: libraries write to it, and a file may take its place
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot write comes out as escapes
            data = stream is sys.stdout and not stream.isatty()  # for a program, as -o writes it
            encoding = "utf-8" if data else None
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    atexit.register(gc.freeze)  # the system takes the memory back; nobody need look through it
    app()


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Adapt a frozen pre-trained model to your task from a handful of labels."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@plain_errors
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the artifact and the plot.")
    ] = Path("demo-output"),
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="Samples per shots.")] = 5,
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    store: Store = "default",
) -> None:
    """Run the whole story on the built-in support-desk data, offline."""
    from fewfit.demo import run_demo

    run_demo(output, seeds=seeds, model=model, store=store_path(store), say=show, bar=bar)


FROZEN = (
    fit,
    suggest,
    predict,
    evaluate,
    serve,
    compare,
    doctor,
    download,
    words,
    generate,
    search,
    methods,
)
WEIGHTS = (tune, merge, compose, edit, pretrain)
for command in (*FROZEN, *WEIGHTS):
    if command.__name__ in COMMANDS:
        app.command(cls=TaskCommand)(takes_task(command))
    else:
        app.command()(command)
app.add_typer(cache, name="cache")
app.add_typer(analyse, name="analyse")
