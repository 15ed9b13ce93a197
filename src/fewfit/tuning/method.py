"""A tuning method: its fields are its options; it builds an adapter, names a loss, and fits."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewfit.choices import SEEDS
from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.checkpoint import digest
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.losses import Objective, TokenLogProbs
from fewfit.tuning.measure import Meter
from fewfit.tuning.reading import draw, encode_rows, scored
from fewfit.tuning.training import Progress, Recipe, Watch, train
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading

T = TypeVar("T")

LOOKS = 20
"""How often a training looks at rows that are held out."""

PATIENCE = 5
"""So many looks without a lower loss end it."""

Rows = Sequence[Sequence[ChoiceExample]]
"""Training rows; each is the same example in one or several wordings."""

Loss = Callable[[TokenLogProbs, Sequence[int], int], Tensor]
"""Given the tokens of some rows, these rows' numbers and the step: the mean loss over the rows."""


class Data(NamedTuple):
    """What a method learns from: labelled rows, and rows whose answers are not looked at.

    Attributes
    ----------
    rows : sequence of sequence of ChoiceExample
    unlabelled : sequence of sequence of ChoiceExample
    sets : sequence of sequence of int, optional
        The labels of each row, as positions in its choices, where it may have none or several; its
        answer is then not looked at.
    """

    rows: Rows
    unlabelled: Rows = ()
    sets: Sequence[Sequence[int]] | None = None

    def labels(self) -> Sequence[Sequence[int]]:
        """Return the labels of each row: its answer alone, where nothing else is said."""
        return [[row[0].answer] for row in self.rows] if self.sets is None else self.sets


@dataclass(frozen=True)
class Run:
    """How a training is run, which is no part of the method.

    Parameters
    ----------
    recipe : Recipe, optional
        Left out, the method's own.
    seed : int
        Of all that is drawn, from 0 and below 2**32.
    start : mapping of str to Tensor, optional
        An adapter's tensors to start from.
    checkpoint : path, optional
        File from which an interrupted run goes on; a method of several trainings keeps one file
        for each, with a number behind the name.
    progress : callable, optional
    accelerator : accelerate.Accelerator, optional
    decides : mapping of str to str
        What else decides the result and is part of a checkpoint's key.
    every : int, default=100
        Steps between two writings of a checkpoint.
    held_out : sequence of sequence of ChoiceExample
        Labelled rows that are kept apart. Each training looks at them twenty times, ends where five
        looks on end saw no lower loss, and takes what was best.
    looks : list of float, optional
        Is given the loss that each of these looks saw.
    until : int, optional
        Steps after which a training ends, at the rates of its whole recipe.
    meter : Meter, optional
        Is told what each training took.

    Raises
    ------
    InputError
        For a seed that there is not.
    """

    recipe: Recipe | None = None
    seed: int = 0
    start: Mapping[str, Tensor] | None = None
    checkpoint: str | Path | None = None
    progress: Progress | None = None
    accelerator: Any = None
    decides: Mapping[str, str] = field(default_factory=dict)
    every: int = 100
    held_out: Rows = ()
    looks: list[float] | None = None
    until: int | None = None
    meter: Meter | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEEDS:
            raise InputError(f"seed: from 0 and below 2**32, not {self.seed}")

    def part(self, name: str, *, seed: int | None = None) -> Run:
        """Return the run of one of several trainings."""
        file = None if self.checkpoint is None else f"{self.checkpoint}.{name}"
        own = self.seed if seed is None else seed % SEEDS  # one may be counted on from the last
        return replace(self, checkpoint=file, seed=own)

    def counted(self, call: Callable[[], T]) -> T:
        """Return what is computed beside the trainings, its operations told to the meter."""
        return call() if self.meter is None else self.meter.count(call)


