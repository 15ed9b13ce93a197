"""What is learnt beside a frozen network, and where in it that acts: the contract."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from torch import Tensor, nn

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.sites import Site, hook

if TYPE_CHECKING:
    from fewfit.tuning.trunk import Trunk


class Handle(Protocol):
    """Undoes what made it."""

    def remove(self) -> None: ...


class Group(NamedTuple):
    """Parts that are trained alike: `factor` times the recipe's rate, with a decay of their own.

    ``names`` are the parts, each in one group at most; what is in none has factor 1 and no decay.
    """

    names: tuple[str, ...]
    factor: float = 1.0
    decay: float = 0.0


class Adapter(nn.Module, ABC):
    """Tensors, and how they change a network while they are attached; nothing else is ever saved.

    A subclass implements :meth:`act`. Fresh, it leaves the network as it is, bit for bit, unless
    its method says which setting does.
    """

    mergeable: bool = False

    def __init__(self) -> None:
        super().__init__()
        self._handles: list[Handle] = []

    @abstractmethod
    def act(self, network: nn.Module) -> list[Handle]:
        """Change what `network` computes; returns what undoes it, to be removed last first."""

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        """Return what is trained, by name, float32."""
        return dict(self.named_parameters())

    def groups(self) -> Sequence[Group]:
        """Return the parts that have rates or decays of their own."""
        return ()

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        """Change what the network reads; the batch is on the network's device."""
        return batch

    def after_step(self) -> None:
        """Put right what an update must not break."""

    def replan(self, step: int, active: Collection[str]) -> Collection[str] | None:
        """Return which parts are trained from this step on; None is those that are, `active`.

        Called before each step while it is attached, the gradients of the one before still there.
        Parts that leave lose the optimiser's state. An interrupted training goes on with the
        `active` that it had, so that beside these the answer depends on the step and the parts'
        values alone.
        """
        return None

    @property
    def replans(self) -> bool:
        """Whether :meth:`replan` may ever answer."""
        return type(self).replan is not Adapter.replan

    def only(self, names: Collection[str]) -> None:
        """Have gradients computed for these parts and no others."""
        for name, part in self.named_parameters():
            part.requires_grad_(name in names)

    def merge(self, network: nn.Module) -> None:
        """Put the change into the network's own weights, for good (InputError if it cannot be)."""
        raise InputError(
            f"merge: {type(self).__name__} is no change of weights, it stays beside the network; "
            "name the folder as the model, tuned:FOLDER"
        )

    def attach(self, network: nn.Module) -> Self:
        """Put it to work in `network` until :meth:`detach`."""
        self.detach()
        self._handles.extend(self.act(network))
        return self

    def detach(self) -> None:
        """Take it out of the network again."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def attached(self) -> bool:
        """Whether it is at work."""
        return bool(self._handles)

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[Self]:
        """Put it to work inside the block."""
        try:
            yield self.attach(network)
        finally:
            self.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of all that must be kept, on the CPU."""
        return {
            k: v.detach().to("cpu", copy=True).contiguous() for k, v in self.state_dict().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        """Take over what :meth:`tensors` gave (ArtifactError if it is another adapter's)."""
        mine = self.state_dict()
        check_names(mine, tensors)
        for name, tensor in mine.items():
            if tensors[name].shape != tensor.shape:
                raise ArtifactError(
                    f"adapter: {name} has shape {tuple(tensors[name].shape)}, but this model and "
                    f"these options need {tuple(tensor.shape)}; it is for others"
                )
        self.load_state_dict(dict(tensors))
        return self

    @property
    def count(self) -> int:
        """Number of values that are kept."""
        return sum(t.numel() for t in self.tensors().values() if t.is_floating_point())


def check_names(mine: Mapping[str, object], given: Mapping[str, object]) -> None:
    """Refuse tensors of other names (ArtifactError)."""
    missing, strange = sorted(mine.keys() - given.keys()), sorted(given.keys() - mine.keys())
    if missing or strange:
        raise ArtifactError(
            f"adapter: the tensors are for another model or other options: {len(missing)} of "
            f"{len(mine)} are missing (first {missing[:1]}), {len(strange)} have no place (first "
            f"{strange[:1]})"
        )


class Together(Adapter):
    """Several adapters at once; the first acts first."""

    def __init__(self, *adapters: Adapter) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(adapters)

    @property
    def members(self) -> list[Any]:
        """The adapters."""
        return list(self.adapters)

    def act(self, network: nn.Module) -> list[Handle]:
        return [handle for adapter in self.members for handle in adapter.act(network)]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        for adapter in self.members:
            batch = adapter.rewrite(batch, trunk)
        return batch

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return {
            f"adapters.{i}.{name}": part
            for i, adapter in enumerate(self.members)
            for name, part in adapter.parts(network).items()
        }

    def groups(self) -> Sequence[Group]:
        return [
            group._replace(names=tuple(f"adapters.{i}.{name}" for name in group.names))
            for i, adapter in enumerate(self.members)
            for group in adapter.groups()
        ]

    def after_step(self) -> None:
        for adapter in self.members:
            adapter.after_step()

    @property
    def replans(self) -> bool:
        return any(adapter.replans for adapter in self.members)

    def replan(self, step: int, active: Collection[str]) -> Collection[str] | None:
        found: list[str] = []
        for i, adapter in enumerate(self.members):
            own = _inside(f"adapters.{i}.", active)
            planned = adapter.replan(step, own)
            found += [f"adapters.{i}.{name}" for name in (own if planned is None else planned)]
        return found

    def only(self, names: Collection[str]) -> None:
        for i, adapter in enumerate(self.members):
            adapter.only(_inside(f"adapters.{i}.", names))


def _inside(prefix: str, names: Collection[str]) -> list[str]:
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


class Place(NamedTuple):
    """Where a module acts, and where it reads; None is where it acts."""

    acts: Site
    reads: Site | None = None


class PerThread(threading.local):
    """What is kept between two hooks of one forward pass; threads may share a network."""

    def __init__(self) -> None:
        self.kept: dict[Any, Any] = {}


_read = PerThread()


class SiteAdapter(Adapter):
    """A small module ``f(h, x) -> h`` at each of some places.

    Parameters
    ----------
    places : mapping of str to Place
    modules : mapping of str to Module
        For each place what is called there with h, the activation, and x, what it reads; both
        (..., features).
    """

    def __init__(self, places: Mapping[str, Place], modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.places = dict(places)
        self.at = nn.ModuleDict({_key(name): module for name, module in modules.items()})

    def module(self, name: str) -> Any:
        """Return the module of a place."""
        return self.at[_key(name)]

    def act(self, network: nn.Module) -> list[Handle]:
        handles: list[Handle] = []
        for name, place in self.places.items():
            if place.reads is not None:
                handles.append(hook(network, place.reads, self._keep(name)))
            handles.append(hook(network, place.acts, self._change(name)))
        return handles

    def _keep(self, name: str) -> Callable[[Tensor], None]:
        def keep(x: Tensor) -> None:
            _read.kept[id(self), name] = x

        return keep

    def _change(self, name: str) -> Callable[[Tensor], Tensor]:
        reads = self.places[name].reads is not None

        def change(h: Tensor) -> Tensor:
            x = _read.kept.pop((id(self), name)) if reads else h
            return self.module(name)(h, x).to(h.dtype)

        return change


def _key(name: str) -> str:
    return name.replace(".", "/")
