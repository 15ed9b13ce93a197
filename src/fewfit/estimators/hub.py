"""Artifacts on a hub of models: fetched by the name that a user gives, and written there.

What comes from a hub may come from anybody. Two files of it are fetched and no other, or four where
the model was tuned for it. They are checked as any artifact is, and what they name opens no more
than :mod:`fewfit.models.trust` allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fewfit.artifacts import schema
from fewfit.artifacts.files import write_files
from fewfit.errors import ArtifactError, MissingExtraError
from fewfit.store import default_path

_TUNED = ("tuning.json", "adapter.safetensors")

_FIRST = "vectors.safetensors"
"""Where version 1 of what is tuned kept its tensors."""


@contextmanager
def fetched(name: str, revision: str | None, options: dict[str, Any]) -> Iterator[Path]:
    """Yield the folder of an artifact: `name` itself, or what the hub has under this name.

    Parameters
    ----------
    name : str
        A folder, or ``OWNER/NAME``.
    revision : str, optional
    options : dict
        As ``huggingface_hub.hf_hub_download`` takes them: `token`, `cache_dir`, `force_download`,
        `local_files_only`.

    Raises
    ------
    MissingExtraError
        If it is no folder and huggingface_hub is not installed.
    ArtifactError
        If the hub has no such artifact, or is not reached and nothing was fetched before.
    """
    if Path(name).is_dir():
        yield Path(name)
        return
    hub = _hub()
    for names in ((schema.MANIFEST, schema.TENSORS), _TUNED):
        manifest, tensors = names
        try:
            first = Path(hub.hf_hub_download(name, manifest, revision=revision, **options))
            break
        except hub.errors.EntryNotFoundError as error:
            if isinstance(error, hub.errors.LocalEntryNotFoundError) and names == _TUNED:
                raise _not_had(name, error) from None
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
            raise _not_had(name, error) from None
    else:
        raise ArtifactError(
            f"{name} on the hub holds no {schema.MANIFEST} and no {_TUNED[0]}, and so is no "
            "artifact; save_pretrained, push_to_hub and 'fewfit fit' write such"
        )
    commit = first.parent.name
    held = {manifest: first.read_bytes()}
    if names == _TUNED and _FIRST.encode() in held[manifest]:
        tensors = _FIRST
    more = schema.MODEL_FILES if _carries(held[manifest]) else ()
    try:  # the same commit, whatever is pushed meanwhile
        for other in (tensors, *more):
            found = hub.hf_hub_download(name, other, revision=commit, **options)
            held[other] = Path(found).read_bytes()
    except (hub.errors.HfHubHTTPError, hub.errors.EntryNotFoundError, OSError) as error:
        raise _not_had(name, error) from None
    with TemporaryDirectory(prefix="fewfit.") as temporary:
        folder = Path(temporary) / "artifact"
        if names == _TUNED:  # read again when the model is first asked
            folder = default_path().parent / "tuned" / commit
        write_files(folder, held, lambda fresh: None)
        yield folder


def push(estimator: Any, repo_id: str, keep_example: bool, options: dict[str, Any]) -> str:
    """Write the artifact of an estimator to the hub, in one commit, and return its address."""
    hub = _hub()

    class Artifact(hub.ModelHubMixin):
        """The estimator as the hub's own mixin takes it."""

        def _save_pretrained(self, save_directory: Path) -> None:
            estimator.save(save_directory, keep_example=keep_example)

    if not options.get("commit_message"):
        options["commit_message"] = f"{type(estimator).__name__}, saved by fewfit"
    return str(Artifact().push_to_hub(repo_id, **options))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError(
            'the hub needs huggingface_hub: pip install "fewfit[hf]", or pip install '
            "huggingface_hub alone; a folder on this machine needs neither"
        ) from None
    return huggingface_hub


def _not_had(name: str, error: Exception) -> ArtifactError:
    why = str(error).strip().splitlines() or [type(error).__name__]
    return ArtifactError(
        f"{name!r} is no folder here, and it could not be fetched from the hub: {why[0]}"
    )


def _carries(manifest: bytes) -> bool:
    """Return whether a manifest, unchecked yet, says that the model's files lie beside it."""
    try:
        return json.loads(manifest)["model_spec"] == schema.CARRIED
    except (ValueError, KeyError, TypeError):  # which is said when it is read
        return False
