"""PET and iPET with a small adapter: patterns label unlabelled texts for one student.

Schick & Schütze, "Exploiting Cloze Questions for Few-Shot Text Classification and Natural Language
Inference", EACL 2021, arXiv 2001.07676; with small trained modules in place of whole networks as in
Rieger et al. 2023, arXiv 2312.16975.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from fewfit.decoders.ipet import check_generations, in_generations
from fewfit.decoders.pet import accuracies
from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.adapters.ia3 import IA3
from fewfit.tuning.checkpoint import digest
from fewfit.tuning.choices import Encoded
from fewfit.tuning.inner import WithAdapter
from fewfit.tuning.losses import TokenLogProbs, distillation_loss, length_normalised_loss
from fewfit.tuning.method import Data, Rows, Run, learn
from fewfit.tuning.reading import encode_rows, scored
from fewfit.tuning.sites import Stack
from fewfit.tuning.training import Progress, Recipe
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class PET(WithAdapter):
    """Patterns label texts for one student; all are the same small adapter, with its own recipe.

    Parameters
    ----------
    repetitions : int, default=3
        Trainings per pattern. They differ in the order of the rows and the dropout.
    generations : int, default=0
        Of models that others have taught. iPET's code has 3 and counts the first ensemble, which
        learns from labels alone: 2 here.
    weights : {"accuracy", "uniform"}, default="accuracy"
        How much a pattern weighs: as often as it was right on the labelled rows before any
        training, or all the same. Patterns that are all never right weigh the same. Without
        labelled rows only "uniform" is possible: nothing but the student is then trained.
    temperature : float, default=2
        Of the teacher's soft labels.
    factor, share : float
        Growth of the training set per generation, and share of the other models that label the
        texts of one, as for :class:`fewfit.decoders.IPET`.
    """

    unlabelled: ClassVar[bool] = True
    replaces_loss: ClassVar[bool] = True
    reading: ClassVar[Reading] = "answers"

    repetitions: int = 3
    generations: int = 0
    weights: Literal["accuracy", "uniform"] = "accuracy"
    temperature: Annotated[float, Field(gt=0)] = 2.0
    factor: float = 5.0
    share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_generations(self.generations, self.factor, self.share)
        if self.repetitions < 1:
            raise InputError(f"repetitions: at least 1, not {self.repetitions}")

    def usual(self) -> Recipe:
        return self.inner.usual()

    def trainings(self, n_templates: int) -> int:
        return 1 + n_templates * self.repetitions * (1 + self.generations)

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        labelled, pool = encode_rows(base, data.rows), encode_rows(base, data.unlabelled)
        P = _patterns(labelled, pool)
        self.check(base, data)
        if not labelled and (self.weights == "accuracy" or self.generations):
            raise InputError(
                "rows: none are labelled, so that no pattern has an accuracy and no set can grow; "
                "take weights='uniform' and no generations"
            )
        if self.generations and P * self.repetitions == 1:
            raise InputError(
                "generations: a single model has no others to learn from; give patterns"
            )
        run = self.named(run)
        y = np.array([row[0].answer for row in labelled], dtype=np.intp)
        rng = np.random.RandomState(run.seed)
        adapter = self.fresh(base, run)
        first = adapter.tensors()
        recipe, n_done = self.usual(), 0

        def train(examples: Sequence[Encoded], teacher: Tensor | None = None) -> None:
            """Train the adapter from its start, on soft labels (N, K) where they are given."""
            nonlocal n_done

            def loss(tokens: TokenLogProbs, batch: Sequence[int], step: int) -> Tensor:
                if teacher is None:
                    return length_normalised_loss(tokens)
                soft = teacher[list(batch)]
                return distillation_loss(tokens, soft, temperature=self.temperature)

            adapter.restore(first)
            part = run.part(str(n_done), seed=int(rng.randint(2**31)))
            told = {"teacher": "" if teacher is None else digest(teacher)}
            learn(base, adapter, [[item] for item in examples], loss, part, recipe, decides=told)
            n_done += 1

        def opinions(rows: Sequence[Encoded]) -> NDArray[np.float32]:
            with adapter.on(base.network):
                return scored(base, rows, adapter=adapter, meter=run.meter)

        def teach(model: int, drawn: Ints, labels: Ints) -> NDArray[np.float32]:
            p = model % P
            pairs = zip(drawn, labels.tolist(), strict=True)
            new = [pool[i][p]._replace(answer=k) for i, k in pairs]
            examples = [row[p] for row in labelled] + new
            if examples:
                train(examples)
            return opinions([row[p] for row in pool])

        w = np.ones(P)
        if self.weights == "accuracy":
            before = [opinions([row[p] for row in labelled]) for p in range(P)]
            w = accuracies(np.stack(before, axis=1), y)
        w = np.tile(w, self.repetitions)
        z = in_generations(
            teach,
            y,
            w,
            generations=self.generations,
            factor=self.factor,
            share=self.share,
            rng=rng,
        )
        teacher = torch.tensor(np.average(z, axis=0, weights=w), dtype=torch.float32)
        train([row[0] for row in pool], teacher.to(base.device))
        return adapter


@dataclass(frozen=True)
class IPET(PET):
    """PET in two generations that others have taught, as its authors' code."""

    generations: int = 2


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
        Of models that others have taught; see :class:`IPET`.
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
    method = PET(
        repetitions=repetitions,
        generations=generations,
        weights=weights,  # pyright: ignore[reportArgumentType], checked there
        temperature=temperature,
        factor=factor,
        share=share,
    )
    if layout is not None:
        trunk = trunk.described(layout)
    run = Run(recipe, seed, start, None, progress, accelerator)
    vectors = method.fit(trunk, Data(rows, unlabelled), run)
    assert isinstance(vectors, IA3)
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
