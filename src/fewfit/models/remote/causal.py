"""Two ways in which servers score the token at the slot: their most probable, or those named."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.models.base import Capabilities
from fewfit.models.remote.base import Answer, RemoteModel
from fewfit.models.remote.replies import label_scores
from fewfit.models.remote.slot import before_slot, by_template, context, first_tokens, spellings
from fewfit.models.remote.transport import Session
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

Vector = NDArray[np.float32]
Listed = list[tuple[Any, float]]


class TopTokens(RemoteModel):
    """Base of the dialects that list the most probable tokens; other label words are censored."""

    has: ClassVar[frozenset[str]] = frozenset({"hidden", "top_k"})
    default_top_k: ClassVar[int]

    @property
    def top_k(self) -> int:
        """How many tokens the server is asked to list."""
        return self.options.top_k or self.default_top_k

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=ScoreSpace.LOGPROB, hidden=self._second is not None, top_k=self.top_k
        )

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        targets = {
            text: self._targets(session, prompt, words)
            for text, prompt in by_template(prompts).items()
        }
        second = self._second_session(session)

        def ask(prompt: Prompt) -> Answer:
            text = before_slot(prompt)
            listed, n_tokens = self._listed(session, text)
            scores, censored, mass = label_scores(listed, targets[context(prompt)], self.top_k)
            hidden = None if second is None else self._checked(self._embedding(second, text))
            return Answer(scores, censored, hidden, mass, n_tokens)

        return ask

    def _targets(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> list[Collection[Any]]:
        """For each word the tokens that spell it, as :meth:`_listed` names tokens: by text here."""
        return list(spellings(prompt, words))

    @abstractmethod
    def _listed(self, session: Session, text: str) -> tuple[Listed, int]:
        """Ask for the next token: (token, log-probability) pairs, and the prompt's length."""

    @abstractmethod
    def _embedding(self, session: Session, text: str) -> Vector:
        """Ask the server at ``hidden=`` for the vector of a prompt."""


class ChosenTokens(RemoteModel):
    """Base of the dialects that score exactly the tokens that they are given by id."""

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        tokenize = self._tokenizer(session)
        ids = {
            text: first_tokens(prompt, words, tokenize)
            for text, prompt in by_template(prompts).items()
        }
        second = self._second_session(session)

        def ask(prompt: Prompt) -> Answer:
            text = before_slot(prompt)
            scores, hidden, n_tokens = self._scored(session, second, text, ids[context(prompt)])
            hidden = None if hidden is None else self._checked(hidden)
            return Answer(scores, None, hidden, float(np.exp(scores).sum()), n_tokens)

        return ask

    @abstractmethod
    def _tokenizer(self, session: Session) -> Callable[[str], list[int]]:
        """Return the function from text to token ids, without special tokens."""

    @abstractmethod
    def _scored(
        self, session: Session, second: Session | None, text: str, ids: Sequence[int]
    ) -> tuple[NDArray[np.float64], Vector | None, int]:
        """Ask for the log-probabilities of `ids`, hidden state, and number of prompt tokens."""
