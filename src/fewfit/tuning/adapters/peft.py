"""LoRA and the other tuners of peft that can be injected into a network, through peft itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from fewfit.errors import InputError, MissingExtraError
from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.sites import SiteMap
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

ROLES = ("q", "k", "v", "o", "ffn.in", "ffn.out")
Role = Literal["q", "k", "v", "o", "ffn.in", "ffn.out"]
Tuner = Literal["gralora", "hira", "loha", "lokr", "lora", "miss", "oft", "peanut"]
"""What peft can inject and this project has tried; others keep state outside their layers."""


class PeftAdapter(Adapter):
    """A tuner of peft, injected into a network while it acts, and taken out again.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        For its shapes; it is left as it was.
    tuner : str
        A type of peft: ``"lora"``, ``"loha"``, ...
    options : mapping of str to Any
        Of the tuner's config, `target_modules` among them.
    seed : int
        Of what it draws.

    Raises
    ------
    InputError
        If peft refuses the options or a layer.
    MissingExtraError
        If peft is not installed.
    """

    def __init__(
        self, network: Any, tuner: str, options: Mapping[str, Any], *, seed: int = 0
    ) -> None:
        super().__init__()
        self._tuner, self._options = tuner, dict(options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            injected = _Injected(network, self._config(), {}, {})
        self.mergeable = injected.mergeable
        self.held = nn.ParameterDict()
        for name, tensor in injected.parameters.items():
            kept = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
            self.held[_key(name)] = nn.Parameter(kept.clone(), requires_grad=tensor.requires_grad)
        for name, tensor in injected.buffers.items():
            self.register_buffer(_key(name), tensor.detach().clone())
        self._buffer_names = list(injected.buffers)
        injected.remove()

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.held.items() if p.requires_grad}

    def act(self, network: nn.Module) -> list[Handle]:
        return [self._injected(network)]

    @torch.no_grad()
    def merge(self, network: nn.Module) -> None:
        if not self.mergeable:
            super().merge(network)
        injected = self._injected(network)
        for layer in injected.layers.values():
            layer.merge()
        injected.remove()

    def _injected(self, network: nn.Module) -> _Injected:
        parameters = {name.replace("/", "."): p for name, p in self.held.items()}
        buffers = {name: getattr(self, _key(name)) for name in self._buffer_names}
        with torch.random.fork_rng(devices=[]):
            return _Injected(network, self._config(), parameters, buffers)

    def _config(self) -> Any:
        try:
            from peft import PeftType
            from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
        except ImportError as error:
            raise MissingExtraError('LoRA needs peft: pip install "fewfit[tune]"') from error
        kind = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self._tuner.upper())]
        try:
            return kind(**self._options)
        except (TypeError, ValueError) as error:
            raise InputError(f"option: peft's {self._tuner} refuses it: {error}") from None


class _Injected:
    """peft's layers in the place of a network's own; `remove` puts these back."""

    def __init__(
        self,
        network: Any,
        config: Any,
        parameters: Mapping[str, nn.Parameter],
        buffers: Mapping[str, torch.Tensor],
    ) -> None:
        from peft import inject_adapter_in_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.network, self.known = network, hasattr(network, "peft_config")
        grads = {name: p.requires_grad for name, p in network.named_parameters()}
        problem: Exception | None = None
        try:
            inject_adapter_in_model(config, network)
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            problem = error
        named = [(n, m) for n, m in network.named_modules() if isinstance(m, BaseTunerLayer)]
        self.layers: dict[str, Any] = dict(named)
        if problem is not None:
            self.remove()
            for name, parameter in network.named_parameters():
                parameter.requires_grad_(grads[name])
            raise InputError(
                f"{type(network).__name__}: peft's {config.peft_type.value} refuses it: {problem}"
            )
        self.parameters: dict[str, nn.Parameter] = {}
        self.buffers: dict[str, torch.Tensor] = {}
        for path, layer in self.layers.items():
            layer.train(network.training)
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                if name.startswith("base_layer."):
                    continue
                owner, _, leaf = f"{path}.{name}".rpartition(".")
                module, whole = network.get_submodule(owner), f"{path}.{name}"
                if isinstance(tensor, nn.Parameter):
                    # Ours in the place of theirs: trained and kept here, whatever peft makes anew.
                    module._parameters[leaf] = parameters.get(whole, tensor)
                    self.parameters[whole] = tensor
                else:
                    module._buffers[leaf] = buffers.get(whole, tensor)
                    self.buffers[whole] = tensor

    @property
    def mergeable(self) -> bool:
        from peft.tuners.tuners_utils import BaseTunerLayer

        own = (type(layer).merge is not BaseTunerLayer.merge for layer in self.layers.values())
        return bool(self.layers) and all(own)

    def remove(self) -> None:
        for path, layer in self.layers.items():
            self.network.set_submodule(path, layer.get_base_layer())
        if not self.known and hasattr(self.network, "peft_config"):
            del self.network.peft_config


@dataclass(frozen=True)
class LoRA(TuningMethod):
    """Low-rank changes of linear layers: W x + (alpha / rank) B A x, with B = 0 at first.

    Parameters
    ----------
    rank : int, default=4
    alpha : float, default=8
    roles : tuple of {"q", "k", "v", "o", "ffn.in", "ffn.out"}, default=("q", "v")
        Which layers.
    dropout : float, default=0
        Of what A reads.
    dora : bool, default=False
        Whether the length of each column is learnt apart from its direction.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    rank: Annotated[int, Field(ge=1, le=4096)] = 4
    alpha: Annotated[float, Field(gt=0)] = 8.0
    roles: tuple[Role, ...] = ("q", "v")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dora: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        targets = targets_of(base.sites, self.roles)
        options = {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_dora": self.dora,
            "target_modules": targets,
            "fan_in_fan_out": _transposed(base.network, targets),
        }
        return PeftAdapter(base.network, "lora", options, seed=seed)


