"""Weights inside installed packages: found without importing the package, trusted by hash only."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fewfit.errors import MissingExtraError, ModelError


class Packaged(NamedTuple):
    """A file inside an installed package.

    Attributes
    ----------
    package : str
        As it is imported.
    path : str
        Below the package's folder.
    sha256 : str
        Of the published file.
    install : str
        The command that brings the package.
    """

    package: str
    path: str
    sha256: str
    install: str

    def find(self) -> Path:
        """Return where the file lies (MissingExtraError if the package is not installed).

        The package is not imported: its files are read as data, and none of its code runs.
        """
        found = find_spec(self.package)
        if found is None or found.origin is None:
            raise MissingExtraError(
                f"the files of this model come with the package {self.package}, which is not "
                f"installed: {self.install}"
            )
        return Path(found.origin).parent / self.path

    def read(self) -> bytes:
        """Return the file's bytes (ModelError unless it is there and is the published one)."""
        path = self.find()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}, a model's file, cannot be read: {error}") from error
        digest = hashlib.sha256(data).hexdigest()
        if digest != self.sha256:
            raise ModelError(
                f"{path} is not the published file (sha256 {digest}, expected {self.sha256}), and "
                f"only that is read: {self.install} --force-reinstall"
            )
        return data
