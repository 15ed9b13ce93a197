"""What a model that writes gives: a text for each prompt, from the slot on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import CapabilityError, InputError
from fewfit.models.base import FrontModel, FrozenModel
from fewfit.prompts import Prompt


@dataclass(frozen=True)
class Writing:
    """How a text is written: greedily, so that it is the same whenever it is asked for.

    Attributes
    ----------
    max_tokens : int
        Where it is cut.
    stop : tuple of str
        Texts at which it ends; they are not part of it.
    """

    max_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.max_tokens, bool) or self.max_tokens < 1:
            raise InputError(f"max_tokens: at least 1 is written, got {self.max_tokens!r}")

    def cut(self, text: str) -> str:
        """Return a text up to the first of :attr:`stop`."""
        ends = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        return text[: min(ends, default=len(text))]


class Written(NamedTuple):
    """What was written for one prompt.

    Attributes
    ----------
    text : str
    n_tokens : int
        Read and written together; -1 where it is not known.
    is_whole : bool
        False where the text ends because it was as long as it may be.
    reason : str
        Why there is none; empty where there is.
    was_asked : bool
        Whether this call paid for it.
    """

    text: str = ""
    n_tokens: int = -1
    is_whole: bool = True
    reason: str = ""
    was_asked: bool = True

    @property
    def details(self) -> str:
        return ""

    @property
    def note(self) -> str:
        return ""


Texts = tuple[NDArray[np.intp], list[Written]]
"""Positions in the list of prompts, and what was written for the prompts at these positions."""


class Writes(Protocol):
    """A model that goes on writing where the slot is."""

    def write(self, prompts: Sequence[Prompt], how: Writing) -> Iterator[Texts]:
        """Write a text for each prompt, in whatever order is fastest."""
        ...


def writes(model: FrozenModel) -> Writes:
    """Return a model as one that writes (CapabilityError if it does not)."""
    while isinstance(model, FrontModel):
        model = model.model
    if not hasattr(model, "write"):
        raise CapabilityError(
            f"{model.spec or type(model).__name__} writes no texts: a causal language model (hf:) "
            "and the dialects openai, openai-chat, anthropic, llamacpp, vllm, sglang and ollama do"
        )
    return cast(Writes, cast(Any, model))


def length_of(model: Writes) -> int | None:
    """Return how many tokens the address of a served model says that an answer may have."""
    options = getattr(model, "options", None)
    either = (getattr(options, name, None) for name in ("max_tokens", "max_completion_tokens"))
    return next((length for length in either if length is not None), None)
