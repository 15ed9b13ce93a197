"""Where a left-to-right model meets the slot: the text before it, and the words that fit there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from fewfit.errors import InputError, ModelWarning
from fewfit.prompts import Prompt
from fewfit.prompts.trie import NONE, REST, Trie

Tokenize = Callable[[str], list[int]]


def before_slot(prompt: Prompt) -> str:
    """Return the prompt up to the slot, without the spaces just before it.

    Those spaces belong to the label word: tokens begin with the space before their word. Literal
    text after the slot is left out, since a left-to-right model would not have read it.

    Raises
    ------
    InputError
        If a field comes after the slot, or no text before it.
    """
    kinds = [part.kind for part in prompt.parts]
    slot = kinds.index("mask")
    before = "".join(part.text for part in prompt.parts[:slot]).rstrip(" ")
    if "field" in kinds[slot:] or not ("field" in kinds[:slot] or before.strip()):
        raise InputError(
            "template: this model reads from left to right, so every field has to come before "
            "{mask}"
        )
    return before


def spellings(prompt: Prompt, words: Sequence[str]) -> list[set[str]]:
    """For each word the token texts that spell it at the slot.

    The word as it stands, and with the space before the slot if there is one: servers that rebuild
    token text from a sentencepiece vocabulary drop it.
    """
    spaced = prompt.lead.endswith(" ")
    return [{word, " " + word} if spaced else {word} for word in words]


def word_tokens(prompt: Prompt, words: Sequence[str], tokenize: Tokenize) -> list[tuple[int, ...]]:
    """For each word its tokens at the slot, found by tokenising it in place.

    Raises
    ------
    InputError
        If a word melts into the text before it.
    """
    text = prompt.lead
    before = text.rstrip(" ")
    start = tokenize(before) if before else []
    found: list[tuple[int, ...]] = []
    for word in words:
        ids = tokenize(text + word)
        if ids[: len(start)] != start or len(ids) == len(start):
            raise InputError(
                f"template: {word!r} melts into the text before it, {text[-20:]!r}, when the model "
                "reads it; put a space before {mask}"
            )
        found.append(tuple(ids[len(start) :]))
    return found


def first_tokens(prompt: Prompt, words: Sequence[str], tokenize: Tokenize) -> list[int]:
    """For each word the token that it begins with at the slot.

    Warns
    -----
    ModelWarning
        If a word is more than one token; only its first is scored.

    Raises
    ------
    InputError
        If two words begin with the same token, or a word melts into the text before it.
    """
    found: dict[int, str] = {}
    longer: list[str] = []
    for word, ids in zip(words, word_tokens(prompt, words, tokenize), strict=True):
        if ids[0] in found:
            raise InputError(
                f"labels: {found[ids[0]]!r} and {word!r} begin with the same token of this model, "
                "which scores one token; choose words that differ at their beginning, or score "
                "whole words with multi_token=trie"
            )
        found[ids[0]] = word
        if len(ids) > 1:
            longer.append(word)
    if longer:
        warnings.warn(
            f"{len(longer)} of {len(words)} label words are several tokens of this model and are "
            f"scored by their first: {', '.join(map(repr, longer[:5]))}",
            ModelWarning,
            stacklevel=2,
        )
    return list(found)


def trie_of(prompt: Prompt, words: Sequence[str], tokenize: Tokenize) -> Trie:
    """Return the label words as a trie of their tokens at the slot (InputError)."""
    ids = word_tokens(prompt, words, tokenize)
    if len(set(ids)) < len(ids):
        raise InputError(f"labels: some of {list(words)[:5]} have the same tokens for this model")
    return Trie(ids, separator=NONE, end=REST)


def by_template(prompts: Sequence[Prompt]) -> dict[str, Prompt]:
    """Check every prompt, and return one for each distinct text before the slot."""
    found: dict[str, Prompt] = {}
    for prompt in prompts:
        before_slot(prompt)
        found.setdefault(prompt.lead, prompt)
    return found
