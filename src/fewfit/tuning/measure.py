"""What a training step costs, measured: operations, what is kept for the backward pass, time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from fewfit.errors import InputError
from fewfit.tuning.training import training_mode

T = TypeVar("T")

Step = Callable[[], Tensor]
"""Computes a loss, a tensor of one element, without its backward pass."""

_ATEN = torch.ops.aten
_ON_CPU = {  # torch's counter knows the same functions on GPUs only; it gives them shapes
    _ATEN._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


class Flops(NamedTuple):
    """Floating-point operations of a step; a multiplication with its addition counts as two."""

    forward: int
    backward: int


def flops_of(step: Step) -> Flops:
    """Count the operations of matrix products, convolutions and attention in a step.

    Parameters
    ----------
    step : callable
        Called once. Gradients are added where they go, as in training. An attention counts whole,
        causal or not.

    Returns
    -------
    Flops
        Zero backward where nothing needs a gradient.
    """
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as forward:
        loss = step()
    if not loss.requires_grad:
        return Flops(forward.get_total_flops(), 0)
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as backward:
        loss.backward()
    return Flops(forward.get_total_flops(), backward.get_total_flops())


def saved_bytes(step: Step, *modules: nn.Module) -> int:
    """Return how many bytes a step keeps for its backward pass.

    The same on every run and machine. Memory that several operations keep is counted once, and
    what the modules hold anyhow, their parameters and buffers, not at all.

    Parameters
    ----------
    step : callable
        Called once; no gradient is computed.
    *modules : torch.nn.Module
        Network and adapters.
    """
    held: set[int] = set()
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            held.add(tensor.untyped_storage().data_ptr())
    kept: dict[int, Tensor] = {}  # the tensors too, so that no address is used twice

    def note(tensor: Tensor) -> Tensor:
        tensor = tensor.detach()  # an operation that keeps its own output would never be freed
        address = tensor.untyped_storage().data_ptr()
        if address not in held:
            kept[address] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = step()
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss
    return total


def seconds(steps: Mapping[str, Callable[[], Any]], *, repeat: int = 5) -> dict[str, float]:
    """Return the time that each of several steps takes, the median of `repeat` runs.

    They take turns, after one run of each that is not counted, so that whatever else the machine
    does falls on all of them. On a processor it is the process's time over all threads, which
    waiting does not add to; where there is a GPU, the time on the clock until it is done.

    Parameters
    ----------
    steps : mapping of str to callable
    repeat : int, default=5

    Raises
    ------
    InputError
        If `repeat` is below 1.
    """
    if repeat < 1:
        raise InputError(f"repeat: at least 1, not {repeat}")
    gpu = torch.cuda.is_available()
    clock = time.perf_counter if gpu else time.process_time
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if gpu:
                torch.cuda.synchronize()
            taken[name].append(clock() - start)
    return {name: median(times[1:]) for name, times in taken.items()}


@dataclass
class Meter:
    """What the trainings of a method took, added up as each of them ends.

    Attributes
    ----------
    flops : float
        Operations of all steps, of all rows that were scored on the way, and of what a method looks
        at to choose; each training's are those of one of its steps, counted, for all of them.
    saved_bytes : int
        Kept for the backward pass by one step, the largest of all trainings.
    optimizer_bytes : int
        Kept by the optimiser from step to step, moments mostly; the largest of all trainings.
    seconds : float
        On the clock, training alone.
    steps : list of int
        Steps that each training made.
    """

    flops: float = 0.0
    saved_bytes: int = 0
    optimizer_bytes: int = 0
    seconds: float = 0.0
    steps: list[int] = field(default_factory=list)

    def count(self, call: Callable[[], T]) -> T:
        """Return what a call gives, its operations added, those of backward passes too."""
        with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counted:
            found = call()
        self.flops += counted.get_total_flops()
        return found

    def keeps(self, n: int) -> None:
        """Take note of what an optimiser holds, in bytes."""
        self.optimizer_bytes = max(self.optimizer_bytes, n)

    def note(
        self,
        step: Step,
        network: nn.Module,
        adapter: nn.Module,
        *,
        parts: Iterable[nn.Parameter],
        dropout: bool,
        steps: float,
        seconds: float,
    ) -> None:
        """Measure a step of a training that has ended, `steps` of which it made in `seconds`."""
        with training_mode(network, dropout=dropout):
            self.saved_bytes = max(self.saved_bytes, saved_bytes(step, network, adapter))
            self.flops += steps * sum(flops_of(step))
        for part in parts:
            part.grad = None
        self.seconds += seconds


def forward_flops(call: Callable[[], Any]) -> int:
    """Count the operations of what is computed without a gradient; it is called once."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counted:
        call()
    return counted.get_total_flops()
