"""The command line: arguments in, calls out."""

from fewfit.cli.app import app, main
from fewfit.cli.methods import methods

app.command()(methods)

__all__ = ["app", "main"]
