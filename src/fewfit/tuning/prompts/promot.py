"""ProMoT: Wang et al., ICLR 2024, arXiv 2211.00635. From the text; there is no public code.

What a tuned model forgets first is every other format than the task's. A prompt is trained before
the weights are, and takes the format upon itself; other tasks are then asked without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import nn

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Handle, Together
from fewfit.tuning.inner import WithAdapter
from fewfit.tuning.method import Data, Run, learn
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.prompts.prompt_tuning import PromptTuning
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Prompted(Together):
    """A prompt, which is not trained any more, and another adapter, which is.

    Attributes
    ----------
    enabled : bool
        Whether the prompt is read. Without it the other adapter is at work alone, for tasks that
        were not trained on.
    """

    enabled = True

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        own = super().parts(network)
        return {name: part for name, part in own.items() if name.startswith("adapters.1.")}

    def act(self, network: nn.Module) -> list[Handle]:
        return [h for adapter in self._at_work() for h in adapter.act(network)]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        for adapter in self._at_work():
            batch = adapter.rewrite(batch, trunk)
        return batch

    def _at_work(self) -> list[Any]:
        return self.members if self.enabled else self.members[1:]


@dataclass(frozen=True)
class ProMoT(WithAdapter):
    """A prompt first, and with it in place the adapter of another method.

    The recipe is the second training's; the first has its steps and batches, at the rate of
    `prompt-tuning`.

    Parameters
    ----------
    m : int, default=20
        Vectors of the prompt.
    """

    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    adapter: str = "lora"
    m: Annotated[int, Field(ge=0, le=4096)] = 20

    def usual(self) -> Recipe:
        return self.inner.usual()

    def build(self, base: Trunk, seed: int) -> Adapter:
        prompt = PromptTuning(m=self.m).build(base, seed).requires_grad_(False)
        return Prompted(prompt, super().build(base, seed))

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.inner.loss(base, data.rows)
        recipe = run.recipe or self.usual()
        both: Any = self.fresh(base, run)
        self._check_slots(base, both, data)
        prompt, usual = both.members[0].requires_grad_(True), PromptTuning.recipe
        if self.m:
            first = replace(recipe, learning_rate=usual.learning_rate, optimizer=usual.optimizer)
            part = replace(run.part("prompt"), recipe=first, held_out=())
            learn(base, prompt, data.rows, loss, part, first)
        prompt.requires_grad_(False)
        learn(base, both, data.rows, loss, run, recipe)
        return both

    def _check_slots(self, base: Trunk, both: Adapter, data: Data) -> None:
        """Refuse, before the prompt is trained, an adapter that puts vectors in front, too."""
        first = [base.encoder.encode(row[0]) for row in data.rows[:1]]
        try:
            for item in first:
                both.rewrite(base.pack([item]).to(base.device), base)
        except InputError:
            raise InputError(
                f"adapter: {self.adapter} puts vectors in front of the text, as the prompt does; "
                "name another, or take m=0"
            ) from None

    def trainings(self, n_templates: int) -> int:
        return 1 + (self.m > 0)
