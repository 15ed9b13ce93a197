"""The small task on which a tuning method is tried: a network, a few texts, a short training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fewfit.prompts import Template

if TYPE_CHECKING:
    from torch import Tensor

    from fewfit.tuning import Adapter, Data, Run, Trunk, TuningMethod

_TEMPLATE = Template("{text} it was {mask}")
TEXTS = ("the movie was fun", "so dull", "the film is about sport in new york", "it was not good")
POOL = ("a dull film", "so fun", "really great", "not bad")
_CHOICES = ("great", "not so bad", "really awful")


@dataclass(eq=False)
class TuningCase:
    """A method on a small network, trained once for all checks.

    Parameters
    ----------
    method : TuningMethod
    base : callable
        Returns the network afresh, without dropout, each time the same.
    """

    method: TuningMethod
    base: Callable[[], Trunk]

    @cached_property
    def trunk(self) -> Trunk:
        """The network that is trained on."""
        return self.base()

    @cached_property
    def before(self) -> tuple[Any, ...]:
        """Its state before anything."""
        return state(self.trunk)

    @cached_property
    def plain(self) -> Tensor:
        """What it says without an adapter."""
        assert self.before
        return answers(self.trunk)

    @cached_property
    def trained(self) -> Adapter:
        """An adapter after a few steps."""
        assert self.before
        return self.method.fit(self.trunk, data(), short_run())

    @cached_property
    def said(self) -> Tensor:
        """What the network says with it."""
        return answers(self.trunk, self.trained)


def answers(trunk: Trunk, adapter: Adapter | None = None, texts: Sequence[str] = TEXTS) -> Tensor:
    """Return the log-probabilities of all choices' tokens; an adapter acts while it is read."""
    import torch

    encoded = [trunk.encoder.encode(example(text, 0)) for text in texts]
    batch = trunk.pack(encoded).to(trunk.device)
    with torch.inference_mode():
        if adapter is None:
            return trunk.read(batch)[0].log_probs
        with adapter.on(trunk.network):
            return trunk.read(adapter.rewrite(batch, trunk))[0].log_probs


def example(text: str, answer: int) -> Any:
    """One text with its three choices."""
    from fewfit.tuning import ChoiceExample

    return ChoiceExample(_TEMPLATE.render({"text": text}), _CHOICES, answer)


def data() -> Data:
    """The labelled rows, and some without a label."""
    from fewfit.tuning import Data

    rows = [[example(text, i % 3)] for i, text in enumerate(TEXTS)]
    return Data(rows, [[example(text, 0)] for text in POOL])


def short_run() -> Run:
    """Five steps on all rows."""
    from fewfit.tuning import Recipe, Run

    recipe = Recipe(
        steps=5, batch_size=4, dropout=False, learning_rate=0.02, optimizer="adamw", warmup=0
    )
    return Run(recipe)


def state(trunk: Trunk) -> tuple[Any, ...]:
    """All of a network that training must leave as it was."""
    network = trunk.network
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    return (
        {name: tensor.detach().clone() for name, tensor in network.state_dict().items()},
        [name for name, _ in network.named_modules()],
        [p.requires_grad for p in network.parameters()],
        [p.grad for p in network.parameters() if p.grad is not None],
        [module.training for module in network.modules()],
        hooks,
        sum(
            len(getattr(p, "_post_accumulate_grad_hooks", None) or ()) for p in network.parameters()
        ),
    )


def same(before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    """Check that a network is bit for bit what it was."""
    import torch

    assert before[1:] == after[1:], "the network has other modules, hooks or gradients than before"
    tables: tuple[Mapping[str, Any], Mapping[str, Any]] = before[0], after[0]
    assert all(torch.equal(tables[1][name], tensor) for name, tensor in tables[0].items())