@dataclass(frozen=True)
class PeftTuning(TuningMethod):
    """Any other tuner of peft that can be injected, beside the layers that play `roles`.

    Parameters
    ----------
    tuner : str, default="loha"
        Its type in peft.
    roles : tuple of {"q", "k", "v", "o", "ffn.in", "ffn.out"}, default=("q", "v")
    tuner_options : mapping, default={}
        Arguments of its config in peft.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    tuner: Tuner = "loha"
    roles: tuple[Role, ...] = ("q", "v")
    tuner_options: dict[str, str | int | float | bool | None] = field(default_factory=dict)

    def build(self, base: Trunk, seed: int) -> Adapter:
        targets = targets_of(base.sites, self.roles)
        options = {"target_modules": targets, **self.tuner_options}
        return PeftAdapter(base.network, self.tuner, options, seed=seed)


def targets_of(sites: SiteMap, roles: tuple[str, ...]) -> list[str]:
    """Return the paths of the layers that play these roles (InputError for one that none plays)."""
    unknown = [role for role in roles if not sites.layers.get(role)]
    if unknown or not roles:
        raise InputError(
            f"lora: no layer plays {next(iter(unknown), 'a role')!r}; there are "
            f"{sorted(sites.layers)}"
        )
    return sorted({path for role in roles for path in sites.layers[role]})


def add_lora(
    network: nn.Module,
    sites: SiteMap,
    *,
    roles: tuple[str, ...] = ROLES,
    rank: int = 4,
    alpha: int = 1,
) -> dict[str, nn.Parameter]:
    """Put low-rank modules of peft into `network`, beside the layers that play `roles`, for good.

    They start as zero. :class:`LoRA` is the same as a method, which is saved and taken out again.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Changed in place.
    sites : SiteMap
    roles : tuple of str
        Keys of :attr:`SiteMap.layers`. The default is the baseline of T-Few's paper, without its
        training of layer norms.
    rank : int, default=4
    alpha : int, default=1
        The change is scaled by alpha / rank.

    Returns
    -------
    dict of str to Parameter
        What is to be trained, float32.

    Raises
    ------
    InputError
        For a role that the network does not have.
    MissingExtraError
        If peft is not installed.
    """
    targets = targets_of(sites, roles)
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingExtraError('LoRA needs peft: pip install "fewfit[tune]"') from error
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        fan_in_fan_out=_transposed(network, targets),
    )
    inject_adapter_in_model(config, network)
    found: dict[str, Any] = {n: p for n, p in network.named_parameters() if p.requires_grad}
    for parameter in found.values():
        parameter.data = parameter.data.float()  # peft gives them the dtype of their layer
    return found


def _transposed(network: nn.Module, targets: list[str]) -> bool:
    return type(network.get_submodule(targets[0])).__name__ == "Conv1D"


def _key(name: str) -> str:
    return name.replace(".", "/")
