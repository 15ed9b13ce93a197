"""The tokens that a server lists: which of them spell a label word, and why none of them does."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from fewfit.models.remote.replies import log_probabilities
from fewfit.models.remote.verdict import RowError

SHOWN = 5
"""How many of the listed tokens a message shows."""

_THOUGHT = re.compile(r"think|reason|analysis|channel|thought", re.IGNORECASE)
_BYTE = re.compile(r"<0x([0-7][0-9A-Fa-f])>")


class Listing(NamedTuple):
    """What a server lists for the token at the slot.

    Attributes
    ----------
    pairs : list of (token, log-probability)
        Tokens by id, or by text.
    n_tokens : int
        Length of the prompt, -1 if unknown.
    texts : mapping of token to str
        How tokens that are ids are written.
    thinks : bool
        Whether the reply says that the model reasons before it answers.
    """

    pairs: list[tuple[Any, float]]
    n_tokens: int = -1
    texts: Mapping[Any, str] = {}
    thinks: bool = False

    def shown(self, *, shares: bool = False) -> str:
        """Return the most probable tokens as a message has them."""
        ordered = sorted(self.pairs, key=lambda pair: -pair[1])
        names = [
            repr(self.texts.get(token, str(token))[:40]) + f" {math.exp(value):.1%}" * shares
            for token, value in ordered[:SHOWN]
        ]
        return ", ".join(names) + ", …" * (len(ordered) > SHOWN)


def read_tokens(entries: Any, *, by_id: bool = False) -> tuple[list[tuple[Any, float]], dict]:
    """Return the (token, log-probability) pairs of a list of objects, and the texts of ids.

    A token's text is that of its bytes, where the server tells these and they are whole
    characters: the text beside them may have lost some. The same entry twice is one token; an id
    with two probabilities is a contradiction. Two tokens of one text are two entries.

    Raises
    ------
    RowError
        If something is not what it should be.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise RowError("the listed tokens are not a list of objects")
    pairs: dict[tuple[Any, Any], None] = {}
    texts: dict[Any, str] = {}
    for entry in entries:
        token, value = entry.get("id" if by_id else "token"), entry.get("logprob")
        if type(token) is not (int if by_id else str):
            raise RowError(
                f"a listed token is {str(token)[:40]!r}, not {'an id' * by_id or 'text'}"
            )
        if isinstance(value, list | dict):
            raise RowError(f"the log-probability of {token!r} is not a number")
        if by_id:
            texts[token] = str(entry.get("token"))
        else:
            token = _of_bytes(entry.get("bytes")) or token
        pairs[token, value] = None
    if by_id and len({token for token, _ in pairs}) != len(pairs):
        raise RowError("a token is listed twice, with two probabilities")
    return log_probabilities(pairs), texts


def matched(
    pairs: Sequence[tuple[Any, float]], targets: Sequence[Collection[Any]], *, fold: bool
) -> list[tuple[Any, float]]:
    """Return the pairs with each token as the label word writes it, where it spells one.

    Servers name tokens by their vocabulary's own spelling (``Ġgood``, ``▁good``, ``<0x67>``) or by
    their text. A token that is a label word as it stands is that; else every reading counts.

    Parameters
    ----------
    pairs : sequence of (token, log-probability)
    targets : sequence of collections
        For each label word the tokens that spell it; folded, if `fold`.
    fold : bool
        Whether upper and lower case are the same.
    """
    wanted = {token for spellings in targets for token in spellings}

    def written(token: Any) -> Any:
        if not isinstance(token, str):
            return token
        folded = (text.casefold() if fold else text for text in readings(token))
        return next((text for text in folded if text in wanted), token)

    return [(written(token), value) for token, value in pairs]


def readings(token: str) -> Iterator[str]:
    """Yield what the name of a token may stand for: itself, and the spellings of vocabularies."""
    yield token
    if "▁" in token:  # sentencepiece's space
        yield token.replace("▁", " ")
    if byte := _BYTE.fullmatch(token):  # sentencepiece's byte; above ASCII it is no character
        yield chr(int(byte[1], 16))
    table = _byte_level()
    if not token.isascii() and all(character in table for character in token):
        text = _of_bytes([table[character] for character in token])
        if text is not None:
            yield text


