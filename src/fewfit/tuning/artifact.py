"""A trained adapter on disk: one writer and one reader for every method, bound to its network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import Field
from safetensors import SafetensorError
from torch import Tensor

from fewfit._version import __version__
from fewfit.artifacts import card, files
from fewfit.artifacts.schema import ColumnsEntry
from fewfit.errors import ArtifactError, InputError, ModelMismatchError
from fewfit.tuning import make_method, name_of
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.adapters.ia3 import IA3
from fewfit.tuning.layouts import Stack
from fewfit.tuning.method import TuningMethod, options_of
from fewfit.tuning.sites_file import content_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

MANIFEST, TENSORS = "tuning.json", "adapter.safetensors"
SCHEMA_VERSION = 2

_FIRST = "vectors.safetensors"
"""Where version 1 kept (IA)^3 vectors."""

_MANIFEST_LIMIT = 16 * 2**20
_TENSORS_LIMIT = 64 * 2**30

# The names of the authors' checkpoints, for example
# decoder.block.3.layer.1.EncDecAttention.k.multi_lora_b, of shape (d, 1).
_ORIGINAL = re.compile(
    r"(encoder|decoder)\.block\.(\d+)\.layer\.\d+\."
    r"(?:(SelfAttention|EncDecAttention)\.(k|v)|DenseReluDense\.wi_1)\.multi_lora_b"
)


class TaskEntry(files.Strict):
    """What was asked: templates, the first of which is for prediction, labels, and of what file."""

    templates: list[str]
    labels: list[tuple[str | int, list[str]]]
    columns: ColumnsEntry | None = None


class CostEntry(files.Strict):
    """What training took, and what :class:`fewfit.models.costs.Size` is made from.

    Attributes
    ----------
    training_flops : float
        Operations of all trainings; in artifacts without `saved_bytes` by the paper's formula, in
        others measured.
    query_flops : float or None
        Of one query.
    saved_bytes : int or None
        Kept for the backward pass by one step.
    optimizer_bytes : int or None
        Kept by the optimiser from step to step.
    seconds : float or None
        Of training.
    steps : int or None
        Of all trainings.
    """

    n_parameters: int
    encoder_decoder: bool
    training_flops: float
    query_flops: float | None = None
    saved_bytes: int | None = None
    optimizer_bytes: int | None = None
    seconds: float | None = None
    steps: int | None = None


class Manifest(files.Strict):
    """Everything about a trained adapter but its tensors.

    Version 1, which knew (IA)^3 alone, had no options, seed and digest of the data.
    """

    schema_version: Literal[1, 2]
    fewfit_version: str
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    base_spec: str | None
    base_identity: dict[str, str]
    n_values: int
    recipe: dict[str, str | int | float | bool | None]
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n_examples: int
    data_sha256: str | None = None
    sites: dict[str, Any] | None = None
    task: TaskEntry | None
    costs: CostEntry | None = None
    files: dict[str, str]

    @property
    def tensors_file(self) -> str:
        """Name of the file that holds the tensors."""
        return next(iter(self.files))

    def make(self) -> TuningMethod:
        """Return the method that built the adapter (ArtifactError if there is no such one)."""
        if self.schema_version == 1:
            return make_method("ia3")
        try:
            return make_method(self.method, self.options)
        except InputError as error:
            raise ArtifactError(
                f"this fewfit cannot make what the artifact names: {error}"
            ) from None


def adapter_files(
    adapter: Adapter,
    *,
    method: TuningMethod | str,
    base_spec: str | None,
    base_identity: Mapping[str, str],
    recipe: Recipe | Mapping[str, Any],
    n_examples: int,
    seed: int | None = None,
    data_sha256: str | None = None,
    layout: Sequence[Stack] | None = None,
    task: TaskEntry | None = None,
    costs: CostEntry | None = None,
) -> dict[str, bytes]:
    """Return the files of an artifact: an adapter and a manifest.

    Parameters
    ----------
    method : TuningMethod or str
        Which built it; a name stands for a method without options.
    layout : sequence of Stack, optional
        Where the base keeps its layers, if it is an architecture that is not known.

    Raises
    ------
    ArtifactError
        If a tensor is not finite.
    InputError
        If the table has no such method.
    """
    if isinstance(method, str):
        method = make_method(method)
    held = adapter.tensors()
    # Contiguous memory of their own: safetensors refuses tensors that share it.
    tensors = safetensors.torch.save({k: v.clone() for k, v in held.items()})
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fewfit_version=__version__,
        method=name_of(method),
        options=options_of(method),
        base_spec=base_spec,
        base_identity=dict(base_identity),
        n_values=_values(held),
        recipe=asdict(recipe) if isinstance(recipe, Recipe) else dict(recipe),
        seed=seed,
        n_examples=n_examples,
        data_sha256=data_sha256,
        sites=None if layout is None else content_of(layout),
        task=task,
        costs=costs,
        files={TENSORS: files.sha256(tensors)},
    )
    made = {TENSORS: tensors, MANIFEST: files.dump(manifest)}
    _, back = parse_adapter(made)
    if back.keys() != held.keys() or any(not torch.equal(back[k], held[k]) for k in held):
        raise ArtifactError("the adapter does not survive writing")
    return made


def save_adapter(folder: str | Path, adapter: Adapter, **options: Any) -> None:
    """Write an adapter and a manifest, so that `folder` never holds half of them.

    Parameters
    ----------
    folder : path
    adapter : Adapter
    **options
        As :func:`adapter_files` takes them.

    Raises
    ------
    ArtifactError
        If the folder holds something else or cannot be written, or a tensor is not finite.
    InputError
        If the table has no such method.
    """
    if (Path(folder) / _FIRST).is_file() and (Path(folder) / MANIFEST).is_file():
        raise ArtifactError(
            f"{folder} holds an artifact of an earlier version; name another folder, or delete it"
        )
    save_files(folder, adapter_files(adapter, **options))


def save_files(folder: str | Path, made: Mapping[str, bytes]) -> None:
    """Write what :func:`adapter_files` gave, and the model card; see :func:`save_adapter`."""
    manifest = parse_manifest(made[MANIFEST], Path(folder) / MANIFEST)
    files.write_files(folder, {**made, files.CARD: _card(manifest)}, load_adapter)


def save_vectors(
    folder: str | Path, vectors: IA3, *, method: str = "t-few", **options: Any
) -> None:
    """Write the (IA)^3 vectors of task 0; `options` are those of :func:`save_adapter`."""
    save_adapter(folder, vectors, method=method, **options)


def read_files(folder: str | Path) -> dict[str, bytes]:
    """Read the files of an artifact, unchecked (ArtifactError)."""
    path = Path(folder) / read_manifest(folder).tensors_file
    data = files.read_bytes(Path(folder) / MANIFEST, _MANIFEST_LIMIT)
    return {path.name: files.read_bytes(path, _TENSORS_LIMIT), MANIFEST: data}


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the manifest alone (ArtifactError)."""
    path = Path(folder) / MANIFEST
    return parse_manifest(files.read_bytes(path, _MANIFEST_LIMIT), path)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Check a manifest (ArtifactError)."""
    manifest = files.parse(data, path, Manifest, versions=(1, SCHEMA_VERSION))
    expected = _FIRST if manifest.schema_version == 1 else TENSORS
    if set(manifest.files) != {expected}:
        raise ArtifactError(f"{path} lists other files than {expected!r}")
    return manifest


def load_adapter(folder: str | Path) -> tuple[Manifest, dict[str, Tensor]]:
    """Read an adapter's tensors and check every byte.

    Returns
    -------
    (Manifest, dict of str to Tensor)
        ``manifest.make().build(base, 0).restore(tensors)`` is the adapter again.

    Raises
    ------
    ArtifactError
        If a file is missing, damaged, or holds a number that is not finite.
    """
    return parse_adapter(read_files(folder), Path(folder))


def parse_adapter(
    content: Mapping[str, bytes], folder: Path = Path()
) -> tuple[Manifest, dict[str, Tensor]]:
    """Check the files of an artifact; see :func:`load_adapter`."""
    manifest = parse_manifest(content[MANIFEST], folder / MANIFEST)
    path = folder / manifest.tensors_file
    data = content[path.name]
    if files.sha256(data) != manifest.files[path.name]:
        raise ArtifactError(f"{path} differs from its checksum: it is damaged")
    tensors = _tensors(data, path)
    if _values(tensors) != manifest.n_values:
        raise ArtifactError(f"{path} does not hold the {manifest.n_values} values it should")
    return manifest, tensors


load_vectors = load_adapter


def restore(manifest: Manifest, tensors: Mapping[str, Tensor], base: Trunk) -> Adapter:
    """Return a saved adapter on its network, not attached (ArtifactError, ModelMismatchError)."""
    check_base(manifest, base.identity)
    try:
        adapter = manifest.make().build(base, manifest.seed or 0).to(base.device)
    except InputError as error:
        raise ArtifactError(f"the adapter does not fit its network: {error}") from None
    return adapter.restore(tensors)


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
        if match is None or not tensor.ndim or tensor.numel() != tensor.shape[0]:
            raise ArtifactError(
                f"{path}: {name!r} of shape {tuple(tensor.shape)} is not a vector of (IA)^3 for T5"
            )
        stack, block, attention, letter = match.groups()
        which = {"SelfAttention": "self", "EncDecAttention": "cross"}.get(attention)
        part = f"{which}.{letter}" if which else "ffn.hidden"
        found[f"{stack}.{block}.{part}"] = tensor.flatten()
    return found


def load_start(path: str | Path, identity: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Read tensors to start from: an artifact's folder, or a file of the authors' T-Few code.

    Parameters
    ----------
    identity : mapping of str to str, optional
        Of the network at hand; an adapter of another one is refused (ModelMismatchError). A file
        of the authors' code says nothing about its network, so that only shapes are checked.
    """
    if not Path(path).exists():
        raise InputError(f"start: there is nothing at {path}")
    if Path(path).is_file():
        return load_original(path)
    manifest, tensors = load_adapter(path)
    if identity is not None:
        check_base(manifest, identity)
    return tensors


