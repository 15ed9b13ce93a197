"""Tuned vectors on disk: kilobytes to megabytes, bound to the model that they were made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fewfit._version import __version__
from fewfit.artifacts import files
from fewfit.errors import ArtifactError, InputError, ModelMismatchError
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.training import Recipe

MANIFEST, TENSORS = "tuning.json", "vectors.safetensors"
SCHEMA_VERSION = 1

Method = Literal["t-few", "pet"]
"""How vectors were trained."""

_MANIFEST_LIMIT = 16 * 2**20
_TENSORS_LIMIT = 2 * 2**30

# The names of the authors' checkpoints, for example
# decoder.block.3.layer.1.EncDecAttention.k.multi_lora_b, of shape (d, 1).
_ORIGINAL = re.compile(
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d+\."
    r"(?:(SelfAttention|EncDecAttention)\.(k|v)|DenseReluDense\.wi_1)\.multi_lora_b"
)


class TaskEntry(files.Strict):
    """What was asked: templates, the first of which is for prediction, and labels."""

    templates: list[str]
    labels: list[tuple[str | int, list[str]]]


class CostEntry(files.Strict):
    """What :class:`fewfit.models.costs.Size` is made from."""

    n_parameters: int
    encoder_decoder: bool
    training_flops: float


class Manifest(files.Strict):
    """Everything about tuned vectors but their values."""

    schema_version: Literal[1]
    fewfit_version: str
    method: Method
    base_spec: str | None
    base_identity: dict[str, str]
    n_values: int
    recipe: dict[str, str | int | float | bool | None]
    n_examples: int
    task: TaskEntry | None
    costs: CostEntry | None = None
    files: dict[str, str]


def save_vectors(
    folder: str | Path,
    vectors: IA3,
    *,
    method: Method = "t-few",
    base_spec: str | None,
    base_identity: Mapping[str, str],
    recipe: Recipe,
    n_examples: int,
    task: TaskEntry | None = None,
    costs: CostEntry | None = None,
) -> None:
    """Write the vectors of task 0 and a manifest, so that `folder` never holds half of them.

    Raises
    ------
    ArtifactError
        If the folder holds something else or cannot be written.
    """
    held = {name: v.detach().cpu().contiguous() for name, v in vectors.of().items()}
    tensors = safetensors.torch.save(held)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fewfit_version=__version__,
        method=method,
        base_spec=base_spec,
        base_identity=dict(base_identity),
        n_values=vectors.count,
        recipe=asdict(recipe),
        n_examples=n_examples,
        task=task,
        costs=costs,
        files={TENSORS: files.sha256(tensors)},
    )

    def verify(fresh: Path) -> None:
        _, back = load_vectors(fresh)
        if back.keys() != held.keys() or any(not torch.equal(back[k], held[k]) for k in held):
            raise ArtifactError(f"the vectors did not survive writing to {folder}")

    files.write_files(folder, {TENSORS: tensors, MANIFEST: files.dump(manifest)}, verify)


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest alone (ArtifactError)."""
    path = Path(folder) / MANIFEST
    manifest = files.parse(files.read_bytes(path, _MANIFEST_LIMIT), path, Manifest)
    if set(manifest.files) != {TENSORS}:
        raise ArtifactError(f"{path} lists other files than {TENSORS!r}")
    return manifest


def load_vectors(folder: str | Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read tuned vectors and check every byte.

    Returns
    -------
    (Manifest, dict of str to Tensor)
        The vectors by site, float32; :meth:`IA3.set` puts them to use.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged, or holds anything but finite vectors.
    """
    manifest, path = read_manifest(folder), Path(folder) / TENSORS
    data = files.read_bytes(path, _TENSORS_LIMIT)
    if files.sha256(data) != manifest.files[TENSORS]:
        raise ArtifactError(f"{path} differs from its checksum: it is damaged")
    tensors = _tensors(data, path)
    if sum(tensor.numel() for tensor in tensors.values()) != manifest.n_values:
        raise ArtifactError(f"{path} does not hold the {manifest.n_values} values it should")
    return manifest, tensors


def load_original(path: str | Path) -> dict[str, Tensor]:
    """Read vectors of the authors' T-Few code, as safetensors, under this wing's names.

    Raises
    ------
    ArtifactError
        If the file cannot be read or has a tensor that is not a vector of (IA)^3 for T5.
    """
    path = Path(path)
    found: dict[str, Tensor] = {}
    for name, tensor in _tensors(files.read_bytes(path, _TENSORS_LIMIT), path).items():
        match = _ORIGINAL.fullmatch(name)
        if match is None or tensor.numel() != tensor.shape[0]:
            raise ArtifactError(
                f"{path}: {name!r} of shape {tuple(tensor.shape)} is not a vector of (IA)^3 for T5"
            )
        stack, block, attention, letter = match.groups()
        which = {"SelfAttention": "self", "EncDecAttention": "cross"}.get(attention)
        part = f"{which}.{letter}" if which else "ffn.hidden"
        found[f"{stack}.{block}.{part}"] = tensor.flatten()
    return found


def load_start(path: str | Path, identity: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Read vectors to start from: a folder of :func:`save_vectors`, or a file of the authors' code.

    Parameters
    ----------
    identity : mapping of str to str, optional
        Of the network at hand; vectors of another one are refused (ModelMismatchError). A file
        of the authors' code says nothing about its network, so that only shapes are checked.
    """
    if not Path(path).exists():
        raise InputError(f"start: there is nothing at {path}")
    if Path(path).is_file():
        return load_original(path)
    manifest, vectors = load_vectors(path)
    if identity is not None:
        check_base(manifest, identity)
    return vectors


def check_base(manifest: Manifest, identity: Mapping[str, str]) -> None:
    """Refuse vectors of another network; the message names what differs (ModelMismatchError)."""
    for field in sorted({*manifest.base_identity, *identity}):
        tuned, given = manifest.base_identity.get(field), identity.get(field)
        if tuned != given:
            raise ModelMismatchError(
                f"the vectors were tuned on another model: {field} was {tuned!r}, this model has "
                f"{given!r}"
            )


def _tensors(data: bytes, path: Path) -> dict[str, Any]:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not torch.isfinite(tensor).all():
            raise ArtifactError(f"{path}: {name!r} is not finite float32")
    return tensors
