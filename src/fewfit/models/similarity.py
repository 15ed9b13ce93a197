"""Scores for a model that only embeds text: the similarity of a text to label sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.prompts import Part, Prompt

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
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
    """

    def __init__(self, words: Sequence[str], embed: Embed) -> None:
        self._words = words
        self._embed = embed
        self._directions: dict[tuple[Part, ...], NDArray[np.float32]] = {}

    def prepare(self, prompts: Iterable[Prompt]) -> None:
        """Embed the label sentences of every template that occurs in `prompts`."""
        for skeleton in dict.fromkeys(prompt.skeleton for prompt in prompts):
            if skeleton not in self._directions:
                sentences = [" ".join(Prompt(skeleton).text(word).split()) for word in self._words]
                self._directions[skeleton] = normalise(self._embed(sentences))

    def scores(self, prompts: Sequence[Prompt], hidden: NDArray[np.float32]) -> Any:
        """Return the cosine of each text, embedded as a row of `hidden`, with each label sentence.

        Parameters
        ----------
        prompts : sequence of Prompt, length N
        hidden : ndarray of shape (N, H), float32

        Returns
        -------
        ndarray of shape (N, W), float32
        """
        self.prepare(prompts)
        unit = normalise(hidden)
        out = np.empty((len(prompts), len(self._words)), dtype=np.float32)
        skeletons = [prompt.skeleton for prompt in prompts]
        for skeleton in set(skeletons):
            rows = [j for j, other in enumerate(skeletons) if other == skeleton]
            out[rows] = unit[rows] @ self._directions[skeleton].T
        return out


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each row to length 1; a row of zeros stays."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norm, np.finfo(np.float32).tiny)
