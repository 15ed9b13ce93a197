"""The one training loop of the wing: few parameters, resumable, on one or many processes.

What is trained, on what, and with which loss are arguments; a method is a few lines around it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fewfit.errors import DivergenceError, InputError, MissingExtraError
from fewfit.tuning.adapter import Group
from fewfit.tuning.checkpoint import digest, resume, save
from fewfit.tuning.optimizer import average_and_clip, grouped, make_optimizer, state_bytes

if TYPE_CHECKING:
    from fewfit.tuning.measure import Meter

Progress = Callable[[int], object]
"""Called with the number of steps made since the last call."""

Replan = Callable[[int, Collection[str]], Collection[str] | None]
"""Given the step that comes and what is trained at present, by name: what is trained from now on.

None is what is trained at present.
"""

_HALF_SCALE = 1024.0
"""The loss is multiplied by it where weights are float16, whose gradients would round to zero."""


@dataclass
class Watch:
    """Rows that are kept apart, by whose loss a training ends and its best parameters are taken.

    Parameters
    ----------
    loss : callable
        Their mean loss now.
    every : int
        Steps between two looks; there is one after the last step too.
    patience : int
        So many looks without a lower loss end the training.
    looks : list of float, optional
        Is given the losses.
    """

    loss: Callable[[], float]
    every: int
    patience: int
    looks: list[float] | None = None

    def over(self, watched: Sequence[float]) -> bool:
        """Whether these losses end a training."""
        if not watched:
            return False
        return len(watched) - 1 - int(np.argmin(watched)) >= self.patience


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; the defaults are T-Few's, the same for every task.

    Parameters
    ----------
    steps : int, default=1000
    batch_size : int, default=8
        Rows of one step, over all processes; all rows, where there are fewer.
    learning_rate : float, default=3e-3
        At the peak.
    warmup : float, default=0.06
        Share of the steps in which the rate rises linearly from 0; it then falls linearly to 0.
    optimizer : {"adafactor", "adamw"}, default="adafactor"
        Adafactor with the step scaled by the root mean square of the parameter (at least 1e-3).
    clip : float, default=1.0
        Largest norm of the gradient of all parameters together.
    dropout : bool, default=True
        Whether the frozen network's own dropout is active, as in the original. Its masks differ
        with the number of processes, so results agree across numbers of processes only without.
    micro_batch : int, optional
        Rows that are computed at once, if not all of the batch; the gradient is the same where the
        loss is a mean over the rows, and nothing is drawn beside the dropout.

    Raises
    ------
    InputError
    """

    steps: int = 1000
    batch_size: int = 8
    learning_rate: float = 3e-3
    warmup: float = 0.06
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    clip: float = 1.0
    dropout: bool = True
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"recipe: {name} is at least 1, not {value}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InputError(f"recipe: learning_rate is positive, not {self.learning_rate}")
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise InputError(f"recipe: clip is positive, not {self.clip}")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"recipe: warmup is a share of the steps, not {self.warmup}")
        if self.optimizer not in ("adafactor", "adamw"):
            raise InputError(f"recipe: optimizer is adafactor or adamw, not {self.optimizer!r}")

    def rate(self, step: int) -> float:
        """Learning rate of the step with this number, counted from 0."""
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * step / rising
        return self.learning_rate * max(0, self.steps - step) / max(1, self.steps - rising)

    def longest(self, n_rows: int) -> int:
        """Return how many steps a training on so many rows has at most."""
        return self.steps

    def skips(self, loss: float) -> bool:
        """Whether a step of this loss changes nothing."""
        return False

    def done(self, history: Sequence[float]) -> bool:
        """Whether the steps that were made, with these losses, are enough."""
        return False

    def rows(self, step: int, n_rows: int, seed: int) -> list[int]:
        """Return the rows of a step: each epoch a new order, its last partial batch dropped.

        A function of the step alone, so that a resumed training sees what an uninterrupted one
        would have seen.
        """
        size = min(self.batch_size, n_rows)
        epoch, place = divmod(step, n_rows // size)
        order = np.random.default_rng([seed, epoch]).permutation(n_rows)
        return order[place * size : (place + 1) * size].tolist()


def train(
    network: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    loss_of: Callable[[Sequence[int], int], Tensor],
    n_rows: int,
    recipe: Recipe,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every: int = 100,
    progress: Progress | None = None,
    accelerator: Any = None,
    after_step: Callable[[], object] | None = None,
    groups: Sequence[Group] = (),
    replan: Replan | None = None,
    watch: Watch | None = None,
    until: int | None = None,
    decides: Mapping[str, str] = {},
    meter: Meter | None = None,
) -> list[float]:
    """Train `parameters`; nothing else changes.

    Parameters
    ----------
    network : Module
        What the loss runs through; only its dropout is switched here.
    parameters : mapping of str to Parameter
        What is trained, in place.
    loss_of : callable
        Takes row numbers and the step, and returns the mean loss over these rows.
    n_rows : int
        Rows of the training set.
    seed : int
        Of the order of the rows and of the dropout; global random state is left as it was.
    checkpoint : path, optional
        File that is written every `every` steps and at the end, and from which an interrupted
        training goes on; the final parameters are those of an uninterrupted one.
    progress : callable, optional
    accelerator : accelerate.Accelerator, optional
        Made here if left out. Under ``accelerate launch`` each process computes its share of every
        batch, and gradients are averaged.
    after_step : callable, optional
        Called after each update, for methods that constrain it.
    groups : sequence of Group
        Parameters with a rate or a decay of their own.
    replan : callable, optional
        Called before each step, the gradients of the one before still there; says which of the
        parameters are trained from now on. The optimiser is made anew then: parameters that stay
        keep its state, those that leave lose it. It depends on the step and the parameters alone.
    watch : Watch, optional
        Ends the training early, and puts back the parameters that were best. A group of processes
        watches together.
    until : int, optional
        Ends the training after so many of its steps, at the rates that it has.
    decides : mapping of str to str
        What else decides the result: texts, model, loss, ... A checkpoint of another training is
        refused by it.
    meter : Meter, optional
        Told how much the optimiser keeps.

    Returns
    -------
    list of float
        The loss of each step.

    Raises
    ------
    InputError
        If there are no rows, or nothing to train, the batch cannot be shared out, or the checkpoint
        is of another training.
    DivergenceError
        If the loss or its gradient is not finite. The parameters are then those of the last good
        step, and the checkpoint, if any, is kept.
    """
    accelerator = accelerator or make_accelerator()
    world, me = accelerator.num_processes, accelerator.process_index
    size = min(recipe.batch_size, n_rows)
    if not n_rows:
        raise InputError("training: no rows")
    if size % world:
        raise InputError(f"training: a batch of {size} rows cannot be shared by {world} processes")
    half = any(p.dtype == torch.float16 for p in network.parameters())
    scale = _HALF_SCALE if half else 1.0
    key = {
        **decides,
        "recipe": asdict(recipe),
        "seed": seed,
        "rows": n_rows,
        "names": sorted(parameters),
        "groups": digest([group._asdict() for group in groups]),
    }
    file = None if checkpoint is None else Path(checkpoint)
    state, kept = resume(file, key, parameters)
    optimizer = make_optimizer(recipe.optimizer, grouped(parameters, groups, state.active))
    if kept is not None:
        optimizer.load_state_dict(kept)
    history = state.history
    if history and after_step is not None:
        exact = {name: p.detach().clone() for name, p in parameters.items()}
        after_step()  # what it keeps beside the parameters is that of a fresh run
        with torch.no_grad():  # which it has put right once, and may round a second time
            for name, parameter in parameters.items():
                parameter.copy_(exact[name])
    if progress is not None and history:
        progress(len(history))
    end = recipe.steps if until is None else min(until, recipe.steps)
    with training_mode(network, dropout=recipe.dropout):
        for step in range(len(history), end):
            if recipe.done(state.history) or (watch is not None and watch.over(state.watched)):
                break
            planned = None if replan is None else replan(step, state.active)
            if planned is not None and set(planned) != set(state.active):
                state.active = tuple(sorted(planned))
                plan = grouped(parameters, groups, state.active)
                if meter is not None:
                    meter.keeps(state_bytes(optimizer))
                optimizer = make_optimizer(recipe.optimizer, plan, optimizer)
            rows = recipe.rows(step, n_rows, seed)[me::world]
            torch.manual_seed(int(np.random.default_rng([seed, step, me]).integers(2**63)))
            for parameter in parameters.values():
                parameter.grad = None
            part = recipe.micro_batch or len(rows)
            loss = torch.zeros((), device=accelerator.device)
            for start in range(0, len(rows), part):
                some = rows[start : start + part]
                share = loss_of(some, step) * (len(some) / len(rows))
                if not share.requires_grad:
                    raise InputError(
                        "training: these options leave nothing to train on which the loss depends"
                    )
                accelerator.backward(share * scale)
                loss += share.detach().to(loss.device)
            value = float(accelerator.reduce(loss, "mean"))
            active = [parameters[name] for name in state.active]
            norm = average_and_clip(active, scale, recipe.clip, accelerator)
            if not (math.isfinite(value) and math.isfinite(norm)):
                raise DivergenceError(
                    f"training: the loss is {value} and its gradient's norm {norm} at step {step} "
                    f"(rows {rows}); lower learning_rate, or use float32 weights"
                    + (f"; {file} holds the last good state" if file and file.exists() else "")
                )
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate(step) * group["factor"]
            if not recipe.skips(value):
                optimizer.step()
            if after_step is not None:
                after_step()
            history.append(value)
            last = step + 1 == end
            if watch is not None and ((step + 1) % watch.every == 0 or last):
                with training_mode(network, dropout=False), torch.no_grad():
                    state.watched.append(watch.loss())
                if min(state.watched) == state.watched[-1]:
                    state.best = {n: p.detach().clone() for n, p in parameters.items()}
                last = last or watch.over(state.watched)
            if (
                file is not None
                and accelerator.is_main_process
                and ((step + 1) % every == 0 or last)
            ):
                save(file, key, state, parameters, optimizer)
            if progress is not None:
                progress(1)
    if watch is not None and watch.looks is not None:
        watch.looks[:] = state.watched
    if watch is not None and state.best:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state.best[name])
        if after_step is not None:
            after_step()
    if meter is not None:
        meter.keeps(state_bytes(optimizer))
    accelerator.wait_for_everyone()
    return history


def make_accelerator() -> Any:
    """Return an Accelerator for whatever started this process (MissingExtraError without it)."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise MissingExtraError('tuning needs accelerate: pip install "fewfit[tune]"') from error
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(cpu=together and not torch.cuda.is_available())  # gloo, or each is alone


@contextmanager
def training_mode(network: nn.Module, *, dropout: bool) -> Iterator[None]:
    """Switch dropout on if wanted, and put it and the random state back at the end."""
    modes = {module: module.training for module in network.modules()}
    devices = sorted({p.device.index for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        network.train(dropout)
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
