"""The contract of a frozen model: whatever answers a rendered prompt and is never changed."""

from __future__ import annotations

import copyreg
import inspect
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import CapabilityError, InputError
from fewfit.models.costs import Size
from fewfit.observations import Batch, Observations, ScoreSpace, answered_whole, gather
from fewfit.prompts import Prompt

Progress = Callable[[int], object]
"""Called with the number of prompts answered since the last call."""


@dataclass(frozen=True)
class Capabilities:
    """What a frozen model gives for one query, declared before any query is asked.

    Attributes
    ----------
    scores : ScoreSpace or None
        The space of its label-word scores; None if it gives no scores.
    hidden : bool
        Whether it gives the hidden state at the slot.
    score_scale : float
        The factor that turns differences of its scores into differences of log-odds: 1 for
        logits and log-probabilities, the inverse training temperature for similarities.
    max_labels : int or None
        How many label words one query can score; None for no limit.
    full_vocabulary : bool
        Whether it gives the log-probability of every token of its vocabulary at the slot.
    soft_prompts : bool
        Whether vectors of one's own can stand in front of a prompt (:meth:`with_soft_prompt`).
    top_k : int or None
        How many of its most probable tokens the model lists; the score of a label word that is
        not among them is censored. None if every label word is scored.
    resolution : float
        Smallest step of the probabilities behind the scores, such as 1/n where they are counts of
        n answers; 0 where they are continuous.
    pairs : bool
        Whether it reads two fields as a pair of texts, whose hidden state has a size of its own.
    """

    scores: ScoreSpace | None
    hidden: bool
    score_scale: float = 1.0
    max_labels: int | None = None
    full_vocabulary: bool = False
    soft_prompts: bool = False
    top_k: int | None = None
    resolution: float = 0.0
    pairs: bool = False

    def check(self, requires: frozenset[str], *, who: str, n_words: int) -> None:
        """Refuse a method that needs more than this model gives.

        Parameters
        ----------
        requires : frozenset of str
            What the method needs, of "scores", "word_scores" (those of each label word, which come
            with them), "hidden", "full_vocabulary" and "soft_prompts". No model gives what is
            not one of these.
        who : str
            Name of the method, for the message.
        n_words : int
            Number of label words that will be asked.

        Raises
        ------
        CapabilityError
        """
        given = {
            "scores": self.scores is not None,
            "word_scores": self.scores is not None,
            "hidden": self.hidden,
            "full_vocabulary": self.full_vocabulary,
            "soft_prompts": self.soft_prompts,
        }
        for need in sorted(requires):
            if not given.get(need, False):
                raise CapabilityError(
                    f"{who} needs {need!r}, which this frozen model does not give; choose another "
                    "decoder or another model"
                )
        if self.max_labels is not None and n_words > self.max_labels and self.scores is not None:
            raise CapabilityError(
                f"{n_words} label words, but this frozen model scores at most {self.max_labels} "
                "in one query"
            )


@dataclass(frozen=True)
class Check:
    """One finding about a model, for ``fewfit doctor``: what, how it came out, in numbers."""

    name: str
    outcome: str
    detail: str
    value: float | None = None


class FrozenModel(ABC):
    """Base of all frozen models. A new way of asking implements three members.

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

    @property
    def size(self) -> Size | None:
        """What decides its FLOPs; None where that is not known, as of a server. Cheap."""
        return None

    @property
    def retries(self) -> int:
        """How many attempts were made again so far, beside the first of each query."""
        return 0

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

    def check_installed(self) -> None:
        """Refuse to go on where a package that this model runs on is not installed; cheap.

        Raises
        ------
        MissingExtraError
        """
        return  # most need none

    def stored(self, prompts: Sequence[Prompt], words: Sequence[str]) -> NDArray[np.bool_]:
        """Return which prompts cost nothing, since a store has the answer, shape (N,); cheap."""
        return np.zeros(len(prompts), dtype=bool)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        """Return what is asked for a prompt, for a person to read; nothing is asked."""
        return prompt.text("{mask}")

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Try what answers do not show, such as a field that a server ignores; at most one query.

        Raises
        ------
        ModelError
        """
        return []

    def vocabulary_log_probs(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Return the log-probability of every token at the slot, batch by batch.

        Yields
        ------
        (positions, log_probs)
            Where in `prompts` the rows belong, and an array of shape (B, V), float32, in nats.

        Raises
        ------
        CapabilityError
            If the model does not give it, as :attr:`capabilities` says.
        """
        raise CapabilityError(f"{type(self).__name__} does not give its full vocabulary")

    def input_embeddings(self) -> NDArray[np.float32]:
        """Return the vectors that stand for the tokens when the model reads, shape (V, H).

        Raises
        ------
        CapabilityError
            If the model takes no soft prompts.
        """
        raise CapabilityError(f"{type(self).__name__} does not show its input embeddings")

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> FrozenModel:
        """Return this model with vectors in front of all that it reads.

        Parameters
        ----------
        vectors : ndarray of shape (n, H)
            In the place of the embeddings of n tokens. With n = 0 it is this model itself.

        Raises
        ------
        CapabilityError
            If the model takes none, as :attr:`capabilities` says.
        """
        raise CapabilityError(
            f"{type(self).__name__} takes no vectors in front of a prompt; a masked language model "
            "of this process (hf:) does"
        )

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

    @property
    def size(self) -> Size | None:
        return self.model.size

    @property
    def retries(self) -> int:
        return self.model.retries

    def check_installed(self) -> None:
        self.model.check_installed()

    def stored(self, prompts: Sequence[Prompt], words: Sequence[str]) -> NDArray[np.bool_]:
        return self.model.stored(prompts, words)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return self.model.show(prompt, words)

    def __reduce__(self) -> tuple[Any, ...]:
        names = inspect.signature(type(self)).parameters
        return made, (type(self), {name: getattr(self, name) for name in names})


def made(kind: type[FrozenModel], arguments: dict[str, Any]) -> FrozenModel:
    """Make a model from the arguments of its constructor, as its pickle says."""
    return kind(**arguments)
