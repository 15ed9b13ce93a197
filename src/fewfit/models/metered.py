"""What is asked of a frozen model, counted by whoever stands in front of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.models.base import FrontModel, FrozenModel
from fewfit.models.optional import takes_soft_prompts
from fewfit.observations import Batch, Observations
from fewfit.prompts import Prompt

_LOCK = threading.Lock()  # of all bills: several models, in several threads, write on one


@dataclass
class Bill:
    """What was asked so far.

    Attributes
    ----------
    queries, tokens : int
        Prompts, counted whether or not a store had them, and their length in the model's tokens;
        -1 if the model did not say how long one of them is.
    paid : int
        The queries that no store had.
    seconds : float
        What the model took, a store in front of it included.
    """

    queries: int = 0
    tokens: int = 0
    paid: int = 0
    seconds: float = 0.0

    def add(self, answers: Observations | None, seconds: float) -> None:
        """Write down a batch of answers, or None, and how long it took; any thread may."""
        with _LOCK:
            self.seconds += seconds
            if answers is None:
                return
            self.queries += len(answers)
            self.paid += answers.queries
            unknown = self.tokens < 0 or (answers.n_tokens < 0).any()
            self.tokens = -1 if unknown else self.tokens + int(answers.n_tokens.sum())

    def since(self, before: Bill) -> Bill:
        """Return what was asked after `before`, an earlier copy of this bill."""
        return Bill(
            self.queries - before.queries,
            -1 if self.tokens < 0 else self.tokens - before.tokens,
            self.paid - before.paid,
            self.seconds - before.seconds,
        )


class MeteredModel(FrontModel):
    """A frozen model in front of another, that writes down what is asked.

    Those with vectors in front of the prompt write on the same bill.

    Parameters
    ----------
    model : FrozenModel
    bill : Bill, optional
        Where to go on; a new one if left out.
    """

    def __init__(self, model: FrozenModel, bill: Bill | None = None) -> None:
        super().__init__(model)
        self.bill = Bill() if bill is None else bill

    def input_embeddings(self) -> NDArray[np.float32]:
        return takes_soft_prompts(self.model).input_embeddings()

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> MeteredModel:
        prompted = takes_soft_prompts(self.model).with_soft_prompt(vectors)
        return MeteredModel(prompted, self.bill)

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        asking: Any = self.model.stream(prompts, words)
        with closing(asking):
            while True:
                start = time.perf_counter()
                batch: Batch | None = next(asking, None)
                seconds = time.perf_counter() - start
                self.bill.add(None if batch is None else batch[1], seconds)
                if batch is None:
                    return
                yield batch
