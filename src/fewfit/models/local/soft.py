"""A masked language model with vectors in front of what it reads: a frozen model again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import methodcaller
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import CapabilityError, InputError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.optional import takes_soft_prompts
from fewfit.observations import Batch
from fewfit.prompts import Prompt

Answers = Callable[[Sequence[Prompt], Sequence[str], Any], Iterator[Batch]]


class SoftPromptModel(FrozenModel):
    """Made by :meth:`TransformersModel.with_soft_prompt`; it shares that model's weights.

    The vectors stand behind the special token that opens a text, in the place of the word
    embeddings of so many tokens, and take positions as these would. They count as tokens of the
    prompt, and shorten what is read of the user's text. Only code can make this model (`spec` is
    None); its identity holds a hash of the vectors.

    Parameters
    ----------
    model : FrozenModel
    vectors : ndarray of shape (n, H)
        H as in :class:`~fewfit.models.optional.TakesSoftPrompts`; cast to float32.
    answers : callable
        ``(prompts, words, vectors)`` streams the model's answers.

    Raises
    ------
    CapabilityError
        If the model takes no vectors.
    InputError
        If they are not finite, or do not have the model's width (at the first query).
    """

    def __init__(self, model: FrozenModel, vectors: NDArray[np.floating], answers: Answers) -> None:
        if not model.capabilities.soft_prompts:
            raise CapabilityError(
                f"{model.spec} is not a masked language model; only these take vectors in front of "
                "a prompt"
            )
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self.vectors.ndim != 2 or not np.isfinite(self.vectors).all():
            raise InputError(
                f"soft prompt: expected finite vectors (n, H), got shape {self.vectors.shape}"
            )
        self.model = model
        self._stream = answers

    def __reduce__(self) -> tuple[Any, ...]:
        return methodcaller("with_soft_prompt", self.vectors), (self.model,)

    @property
    def capabilities(self) -> Capabilities:
        return replace(self.model.capabilities, full_vocabulary=False, soft_prompts=False)

    @property
    def identity(self) -> Mapping[str, str]:
        digest = hashlib.sha256(self.vectors.tobytes()).hexdigest()
        return {**self.model.identity, "soft_prompt": f"{len(self.vectors)} vectors {digest}"}

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        width = takes_soft_prompts(self.model).input_embeddings().shape[1]
        if self.vectors.shape[1] != width:
            raise InputError(
                f"soft prompt: vectors of width {self.vectors.shape[1]}, but {self.model.spec} "
                f"reads vectors of width {width}"
            )
        yield from self._stream(prompts, words, self.vectors)
