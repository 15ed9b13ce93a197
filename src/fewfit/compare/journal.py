"""Finished cells on disk, one JSON line each: a killed comparison continues where it was."""

from __future__ import annotations

import base64
import json
import os
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from fewfit.compare.schema import Asked, Cell
from fewfit.errors import InputError, StoreWarning


@dataclass(frozen=True, eq=False)
class Finished:
    """A cell, and what it said about each test row.

    Attributes
    ----------
    cell : Cell
    predicted : ndarray of shape (N,), uint16
        Position of the most probable class.
    confidence : ndarray of shape (N,), float16
        Its probability.
    """

    cell: Cell
    predicted: NDArray[np.uint16]
    confidence: NDArray[np.float16]


class Journal:
    """An append-only file of cells by key; a torn or damaged line counts as not there.

    Parameters
    ----------
    path : path or None
        None keeps everything in memory only. One process writes at a time.
    of : str, default=""
        A hash of the question and the data: what was asked about others, in a folder that is used
        again, is passed over. Entries of earlier versions, which do not say, count.

    Attributes
    ----------
    cells : dict of str to Finished
    asked : list of Asked
    """

    def __init__(self, path: Path | None, of: str = "") -> None:
        self.path, self.of = path, of
        self._torn: int | None = None  # where the file is to be cut, before it is written on
        self.cells: dict[str, Finished] = {}
        self.asked: list[Asked] = []
        if path is not None and path.exists():
            self._load(path)

    def add(self, key: str, finished: Finished) -> None:
        """Keep a finished cell; it is handed to the operating system before this returns."""
        self.cells[key] = finished
        self._append(
            {
                "key": key,
                "cell": finished.cell.model_dump(),
                "predicted": _encode(finished.predicted),
                "confidence": _encode(finished.confidence),
            }
        )

    def add_asked(self, asked: Asked) -> None:
        """Keep what asking took."""
        self.asked.append(asked)
        self._append({"asked": asked.model_dump(), "of": self.of})

    def _append(self, entry: dict[str, Any]) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._torn is not None:
                os.truncate(self.path, self._torn)
                self._torn = None
            with self.path.open("ab") as stream:
                stream.write(json.dumps(entry).encode("ascii") + b"\n")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written: {error.strerror}") from error

    def _load(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # killed in the middle of a line
            self._torn = len(whole)
        damaged = 0
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                if "asked" in entry:
                    found = Asked.model_validate(entry["asked"])
                    if entry.get("of", self.of) == self.of:
                        self.asked.append(found)
                    continue
                self.cells[entry["key"]] = Finished(
                    Cell.model_validate(entry["cell"]),
                    _decode(entry["predicted"], np.uint16),
                    _decode(entry["confidence"], np.float16),
                )
            except (ValueError, KeyError, TypeError, ValidationError, zlib.error):
                damaged += 1
        if damaged:
            warnings.warn(
                f"{damaged} damaged lines in {path}; their cells are computed again",
                StoreWarning,
                stacklevel=3,
            )


def _encode(array: NDArray[Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 6)).decode("ascii")


def _decode(text: str, dtype: Any) -> NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)
