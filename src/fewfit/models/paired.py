"""Two frozen models in one: label scores from the first, hidden states from the second."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.models import optional
from fewfit.models.base import Check, FrozenModel, made
from fewfit.models.capabilities import Capabilities
from fewfit.observations import Batch, Observations, Status, answered_whole, unanswered
from fewfit.prompts import Prompt

JOINT = " + "
"""What stands between the specs of the two in the spec of both; no address holds a space."""


class PairedModel(FrozenModel):
    """Label scores from one frozen model, the hidden state from another.

    A chat model says which label it would give, an embedding what the text is like: a decoder
    learns from the labelled examples what each is worth. Both are asked about the same prompts; a
    query is a prompt that either of them was paid for. The hidden states are asked first, since
    they cost less: what has none is not asked of the other. A row that one of the two has not
    answered has failed, and one that either had to cut is cut. A prompt's length is that in the
    tokens of both together.

    Parameters
    ----------
    scores : FrozenModel
        Its label words' scores, with what it declares of them.
    hidden : FrozenModel
        Its hidden states. A store and a budget stand in front of each of the two, not of both.

    Raises
    ------
    InputError
        If `scores` gives no scores, or `hidden` no hidden states.

    Examples
    --------
    >>> from fewfit import Template
    >>> from fewfit.models import FakeModel
    >>> both = PairedModel(FakeModel(hidden_size=0), FakeModel(seed=1))
    >>> answers = both.observe([Template("{text} {mask}").render({"text": "fun"})], ["a", "b"])
    >>> answers.scores.shape, answers.hidden.shape
    ((1, 2), (1, 16))
    """

    def __init__(self, scores: FrozenModel, hidden: FrozenModel) -> None:
        if scores.capabilities.scores is None:
            raise InputError(f"model: {scores.spec or scores!r} gives no label scores")
        if not hidden.capabilities.hidden:
            raise InputError(f"hidden: {hidden.spec or hidden!r} gives no hidden states")
        self.scores = scores
        self.hidden = hidden

    @property
    def spec(self) -> str | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        scores, hidden = self.scores.spec, self.hidden.spec
        return None if scores is None or hidden is None else scores + JOINT + hidden

    @property
    def capabilities(self) -> Capabilities:
        said, state = self.scores.capabilities, self.hidden.capabilities
        return replace(
            said, hidden=True, pairs=state.pairs, full_vocabulary=False, soft_prompts=False
        )

    @property
    def identity(self) -> Mapping[str, str]:
        halves = (("scores", self.scores), ("hidden", self.hidden))
        own = {f"{part}: {k}": v for part, model in halves for k, v in model.identity.items()}
        return {"kind": "paired", **own}

    @property
    def n_tuned(self) -> int:
        return max(optional.tuned_on(self.scores), optional.tuned_on(self.hidden))

    @property
    def retries(self) -> int:
        return optional.retries_of(self.scores) + optional.retries_of(self.hidden)

    def check_installed(self) -> None:
        optional.check_installed(self.scores)
        optional.check_installed(self.hidden)

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        return [
            *optional.check_fields(self.scores, prompt, words),
            *optional.check_fields(self.hidden, prompt, words),
        ]

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return optional.show(self.scores, prompt, words)

    def stored(self, prompts: Sequence[Prompt], words: Sequence[str]) -> NDArray[np.bool_]:
        halves = (self.scores, self.hidden)
        there = [optional.stored(half, prompts, words) for half in halves]
        return there[0] & there[1]

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        states = self.hidden.observe(prompts, words)
        failed = states.status == Status.FAILED
        if failed.any():
            yield failed.nonzero()[0], _lost(states[failed], words)
        there = (~failed).nonzero()[0]
        if not len(there):
            return
        asking: Any = self.scores.stream([prompts[i] for i in there], words)
        with closing(asking):
            for local, batch in asking:
                yield from _joined(there[local], answered_whole(batch), states)

    def __reduce__(self) -> tuple[Any, ...]:
        names = inspect.signature(type(self)).parameters
        return made, (type(self), {name: getattr(self, name) for name in names})

    def __repr__(self) -> str:
        return f"PairedModel({self.scores!r}, {self.hidden!r})"


def halves(model: FrozenModel) -> tuple[FrozenModel, ...]:
    """Return the two models of a pair; another model alone."""
    return (model.scores, model.hidden) if isinstance(model, PairedModel) else (model,)


def _joined(where: NDArray[np.intp], said: Observations, states: Observations) -> Iterator[Batch]:
    """Yield the scores of some rows beside their hidden states."""
    state = states[where]
    asked, n_tokens = said.asked | state.asked, _lengths(said, state)
    failed = said.status == Status.FAILED
    if failed.any():
        lost = replace(_lost(said[failed], said.columns), asked=asked[failed])
        yield where[failed], lost
    if failed.all():
        return
    whole = replace(
        said,
        hidden=state.hidden,
        n_tokens=n_tokens,
        status=np.maximum(said.status, state.status),
        asked=asked,
    )
    yield where[~failed], whole[~failed]


def _lengths(said: Observations, state: Observations) -> NDArray[np.int32]:
    known = (said.n_tokens >= 0) & (state.n_tokens >= 0)
    return np.where(known, said.n_tokens + state.n_tokens, -1).astype(np.int32)


def _lost(rows: Observations, words: Sequence[str]) -> Observations:
    """Return rows that failed, in the form that fits the answers of both models."""
    reasons = np.asarray(rows.reason).tolist()
    return replace(unanswered(words, len(rows), reasons), asked=rows.asked)
