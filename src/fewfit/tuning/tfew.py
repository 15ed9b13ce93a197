"""T-Few: (IA)^3 vectors trained on a handful of examples with three losses and one recipe.

Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fewfit.tuning.adapters.ia3 import IA3, ScaledActivations
from fewfit.tuning.losses import Objective
from fewfit.tuning.method import Loss, Rows, Run, learn
from fewfit.tuning.reading import draw, encode_rows
from fewfit.tuning.sites import Stack, site_map
from fewfit.tuning.training import Progress, Recipe, digest, train
from fewfit.tuning.trunk import Trunk

PRETRAINING = Recipe(steps=100_000, batch_size=16, learning_rate=3e-4)
"""Of the vectors that T-Few starts from: a mixture of tasks, ``Objective(False, False)``."""


@dataclass(frozen=True)
class TFew(ScaledActivations):
    """(IA)^3 with L = L_LM + L_UL + L_LN, 1000 steps of Adafactor.

    Parameters
    ----------
    unlikelihood, length_normalised : bool, default=True
        Whether L_UL and L_LN are added to L_LM.
    reference : bool, default=False
        See :class:`fewfit.tuning.Objective`.
    """

    unlikelihood: bool = True
    length_normalised: bool = True
    reference: bool = False

    def loss(self, base: Trunk, rows: Rows) -> Loss:
        objective = Objective(self.unlikelihood, self.length_normalised, self.reference)
        return lambda tokens, rows, step: objective(tokens)

    @property
    def needs_wrong(self) -> bool:
        return self.unlikelihood or self.length_normalised


def t_few(
    trunk: Trunk,
    rows: Rows,
    *,
    start: Mapping[str, Tensor] | None = None,
    recipe: Recipe | None = None,
    objective: Objective | None = None,
    layout: Sequence[Stack] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    accelerator: Any = None,
) -> IA3:
    """Train (IA)^3 vectors: L = L_LM + L_UL + L_LN, 1000 steps of Adafactor.

    Parameters
    ----------
    trunk : Trunk
        The network stays as it is.
    rows : sequence of sequence of ChoiceExample
        A wording is drawn for each row whenever it comes up.
    start : mapping of str to Tensor, optional
        Vectors to start from, pre-trained on a mixture of tasks; left out, ones.
    recipe : Recipe, optional
    objective : Objective, optional
        Left out, all three losses. ``Objective(False, False)`` with :data:`PRETRAINING` and a
        mixture of tasks as `rows` makes vectors to start from.
    layout : sequence of Stack, optional
        Where an unknown architecture keeps its layers.
    seed : int
    checkpoint, progress, accelerator
        See :func:`fewfit.tuning.train`.

    Returns
    -------
    IA3
        Not attached to the network.

    Raises
    ------
    InputError, ModelError
        See :func:`fewfit.tuning.train`; examples are checked before the first step.
    """
    objective = objective or Objective()
    vectors = IA3(site_map(trunk.network, layout or trunk.layout)).to(trunk.device)
    if start is not None:
        vectors.set(start)
    learn(
        trunk,
        vectors,
        rows,
        lambda tokens, rows, step: objective(tokens),
        Run(recipe, seed, None, checkpoint, progress, accelerator),
        Recipe(),
        only_answer=not objective.needs_wrong,
        decides={"loss": repr(objective)},
    )
    return vectors


def tune(
    trunk: Trunk,
    rows: Rows,
    parameters: Mapping[str, Any],
    *,
    recipe: Recipe,
    objective: Objective,
    seed: int = 0,
    **options: Any,
) -> list[float]:
    """Train any parameters of, or attached to, the trunk's network on choices.

    What full fine-tuning and whatever is no :class:`Adapter` have in common: `options` are those
    of :func:`fewfit.tuning.train`. Returns the loss of each step.
    """
    encoded = encode_rows(trunk, rows, only_answer=not objective.needs_wrong)
    decides = (
        {}
        if options.get("checkpoint") is None
        else {
            "model": digest(dict(trunk.identity)),
            "texts": digest(encoded),
            "start": digest({name: digest(p) for name, p in parameters.items()}),
            "loss": repr(objective),
        }
    )

    def loss_of(batch: Sequence[int], step: int) -> Tensor:
        drawn = [draw(encoded[i], seed, step, i) for i in batch]
        tokens, _ = trunk.read(trunk.pack(drawn))
        return objective(tokens)

    return train(
        trunk.network,
        parameters,
        loss_of,
        len(encoded),
        recipe,
        seed=seed,
        decides=decides,
        **options,
    )
