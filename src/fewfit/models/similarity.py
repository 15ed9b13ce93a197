"""What a model that only embeds text says of a prompt: a hidden state, and similarities as scores.

A prompt with two fields is a pair of texts: entailment, sense, answer. What joins them is lost in
one vector of both, so each is embedded by itself (:func:`read_pair`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.prompts import Part, Prompt

Vectors = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]
"""From n texts to their vectors, shape (n, H)."""


class LabelSentences:
    """The label words of a task as directions in a model's embedding space.

    The *label sentence* of a word is the template with the word in its slot and the user's fields
    left out ("In summary, it was great."). Label sentences are embedded once per template, not
    once per example.

    Parameters
    ----------
    words : sequence of str, length W
    embed : callable
        How the label sentences are embedded.
    known : dict, optional
        The directions of label sentences that a model whose weights never change has embedded
        before; new ones are added.
    """

    def __init__(
        self, words: Sequence[str], embed: Embed, known: dict[str, Vectors] | None = None
    ) -> None:
        self._words = words
        self._embed = embed
        self._known = {} if known is None else known
        self._directions: dict[tuple[Part, ...], NDArray[np.float32]] = {}

    def prepare(self, prompts: Iterable[Prompt]) -> None:
        """Embed the label sentences of every template that occurs in `prompts`."""
        for skeleton in dict.fromkeys(prompt.skeleton for prompt in prompts):
            if skeleton not in self._directions:
                sentences = [label_sentence(Prompt(skeleton), word) for word in self._words]
                known = {s: v for s in sentences if (v := self._known.get(s)) is not None}
                if new := [s for s in dict.fromkeys(sentences) if s not in known]:
                    known.update(zip(new, normalise(self._embed(new)), strict=True))
                    self._known.update(known)
                self._directions[skeleton] = np.stack([known[s] for s in sentences])

    def scores(self, prompts: Sequence[Prompt], vectors: NDArray[np.float32]) -> Any:
        """Return the cosine of each text, embedded as a row of `vectors`, with each label sentence.

        Parameters
        ----------
        prompts : sequence of Prompt, length N
        vectors : ndarray of shape (N, H), float32

        Returns
        -------
        ndarray of shape (N, W), float32
        """
        self.prepare(prompts)
        unit = normalise(vectors)
        out = np.empty((len(prompts), len(self._words)), dtype=np.float32)
        skeletons = [prompt.skeleton for prompt in prompts]
        for skeleton in set(skeletons):
            rows = [j for j, other in enumerate(skeletons) if other == skeleton]
            out[rows] = unit[rows] @ self._directions[skeleton].T
        return out


def label_sentence(prompt: Prompt, word: str) -> str:
    """Return the label sentence of a word in a prompt's template."""
    return " ".join(Prompt(prompt.skeleton).text(word).split())


def is_pair(prompt: Prompt) -> bool:
    """Return whether a prompt has two fields, and is read as two texts; one given twice is two."""
    return len(prompt.fields) == 2


def texts_of(prompt: Prompt) -> list[str]:
    """Return what is embedded of a prompt: the user's text, or the two of a pair."""
    return list(prompt.fields) if is_pair(prompt) else [prompt.user_text]


def show_texts(prompt: Prompt, words: Sequence[str]) -> str:
    """Return for a person what is embedded: the texts of a prompt, and each label sentence."""
    said = "\n".join(label_sentence(prompt, word) for word in words)
    return "\n\n".join([*texts_of(prompt), said])


def read_pair(u: Vectors, v: Vectors) -> tuple[Vectors, Vectors]:
    """Return the hidden states of pairs of texts, and what their label sentences are held against.

    The hidden state is u, v, |u - v| and sqrt(H) u * v, side by side: Conneau et al., "Supervised
    Learning of Universal Sentence Representations from Natural Language Inference Data", EMNLP
    2017, arXiv 1705.02364. There the product is not scaled; here it gets the length of u and v,
    about 1, because a decoder has one penalty for all features.

    Parameters
    ----------
    u, v : ndarray of shape (N, H), float32
        The texts of each pair; they are scaled to unit length.

    Returns
    -------
    (ndarray of shape (N, 4 * H), ndarray of shape (N, H)), float32
        The second is u + v.
    """
    u, v = normalise(u), normalise(v)
    product = np.sqrt(np.float32(u.shape[1])) * u * v
    return np.hstack([u, v, np.abs(u - v), product]), u + v


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1; a row of zeros stays."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norm, np.finfo(np.float32).tiny)
