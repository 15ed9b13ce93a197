"""PET and iPET with trained vectors: patterns label unlabelled texts for one student.

Schick & Schütze, "Exploiting Cloze Questions for Few-Shot Text Classification and Natural Language
Inference", EACL 2021, arXiv 2001.07676; with small trained modules in place of whole networks as in
Rieger et al. 2023, arXiv 2312.16975.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewfit.decoders.ipet import check_generations, in_generations
from fewfit.decoders.pet import accuracies
from fewfit.errors import InputError
from fewfit.tuning.choices import Encoded
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.losses import distillation_loss, length_normalised_loss
from fewfit.tuning.sites import Stack, site_map
from fewfit.tuning.tfew import Rows, encode_rows, scored
from fewfit.tuning.training import Progress, Recipe, train
from fewfit.tuning.trunk import Trunk

Ints = NDArray[np.intp]


def pet(
    trunk: Trunk,
    rows: Rows,
    unlabelled: Rows,
    *,
    repetitions: int = 3,
    generations: int = 0,
    weights: str = "accuracy",
    temperature: float = 2.0,
    factor: float = 5.0,
    share: float = 0.25,
    start: Mapping[str, Tensor] | None = None,
    recipe: Recipe | None = None,
    layout: Sequence[Stack] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    accelerator: Any = None,
) -> IA3:
    """Train (IA)^3 vectors on what others, one for each pattern, say about unlabelled texts.

    A pattern p is a wording, and its score of class k is beta, the length-normalised
    log-likelihood of choice k. With q_p = softmax(beta):

    1. For each pattern, `repetitions` times, vectors are trained on the labelled rows in that
       pattern alone, with the cross-entropy of q_p.
    2. These P x `repetitions` models score the unlabelled texts. The teacher is the mean of their
       scores, weighted by w_p, how often pattern p was right on the labelled rows *before*.
    3. The student learns the soft labels softmax(teacher / T) in the first pattern.

    With `generations` this is iPET: between 1 and 2 each model is trained anew on texts that some
    of the others label (:func:`fewfit.decoders.ipet.in_generations`).

    Parameters
    ----------
    trunk : Trunk
        The network stays as it is.
    rows : sequence of sequence of ChoiceExample
        N labelled rows, each in the same P patterns. Choice k is class k in every one of them,
        whatever its words.
    unlabelled : sequence of sequence of ChoiceExample
        M rows alike. Their answers are not looked at.
    repetitions : int, default=3
        Trainings per pattern. They differ in the order of the rows and the dropout.
    generations : int, default=0
        Of models that others have taught. iPET's code has 3 and counts the first ensemble, which
        learns from labels alone: 2 here.
    weights : {"accuracy", "uniform"}, default="accuracy"
        The w_p ("wmean" and "mean" in the authors' code). Patterns that are all never right weigh
        the same. Without labelled rows only "uniform" is possible: nothing but the student is
        then trained.
    temperature : float, default=2.0
        T.
    factor, share : float
        Growth of the training set per generation, and share of the other models that label the
        texts of one, as for :class:`fewfit.decoders.IPET`.
    start : mapping of str to Tensor, optional
        Vectors that each training starts from, the student's too; left out, ones.
    recipe : Recipe, optional
        Of each training. Left out, T-Few's.
    seed : int
        Of all that is drawn.
    layout, progress, accelerator
        See :func:`fewfit.tuning.t_few`.

    Returns
    -------
    IA3
        The student's vectors, not attached to the network.

    Raises
    ------
    InputError, ModelError
        See :func:`fewfit.tuning.train`; rows and settings are checked before the first step.

    Notes
    -----
    The paper trains all weights of a masked model, with 1e-4 of its language-model loss beside the
    cross-entropy, which is left out here; its label words are single tokens, for which beta is
    their logit less a constant; its student is a classifier with a head of its own, here it is the
    first pattern.
    """
    if weights not in ("accuracy", "uniform"):
        raise InputError(f"weights: expected 'accuracy' or 'uniform', got {weights!r}")
    check_generations(generations, factor, share)
    if repetitions < 1 or not temperature > 0:
        raise InputError(
            f"repetitions: {repetitions} is at least 1; temperature: {temperature} is above 0"
        )
    labelled, pool = encode_rows(trunk, rows), encode_rows(trunk, unlabelled)
    P = _patterns(labelled, pool)
    if not rows and (weights == "accuracy" or generations):
        raise InputError(
            "rows: none are labelled, so that no pattern has an accuracy and no set can grow; take "
            "weights='uniform' and no generations"
        )
    if generations and P * repetitions == 1:
        raise InputError("generations: a single model has no others to learn from; give patterns")
    y = np.array([row[0].answer for row in labelled], dtype=np.intp)
    rng = np.random.RandomState(seed)
    vectors = IA3(site_map(trunk.network, layout)).to(trunk.device)
    first = {name: v.detach().clone() for name, v in (start or vectors.of()).items()}
    vectors.set(first)

    def learn(examples: Sequence[Encoded], teacher: Tensor | None = None) -> None:
        """Train the vectors from their start, on soft labels (N, K) where they are given."""

        def loss_of(batch: Sequence[int], step: int) -> Tensor:
            tokens, _ = trunk.read(trunk.pack([examples[i] for i in batch]))
            if teacher is None:
                return length_normalised_loss(tokens)
            return distillation_loss(tokens, teacher[batch], temperature=temperature)

        vectors.set(first)
        train(
            trunk.network,
            vectors.of(),
            loss_of,
            len(examples),
            recipe or Recipe(),
            seed=int(rng.randint(2**31)),
            progress=progress,
            accelerator=accelerator,
        )

    def teach(model: int, drawn: Ints, labels: Ints) -> NDArray[np.float32]:
        p = model % P
        new = [pool[i][p]._replace(answer=k) for i, k in zip(drawn, labels.tolist(), strict=True)]
        examples = [row[p] for row in labelled] + new
        if examples:
            learn(examples)
        return scored(trunk, [row[p] for row in pool])

    vectors.attach(trunk.network)
    try:
        w = np.ones(P)
        if weights == "accuracy":
            before = [scored(trunk, [row[p] for row in labelled]) for p in range(P)]
            w = accuracies(np.stack(before, axis=1), y)
        w = np.tile(w, repetitions)
        z = in_generations(
            teach, y, w, generations=generations, factor=factor, share=share, rng=rng
        )
        teacher = torch.tensor(np.average(z, axis=0, weights=w), dtype=torch.float32)
        learn([row[0] for row in pool], teacher.to(trunk.device))
    finally:
        vectors.detach()
    return vectors


def _patterns(labelled: Sequence[Sequence[Encoded]], pool: Sequence[Sequence[Encoded]]) -> int:
    """P, after a check that all rows have as many wordings and choices, and an answer each."""
    if not pool:
        raise InputError(
            "unlabelled: no texts, but the student learns from these; t_few needs none"
        )
    first = [len(item.choices) for item in pool[0]]
    for name, table in (("rows", labelled), ("unlabelled", pool)):
        for i, row in enumerate(table):
            if [len(item.choices) for item in row] != first or len(set(first)) > 1:
                raise InputError(
                    f"{name}: row {i} has wordings with {[len(e.choices) for e in row]} choices, "
                    f"the first unlabelled row {first}; each needs all classes, in one order"
                )
            if name == "rows" and len({item.answer for item in row}) > 1:
                raise InputError(f"rows: the wordings of row {i} have different answers")
    return len(first)
