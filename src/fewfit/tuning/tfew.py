"""T-Few: (IA)^3 vectors trained on a handful of examples with three losses and one recipe.

Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.losses import Objective, TokenLogProbs, rank
from fewfit.tuning.sites import Stack, site_map
from fewfit.tuning.training import Progress, Recipe, train
from fewfit.tuning.trunk import Trunk

Rows = Sequence[Sequence[ChoiceExample]]
"""Training rows; each is the same example in one or several wordings."""

PRETRAINING = Recipe(steps=100_000, batch_size=16, learning_rate=3e-4)
"""Of the vectors that T-Few starts from: a mixture of tasks, ``Objective(False, False)``."""


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
    vectors = IA3(site_map(trunk.network, layout)).to(trunk.device)
    if start is not None:
        vectors.set(start)
    vectors.attach(trunk.network)
    try:
        tune(
            trunk,
            rows,
            vectors.of(),
            recipe=recipe or Recipe(),
            objective=objective or Objective(),
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
            accelerator=accelerator,
        )
    finally:
        vectors.detach()
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

    What T-Few, LoRA and full fine-tuning have in common: `options` are those of
    :func:`fewfit.tuning.train`. Returns the loss of each step.
    """
    encoded = encode_rows(trunk, rows, only_answer=not objective.needs_wrong)

    def loss_of(batch: Sequence[int], step: int) -> Tensor:
        drawn = [_drawn(encoded[i], seed, step, i) for i in batch]
        tokens, _ = trunk.read(trunk.pack(drawn))
        return objective(tokens)

    return train(trunk.network, parameters, loss_of, len(encoded), recipe, seed=seed, **options)


def encode_rows(trunk: Trunk, rows: Rows, *, only_answer: bool = False) -> list[list[Encoded]]:
    """Turn rows into tokens, so that every error in them is found before the first step."""
    for i, wordings in enumerate(rows):
        if isinstance(wordings, ChoiceExample) or not wordings:
            raise InputError(f"rows: row {i} is not a sequence of one or more wordings")
    return [
        [trunk.encoder.encode(example, only_answer=only_answer) for example in wordings]
        for wordings in rows
    ]


def ranked(
    trunk: Trunk,
    examples: Sequence[ChoiceExample],
    *,
    vectors: IA3 | None = None,
    batch_size: int = 32,
) -> list[int]:
    """Rank classification: the position of the best choice of each example.

    Parameters
    ----------
    vectors : IA3, optional
        Attached to the trunk's network by the caller; given, a batch may mix tasks, each row being
        answered with the vectors of its :attr:`ChoiceExample.task`.
    """
    encoded = [trunk.encoder.encode(example) for example in examples]
    out = [0] * len(encoded)
    for some, tokens in _answers(trunk, encoded, vectors, batch_size):
        for i, best in zip(some, rank(tokens).tolist(), strict=True):
            out[i] = best
    return out


def scored(
    trunk: Trunk, encoded: Sequence[Encoded], *, batch_size: int = 32
) -> NDArray[np.float32]:
    """Return beta of K choices of each of N examples, shape (N, K), nats per token."""
    out = np.empty((len(encoded), len(encoded[0].choices)), dtype=np.float32)
    for some, tokens in _answers(trunk, encoded, None, batch_size):
        out[some] = tokens.grid(tokens.beta).cpu().numpy()
    return out


def _answers(
    trunk: Trunk, encoded: Sequence[Encoded], vectors: IA3 | None, batch_size: int
) -> Iterator[tuple[list[int], TokenLogProbs]]:
    """Read examples in batches of similar length; yields their positions and what was read."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].before))
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        batch = trunk.pack([encoded[i] for i in some])
        with (
            torch.inference_mode(),
            nullcontext() if vectors is None else vectors.rows(batch.tasks),
        ):
            tokens, _ = trunk.read(batch)
        yield some, tokens


def _drawn(wordings: Sequence[Encoded], seed: int, step: int, row: int) -> Encoded:
    if len(wordings) == 1:
        return wordings[0]
    return wordings[int(np.random.default_rng([seed, step, row]).integers(len(wordings)))]
