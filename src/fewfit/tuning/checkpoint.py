"""A training's state on disk, from which an interrupted one goes on to the same end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewfit.errors import InputError


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
    """Write a checkpoint beside the old one, then replace it."""
    content = {
        "key": key,
        "parameters": {name: p.detach().cpu() for name, p in parameters.items()},
        "optimizer": optimizer.state_dict(),
        **vars(state),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    torch.save(content, fresh)
    fresh.replace(file)


def resume(
    file: Path | None, key: Any, parameters: Mapping[str, nn.Parameter]
) -> tuple[State, Any]:
    """Take up a checkpoint, if there is one; returns its state and that of its optimiser.

    Raises
    ------
    InputError
        If it is damaged, or of another training.
    """
    fresh = State(tuple(parameters))
    if file is None or not file.exists():
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


def digest(value: Any) -> str:
    """Return a hash of a tensor, or of what JSON can hold."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().flatten()
        data = plain.view(torch.uint8).numpy().tobytes()
        return hashlib.sha256(f"{plain.dtype}{tuple(value.shape)}".encode() + data).hexdigest()
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
