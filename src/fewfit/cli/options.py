"""Arguments and options that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.choices import SEEDS
from fewfit.errors import InputError
from fewfit.tables import FORMATS

Input = Annotated[
    str,
    typer.Argument(
        help="CSV (any delimiter), TSV, JSON lines or array, Parquet, Excel; .gz, .bz2, .xz "
        "allowed; - reads from a pipe."
    ),
]
Artifact = Annotated[Path, typer.Argument(help="A folder written by 'fewfit fit'.")]
Folder = Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact.")]
TextColumn = Annotated[
    list[str] | None,
    typer.Option(
        help="Column of the text; repeat it to join several. FIELD=COLUMN for a template with "
        "several fields. [default: the artifact's, or the field's name]"
    ),
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of the labels. [default: the artifact's, or 'label']")
]
Format = Annotated[
    str | None,
    typer.Option(help=f"Format of the input, if its name does not tell: {', '.join(FORMATS)}."),
]
Delimiter = Annotated[
    str | None, typer.Option(help="Of CSV: one character, or 'tab'. [default: found]")
]
Encoding = Annotated[
    str | None, typer.Option(help="Of a text file: utf-8, utf-16, cp1252, ... [default: found]")
]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="Rows have none, one or several labels.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        "--label-separator", help="What stands between the labels of a row. [default: ';']"
    ),
]
LabelWords = Annotated[
    list[str] | None, typer.Option(help="CLASS=word or CLASS=word,word; repeat for each class.")
]
LabelFile = Annotated[
    Path | None, typer.Option(help='JSON file {"class": "word" or ["word", ...], ...}.')
]
Transforms = Annotated[
    list[str] | None,
    typer.Option(
        "--transform",
        help="Ask through a transform: rot13, base64, json, reversed, spelled, swapcase, or a JSON "
        "file (a substitution, a format, or a language and the model that writes it). Repeat it "
        "for several views; none is the plain one.",
    ),
]
Taxonomy = Annotated[
    Path | None,
    typer.Option(
        help="File of labels, one to a line: words of several tokens, scored token by token among "
        "each other (hf:, llamacpp:, vllm:, sglang:)."
    ),
]
Model = Annotated[str | None, typer.Option(help="The frozen model, if not the artifact's own.")]
Hidden = Annotated[
    str | None,
    typer.Option(
        help="Another frozen model for the hidden states, such as embedded; --model then gives "
        "its label scores alone."
    ),
]
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
MaxTokens = Annotated[
    int | None,
    typer.Option(min=8, help="Longer prompts are cut. [default: 256; a sentence encoder's own]"),
]
Seed = Annotated[int, typer.Option(min=0, max=SEEDS - 1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def through(template: list[str], transforms: list[str] | None, store: str) -> list[Any]:
    """Return the templates as they are asked through each of the transforms (InputError)."""
    if not transforms:
        return list(template)
    from fewfit.estimators.transforms import read_transform
    from fewfit.prompts import Conjugate

    found = [read_transform(name, store_path(store)) for name in transforms]
    if len(set(transforms)) < len(transforms):
        raise InputError("--transform: one is given twice")
    return [
        source if transform is None else Conjugate(source, transform)
        for transform in found
        for source in template
    ]


def store_path(value: str) -> str | None:
    """Return the store that an option names; None for "none" (InputError)."""
    if value == "none":
        return None
    if not value.strip():
        raise InputError("--store: expected a file, 'default' or 'none', got nothing")
    return value


def read_options(items: list[str], *, typed: bool = False) -> dict[str, Any]:
    """Read NAME=VALUE; ``adapter.rank=8`` is the option rank of a method's option `adapter`.

    Values are text, lists by commas; those of an inner option are JSON where they can be, and all
    where they are to be `typed`.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals):
            raise InputError(f"--option: {item!r} is not NAME=VALUE")
        outer, dot, inner = name.partition(".")
        place = found
        if dot:
            place, name = found.setdefault(f"{outer}_options", {}), inner
        if name in place:
            raise InputError(f"--option: {item.partition('=')[0].strip()!r} is given twice")
        given = value.split(",") if "," in value else value
        place[name] = _plain(value) if (dot or typed) and given is value else given
    return found


def _plain(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