@dataclass(frozen=True)
class TuningMethod(ABC):
    """Base of all tuning methods: a frozen dataclass, whose fields are its options.

    A method implements :meth:`build`; few need more. Options are checked by pydantic against their
    annotations wherever they come from.

    Attributes
    ----------
    source : str
        Author, year, arXiv id, of a method that another package adds.
    labels_needed : str
    kinds : frozenset of {"seq2seq", "causal", "masked", "encoder"}
        Models that it is for.
    decoded : bool
        Whether what it learns is read by a decoder, and not as a ranking of the choices.
    unlabelled : bool
        Whether it needs texts without labels.
    several : bool
        Whether it learns rows with none, one or several labels, for a decoder that tells which.
    recipe : Recipe
        How it trains where nothing else is said.
    reading : {"answers", "words"}
        How a command or a comparison lets the base model read choices for it.
    neutral : mapping
        Options under which a fresh adapter changes nothing, if it does under the usual ones.

    Raises
    ------
    InputError
        For an option that is not of its kind.
    """

    source: ClassVar[str] = ""
    labels_needed: ClassVar[str] = "1 in all"
    kinds: ClassVar[frozenset[str]] = frozenset({"seq2seq", "causal", "masked"})
    decoded: ClassVar[bool] = False
    unlabelled: ClassVar[bool] = False
    several: ClassVar[bool] = False
    recipe: ClassVar[Recipe] = Recipe()
    reading: ClassVar[Reading] = "words"
    neutral: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = getattr(self, name)
            if isinstance(value, str) and kind.core_schema["type"] == "tuple":
                value = (value,)  # a list by commas that has one element
            try:
                value = kind.validate_python(value)
            except ValidationError as error:
                problem = error.errors()[0]
                where = ".".join(map(str, (name, *problem["loc"])))
                raise InputError(
                    f"option: {where}: {problem['msg']}, not {problem['input']!r}"
                ) from None
            object.__setattr__(self, name, value)

    @abstractmethod
    def build(self, base: Trunk, seed: int) -> Adapter:
        """Return a fresh adapter, which leaves the network as it is, bit for bit (see `neutral`).

        Raises
        ------
        InputError
            If the network has no place for it.
        """

    def loss(self, base: Trunk, rows: Rows) -> Loss:
        """Return what is minimised; T-Few's three losses unless a method says otherwise."""
        objective = Objective()
        return lambda tokens, rows, step: objective(tokens)

    @property
    def needs_wrong(self) -> bool:
        """Whether the loss looks at wrong choices; if not, they are not computed."""
        return True

    def data(self, base: Trunk, data: Data, seed: int) -> Data:
        """Return what is trained on, for a method that selects."""
        return data

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        """Return the trained adapter, not attached; the network is as it was."""
        self.check(base, data)
        data, run = self.data(base, data, run.seed), self.named(run)
        adapter = self.fresh(base, run)
        learn(
            base,
            adapter,
            data.rows,
            self.loss(base, data.rows),
            run,
            self.recipe,
            only_answer=not self.needs_wrong,
        )
        return adapter

    def usual(self) -> Recipe:
        """Return the recipe that it trains with where nothing else is said."""
        return self.recipe

    def trainings(self, n_templates: int) -> int:
        """Return how many trainings of a recipe's steps :meth:`fit` makes."""
        return 1

    def check(self, base: Trunk, data: Data) -> None:
        """Refuse what this method cannot be run on (InputError)."""
        name = type(self).__name__
        self.check_kind(base.kind)
        if self.unlabelled and not data.unlabelled:
            raise InputError(
                f"unlabelled: {name} learns from texts without labels too, and there are none"
            )
        if data.sets is not None and not self.several:
            raise InputError(f"sets: {name} learns one label for each row; leave them out")
        if data.sets is not None and len(data.sets) != len(data.rows):
            raise InputError(f"sets: {len(data.sets)} sets for {len(data.rows)} rows")

    def check_kind(self, kind: str) -> None:
        """Refuse a kind of model (InputError)."""
        if kind not in self.kinds:
            raise InputError(
                f"{type(self).__name__} is for {sorted(self.kinds)} models, this one is {kind}"
                + ": it scores no choices; take contrastive" * (kind == "encoder")
            )

    def fresh(self, base: Trunk, run: Run) -> Adapter:
        """Return the adapter that a run starts from."""
        adapter = self.build(base, run.seed).to(base.device)
        return adapter if run.start is None else adapter.restore(run.start)

    def named(self, run: Run) -> Run:
        """Return a run whose checkpoints say which method they are of."""
        mine = {"method": type(self).__qualname__, "options": json.dumps(asdict(self), default=str)}
        return replace(run, decides={**mine, **run.decides})


