"""What only some frozen models have: a protocol each, and one function that asks for it.

A model has it by having the member: there is nothing to register. What stands in front of a model
(:class:`fewfit.models.base.FrontModel`) is asked first and then the model itself, for all that
pays nothing; what asks is never handed through, since it would pass the store or budget by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fewfit.models.base import Check, FrontModel, FrozenModel
from fewfit.models.costs import Size
from fewfit.observations import Observations
from fewfit.prompts import Prompt


class HasSize(Protocol):
    """A model whose weights are at hand."""

    @property
    def size(self) -> Size | None:
        """What decides its FLOPs; None where that is not known yet. Cheap."""
        ...


class Retries(Protocol):
    """A model that asks again where an attempt failed."""

    @property
    def retries(self) -> int:
        """How many attempts were made again so far, beside the first of each query."""
        ...


class LearntFromLabels(Protocol):
    """A model that was tuned on labelled rows, which it may be asked about again."""

    @property
    def n_tuned(self) -> int:
        """How many rows those were; 0 where it is not known that they are of one task. Cheap."""
        ...


class NeedsPackages(Protocol):
    """A model that runs on packages that need not be installed."""

    def check_installed(self) -> None:
        """Refuse to go on without them; cheap.

        Raises
        ------
        MissingExtraError
        """


class Carried(Protocol):
    """A model that lies in no place of its own, and is kept by what is fitted on it."""

    @property
    def carried(self) -> Mapping[str, bytes]:
        """Its files, by name; none where it is found by its spec."""
        ...


class TriesFields(Protocol):
    """A model of which ``fewfit doctor`` can learn more than answers show."""

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Try what answers do not show, such as a field that a server ignores; at most one query.

        Raises
        ------
        ModelError
        """
        ...


class HasStore(Protocol):
    """A model with a store in front, or that is one."""

    def stored(self, prompts: Sequence[Prompt], words: Sequence[str]) -> NDArray[np.bool_]:
        """Return which prompts cost nothing, since the answer is stored, shape (N,); cheap."""
        ...


class Shows(Protocol):
    """A model that is sent something else than the prompt as it stands."""

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        """Return what is asked for a prompt, for a person to read; nothing is asked."""
        ...


class ScoresApart(Protocol):
    """A model whose score of a label word is the same whatever other words it is asked about."""

    scores_apart: bool


class SharesNetwork(Protocol):
    """A model that is a small change to a network, of which others are other changes."""

    @property
    def network_key(self) -> str:
        """What the network is known by: the same of all models on it. Cheap."""
        ...

    @property
    def mixture(self) -> str | None:
        """What models have in common whose rows may stand in one batch; None for one in none."""
        ...

    def share(self, networks: dict[str, Any]) -> None:
        """Ask one copy of the network from now on, with all others that are told the same."""

    def mixed(
        self, groups: Sequence[tuple[Any, Sequence[Prompt], Sequence[str]]]
    ) -> list[Observations]:
        """Answer for models of one mixture: for each its prompts, about its label words."""
        ...


class GivesVocabulary(Protocol):
    """A model that declares ``full_vocabulary``."""

    def vocabulary_log_probs(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Return the log-probability of every token at the slot, batch by batch.

        Yields
        ------
        (positions, log_probs)
            Where in `prompts` the rows belong, and an array of shape (B, V), float32, in nats.
        """
        ...


class TakesSoftPrompts(Protocol):
    """A model that declares ``soft_prompts``."""

    def input_embeddings(self) -> NDArray[np.float32]:
        """Return the vectors that stand for the tokens when the model reads, shape (V, H)."""
        ...

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> FrozenModel:
        """Return this model with vectors in front of all that it reads.

        Parameters
        ----------
        vectors : ndarray of shape (n, H)
            In the place of the embeddings of n tokens. With n = 0 it is this model itself.
        """
        ...


def size_of(model: FrozenModel) -> Size | None:
    """Return :attr:`HasSize.size`; None where it is not known, as of a server."""
    found = _first(model, "size")
    return found if isinstance(found, Size) else None


def retries_of(model: FrozenModel) -> int:
    """Return :attr:`Retries.retries`; 0 of a model that never asks again."""
    return _first(model, "retries") or 0


def tuned_on(model: FrozenModel) -> int:
    """Return :attr:`LearntFromLabels.n_tuned`; 0 of a model that was not tuned."""
    return _first(model, "n_tuned") or 0


def carried_by(model: FrozenModel) -> Mapping[str, bytes]:
    """Return :attr:`Carried.carried`; nothing of most models."""
    return _first(model, "carried") or {}


def check_installed(model: FrozenModel) -> None:
    """Do :meth:`NeedsPackages.check_installed`; most models need no package."""
    if (check := _first(model, "check_installed")) is not None:
        check()


def check_fields(model: FrozenModel, prompt: Prompt, words: Sequence[str]) -> list[Check]:
    """Do :meth:`TriesFields.check_fields`; no finding about a model with nothing to try."""
    if not hasattr(model, "check_fields"):
        return []
    return cast(TriesFields, model).check_fields(prompt, words)


def stored(
    model: FrozenModel, prompts: Sequence[Prompt], words: Sequence[str]
) -> NDArray[np.bool_]:
    """Return :meth:`HasStore.stored`; nothing of a model without a store."""
    if (look := _first(model, "stored")) is None:
        return np.zeros(len(prompts), dtype=bool)
    return look(prompts, words)


def show(model: FrozenModel, prompt: Prompt, words: Sequence[str]) -> str:
    """Return :meth:`Shows.show`; the prompt of a model that is sent just that."""
    if (shown := _first(model, "show")) is None:
        return prompt.text("{mask}")
    return shown(prompt, words)


def scores_apart(model: FrozenModel) -> bool:
    """Return :attr:`ScoresApart.scores_apart`; False of a model that does not say it."""
    return bool(_first(model, "scores_apart"))


def network_of(model: FrozenModel) -> str | None:
    """Return :attr:`SharesNetwork.network`; None of a model that is no change to another."""
    return _first(model, "network_key")


def share_network(model: FrozenModel, networks: dict[str, Any]) -> None:
    """Do :meth:`SharesNetwork.share`; most models share none."""
    if (share := _first(model, "share")) is not None:
        share(networks)


def mixture_of(model: FrozenModel) -> str | None:
    """Return :attr:`SharesNetwork.mixture` of a model with nothing in front; None of others."""
    return getattr(model, "mixture", None)


def gives_vocabulary(model: FrozenModel) -> GivesVocabulary:
    """Return a model as what it declares to be, or refuse it (CapabilityError)."""
    model.capabilities.check(frozenset({"full_vocabulary"}), who="this method", n_words=0)
    return cast(GivesVocabulary, model)


def takes_soft_prompts(model: FrozenModel) -> TakesSoftPrompts:
    """Return a model as what it declares to be, or refuse it (CapabilityError)."""
    model.capabilities.check(frozenset({"soft_prompts"}), who="a soft prompt", n_words=0)
    return cast(TakesSoftPrompts, model)


def _first(model: FrozenModel, member: str) -> Any:
    """The member of the first model that has it, from what stands in front inwards."""
    while not hasattr(model, member) and isinstance(model, FrontModel):
        model = model.model
    return getattr(model, member, None)
