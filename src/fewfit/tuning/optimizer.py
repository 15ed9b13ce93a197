"""The optimiser of a training: rates and decays by group, gradients averaged and clipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fewfit.errors import InputError
from fewfit.tuning.adapter import Group


def grouped(
    parameters: Mapping[str, nn.Parameter], groups: Sequence[Group], active: Collection[str]
) -> list[dict[str, Any]]:
    """Return what an optimiser takes: each active parameter in exactly one group.

    Raises
    ------
    InputError
        If a group names what is not there, or two name the same, or nothing is active.
    """
    named = [name for group in groups for name in group.names]
    unknown = [name for name in named if name not in parameters]
    if unknown or len(set(named)) < len(named):
        raise InputError(
            f"groups: each parameter is in one group, {unknown[:1] or 'one'} is in none or several"
        )
    strange = sorted(set(active) - parameters.keys())
    if strange or not active:
        raise InputError(
            f"replan: {strange[0]!r} is no part of what is trained"
            if strange
            else "replan: nothing would be trained"
        )
    rest = [p for name, p in parameters.items() if name in active and name not in set(named)]
    found = [{"params": rest, "factor": 1.0, "weight_decay": 0.0}] if rest else []
    for group in groups:
        members = [parameters[name] for name in group.names if name in active]
        if members:
            found.append({"params": members, "factor": group.factor, "weight_decay": group.decay})
    return found


def make_optimizer(name: str, groups: list[dict[str, Any]], before: Any = None) -> Any:
    """Return an optimiser by name; `before` hands on its state of the parameters that stay."""
    if name == "adamw":
        made: Any = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    else:
        from transformers.optimization import Adafactor

        made = Adafactor(
            groups, lr=0.0, scale_parameter=True, relative_step=False, warmup_init=False
        )
    if before is not None:
        for group in made.param_groups:
            for parameter in group["params"]:
                if parameter in before.state:
                    made.state[parameter] = before.state[parameter]
    return made


def state_bytes(optimizer: Any) -> int:
    """Return the memory of what an optimiser keeps of its parameters: moments, mostly."""
    kept = [value for state in optimizer.state.values() for value in state.values()]
    return sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))


def average_and_clip(
    parameters: Collection[nn.Parameter], scale: float, clip: float, accelerator: Any
) -> float:
    """Average gradients over processes and clip their common norm; returns the norm before.

    `scale` is what the loss was multiplied by.
    """
    with_grad = [p for p in parameters if p.grad is not None]
    if scale != 1:
        for p in with_grad:
            p.grad /= scale  # pyright: ignore[reportOperatorIssue]
    if accelerator.num_processes > 1:
        flat = torch.cat([p.grad.flatten() for p in with_grad])  # pyright: ignore[reportOptionalMemberAccess]
        flat = accelerator.reduce(flat, "mean")
        at = 0
        for p in with_grad:
            p.grad = flat[at : at + p.numel()].view_as(p).clone()
            at += p.numel()
    return float(nn.utils.clip_grad_norm_(with_grad, clip))
