"""From vectors of texts to observations: what all models share that embed a text alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.local.scores import finish
from fewfit.models.local.texts import Encoded
from fewfit.models.similarity import LabelSentences, is_pair, read_pair, show_texts
from fewfit.observations import Batch, ScoreSpace
from fewfit.prompts import Prompt

_PAIRS = 64  # are encoded before their answers are handed on


class TextVectors(FrozenModel):
    """A model that makes one vector of a text: what it says of a prompt.

    The hidden state is the vector of the user's text alone; two fields are two texts
    (:func:`~fewfit.models.similarity.read_pair`). The score of a label word is a cosine with its
    label sentence (:class:`~fewfit.models.similarity.LabelSentences`).
    """

    score_scale: ClassVar[float] = 20.0
    """The inverse temperature of the contrastive loss of training, so that scaled differences of
    scores read as log-odds."""

    scores_apart: ClassVar = True

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=ScoreSpace.SIMILARITY, hidden=True, score_scale=self.score_scale, pairs=True
        )

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        labels = LabelSentences(words, self._directions, self._known_directions())
        columns = tuple(words)
        for positions, items, hidden, vectors in self._read(prompts):
            scores = labels.scores([prompts[i] for i in positions], vectors)
            yield positions, finish(items, columns, ScoreSpace.SIMILARITY, scores, hidden)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return show_texts(prompt, words)

    @abstractmethod
    def _embedded(self, texts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        """Yield (positions, (tokens, vectors)) until every text was read."""

    def _read(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Any, list[Encoded], Any, Any]]:
        """Yield (positions, tokens, hidden states, what label sentences meet)."""
        pairs = np.flatnonzero([is_pair(prompt) for prompt in prompts])
        single = np.setdiff1d(np.arange(len(prompts)), pairs)
        texts = [prompts[i].user_text for i in single]
        for positions, (items, hidden) in self._embedded(texts):
            yield single[positions], items, hidden, hidden
        lengths = [len(prompts[i].user_text) for i in pairs.tolist()]
        order = pairs[np.argsort(-np.array(lengths, dtype=np.intp), kind="stable")]
        for start in range(0, len(order), _PAIRS):
            some = order[start : start + _PAIRS]
            first, second = zip(*(prompts[i].fields for i in some), strict=True)
            (a, u), (b, v) = self._in_order(first), self._in_order(second)
            both = [
                Encoded([*x.ids, *y.ids], 0, x.truncated or y.truncated)
                for x, y in zip(a, b, strict=True)
            ]
            yield some, both, *read_pair(u, v)

    def _known_directions(self) -> dict[str, NDArray[np.float32]] | None:
        """What label sentences were embedded to before, if that can never change."""
        return None

    def _directions(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._in_order(texts)[1]
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"model: the numbers for a label sentence such as {texts[0]!r} are not finite (NaN "
                "or infinite); take a wider dtype or another checkpoint"
            )
        return vectors

    def _in_order(self, texts: Sequence[str]) -> tuple[list[Encoded], NDArray[np.float32]]:
        """Return tokens and vectors in the order of the texts."""
        found = list(self._embedded(texts))
        order = np.argsort(np.concatenate([positions for positions, _ in found]))
        items = [item for _, (items, _) in found for item in items]
        vectors = np.concatenate([vectors for _, (_, vectors) in found])[order]
        return [items[i] for i in order], vectors
