"""Sparse deltas: what changed in a network's own weights, kept as indices and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning.selector import Masks


@dataclass(frozen=True)
class SparseDelta:
    """A change of some scalars of some parameters.

    Attributes
    ----------
    index : dict of str to Tensor of shape (n,), int64
        Positions in the flattened parameter, ascending.
    value : dict of str to Tensor of shape (n,)
        What is added there, in the parameter's dtype.
    """

    index: dict[str, Tensor]
    value: dict[str, Tensor]

    @classmethod
    def between(cls, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> SparseDelta:
        """Return where `after` differs from `before`, and by how much."""
        index, value = {}, {}
        for name, old in before.items():
            change = (after[name].detach() - old.detach()).flatten()
            where = change.nonzero().flatten()
            if len(where):
                index[name], value[name] = where.cpu(), change[where].cpu()
        return cls(index, value)

    @property
    def count(self) -> int:
        """Number of scalars."""
        return sum(len(where) for where in self.index.values())

    @torch.no_grad()
    def apply(self, network: nn.Module) -> Callable[[], None]:
        """Add the delta to a network's weights; the function returned puts them back bit for bit.

        Raises
        ------
        InputError
            If the network lacks a parameter of the delta, or has it in a smaller size.
        """
        parameters = dict(network.named_parameters())
        for name, where in self.index.items():
            if name not in parameters or parameters[name].numel() <= int(where[-1]):
                raise InputError(
                    f"delta: {name!r} does not fit this network; it is for another one"
                )
        kept: dict[str, Tensor] = {}
        for name, where in self.index.items():
            flat = parameters[name].view(-1)
            at = where.to(flat.device)
            kept[name] = flat[at].clone()
            flat[at] += self.value[name].to(flat.device, flat.dtype)

        @torch.no_grad()
        def revert() -> None:
            for name, where in self.index.items():
                flat = parameters[name].view(-1)
                flat[where.to(flat.device)] = kept[name]

        return revert

    def __add__(self, other: SparseDelta) -> SparseDelta:
        """Both changes at once; where they meet, their values add up."""
        index, value = {}, {}
        for name in [*self.index, *(n for n in other.index if n not in self.index)]:
            parts = [delta for delta in (self, other) if name in delta.index]
            where, place = torch.cat([d.index[name] for d in parts]).unique(return_inverse=True)
            values = torch.cat([d.value[name] for d in parts])
            index[name] = where
            value[name] = values.new_zeros(len(where)).index_add(0, place, values)
        return SparseDelta(index, value)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file."""
        tensors = {f"index.{k}": v.contiguous() for k, v in self.index.items()}
        tensors |= {f"value.{k}": v.contiguous() for k, v in self.value.items()}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: str | Path) -> SparseDelta:
        """Read what :meth:`save` wrote (ArtifactError if it is something else)."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} cannot be read as a sparse delta: {error}") from error
        index = {k[6:]: v for k, v in tensors.items() if k.startswith("index.")}
        value = {k[6:]: v for k, v in tensors.items() if k.startswith("value.")}
        whole = len(index) + len(value) == len(tensors) and index.keys() == value.keys()
        if not whole or any(index[k].shape != value[k].shape for k in index):
            raise ArtifactError(f"{path} is not a sparse delta: indices and values do not match")
        return cls(index, value)


class MaskedUpdate:
    """Keeps all scalars but the chosen ones as they were, whatever the optimiser does to them.

    It masks the update and not the gradient: momentum and weight decay would move a parameter
    whose gradient is zero. Called after each step (``after_step`` of :func:`fewfit.tuning.train`).
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masks: Masks) -> None:
        self._before = {name: p.detach().clone() for name, p in parameters.items()}
        self._parameters = parameters
        self._masks = {k: m.to(self._before[k].device) for k, m in masks.items()}

    @torch.no_grad()
    def __call__(self) -> None:
        for name, parameter in self._parameters.items():
            before = self._before[name]
            mask = self._masks.get(name)
            parameter.copy_(before if mask is None else torch.where(mask, parameter, before))

    def delta(self) -> SparseDelta:
        """Return what has changed since this was made."""
        return SparseDelta.between(self._before, self._parameters)
