"""Folders written whole or not at all, and checked byte by byte when they are read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fewfit.errors import ArtifactError

SCHEMA_VERSION = 1

CARD = "README.md"
"""What an artifact says about itself to a person. It is written, replaced, and never read."""


ASIDE = ".*.old.*"
"""Where an older artifact stands while it is replaced; the first star is its name."""


class Strict(BaseModel):
    """An entry of a manifest: no unknown field, no coercion, no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


AnyManifest = TypeVar("AnyManifest", bound=Strict)


def write_files(
    folder: str | Path,
    files: Mapping[str, bytes],
    verify: Callable[[Path], object],
    *,
    old: Collection[str] = (),
) -> None:
    """Let `folder` hold `files` and nothing else, or what it held before, never half of it.

    Parameters
    ----------
    folder : path
        New, empty, or holding files of these names only.
    files : mapping of str to bytes
    verify : callable
        Given the folder that is about to be put in place; raises if it cannot be read back.
    old : collection of str, optional
        Files of other names that it may hold, and will no more.

    Raises
    ------
    ArtifactError
        If the folder is something else, or the files cannot be written.
    """
    check_folder(folder, {*files, *old})
    folder = Path(folder).absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error}") from error
    try:
        for name, data in files.items():
            _flushed(fresh / name, data)
        verify(fresh)
        fresh.chmod(0o755)
        _swap(fresh, folder)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_folder(folder: str | Path, names: Collection[str] | None) -> None:
    """Refuse, before anything is paid for, a folder that could not be written at the end.

    Parameters
    ----------
    folder : path
    names : collection of str or None
        The files that it may hold by now; None for any.

    Raises
    ------
    ArtifactError
        If it is a link or no folder, holds other files, or nothing can be written where it is.
    """
    try:
        folder = Path(folder).absolute()
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ArtifactError(f"{folder} exists and is not a folder; name another one")
        if folder.is_dir() and names is not None:
            held = {entry.name for entry in folder.iterdir()}
            if held & {name for name in names if name.endswith(".json")}:
                held.discard(CARD)  # beside a manifest it is the model card, elsewhere anybody's
            others = sorted(held - {*names} | held & {CARD})
            if others:
                raise ArtifactError(
                    f"{folder} holds other files than an artifact, {others[0]!r} for one; name "
                    "another folder"
                )
        place = folder if names is None and folder.is_dir() else folder.parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryDirectory(prefix=".fewfit.", dir=place) as tried:
            (Path(tried) / folder.name).mkdir()
    except ArtifactError:
        raise
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder} cannot be written: {error}") from error


def dump(manifest: Strict) -> bytes:
    """Serialise with a checksum over everything else in the file."""
    entries = manifest.model_dump(mode="json", by_alias=True)
    entries["checksum"] = sha256(_canonical(entries))
    return (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def parse(
    data: bytes,
    path: Path,
    kind: type[AnyManifest],
    *,
    versions: Sequence[int] = (SCHEMA_VERSION,),
) -> AnyManifest:
    """Check a manifest's version, checksum and entries (ArtifactError)."""
    try:
        entries = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
        checksum = entries.pop("checksum")
        canonical = _canonical(entries)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is not the manifest of an artifact ({error})") from error
    version = entries.get("schema_version")
    if type(version) is not int or version not in versions:
        raise ArtifactError(
            f"{path} has schema version {repr(version)[:40]}; this fewfit reads {versions[-1]}. "
            "Load it with the fewfit that wrote it, or upgrade"
        )
    if checksum != sha256(canonical):
        raise ArtifactError(f"{path} differs from its checksum: it was damaged or edited by hand")
    try:
        return kind.model_validate_json(canonical)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))[:200]
        raise ArtifactError(f"{path}: {where}: {problem['msg']}") from None


def _canonical(entries: Mapping[str, Any]) -> bytes:
    return json.dumps(entries, sort_keys=True, ensure_ascii=True, allow_nan=False).encode("ascii")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes (ArtifactError)."""
    if not path.parent.is_dir():
        raise ArtifactError(
            f"there is no artifact at {path.parent}: no such folder. Check the path; fit and tune "
            "write artifacts"
        )
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode):
            raise ArtifactError(f"{path} is not a regular file; links are not followed")
        if info.st_size > limit:
            raise ArtifactError(f"{path} has {info.st_size} bytes, more than the {limit} allowed")
        return path.read_bytes()
    except FileNotFoundError:
        other = "; fit and tune write artifacts"
        if (path.parent / "config.json").is_file():
            other = f": it looks like a checkpoint, which is a model, hf:{path.parent}, to fit on"
        raise ArtifactError(
            f"{path.parent} holds no {path.name}, and so is no whole artifact, which cannot be "
            f"read{other}"
        ) from None
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}") from error


def _flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _swap(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`; an older artifact there steps aside first and is deleted last."""
    if not folder.exists():
        fresh.rename(folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(aside / folder.name)
    try:
        fresh.rename(folder)
    except OSError:
        (aside / folder.name).rename(folder)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sha256(data: bytes) -> str:
    """Return the hash in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def recover(parent: Path) -> list[Path]:
    """Put back what stood aside when a process was killed between the two renames of a write.

    No process may be writing there meanwhile.

    Returns
    -------
    list of path
        The folders that are there again, as they were before that write.
    """
    found = []
    for aside in sorted(parent.glob(ASIDE)):
        for old in [*aside.iterdir()] if aside.is_dir() and not aside.is_symlink() else []:
            if aside.name.startswith(f".{old.name}.old.") and old.is_dir():
                place = parent / old.name
                if not place.exists():
                    old.rename(place)
                    found.append(place)
                    aside.rmdir()
    return found
