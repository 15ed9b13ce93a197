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
    """Other values for some scalars of some parameters.

    Values and no differences: a difference that is rounded does not add up, bit for bit, to the
    value it was taken from.

    Attributes
    ----------
    index : dict of str to Tensor of shape (n,), int64
        Positions in the flattened parameter, ascending, each once.
    value : dict of str to Tensor of shape (n,)
        What stands there then, in the parameter's dtype.
    base : dict of str to Tensor of shape (n,), or None
        What stood there. None is a file of an earlier version, whose values are differences.

    Raises
    ------
    ArtifactError
        For indices that are negative, unsorted or repeated, or a value that is not finite.
    """

    index: dict[str, Tensor]
    value: dict[str, Tensor]
    base: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        tables = [self.value] if self.base is None else [self.value, self.base]
        for table in tables:
            if table.keys() != self.index.keys():
                raise ArtifactError("delta: indices and values do not match")
            for name, values in table.items():
                check_index(name, self.index[name], values)

    @classmethod
    def between(cls, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> SparseDelta:
        """Return where `after` differs from `before`, and both values there."""
        index: dict[str, Tensor] = {}
        value: dict[str, Tensor] = {}
        base: dict[str, Tensor] = {}
        for name, old in before.items():
            was, now = old.detach().flatten(), after[name].detach().flatten()
            where = (was != now).nonzero().flatten()
            if len(where):
                index[name] = where.cpu()
                base[name], value[name] = was[where].cpu(), now[where].cpu()
        return cls(index, value, base)

    @property
    def count(self) -> int:
        """Number of scalars."""
        return sum(len(where) for where in self.index.values())

    @torch.no_grad()
    def apply(self, network: nn.Module) -> Callable[[], None]:
        """Put the values into a network's weights; the function returned puts the old ones back.

        Both to the bit.

        Raises
        ------
        InputError
            If the network lacks a parameter of the delta, or has it in a smaller size.
        """
        parameters = dict(network.named_parameters())
        for name, where in self.index.items():
            size = parameters[name].numel() if name in parameters else 0
            if len(where) and size <= int(where[-1]):
                raise InputError(
                    f"delta: {name!r} does not fit this network; it is for another one"
                )
        kept: dict[str, Tensor] = {}
        for name, where in self.index.items():
            flat = parameters[name].view(-1)
            at = where.to(flat.device)
            kept[name] = flat[at].clone()
            new = self.value[name].to(flat.device, flat.dtype)
            flat[at] = kept[name] + new if self.base is None else new

        @torch.no_grad()
        def revert() -> None:
            for name, where in self.index.items():
                flat = parameters[name].view(-1)
                flat[where.to(flat.device)] = kept[name]

        return revert

    def __add__(self, other: SparseDelta) -> SparseDelta:
        """Both changes at once; where they meet, their changes add up.

        Raises
        ------
        InputError
            If they are changes of two different networks.
        """
        if (self.base is None) != (other.base is None):
            raise InputError("delta: one of them is of an earlier version, the other is not")
        index: dict[str, Tensor] = {}
        value: dict[str, Tensor] = {}
        base: dict[str, Tensor] = {}
        for name in [*self.index, *(n for n in other.index if n not in self.index)]:
            parts = [delta for delta in (self, other) if name in delta.index]
            if len(parts) == 1:
                index[name], value[name] = parts[0].index[name], parts[0].value[name]
                if parts[0].base is not None:
                    base[name] = parts[0].base[name]
                continue
            where, place = torch.cat([d.index[name] for d in parts]).unique(return_inverse=True)
            index[name], n = where, len(where)
            if self.base is None or other.base is None:
                values = torch.cat([d.value[name] for d in parts])
                value[name] = values.new_zeros(n).index_add(0, place, values)
                continue
            first, second = place.split([len(d.index[name]) for d in parts])
            was, now = (self.base[name].new_zeros(n) for _ in range(2))
            was[first] = self.base[name]
            now[first] = self.value[name]
            known = torch.zeros(n, dtype=torch.bool)
            known[first] = True
            both = known[second]
            if not torch.equal(was[second][both], other.base[name][both]):
                raise InputError(f"delta: {name!r} had other values; they are of two networks")
            change = other.value[name] - other.base[name]
            together = was[second] + ((now[second] - was[second]) + change)  # in either order
            now[second] = torch.where(both, together, other.value[name])
            was[second] = other.base[name]
            value[name], base[name] = now, was
        return SparseDelta(index, value, None if self.base is None else base)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; an index takes two bytes where none is far from the last."""
        gaps = {name: gaps_of(where) for name, where in self.index.items()}
        tables = {"gaps": gaps, "value": self.value, "base": self.base or {}}
        save_file(
            {
                f"{kind}.{k}": v.contiguous()
                for kind, table in tables.items()
                for k, v in table.items()
            },
            path,
        )

    @classmethod
    def load(cls, path: str | Path) -> SparseDelta:
        """Read what :meth:`save` wrote (ArtifactError if it is something else)."""
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path} cannot be read as a sparse delta: {error}") from error
        tables: dict[str, dict[str, Tensor]] = {"index": {}, "gaps": {}, "value": {}, "base": {}}
        for name, tensor in tensors.items():
            kind, _, parameter = name.partition(".")
            if kind not in tables:
                raise ArtifactError(f"{path} is not a sparse delta: what is {name!r}?")
            tables[kind][parameter] = tensor
        try:
            index = tables["index"] | {n: index_of(gaps) for n, gaps in tables["gaps"].items()}
            return cls(index, tables["value"], tables["base"] or None)
        except ArtifactError as error:
            raise ArtifactError(f"{path} is not a sparse delta: {error}") from None


def gaps_of(index: Tensor) -> Tensor:
    """Return an ascending index as differences, the first from 0, in the fewest bytes."""
    gaps = torch.diff(index, prepend=index.new_zeros(1)) if len(index) else index
    most = int(gaps.max()) if len(gaps) else 0
    kinds = (k for k in (torch.uint16, torch.int32) if most <= torch.iinfo(k).max)
    return gaps.to(next(kinds, torch.int64))


def index_of(gaps: Tensor) -> Tensor:
    """Return what :func:`gaps_of` was given."""
    return gaps.to(torch.int64).cumsum(0) if gaps.ndim == 1 else gaps


def check_index(name: str, index: Tensor, value: Tensor, size: int | None = None) -> None:
    """Refuse what are not values at ascending positions of a flat parameter (ArtifactError)."""
    if index.dtype != torch.int64 or index.ndim != 1 or value.shape != index.shape:
        raise ArtifactError(
            f"{name!r}: {tuple(index.shape)} indices of {index.dtype} for {tuple(value.shape)} "
            "values; one int64 index for each value is needed"
        )
    if len(index) and (int(index[0]) < 0 or bool((index.diff() <= 0).any())):
        raise ArtifactError(f"{name!r}: indices are not ascending from 0, each once")
    if size is not None and len(index) and int(index[-1]) >= size:
        raise ArtifactError(f"{name!r}: index {int(index[-1])} is beyond its {size} scalars")
    if not torch.isfinite(value).all():
        raise ArtifactError(f"{name!r}: a value is not a finite number")


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