def why_unlisted(listing: Listing, words: Sequence[str], *, by_text: bool, case: bool) -> str:
    """Return what to do where no label word is listed, judged by the tokens that are.

    Parameters
    ----------
    words : sequence of str
        The label words.
    by_text : bool
        Whether tokens are matched by their text, not by id.
    case : bool
        Whether there is an option ``case`` that would make upper and lower case the same.
    """
    texts = [str(listing.texts.get(token, token)) for token, _ in listing.pairs]
    bare = {reading.strip(): None for text in texts for reading in readings(text)}
    first = max(listing.pairs, key=lambda pair: pair[1])[0]
    if listing.thinks or thinks(str(listing.texts.get(first, first))):
        return (
            "it is a reasoning model, which thinks before it answers: turn that off "
            '(reasoning_effort=none, or extra={"chat_template_kwargs":{"enable_thinking":'
            "false}}, as the server has it), or use another model"
        )
    folded = {word.casefold(): word for word in words}
    for text in bare:
        word = folded.get(text.casefold())
        if word is not None and text != word:
            remedy = "add case=any to the model's address, or " if case else ""
            return (
                f"{text!r} differs from the label word {word!r} in case: {remedy}write the label "
                "word so"
            )
        if word is not None and by_text:
            return f"{word!r} has a space before it: put one before {{mask}}"
    if all(re.fullmatch(r"token_id:\d+", text) for text in texts):
        return "tokens are listed by id: use vllm: in place of the dialect, or turn that off"
    for text in bare:
        longer = next((word for word in words if len(text) > 1 and word.startswith(text)), None)
        if longer is not None and by_text:
            return (
                f"{text!r} may begin {longer!r}, but only label words of one token are found by "
                "their text: choose such words, or a server that scores tokens by id (llamacpp, "
                "vllm, sglang)"
            )
    several = [word for word in words if " " in word]
    if several and by_text:
        return f"{several[0]!r} is no single token: only label words of one token are found by text"
    return "choose label words or a template so that the model would say them, or a larger top_k"


def overlooked(
    pairs: Sequence[tuple[Any, float]], words: Sequence[str], scores: Sequence[float]
) -> str:
    """Return what of the listed text may be a label word and is not counted, or counted wrongly.

    Parameters
    ----------
    pairs : sequence of (token, log-probability)
        As :func:`matched` writes them.
    words : sequence of str
    scores : sequence of float
        Log-probability of each word, or its bound.
    """
    folded = {word.casefold(): (word, score) for word, score in zip(words, scores, strict=True)}
    texts = {str(token).strip(): value for token, value in pairs}
    for text, value in texts.items():
        word, score = folded.get(text.casefold(), (text, 0.0))
        if word != text and value > score and text not in words:
            return (
                f"{text!r} is more probable than the label word {word!r} and not counted for it; "
                "add case=any to the model's address, or write the label word so"
            )
    for word in words:
        longer = next((w for w in words if w != word and w.startswith(word)), None)
        if longer is not None and word in texts and longer not in texts:
            return (
                f"{word!r} is listed and may be the beginning of {longer!r}; if the model breaks "
                "words up so, choose label words that differ at their beginning"
            )
    return ""


def thinks(token: str) -> bool:
    """Whether a token opens a model's reasoning, as ``<think>`` does."""
    return token.strip()[:1] in "<[◁" and _THOUGHT.search(token) is not None


def _of_bytes(values: Any) -> str | None:
    try:
        return bytes(values).decode("utf-8") if isinstance(values, list) and values else None
    except (TypeError, ValueError, OverflowError):
        return None


@cache
def _byte_level() -> dict[str, int]:
    """The characters in which GPT-2's vocabulary writes bytes, and Llama 3's, Qwen's, …"""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return table | {chr(0x100 + i): byte for i, byte in enumerate(others)}
