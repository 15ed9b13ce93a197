"""What the folder of a fitted classifier holds: a manifest and the arrays that were learnt.

An artifact is a folder with two files, ``manifest.json`` and ``decoder.safetensors``, and a model
card, ``README.md``, for people. Beside them are the files of the model, where that was tuned for it
and has no folder of its own. Nothing else is read, nothing is imported by a name from a file, and
nothing is unpickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field, JsonValue
from safetensors import SafetensorError

from fewfit.artifacts.card import card_of
from fewfit.artifacts.files import (
    CARD,
    Strict,
    dump,
    parse,
    read_bytes,
    sha256,
    write_files,
)
from fewfit.errors import ArtifactError

MANIFEST, TENSORS = "manifest.json", "decoder.safetensors"

CARRIED = "tuned:."
"""Spec of a tuned model whose files lie in the artifact itself."""

MODEL_FILES = ("tuning.json", "adapter.safetensors")
"""Of a tuned model, which :mod:`fewfit.tuning.artifact` reads."""

MANIFEST_LIMIT = 16 * 2**20
TENSORS_LIMIT = 2 * 2**30


class DecoderEntry(Strict):
    """Which decoder, by its name in the fixed table, and with which parameters."""

    name: str
    parameters: dict[str, str | int | float | bool | None]


class CalibrationEntry(Strict):
    """Which calibration, by its name in the fixed table, and with which parameters."""

    name: str
    parameters: dict[str, str | int | float | list[str]]


class DemonstrationsEntry(Strict):
    """The examples in front of a template; their texts are part of the artifact."""

    n: int
    choose: str
    separator: str
    max_words: int | None
    seed: int
    turns: bool = False
    demonstrations: list[tuple[dict[str, str], str]]


class ViewEntry(Strict):
    """A template, with demonstrations or without, or what is asked through a transform."""

    template: str
    in_context: DemonstrationsEntry | None
    transform: str | dict[str, JsonValue] | None = None


class Example(Strict):
    """An input and the probabilities that it must give again.

    It is a text of no meaning (:meth:`fewfit.task.Task.probe`), or, where that was asked for, one
    of the examples.
    """

    row: dict[str, str]
    probabilities: list[float]


class ColumnsEntry(Strict):
    """The columns of the file that a task was fitted on: of each field, and of the labels."""

    fields: dict[str, list[str]]
    label: str
    separator: str | None


class RecallEntry(Strict):
    """Rows of a class that were held out, and those of them that were given it."""

    name: str | bool | int = Field(alias="class")
    right: int
    n: int


class ExpectedEntry(Strict):
    """The accuracy to expect, as :meth:`ExpectedAccuracy.to_dict` says it."""

    accuracy: float | None
    low: float | None
    high: float | None
    interval: str
    n: int
    n_folds: int
    recall: list[RecallEntry]
    not_estimated: list[str | bool | int]
    reason: str


class Manifest(Strict):
    """Everything about a fitted task but its arrays."""

    schema_version: Literal[1]
    fewfit_version: str
    template: list[ViewEntry]
    labels: list[tuple[str | bool | int, list[str] | list[tuple[str, float]]]]
    calibration: CalibrationEntry
    decoder: DecoderEntry
    model_spec: str | None
    model_identity: dict[str, str]
    n_examples: int
    example: Example | None
    counts: list[int] | None = None
    expected: ExpectedEntry | None = None
    doctor: dict[str, JsonValue] | None = None
    columns: ColumnsEntry | None = None
    files: dict[str, str]


def files_of(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the files that an artifact at `folder` may have."""
    tuned = MODEL_FILES if os.path.isfile(Path(folder) / MANIFEST) else ()  # False, never an error
    return (MANIFEST, TENSORS, *tuned)


def write(
    folder: str | Path,
    manifest: Manifest,
    arrays: Mapping[str, NDArray[Any]],
    carried: Mapping[str, bytes] = {},
) -> None:
    """Write an artifact so that `folder` holds the old one or the new one, never half of one.

    All files go to a folder beside it, are flushed to disk and read back, and the folder is then
    renamed into place.

    Parameters
    ----------
    folder : path
        May hold an older artifact, which is replaced; any other existing folder that is not empty
        is refused.
    manifest : Manifest
        Its `files` are filled in here.
    arrays : mapping of str to ndarray
    carried : mapping of str to bytes, optional
        The model's own files.

    Raises
    ------
    ArtifactError
        If the folder is something else than an artifact, or the files cannot be written.
    """
    # safetensors 0.8.0 writes arrays that are not C-contiguous as garbage.
    tensors = safetensors.numpy.save({k: np.array(v, order="C") for k, v in arrays.items()})
    text = dump(manifest.model_copy(update={"files": {TENSORS: sha256(tensors)}}))

    def verify(fresh: Path) -> None:
        _, back = read(fresh)
        for name, array in arrays.items():
            if not np.array_equal(back[name], array):
                raise ArtifactError(f"array {name!r} did not survive writing to {folder}")

    tuned = json.loads(carried[MODEL_FILES[0]]) if carried else None
    content = {TENSORS: tensors, MANIFEST: text, CARD: card_of(manifest, tuned), **carried}
    write_files(folder, content, verify, old=files_of(folder))


def read(folder: str | Path) -> tuple[Manifest, dict[str, NDArray[Any]]]:
    """Read an artifact and check every byte of it.

    Returns
    -------
    (Manifest, dict of str to ndarray)

    Raises
    ------
    ArtifactError
        If a file is missing, too large, a link, or differs from its checksum; if the manifest has
        an unknown, missing or ill-typed entry or a newer schema; if an array is not finite.
    """
    folder = Path(folder)
    manifest = parse(read_bytes(folder / MANIFEST, MANIFEST_LIMIT), folder / MANIFEST, Manifest)
    if set(manifest.files) != {TENSORS}:
        raise ArtifactError(f"{folder / MANIFEST} lists other files than {TENSORS!r}")
    tensors = read_bytes(folder / TENSORS, TENSORS_LIMIT)
    if sha256(tensors) != manifest.files[TENSORS]:
        raise ArtifactError(f"{folder / TENSORS} differs from its checksum: it is damaged")
    try:
        arrays = safetensors.numpy.load(tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / TENSORS} is not a safetensors file: {error}") from error
    for name, array in arrays.items():
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise ArtifactError(f"{folder / TENSORS}: array {name!r} is not finite floating point")
    return manifest, arrays
