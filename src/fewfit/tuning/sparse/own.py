"""Some of the network's own scalars, trained where they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning.adapter import Adapter, Group, Handle, check_names
from fewfit.tuning.sparse.delta import check_index, gaps_of, index_of


class OwnScalars(Adapter):
    """Chosen scalars of a network's parameters take other values while this is attached.

    Only they have an optimiser's state, and they are float32 whatever the network's dtype: after
    each step they are rounded into it.

    Parameters
    ----------
    network : Module
        Whose values they start from.
    masks : mapping of str to Tensor or None
        For some of its parameters a bool tensor of their shape; None is all of it.
    factors : mapping of str to float, optional
        Of the rate at which the scalars of a parameter are trained; 1 where there is none.

    Attributes
    ----------
    flexible : bool
        Whether the first :meth:`restore` takes other scalars than these, and other numbers of
        them: where the training decides how many there are.
    """

    mergeable = True

    def __init__(
        self,
        network: nn.Module,
        masks: Mapping[str, Tensor | None],
        factors: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self._factors = dict(factors or {})
        self.flexible = False
        named = dict(network.named_parameters())
        self._sizes = {name: p.numel() for name, p in named.items()}
        unknown = sorted(masks.keys() - named)
        if unknown:
            raise InputError(f"scalars: the network has no parameter {unknown[0]!r}")
        masks = {name: masks[name] for name in named if name in masks}  # one order, one rounding
        self.index: dict[str, Tensor] = {
            name: mask.flatten().nonzero().flatten().cpu()
            for name, mask in masks.items()
            if mask is not None
        }
        self.value: dict[str, nn.Parameter] = {}
        for name in masks:
            flat = named[name].detach().flatten()
            at = self.index.get(name)
            chosen = flat if at is None else flat[at.to(flat.device)]
            self._keep(name, chosen)
        self._named: dict[str, nn.Parameter] = {}

    def _keep(self, name: str, values: Tensor) -> None:
        # A copy in any case; `float` alone would share the network's memory.
        self.value[name] = nn.Parameter(values.detach().to(torch.float32, copy=True))
        self.register_parameter(name.replace(".", "/"), self.value[name])

    def found_in(self, network: nn.Module) -> dict[str, Tensor]:
        """Return what a network has at these scalars, float32."""
        named = dict(network.named_parameters())
        return {n: self._at(named[n], n).to(torch.float32, copy=True) for n in self.value}

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return self.value

    def groups(self) -> Sequence[Group]:
        by_factor: dict[float, list[str]] = {}
        for name in self.value:
            by_factor.setdefault(self._factors.get(name, 1.0), []).append(name)
        return [Group(tuple(names), factor) for factor, names in by_factor.items() if factor != 1]

    @torch.no_grad()
    def act(self, network: nn.Module) -> list[Handle]:
        named = dict(network.named_parameters())
        before = {n: self._at(named[n], n).clone() for n in self.value}
        self._named = {name: named[name] for name in self.value}
        self._write(self._named)
        handles: list[Any] = [_Back(self, self._named, before)]
        for name, parameter in self._named.items():
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(self._take(name)))
        return handles

    def after_step(self) -> None:
        self._write(self._named)

    def only(self, names: Collection[str]) -> None:
        for name, parameter in self._named.items():
            parameter.requires_grad_(name in names)

    def merge(self, network: nn.Module) -> None:
        self._write(dict(network.named_parameters()))

    def _take(self, name: str) -> Any:
        def take(parameter: Tensor) -> None:
            """Hand the gradient of the chosen scalars on, and forget that of the others."""
            mine, gradient = self.value[name], parameter.grad
            assert gradient is not None
            part = self._at(gradient, name).float()
            mine.grad = part.clone() if mine.grad is None else mine.grad + part
            parameter.grad = None

        return take

    def _at(self, parameter: Tensor, name: str) -> Tensor:
        flat = parameter.detach().reshape(-1)
        return flat[self.index[name].to(flat.device)] if name in self.index else flat

    @torch.no_grad()
    def _write(self, named: Mapping[str, Tensor]) -> None:
        put(named, self.index, self.value)

    def tensors(self) -> dict[str, Tensor]:
        found = {f"gaps.{name}": gaps_of(index) for name, index in self.index.items()}
        kept = {
            f"value.{name}": v.detach().to("cpu", copy=True).contiguous()
            for name, v in self.value.items()
        }
        return found | kept

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        index = {k[6:]: t for k, t in tensors.items() if k.startswith("index.")}  # version 0.1.0
        index |= {k[5:]: index_of(t) for k, t in tensors.items() if k.startswith("gaps.")}
        value = {k[6:]: t for k, t in tensors.items() if k.startswith("value.")}
        if not self.flexible:
            whole = self.value.keys() - self.index.keys()
            check_names(dict.fromkeys(whole), dict.fromkeys(value.keys() - index.keys()))
        strange = [k for k in tensors if not k.startswith(("index.", "gaps.", "value."))]
        strange += [name for name in value if name not in self._sizes]
        if strange or not index.keys() <= value.keys():
            raise ArtifactError(f"adapter: indices and values do not match: {strange[:1]}")
        for name, new in value.items():
            at = index.get(name)
            if at is not None:
                check_index(name, at, new, self._sizes[name])
            elif new.shape != (self._sizes[name],):
                raise ArtifactError(
                    f"adapter: {name} has shape {tuple(new.shape)}, not ({self._sizes[name]},)"
                )
        counts = [sum(map(len, of.values())) for of in (index, self.index)]
        if counts[0] != counts[1] and not self.flexible:
            raise ArtifactError(
                f"adapter: {counts[0]} scalars are chosen, and these options choose {counts[1]}"
            )
        device = next((v.device for v in self.value.values()), torch.device("cpu"))
        for name in self.value:
            delattr(self, name.replace(".", "/"))
        self.index, self.value = index, {}
        for name, new in value.items():
            self._keep(name, new.to(device))
        self.flexible = False
        return self


class _Back:
    """Puts the values back that stood there, bit for bit, and freezes them."""

    def __init__(
        self, adapter: OwnScalars, named: dict[str, nn.Parameter], before: dict[str, Tensor]
    ) -> None:
        self.adapter, self.named, self.before = adapter, named, before

    def remove(self) -> None:
        put(self.named, self.adapter.index, self.before)
        for parameter in self.named.values():
            parameter.requires_grad_(False)


@torch.no_grad()
def put(
    named: Mapping[str, Tensor], index: Mapping[str, Tensor], value: Mapping[str, Tensor]
) -> None:
    """Write values into parameters, at an index or all over."""
    for name, new in value.items():
        parameter = named[name]
        fresh = new.detach().to(parameter.device, parameter.dtype)
        if name in index:
            parameter.view(-1)[index[name].to(parameter.device)] = fresh
        else:
            parameter.copy_(fresh.view(parameter.shape))
