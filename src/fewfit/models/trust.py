"""What a file may make this machine do by naming a model: nothing that its user did not name.

An artifact may come from anybody, and names the frozen model that it was fitted on. Read from a
file, that name leads to no server but one on this machine, sends no key, reads no environment
variable, fetches nothing, and opens only files that have the hashes that the artifact is bound to.
Everything else waits until the user names the model, with ``model=`` or ``--model``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from fewfit.errors import ArtifactError, InputError, MissingExtraError, printable
from fewfit.models.local.packaged import PACKAGES, packaged_folder
from fewfit.models.paired import JOINT
from fewfit.models.remote import DIALECTS, RemoteModel
from fewfit.models.remote.options import KEY_NAMES

_HARMLESS = ("embedded", "embedded-en", "embedded-en-float32", "fake")
"""Kinds of models that have no options and come with an installed package."""

_SYSTEM = ("/proc", "/dev", "/sys", "/net", "/run")
"""Folders whose files are no files, or whose opening asks another machine."""


def spec_to_write(spec: str | None) -> str | None:
    """Return a model's name as a file may have it: without a variable, and with one server only."""
    if spec is not None and JOINT in spec:
        return JOINT.join(str(spec_to_write(half)) for half in spec.split(JOINT))
    scheme, _, rest = (spec or "").partition(":")
    if spec is None or scheme not in DIALECTS:
        return spec
    model = DIALECTS[scheme].from_spec(rest)
    kept = model.options.given(without=KEY_NAMES)
    if _second_server(model):
        kept.pop("hidden")
    return type(model)(model.url, **kept).spec


def check_spec(spec: str | None, path: Path) -> None:
    """Refuse a manifest whose model could send a key, whoever loads it (ArtifactError)."""
    for half in (spec or "").split(JOINT):
        _check_half(half, path)


def _check_half(spec: str, path: Path) -> None:
    scheme, _, rest = spec.partition(":")
    names = [name for name, _ in parse_qsl(rest.partition("?")[2], keep_blank_values=True)]
    if scheme in DIALECTS and KEY_NAMES & set(names):
        raise ArtifactError(
            f"{path}: the model's address names an environment variable (key_env=), which no "
            "artifact may: its server would be told what is in it"
        )


def check_unnamed(spec: str, path: Path, identity_hidden: bool = False) -> None:
    """Refuse to open, by its name in a file alone, a model that the user has to name.

    Parameters
    ----------
    spec : str
        From the file at `path`.
    identity_hidden : bool
        Whether the artifact is bound to hidden states.

    Raises
    ------
    ArtifactError
        The message says what to give as ``--model``.
    """
    scheme, _, rest = spec.partition(":")
    if scheme in DIALECTS:
        _check_server(spec, _server(scheme, rest, path), path, identity_hidden)
    elif scheme in ("hf", "encoder"):
        _check_checkpoint(spec, rest, path)
    elif scheme == "tuned":
        _check_folder(rest, path)
    elif scheme not in _HARMLESS:
        raise ArtifactError(
            f"{path}: what {_shown(scheme)} may open or ask is not known to fewfit; if you know "
            f"it, add --model {_shown(spec)} (model=... in Python)"
        )


def _server(scheme: str, rest: str, path: Path) -> RemoteModel:
    try:
        return DIALECTS[scheme].from_spec(rest)
    except InputError as error:
        raise ArtifactError(f"{path}: the model's address is none: {error}") from error


def _check_server(spec: str, model: RemoteModel, path: Path, hidden: bool) -> None:
    name = f"add --model {_shown(spec)} (model=... in Python), and &key_env=NAME for a key"
    if _second_server(model) or (hidden and "hidden" in model.has and not model.options.hidden):
        raise ArtifactError(
            f"{path}: hidden states came from a second server, which an artifact does not name; "
            f"{name}, with hidden=URL in it"
        )
    if not _is_here(model.url):
        raise ArtifactError(
            f"{path}: the model is behind the server {_shown(_origin(model.url))}, and texts are "
            f"sent to another machine only if you name it: {name}"
        )


def _check_checkpoint(spec: str, rest: str, path: Path) -> None:
    name = rest if Path(rest).is_dir() else re.split(r"[?@]", rest)[0]
    _check_folder(name, path)
    if Path(name).expanduser().is_dir() or packaged_folder(name) is not None:
        return
    if name in PACKAGES:
        raise ArtifactError(
            f"{path}: the model {_shown(name)} is not on this machine: run 'fewfit download {name}'"
        )
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise MissingExtraError('this model needs: pip install "fewfit[hf]"') from None
    scheme = spec.partition(":")[0]
    if _is_path(name):
        raise ArtifactError(
            f"{path}: the model's folder {_shown(name)} is not found from {_shown(os.getcwd())}; "
            f"name it as it is seen from here, with --model {scheme}:FOLDER (model=... in Python)"
        )
    commit = re.search(r"@([^?]+)", rest)
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=commit and commit[1])
    except (HFValidationError, OSError, ValueError):
        cached = None
    if not isinstance(cached, str) or not any(Path(cached).parent.glob("*.safetensors")):
        raise ArtifactError(
            f"{path}: the model {_shown(name)} is not on this machine, and an artifact fetches "
            f"nothing; add --model {_shown(spec)} (model=... in Python) to fetch it from the hub"
        )


def _check_folder(name: str, path: Path) -> None:
    """Refuse a path that may lead to another machine, or to what is no file."""
    if "\0" in name or name.startswith(("//", "\\\\")) or "://" in name:
        raise ArtifactError(f"{path}: {_shown(name)} is no folder of this machine")
    try:
        folder = Path(name).expanduser()
        ways = (Path(os.path.abspath(folder)), folder.resolve())
        if any(way.is_relative_to(place) for way in ways for place in _SYSTEM):
            raise ArtifactError(f"{path}: {_shown(name)} is a folder of the system, not a model's")
        odd = [p for p in folder.iterdir() if p.exists() and not (p.is_file() or p.is_dir())]
    except RuntimeError:  # a home that nobody has
        raise ArtifactError(f"{path}: {_shown(name)} is no folder of this machine") from None
    except (OSError, ValueError):  # it is not there, which is said later
        return
    if odd:
        raise ArtifactError(f"{path}: {_shown(str(odd[0]))} is not a regular file")


def _is_path(name: str) -> bool:
    """Whether this can only be a folder: the hub has NAME or OWNER/NAME."""
    return name.startswith((".", "~", "/")) or "\\" in name or name.count("/") > 1


def _second_server(model: RemoteModel) -> bool:
    hidden = model.options.hidden
    return hidden is not None and _origin(hidden) != _origin(model.url)


def _origin(url: str) -> str:
    split = urlsplit(url)
    port = split.port or (443 if split.scheme == "https" else 80)
    return f"{split.scheme}://{split.hostname}:{port}"


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(text: str) -> str:
    line = printable(text)
    return shlex.quote(line if len(line) <= 300 else line[:300] + "…")
