"""Two ways in which servers score the token at the slot: their most probable, or those named."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, Check
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.guard import Silence
from fewfit.models.remote.listing import Listing, matched, overlooked, why_unlisted
from fewfit.models.remote.replies import label_scores
from fewfit.models.remote.slot import (
    before_slot,
    by_template,
    first_tokens,
    spellings,
    trie_of,
)
from fewfit.models.remote.transport import Session
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt
from fewfit.prompts.trie import REST, Trie

Vector = NDArray[np.float32]
Sent = str | list[int]


class TopTokens(RemoteModel):
    """Base of the dialects that list the most probable tokens; other label words are censored.

    A prompt whose listed tokens spell no label word has no answer, and so no label: all its scores
    would be one and the same bound. Its hidden state is not asked for.
    """

    has: ClassVar[frozenset[str]] = frozenset({"hidden", "top_k", "case"})
    default_top_k: ClassVar[int]
    by_text: ClassVar[bool] = True
    """Whether tokens are matched by their text; by their ids otherwise."""

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
        first = by_template(prompts).items()
        trie = self.options.multi_token == "trie"
        tries = {text: self._trie(session, prompt, words) for text, prompt in first if trie}
        targets = {
            text: self._targets(session, prompt, words) for text, prompt in first if not trie
        }
        second = self._second_session(session)
        silence = Silence(self.scheme)

        def ask(prompt: Prompt) -> Answer:
            text = self._sent(session, prompt)
            if trie:
                return silence(self._over_trie(session, second, text, tries[prompt.lead], words))
            listing = self._listed(session, text)
            wanted = targets[prompt.lead]
            pairs = matched(listing.pairs, wanted, fold=self._folds)
            scores, censored, mass = label_scores(pairs, wanted, self.top_k)
            if censored.all():
                reason, details = self._why_unlisted(listing, words)
                return silence(Answer(reason=reason, details=details))
            hidden = None if second is None else self._checked(self._embedding(second, text))
            note = (
                "" if self._folds or not self.by_text else overlooked(pairs, words, scores.tolist())
            )
            return silence(Answer(scores, censored, hidden, mass, listing.n_tokens, note=note))

        return ask

    def _over_trie(
        self,
        session: Session,
        second: Session | None,
        text: Any,
        trie: Trie,
        words: Sequence[str],
    ) -> Answer:
        """Score whole words: a request for each branching. What is not listed there is a bound."""
        given: dict[tuple[int, ...], NDArray[np.float64]] = {}
        bounds: dict[tuple[int, ...], set[int]] = {}
        ids, n_tokens = list[int](), -1
        for prefix, tokens in trie.branchings.items():
            if not ids:
                ids = text if isinstance(text, list) else self._prompt_tokens(session, text)
            listing = self._listed(session, [*ids, *prefix])
            named = [token for token in tokens if token != REST]
            scores, censored, _ = label_scores(
                listing.pairs, [(token,) for token in named], self.top_k
            )
            if not prefix and censored.all():
                reason, details = self._why_unlisted(listing, words)
                return Answer(reason=reason, details=details)
            given[prefix] = scores
            bounds[prefix] = {t for t, lost in zip(named, censored, strict=True) if lost}
            n_tokens = listing.n_tokens - len(prefix) if listing.n_tokens >= 0 else -1
        censored = np.array(
            [
                any(token in bounds.get(label[:n], ()) for n, token in enumerate(label))
                for label in trie.labels
            ]
        )
        if censored.all():
            return Answer(reason="none of the label words is among the tokens that were listed")
        hidden = None if second is None else self._checked(self._embedding(second, text))
        return Answer(trie.combine(given), censored, hidden, float("nan"), n_tokens)

    def _trie(self, session: Session, prompt: Prompt, words: Sequence[str]) -> Trie:
        """Return the label words as a trie of token ids; of the dialects that have the option."""
        raise NotImplementedError

    def _prompt_tokens(self, session: Session, text: str) -> list[int]:
        """Return the tokens of a prompt as the model reads it; of the same dialects."""
        raise NotImplementedError

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return before_slot(prompt)

    @property
    def _folds(self) -> bool:
        return self.options.case == "any"

    def _targets(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> list[Collection[Any]]:
        """For each word the tokens that spell it, as :meth:`_listed` names tokens: by text here."""
        found = spellings(prompt, words)
        if self._folds:
            found = [{text.casefold() for text in texts} for texts in found]
            for i, texts in enumerate(found):
                if any(texts & other for other in found[:i]):
                    raise InputError(
                        f"labels: {words[i]!r} differs from another label word in case alone, "
                        "which case=any does not tell apart"
                    )
        return list(found)

    def _why_unlisted(self, listing: Listing, words: Sequence[str]) -> tuple[str, str]:
        advice = why_unlisted(listing, words, by_text=self.by_text, case="case" in self.has)
        reason = "none of the label words is among the tokens that the server listed"
        return reason, f": {listing.shown()}; {advice}"

    def _check_listing(
        self, listing: Listing, prompt: Prompt, words: Sequence[str], field: str
    ) -> list[Check]:
        """What ``fewfit doctor`` says of a listing: how many tokens, and which."""
        session, listed = self.session(), len(listing.pairs)
        wanted = self._targets(session, prompt, words)
        pairs = matched(listing.pairs, wanted, fold=self._folds)
        _, censored, _ = label_scores(pairs, wanted, self.top_k)
        enough = listed >= self.top_k
        checks = [
            Check(
                field,
                "honoured" if enough else "in part",
                f"asked for {self.top_k} tokens, {listed} listed",
            ),
            Check("tokens listed", "note", listing.shown(shares=True)),
        ]
        if censored.any():
            missing = [word for word, unlisted in zip(words, censored, strict=True) if unlisted]
            details = self._why_unlisted(listing, missing)[1].partition("; ")[2]
            checks.append(Check("words not listed", "note", f"{', '.join(missing)}: {details}"))
        return checks

    def _sent(self, session: Session, prompt: Prompt) -> Sent:
        """Return what is sent of a prompt: its text, or its tokens."""
        return before_slot(prompt)

    @abstractmethod
    def _listed(self, session: Session, text: Any) -> Listing:
        """Ask for the token after what is sent."""

    @abstractmethod
    def _embedding(self, session: Session, text: Any) -> Vector:
        """Ask the server at ``hidden=`` for the vector of a prompt."""


class ChosenTokens(RemoteModel):
    """Base of the dialects that score exactly the tokens that they are given by id."""

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return before_slot(prompt)

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        tokenize = self._tokenizer(session)
        if self.options.multi_token == "trie":
            return self._asking_trie(session, prompts, words, tokenize)
        ids = {
            text: first_tokens(*self._neighbours(session, prompt, words), tokenize)
            for text, prompt in by_template(prompts).items()
        }
        second = self._second_session(session)

        def ask(prompt: Prompt) -> Answer:
            text = self._sent(session, prompt)
            scores, hidden, n_tokens = self._scored(session, second, text, ids[prompt.lead])
            hidden = None if hidden is None else self._checked(hidden)
            return Answer(scores, None, hidden, float(np.exp(scores).sum()), n_tokens)

        return ask

    def _asking_trie(
        self,
        session: Session,
        prompts: Sequence[Prompt],
        words: Sequence[str],
        tokenize: Callable[[str], list[int]],
    ) -> Callable[[Prompt], Answer]:
        """Score whole words: one request for the slot, and one for each further branching."""
        tries = {
            text: trie_of(*self._neighbours(session, prompt, words), tokenize)
            for text, prompt in by_template(prompts).items()
        }
        second = self._second_session(session)

        def ask(prompt: Prompt) -> Answer:
            trie = tries[prompt.lead]
            ways = {
                prefix: [token for token in tokens if token != REST]
                for prefix, tokens in trie.branchings.items()
            }
            text, root = self._sent(session, prompt), ways.pop((), None)
            # Label words that all begin with one token have no choice at the slot.
            first = root or [trie.labels[0][0]]
            scores, hidden, n_tokens = self._scored(session, second, text, first)
            given: dict[tuple[int, ...], NDArray[np.float64]] = {}
            if root is not None:
                given[()] = scores
            if ways:
                ids = text if isinstance(text, list) else self._prompt_tokens(session, text)
                for prefix, tokens in ways.items():
                    given[prefix] = self._scored(session, None, [*ids, *prefix], tokens)[0]
            hidden = None if hidden is None else self._checked(hidden)
            return Answer(trie.combine(given), None, hidden, float("nan"), n_tokens)

        return ask

    def _sent(self, session: Session, prompt: Prompt) -> Sent:
        """Return what is sent of a prompt: its text, or its tokens."""
        return before_slot(prompt)

    def _neighbours(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> tuple[Prompt, Sequence[str]]:
        """Return the prompt as the slot's neighbours see it, and the words."""
        return prompt, words

    @abstractmethod
    def _tokenizer(self, session: Session) -> Callable[[str], list[int]]:
        """Return the function from text to token ids, without special tokens."""

    @abstractmethod
    def _prompt_tokens(self, session: Session, text: str) -> list[int]:
        """Return the tokens of a prompt as the model reads it, its first token included."""

    @abstractmethod
    def _scored(
        self, session: Session, second: Session | None, text: Sent, ids: Sequence[int]
    ) -> tuple[NDArray[np.float64], Vector | None, int]:
        """Ask for the log-probabilities of `ids`, hidden state, and number of prompt tokens."""