def check_base(manifest: Manifest, identity: Mapping[str, str]) -> None:
    """Refuse an adapter of another network; the message names what differs."""
    for field in sorted({*manifest.base_identity, *identity} - {"reading"}):
        tuned, given = manifest.base_identity.get(field), identity.get(field)
        if tuned != given:
            raise ModelMismatchError(
                f"the vectors were tuned on another model: {field} was {tuned!r}, this model has "
                f"{given!r}"
            )
    readings = [known.get("reading", "answers") for known in (manifest.base_identity, identity)]
    if readings[0] != readings[1]:
        raise ModelMismatchError(
            f"the vectors were tuned to choices that are read as {readings[0]}, and here they are "
            f"read as {readings[1]}; --reading {readings[0]} reads them so"
        )


def identity_of(manifest: Manifest) -> dict[str, str]:
    """Return what decides the answers of a base model with this adapter."""
    options = {} if manifest.schema_version == 1 else {"options": json.dumps(manifest.options)}
    return {
        "kind": manifest.method,
        **options,
        "vectors_sha256": manifest.files[manifest.tensors_file],
        **{f"base_{key}": value for key, value in manifest.base_identity.items()},
    }


def _card(manifest: Manifest) -> bytes:
    """Return the model card."""
    options = {**manifest.options, **manifest.recipe, "seed": manifest.seed}
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    facts = {
        "base model": card.code(manifest.base_spec or "one that only code can make"),
        "method": f"{card.code(manifest.method)} {card.code(shown)}",
        "trained values": f"{manifest.n_values:,}",
        "labelled examples": str(manifest.n_examples),
        "fewfit": manifest.fewfit_version,
    }
    task = manifest.task
    parts = [
        f"# {'Tuned weights' if task is None else 'Text classifier'}",
        "A small part of, or beside, a language model, trained with fewfit. The model itself is "
        "not in this folder; it is opened by its name, and has to be the very same.",
        card.table(["", ""], [[name, value] for name, value in facts.items()]),
    ]
    if task is not None:
        rows = [[card.code(str(k)), ", ".join(map(card.code, said))] for k, said in task.labels]
        parts += [
            "How each text is asked about; the first is for prediction:",
            "\n\n".join(card.block(source) for source in task.templates),
            card.table(["class", "answer"], rows),
            card.load_lines("FewShotClassifier", manifest.base_spec),
        ]
    return card.page(card.hub_name(manifest.base_spec, manifest.base_identity), parts)


def _values(tensors: Mapping[str, Tensor]) -> int:
    return sum(t.numel() for t in tensors.values() if t.is_floating_point())


def _tensors(data: bytes, path: Path) -> dict[str, Any]:
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a safetensors file: {error}") from error
    for name, tensor in tensors.items():
        whole = tensor.dtype in (torch.int64, torch.int32, torch.uint16, torch.bool)
        if not whole and not (tensor.dtype == torch.float32 and torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: {name!r} is not finite float32")
    return tensors
