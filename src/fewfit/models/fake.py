"""A frozen model that is not one: deterministic, instant, counting. For tests, yours too."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from fewfit.models.base import Capabilities, FrozenModel
from fewfit.observations import Batch, Observations, ScoreSpace, Status
from fewfit.prompts import Prompt

_LOCK = threading.Lock()


class FakeModel(FrozenModel):
    """A toy model that reads prompts as bags of words.

    Each word has a fixed random vector, seeded by the word itself. The hidden state is the sum of
    the vectors of the prompt's words; the logit of a label word is its inner product with that
    sum. So a text that contains a label word, or the same words as another text, looks like it.

    Parameters
    ----------
    space : {"logprob", "logit", "similarity"} or None, default="logprob"
        Space of the scores; None for a model that gives no scores.
    hidden_size : int, default=16
        H; 0 for a model that gives no hidden state.
    seed : int, default=0
        Another seed is another model, with another identity.
    batch_size : int, default=8
        Prompts answered between two yields.
    max_words : int, default=200
        Words of user text that are read; the rest is cut.
    vocabulary : sequence of str, default=()
        A toy vocabulary; where there is one, the model gives the probability of each of its words.
    log : path, optional
        A file to which one line (a digest of the prompt) is appended for each query, before it is
        answered: what a server would have billed, also across processes.
    seconds : float, default=0.0
        How long each batch takes.
    faults : mapping of int to Exception, optional
        Raise this exception instead of answering query number i (counted from 0).

    Attributes
    ----------
    queries : int
        How many prompts were asked so far.

    Examples
    --------
    >>> from fewfit import Template
    >>> model = FakeModel()
    >>> prompt = Template("{text} It was {mask}.").render({"text": "good fun"})
    >>> model.observe([prompt, prompt], ["good", "bad"]).scores.shape
    (2, 2)
    >>> model.queries
    1
    """

    def __init__(
        self,
        *,
        space: str | None = "logprob",
        hidden_size: int = 16,
        seed: int = 0,
        batch_size: int = 8,
        max_words: int = 200,
        vocabulary: Sequence[str] = (),
        log: str | Path | None = None,
        seconds: float = 0.0,
        faults: Mapping[int, Exception] | None = None,
    ) -> None:
        self.space = None if space is None else ScoreSpace(space)
        self.hidden_size = hidden_size
        self.seed = seed
        self.batch_size = batch_size
        self.max_words = max_words
        self.vocabulary = tuple(vocabulary)
        self.log = log
        self.seconds = seconds
        self.faults = dict(faults or {})
        self.queries = 0

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=self.space,
            hidden=self.hidden_size > 0,
            full_vocabulary=bool(self.vocabulary),
        )

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": "fake",
            "space": str(self.space),
            "hidden_size": str(self.hidden_size),
            "seed": str(self.seed),
            "max_words": str(self.max_words),
            **({"vocabulary": "\n".join(self.vocabulary)} if self.vocabulary else {}),
        }

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        directions = np.stack([self._vector(word) for word in words])
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            for prompt in batch:
                self._bill(prompt)
            time.sleep(self.seconds)
            yield (
                np.arange(start, start + len(batch)),
                self._answer(batch, words, directions),
            )

    def vocabulary_log_probs(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        directions = np.stack([self._vector(word) for word in self.vocabulary])
        for start in range(0, len(prompts), self.batch_size):
            batch = prompts[start : start + self.batch_size]
            for prompt in batch:
                self._bill(prompt)
            logits = self._states(batch) @ directions.T
            positions = np.arange(start, start + len(batch))
            yield positions, log_softmax(logits, axis=1).astype(np.float32)

    def _bill(self, prompt: Prompt) -> None:
        with _LOCK:
            number, self.queries = self.queries, self.queries + 1
        if self.log is not None:
            digest = hashlib.sha256(prompt.text("[MASK]").encode("utf-8")).hexdigest()
            with Path(self.log).open("a", encoding="ascii") as stream:
                stream.write(digest + "\n")
        if number in self.faults:
            raise self.faults[number]

    def _answer(
        self,
        batch: Sequence[Prompt],
        words: Sequence[str],
        directions: NDArray[np.float64],
    ) -> Observations:
        frames = [prompt.text("").split()[: self.max_words] for prompt in batch]
        state: Any = self._states(batch)
        logits: Any = state @ directions.T
        mass = np.full(len(batch), np.nan)
        if self.space is ScoreSpace.LOGPROB:
            # Beside the label words the toy vocabulary holds one more word, with logit 0.
            everything = np.logaddexp(0.0, np.logaddexp.reduce(logits, axis=1))
            logits = logits - everything[:, None]
            mass = np.exp(np.logaddexp.reduce(logits, axis=1))
        elif self.space is ScoreSpace.SIMILARITY:
            logits = logits / (
                np.linalg.norm(state, axis=1)[:, None] * np.linalg.norm(directions, axis=1)
            )
        cut = [len(prompt.user_text.split()) > self.max_words for prompt in batch]
        return Observations(
            columns=tuple(words),
            scores=None if self.space is None else logits,
            space=self.space,
            hidden=state[:, : self.hidden_size] if self.hidden_size else None,
            label_mass=mass,
            n_tokens=np.array([len(frame) for frame in frames]),
            status=np.where(cut, Status.TRUNCATED, Status.OK),
            asked=np.ones(len(batch), dtype=bool),
        )

    def _states(self, batch: Sequence[Prompt]) -> NDArray[np.float64]:
        read = [prompt.user_text.split()[: self.max_words] for prompt in batch]
        vectors: Any = [sum(map(self._vector, words), self._vector("")) for words in read]
        return np.stack(vectors)

    def _vector(self, word: str) -> NDArray[np.float64]:
        seed = hashlib.sha256(f"{self.seed}\0{word.casefold()}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
        size = max(self.hidden_size, 16)
        return rng.standard_normal(size) / np.sqrt(size) * 2.0
