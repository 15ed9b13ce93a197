"""Trie-constrained choice among labels of several tokens: Buchner et al. (PTEC), NAACL 2024.

arXiv 2309.12075, section on Trie Search. Tokens are integers of whatever model answers; a label is
a sequence of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError

REST = -1
"""The end of a label that is any token but those with which longer labels go on."""

NONE = -2
"""The separator where no label follows another."""

_LEAST = 1e-12

Next = Callable[[tuple[int, ...]], NDArray[np.floating]]
"""Tokens generated so far -> log-probability of every next token, shape (V,): one query."""


class Trie:
    """Which tokens may come next, so that what is generated is a list of distinct labels.

    Parameters
    ----------
    labels : sequence of sequence of int
        The tokens of each label. One label may begin with another.
    separator, end : int
        The tokens that follow a label where another follows, and where none does. With
        :data:`REST` as the end, a label has ended where it does not go on to a longer one, whatever
        token follows: a model that was not trained to end labels has no token for it.

    Raises
    ------
    InputError
        For no label, an empty or repeated one, or one that holds the separator or the end.

    Examples
    --------
    >>> trie = Trie([[1, 2], [1, 3], [4]], separator=9, end=0)
    >>> sorted(trie.allowed([1, 2, 9]))  # [1, 2] is used up
    [1, 4]
    """

    requires: ClassVar[frozenset[str]] = frozenset({"full_vocabulary"})
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "1 per branching of the trie"
    reference: ClassVar[str] = "Buchner et al. 2024, arXiv 2309.12075"

    def __init__(self, labels: Sequence[Sequence[int]], *, separator: int, end: int) -> None:
        self.labels = tuple(tuple(label) for label in labels)
        self.separator = separator
        self.end = end
        if not self.labels or () in self.labels or len(set(self.labels)) < len(self.labels):
            raise InputError("labels: expected distinct labels of at least one token each")
        for label in self.labels:
            if separator in label or end in label:
                raise InputError(f"labels: {list(label)} holds the separator or the end token")

    def allowed(self, generated: Sequence[int]) -> frozenset[int]:
        """Return the tokens that may come next; none after the end.

        A label that was completed cannot come again, and no separator is allowed after the last
        one that is left.

        Raises
        ------
        InputError
            If `generated` is not something that this trie allows.
        """
        left, prefix = set(self.labels), ()
        for i, token in enumerate(generated):
            if token not in self._next(left, prefix):
                raise InputError(f"token {token} at position {i} does not follow {list(prefix)}")
            if token == self.end:
                left, prefix = set(), ()
            elif token == self.separator:
                left, prefix = left - {prefix}, ()
            else:
                prefix = (*prefix, token)
        return self._next(left, prefix)

    def _next(self, left: set[tuple[int, ...]], prefix: tuple[int, ...]) -> frozenset[int]:
        n = len(prefix)
        tokens = {label[n] for label in left if len(label) > n and label[:n] == prefix}
        if prefix in left:
            tokens |= {self.end, self.separator} if len(left) > 1 else {self.end}
        return frozenset(tokens)

    def decode(self, next_log_probs: Next) -> list[int]:
        """Return the labels that greedy decoding under the mask gives, as positions in `labels`.

        The choice is the most probable allowed token; where only one is allowed, nothing is asked.
        """
        generated: tuple[int, ...] = ()
        while allowed := sorted(self.allowed(generated)):
            best = allowed[0]
            if len(allowed) > 1:
                best = allowed[int(np.argmax(next_log_probs(generated)[allowed]))]
            generated = (*generated, best)
        labels: list[tuple[int, ...]] = [()]
        for token in generated[:-1]:
            labels = (
                [*labels, ()] if token == self.separator else [*labels[:-1], (*labels[-1], token)]
            )
        return [self.labels.index(label) for label in labels]

    @property
    def branchings(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """What labels begin with and go on in more than one way, and how: the tokens, sorted.

        The end is among them where a label ends there.
        """
        whole = set(self.labels)
        prefixes = {label[:n] for label in self.labels for n in range(len(label) + 1)}
        ways = {
            prefix: tuple(sorted(self._next(whole, prefix) - {self.separator}))
            for prefix in sorted(prefixes, key=lambda p: (len(p), p))
        }
        return {prefix: tokens for prefix, tokens in ways.items() if len(tokens) > 1}

    def label_log_probs(self, next_log_probs: Next) -> NDArray[np.float64]:
        """Return the log-probability of each label alone, shape (L,), masked and renormalised.

        At each branching the allowed tokens (and the end, where a label is a prefix of another)
        share all of the probability, so the labels together have probability 1. Each branching is
        asked once; a stretch without choice costs nothing.
        """
        given = {
            prefix: np.asarray(next_log_probs(prefix), dtype=np.float64)[
                [token for token in tokens if token != REST]
            ]
            for prefix, tokens in self.branchings.items()
        }
        return self.combine(given)

    def combine(self, given: Mapping[tuple[int, ...], NDArray[np.floating]]) -> NDArray[np.float64]:
        """Return the log-probability of each label, shape (..., L), from those at each branching.

        Parameters
        ----------
        given : mapping of tuple of int to ndarray of shape (..., n)
            For each of :attr:`branchings` the log-probabilities of its tokens, :data:`REST` left
            out, of any number of texts.
        """
        ways = self.branchings
        shape = next((values.shape[:-1] for values in given.values()), ())
        log_p = np.zeros((*shape, len(self.labels)))
        for prefix, tokens in ways.items():
            scores = given[prefix].astype(np.float64)
            if tokens[0] == REST:
                left = np.clip(-np.expm1(np.logaddexp.reduce(scores, axis=-1)), _LEAST, None)
                scores = np.concatenate([np.log(left)[..., None], scores], axis=-1)
            scores = scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)
            for j, label in enumerate(self.labels):
                if label[: len(prefix)] == prefix:
                    follows = label[len(prefix)] if len(label) > len(prefix) else self.end
                    log_p[..., j] += scores[..., tokens.index(follows)]
        return log_p
