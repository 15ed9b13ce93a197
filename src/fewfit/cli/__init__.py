"""The command line: arguments in, calls out."""

from fewfit.cli import pretrain as pretrain  # their commands join the others
from fewfit.cli import tune as tune
from fewfit.cli.app import app, main
from fewfit.cli.methods import methods

app.command()(methods)

__all__ = ["app", "main"]
