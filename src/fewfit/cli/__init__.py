"""The command line: arguments in, calls out."""

from fewfit.cli import tune as tune  # its commands join the others
from fewfit.cli.app import app, main

__all__ = ["app", "main"]
