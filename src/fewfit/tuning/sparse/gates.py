"""Gates between 0 and 1 that can be exactly either, and can be learnt: the stretched hard concrete.

Louizos, Welling & Kingma 2018, arXiv 1712.01312, with l = -1.5 and r = 1.5 as in diff pruning.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Group, Handle
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.sparse.own import put
from fewfit.tuning.trunk import Trunk

LOW, HIGH = -1.5, 1.5


def draw(alpha: Tensor, u: Tensor) -> Tensor:
    """z = min(1, max(0, s (r - l) + l)), s = sigmoid(log u - log(1 - u) + alpha).

    Parameters
    ----------
    alpha : Tensor
        Log-odds.
    u : Tensor of the same shape
        Uniform between 0 and 1.
    """
    s = torch.sigmoid(torch.logit(u, eps=1e-6) + alpha)
    return (s * (HIGH - LOW) + LOW).clamp(0, 1)


def opens(alpha: Tensor) -> Tensor:
    """P(z > 0) = sigmoid(alpha - log(-l / r)); the logarithm is 0 here."""
    return torch.sigmoid(alpha)


class Gated(Adapter):
    """theta_0 + z w, w dense and z drawn for every batch: what is trained before a choice is made.

    A subclass says what z is. Nothing of it is kept: what was chosen goes into an adapter of its
    own.

    Parameters
    ----------
    network : Module
    names : iterable of str
        Parameters that change.

    Attributes
    ----------
    factors : mapping of str to float
        Of the rates of some parameters' w; 1 for the others.
    """

    factors: Mapping[str, float] = {}

    def __init__(self, network: nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.w = nn.ParameterDict(
            {key(name): torch.zeros(network.get_parameter(name).shape) for name in names}
        )
        self._at: dict[str, tuple[nn.Parameter, Tensor]] = {}
        self._change: dict[str, Tensor] = {}

    @abstractmethod
    def z(self, name: str, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw the gates of a parameter's scalars, in a shape that broadcasts to its own."""

    def drawn(self, seed: int) -> dict[str, Tensor]:
        """Return z w of every parameter for one draw of the gates, on the CPU."""
        g = torch.Generator(next(iter(self.w.values())).device).manual_seed(seed)
        with torch.no_grad():
            return {
                name: (self.z(name, generator=g) * self.w[key(name)]).cpu() for name in self.names
            }

    def groups(self) -> Sequence[Group]:
        found = [(key(name), self.factors.get(name, 1.0)) for name in self.names]
        return [Group((f"w.{own}",), factor) for own, factor in found if factor != 1]

    @property
    def names(self) -> list[str]:
        """The parameters that change."""
        return [name.replace("/", ".") for name in self.w]

    def act(self, network: nn.Module) -> list[Handle]:
        named = {name: network.get_parameter(name) for name in self.names}
        self._at = {name: (p, p.detach().clone()) for name, p in named.items()}
        handles: list[Any] = [_Back(self)]
        for name, parameter in named.items():
            parameter.requires_grad_(True)
            handles.append(parameter.register_post_accumulate_grad_hook(self._take(name)))
        return handles

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        """Draw gates, and put theta_0 + z w into the network."""
        for name, (parameter, theta_0) in self._at.items():
            change = self.z(name) * self.w[key(name)]
            self._change[name] = change
            put({name: parameter}, {}, {name: theta_0.float() + change.detach()})
        return batch

    def _take(self, name: str) -> Any:
        def take(parameter: Tensor) -> None:
            """Hand the gradient on to w and to what decides z."""
            assert parameter.grad is not None
            torch.autograd.backward(self._change.pop(name), parameter.grad.float())
            parameter.grad = None

        return take


class _Back:
    """Puts theta_0 back, bit for bit."""

    def __init__(self, adapter: Gated) -> None:
        self.adapter = adapter

    def remove(self) -> None:
        for name, (parameter, theta_0) in self.adapter._at.items():
            put({name: parameter}, {}, {name: theta_0})
            parameter.requires_grad_(False)
            parameter.grad = None
        self.adapter._at = {}
        self.adapter._change = {}


def uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return u in the shape of a tensor."""
    return torch.rand(like.shape, generator=generator, device=like.device)


def key(name: str) -> str:
    """Return the name of a parameter as torch lets it be registered."""
    return name.replace(".", "/")
