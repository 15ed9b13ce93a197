"""A training's state on disk, from which an interrupted one goes on to the same end."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewfit.errors import InputError, InputWarning


@dataclass
class State:
    """What a training has come to.

    Attributes
    ----------
    history : list of float
        The loss of each step.
    active : tuple of str
        What is trained at present.
    watched : list of float
        Losses on rows that are kept apart.
    best : dict of str to Tensor
        The parameters when that was lowest.
    """

    active: tuple[str, ...]
    history: list[float] = field(default_factory=list)
    watched: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def save(
    file: Path, key: Any, state: State, parameters: Mapping[str, nn.Parameter], optimizer: Any
) -> None:
    """Write a checkpoint beside the old one, then replace it.

    Where it cannot be, for a full disk for example, a :class:`fewfit.errors.InputWarning` says so:
    the training is worth more than what it would go on from.
    """
    content = {
        "key": key,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        **vars(state),
    }
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        torch.save(content, fresh)
        fresh.replace(file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        fresh.unlink(missing_ok=True)
        warnings.warn(
            f"checkpoint: {file} cannot be written ({error}); the training goes on without",
            InputWarning,
            stacklevel=2,
        )


def resume(
    file: Path | None, key: Any, parameters: Mapping[str, nn.Parameter]
) -> tuple[State, Any]:
    """Take up a checkpoint, if there is one; returns its state and that of its optimiser.

    Raises
    ------
    InputError
        If it is damaged, of another training, or could not be written.
    """
    fresh = State(tuple(parameters))
    if file is None:
        return fresh, None
    if not file.exists():
        _check_place(file)
        return fresh, None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        known, values, optimizer = content["key"], content["parameters"], content["optimizer"]
        state = State(**{name: content[name] for name in vars(fresh)})
    except Exception as error:  # whatever a damaged file makes torch raise
        raise InputError(f"checkpoint: {file} cannot be read ({error}); delete it") from error
    if known != key:
        differs = sorted(n for n in {**key, **known} if known.get(n) != key.get(n))
        raise InputError(
            f"checkpoint: {file} is of another training ({', '.join(differs)} differ); delete it "
            "or name another file"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
    return state, optimizer


def _check_place(file: Path) -> None:
    """Refuse, before the first step, a place where nothing can be written (InputError)."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{file.name}.", dir=file.parent):
            pass
    except OSError as error:
        raise InputError(
            f"checkpoint: {file} cannot be written ({error.strerror}); name another file"
        ) from error


def digest(value: Any) -> str:
    """Return a hash of a tensor, or of what JSON can hold."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().flatten()
        data = plain.view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(f"{plain.dtype}{tuple(value.shape)}".encode() + data).hexdigest()
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
