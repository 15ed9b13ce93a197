"""The command line: arguments in, calls out."""

from fewfit.cli.app import app, main

__all__ = ["app", "main"]
