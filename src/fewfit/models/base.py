"""The contract of a frozen model: whatever answers a rendered prompt and is never changed."""

from __future__ import annotations

import copyreg
import inspect
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from fewfit.errors import InputError
from fewfit.gathering import gather
from fewfit.models.capabilities import Capabilities
from fewfit.observations import Batch, Observations, answered_whole
from fewfit.progress import Progress
from fewfit.prompts import Prompt


@dataclass(frozen=True)
class Check:
    """One finding about a model, for ``fewfit doctor``: what, how it came out, in numbers."""

    name: str
    outcome: str
    detail: str
    value: float | None = None


class FrozenModel(ABC):
    """Base of all frozen models. A new way of asking implements three members.

    What only some have is no member, but a protocol of :mod:`fewfit.models.optional`.

    Attributes
    ----------
    spec : str or None
        The string from which :func:`fewfit.load_model` makes this model again; None if only
        code can make it.
    """

    spec: str | None = None

    @classmethod
    def from_spec(cls, rest: str) -> Self:
        """Make the model from what follows its name and a colon in a spec.

        Raises
        ------
        InputError
            If there is anything: a model that takes options says so here.
        """
        if rest:
            raise InputError(f"model: {cls.__name__} takes no options, got {rest[:60]!r}")
        return cls()

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the model gives. Cheap: no weights are loaded for it."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """Everything that decides the model's answers, as named strings.

        Observations are stored under it and artifacts are bound to it, so two models with the
        same identity must give the same answers. It holds no secret and no machine path. Cheap:
        no weights are loaded for it.
        """

    @abstractmethod
    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        """Answer the prompts, batch by batch, in whatever order is fastest.

        Parameters
        ----------
        prompts : sequence of Prompt
        words : sequence of str
            The label words to score, the columns of the scores.

        Yields
        ------
        (positions, observations)
            Where in `prompts` the answers belong, and the answers. Each position comes once.
        """

    def observe(
        self,
        prompts: Sequence[Prompt],
        words: Sequence[str],
        *,
        progress: Progress | None = None,
    ) -> Observations:
        """Answer the prompts; a prompt that occurs twice is asked once, half an answer is none.

        Parameters
        ----------
        prompts : sequence of Prompt, length N >= 1
        words : sequence of str, length W
        progress : callable, optional
            Called with the number of prompts newly answered.

        Returns
        -------
        Observations
            N rows, in the order of `prompts`.
        """
        distinct = list(dict.fromkeys(prompts))
        place = {prompt: i for i, prompt in enumerate(distinct)}
        positions = np.array([place[prompt] for prompt in prompts], dtype=np.intp)

        def counted() -> Iterator[Batch]:
            asking: Any = self.stream(distinct, tuple(words))
            with closing(asking):  # a model that asks ahead stops when we do
                for where, batch in asking:
                    yield where, answered_whole(batch)
                    if progress is not None:
                        progress(len(where))

        answers = gather(counted(), len(distinct))
        if len(distinct) == len(prompts):
            return answers
        repeated = np.ones(len(prompts), dtype=bool)
        repeated[np.unique(positions, return_index=True)[1]] = False
        spread = answers[positions]
        return replace(spread, asked=spread.asked & ~repeated)

    def __sklearn_clone__(self) -> Self:
        return self  # cloning an estimator never copies a model

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the string that makes this model again, never its weights or connections."""
        if self.spec is not None and type(_opened(self.spec)) is type(self):
            return _opened, (self.spec,)
        state = self.__getstate__()
        try:
            pickle.dumps(state)
        except Exception as error:
            raise pickle.PicklingError(
                f"{type(self).__name__}: only code can make this model, and what it holds cannot "
                f"be pickled ({error}). Save what was fitted with .save(folder) and load it with "
                ".load(folder, model=...), or give the model a __reduce__ of its own"
            ) from error
        return copyreg.__newobj__, (type(self),), state  # pyright: ignore[reportAttributeAccessIssue]


def _opened(spec: str) -> FrozenModel | None:
    """Return the model of this room that a spec names, None if it is of another room."""
    from fewfit.models import KINDS, named_model

    return named_model(spec) if spec.partition(":")[0] in KINDS else None


class FrontModel(FrozenModel):
    """Base of a frozen model in front of another, which it is in all that it does not change.

    It keeps the arguments of its constructor under their names, as scikit-learn's estimators do:
    they are what is pickled.
    """

    def __init__(self, model: FrozenModel) -> None:
        self.model = model

    @property
    def spec(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.model.spec

    @property
    def capabilities(self) -> Capabilities:
        return self.model.capabilities

    @property
    def identity(self) -> Mapping[str, str]:
        return self.model.identity

    def __reduce__(self) -> tuple[Any, ...]:
        names = inspect.signature(type(self)).parameters
        return made, (type(self), {name: getattr(self, name) for name in names})


def made(kind: type[FrozenModel], arguments: dict[str, Any]) -> FrozenModel:
    """Make a model from the arguments of its constructor, as its pickle says."""
    return kind(**arguments)
