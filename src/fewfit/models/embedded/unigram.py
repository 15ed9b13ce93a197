"""Texts to the pieces of a unigram language model, as SentencePiece cuts them.

tokenizers does this too, and takes a second to build a vocabulary of 250,000 pieces, which is most
of what a cold start may take; a dictionary takes a tenth of one. Kudo, "Subword Regularization",
ACL 2018, arXiv 1804.10959, section 3.2.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

_SPACE = "\u2581"
_CACHED = 32  # characters of a word that is worth remembering
_PENALTY = 10.0  # of an unknown character, below the least likely piece


class Unigram:
    """Cuts texts into the most likely pieces, word by word.

    No piece of such a vocabulary goes on behind a space, so each word is cut by itself, and words
    that come again are remembered. Special tokens are no pieces: in a text they are text.

    Parameters
    ----------
    pieces : mapping of str to (int, float)
        Token and log-probability of each piece.
    unknown : int
        The token of characters that no piece has; several in a row are one.
    replaced : mapping of int to str
        What a character is replaced by; the result is composed (NFC).
    """

    def __init__(
        self,
        pieces: Mapping[str, tuple[int, float]],
        *,
        unknown: int,
        replaced: Mapping[int, str],
    ) -> None:
        self._replaced = replaced
        longest = max(map(len, pieces))
        least = min(score for _, score in pieces.values()) - _PENALTY
        # No method of this object: a cycle would keep all pieces until the collector looks.
        self._cut = partial(_cut, pieces, unknown, longest, least)
        self._remembered = lru_cache(2**16)(self._cut)

    def encode(self, text: str, limit: int) -> tuple[list[int], bool]:
        """Return the tokens of a text, at most `limit`, and whether it has more."""
        ids: list[int] = []
        for word in unicodedata.normalize("NFC", text.translate(self._replaced)).split():
            cut = self._remembered if len(word) <= _CACHED else self._cut
            ids += cut(word)
            if len(ids) > limit:
                return ids[:limit], True
        return ids, False


def _cut(
    pieces: Mapping[str, tuple[int, float]], unknown: int, longest: int, least: float, word: str
) -> Sequence[int]:
    """Viterbi: the best way to each character, from the best ways to those before it."""
    word = _SPACE + word
    n = len(word)
    best = [0.0] + [float("-inf")] * n
    came: list[tuple[int, int]] = [(0, unknown)] * (n + 1)
    for i in range(n):
        if best[i] + least > best[i + 1]:
            best[i + 1], came[i + 1] = best[i] + least, (i, unknown)
        for j in range(i + 1, min(n, i + longest) + 1):
            found = pieces.get(word[i:j])
            if found is not None and best[i] + found[1] > best[j]:
                best[j], came[j] = best[i] + found[1], (i, found[0])
    ids: list[int] = []
    while n:
        n, token = came[n]
        if token != unknown or not ids or ids[-1] != token:
            ids.append(token)
    return ids[::-1]