def learn(
    base: Trunk,
    adapter: Adapter,
    rows: Rows | Sequence[Sequence[Encoded]],
    loss: Loss,
    run: Run,
    recipe: Recipe,
    *,
    only_answer: bool = False,
    decides: Mapping[str, str] = {},
) -> list[float]:
    """Train an adapter on rows with a loss: what all methods have in common.

    Parameters
    ----------
    rows : sequence of sequence of ChoiceExample or Encoded
        A wording is drawn for each row whenever it comes up.
    recipe : Recipe
        Unless the run says otherwise.
    only_answer : bool, default=False
        Whether the wrong choices are left out.
    decides : mapping of str to str
        What the loss depends on beside the rows and the method's options.

    Returns
    -------
    list of float
        The loss of each step.
    """
    encoded = encode_rows(base, rows, only_answer=only_answer)

    def loss_of(batch: Sequence[int], step: int) -> Tensor:
        drawn = [draw(encoded[i], run.seed, step, i) for i in batch]
        packed = base.pack(drawn).to(base.device)
        tokens, _ = base.read(adapter.rewrite(packed, base))
        return loss(tokens, batch, step)

    recipe = run.recipe or recipe
    held = [item[0] for item in encode_rows(base, run.held_out)]
    watch = None
    if held:
        truth = torch.tensor([item.answer for item in held])

        def away() -> float:
            beta = torch.from_numpy(scored(base, held, adapter=adapter, meter=run.meter))
            value = float(cross_entropy(beta, truth))
            return value if math.isfinite(value) else math.inf

        watch = Watch(away, max(1, recipe.steps // LOOKS), PATIENCE, run.looks)
    key = (
        {}
        if run.checkpoint is None
        else {
            "model": digest(dict(base.identity)),
            "texts": digest(encoded),
            **({"held out": digest(held)} if held else {}),
            "start": digest({name: digest(t) for name, t in adapter.tensors().items()}),
            **run.decides,
            **decides,
        }
    )

    def replan(step: int, active: Collection[str]) -> Collection[str] | None:
        planned = adapter.replan(step, active)
        adapter.only(active if planned is None else planned)
        return planned

    plans = adapter.replans
    with adapter.on(base.network):
        parts, begun = adapter.parts(base.network), time.perf_counter()
        history = train(
            base.network,
            parts,
            loss_of,
            len(encoded),
            recipe,
            seed=run.seed,
            checkpoint=run.checkpoint,
            every=run.every,
            progress=run.progress,
            accelerator=run.accelerator,
            after_step=adapter.after_step,
            groups=adapter.groups(),
            replan=replan if plans else None,
            watch=watch,
            until=run.until,
            decides=key,
            meter=run.meter,
        )
        if plans:
            adapter.only(parts)
        if run.meter is not None:
            batch = recipe.rows(0, len(encoded), run.seed)
            size, batch = len(batch), batch[: recipe.micro_batch]
            run.meter.note(
                lambda: loss_of(batch, 0),
                base.network,
                adapter,
                parts=parts.values(),
                dropout=recipe.dropout,
                steps=len(history) * size / len(batch),
                seconds=time.perf_counter() - begun,
            )
            run.meter.steps.append(len(history))
    return history


@cache
def _kinds(method: type[TuningMethod]) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(method, include_extras=True)
    plain = ConfigDict(allow_inf_nan=False)
    return {f.name: TypeAdapter(hints[f.name], config=plain) for f in fields(method) if f.init}


def options_of(method: TuningMethod) -> dict[str, Any]:
    """Return the options of a method as JSON keeps them."""
    return {
        name: kind.dump_python(getattr(method, name), mode="json")
        for name, kind in _kinds(type(method)).items()
    }
