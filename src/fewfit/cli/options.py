"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewfit.cli.tables import FORMATS

Input = Annotated[
    str, typer.Argument(help="CSV, TSV, JSON lines or Parquet, .gz allowed; - reads from a pipe.")
]
Artifact = Annotated[Path, typer.Argument(help="A folder written by 'fewfit fit'.")]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the text, for a template with one field. [default: the field's name]"
    ),
]
LabelColumn = Annotated[str, typer.Option(help="Column of the labels.")]
Format = Annotated[
    str | None,
    typer.Option(help=f"Format of the input, if its name does not tell: {', '.join(FORMATS)}."),
]
Model = Annotated[str | None, typer.Option(help="The frozen model, if not the artifact's own.")]
Store = Annotated[
    str,
    typer.Option(help="File that keeps the model's answers; 'none' keeps nothing."),
]
MaxQueries = Annotated[
    int | None,
    typer.Option(min=0, help="Stop before asking more; run again to go on from there."),
]
Errors = Annotated[
    str,
    typer.Option(help="Rows that the model cannot answer: raise, or nan to go on without them."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def store_path(value: str) -> str | None:
    """Return the store that an option names; None for "none"."""
    return None if value == "none" else value
