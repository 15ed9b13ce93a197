"""How the label words of one template are read: which tokens, in which forward passes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fewfit.errors import InputError, LabelWordWarning
from fewfit.models.local.cutting import Frame
from fewfit.models.local.encoding import PromptEncoder
from fewfit.prompts.trie import NONE, REST, Trie

Tokens = tuple[int, ...]


class Step(NamedTuple):
    """One forward pass over a batch of prompts, and what is read from it.

    Attributes
    ----------
    tokens : tuple of int
        What is put into the slot: mask tokens (masked), or the beginning of label words that the
        model is made to say (causal, seq2seq).
    positions : int
        How many positions are read, from the slot on.
    words : tuple of int
        The label words that are scored from these positions.
    """

    tokens: tuple[int, ...]
    positions: int
    words: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What is asked for each prompt of one template.

    Attributes
    ----------
    ids : list of tuple of int
        The tokens of each label word.
    steps : list of Step
        The forward passes; the first one reads the slot's hidden state.
    columns : list of int or None
        The tokens that the head is computed for; None for the whole vocabulary.
    trie : Trie or None
        Where the label words compete at each token, and not with all that could be said.
    mass : tuple of int
        The words whose probabilities add up to the label mass; none where they are not of one
        distribution.
    limit : int
        How many tokens a prompt may have, so that the longest word still fits.
    """

    ids: list[Tokens]
    steps: list[Step]
    columns: list[int] | None
    mass: tuple[int, ...]
    limit: int
    trie: Trie | None = None


def make_plan(
    encoder: PromptEncoder,
    frame: Frame,
    words: Sequence[str],
    *,
    max_tokens: int,
    first_only: bool,
    columns_suffice: bool,
    as_trie: bool = False,
) -> Plan:
    """Decide how to read `words` after the template's text.

    Parameters
    ----------
    first_only : bool
        Whether a word counts by its first token alone.
    columns_suffice : bool
        Whether the label words' own columns of the head are enough where each is one token.
    as_trie : bool
        Whether the words are scored as a trie (:class:`fewfit.prompts.Trie`).

    Raises
    ------
    InputError
        If the template or a word cannot be read by this model, or all words are the same to it.
    """
    ids = encoder.word_ids(frame, words)
    if first_only:
        ids = [tokens[:1] for tokens in ids]
    _check_distinct(words, ids)
    trie = _trie(encoder, ids, words) if as_trie else None
    longest = max(map(len, ids))
    limit = max_tokens if encoder.kind == "seq2seq" else max_tokens - (longest - 1)
    encoder.check(frame, limit)
    if longest == 1:
        steps = [slot_alone(encoder, tuple(range(len(words))))]
    elif encoder.kind == "masked":
        steps = _masks(slot_alone(encoder).tokens, ids)
    else:
        steps = _beginnings(ids)
    return Plan(
        ids=ids,
        steps=steps,
        columns=[tokens[0] for tokens in ids]
        if longest == 1 and columns_suffice and not as_trie
        else None,
        mass=_disjoint(ids) if longest == 1 or encoder.kind != "masked" else (),
        limit=limit,
        trie=trie,
    )


def _trie(encoder: PromptEncoder, ids: Sequence[Tokens], words: Sequence[str]) -> Trie:
    if encoder.kind == "masked":
        raise InputError(
            f"model: {encoder.name} is a masked model, which reads no token after the other; "
            "multi_token=trie is of causal and encoder-decoder models"
        )
    if len(set(ids)) < len(ids):
        raise InputError(
            f"labels: some of {list(words)[:5]} have the same tokens for this model, which a trie "
            "does not tell apart"
        )
    return Trie(ids, separator=NONE, end=REST)


def slot_alone(encoder: PromptEncoder, words: tuple[int, ...] = ()) -> Step:
    """Return the pass that reads the slot and nothing after it."""
    masked = encoder.kind == "masked" and encoder.slot_id is not None
    return Step((encoder.slot_id,) if masked else (), 1, words)  # pyright: ignore[reportArgumentType]


def _masks(mask: Tokens, ids: Sequence[Tokens]) -> list[Step]:
    """One pass for each number of tokens; that of one mask always, for the hidden state."""
    return [
        Step(mask * n, n, tuple(w for w, tokens in enumerate(ids) if len(tokens) == n))
        for n in sorted({1, *map(len, ids)})
    ]


def _beginnings(ids: Sequence[Tokens]) -> list[Step]:
    """Teacher forcing: a pass reads every word that begins the way it was made to begin."""
    begun = {tokens[:-1] for tokens in ids}
    leaves = [a for a in begun if not any(b != a and b[: len(a)] == a for b in begun)]
    steps, left = [], set(range(len(ids)))
    for leaf in sorted(leaves):
        read = {w for w in left if ids[w][:-1] == leaf[: len(ids[w]) - 1]}
        left -= read
        steps.append(Step(leaf, len(leaf) + 1, tuple(sorted(read))))
    return steps


def _disjoint(ids: Sequence[Tokens]) -> tuple[int, ...]:
    """The words of which none begins with another, and each once."""
    known = set(ids)
    first = {tokens: w for w, tokens in reversed(list(enumerate(ids)))}
    return tuple(
        sorted(
            w
            for tokens, w in first.items()
            if not any(tokens[:n] in known for n in range(1, len(tokens)))
        )
    )


def _check_distinct(words: Sequence[str], ids: Sequence[Tokens]) -> None:
    seen: dict[Tokens, str] = {}
    twins = []
    for word, tokens in zip(words, ids, strict=True):
        if tokens in seen:
            twins.append((seen[tokens], word))
        seen.setdefault(tokens, word)
    if len(seen) == 1 and len(words) > 1:
        raise InputError(
            f"labels: all of {list(words)} have the same tokens for this model; choose other label "
            "words, or multi_token='sum'"
        )
    if twins:
        warnings.warn(
            f"the label words {twins[0][0]!r} and {twins[0][1]!r} are the same tokens to this "
            f"model and get the same score ({len(twins)} such in all)",
            LabelWordWarning,
            stacklevel=2,
        )
