"""The command ``fewfit methods``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fewfit.cli.output import plain_errors


@plain_errors
def methods(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List all methods: what each requires, what it costs, where it comes from."""
    from fewfit.methods import list_methods, methods_table

    if as_json:
        rows = [method._asdict() for method in list_methods()]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        typer.echo(methods_table())
