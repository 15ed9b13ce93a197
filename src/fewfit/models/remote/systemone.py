"""The System One dialect: one probability for each allowed answer, ``systemone:URL?model=NAME``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.models.base import Capabilities, Check
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.fields import tried
from fewfit.models.remote.replies import SUM_TOLERANCE, count, field
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

PATH = "/v1/systemone"
NAME = "label"
INSTRUCTION = "Which of these labels fits?"

MOST = 26
"""Options of one question: servers letter them."""

LEAST = 1e-9
"""What a probability of 0 counts as: servers compute them in single precision."""


class SystemOne(RemoteModel):
    """``systemone:URL?model=NAME``: ``/v1/systemone`` of vLLM, SGLang and ``transformers serve``.

    The prompt is the state, and one question of the type ``choice`` has the label words as its
    options. Scores are the logarithms of their probabilities, which sum to 1: how much probability
    the model had for anything else is the label mass where the server tells it.
    ``instruction=`` is what is asked. No more than 26 label words.
    """

    scheme = "systemone"
    has: ClassVar[frozenset[str]] = frozenset({"instruction"})

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=False, max_labels=MOST)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return json.dumps(self._body(prompt, words), ensure_ascii=False, indent=1)

    def _body(self, prompt: Prompt, words: Sequence[str]) -> dict[str, Any]:
        question = {
            "type": "choice",
            "instructions": self.options.instruction or INSTRUCTION,
            "criteria": dict.fromkeys(words),
        }
        return {
            "model": self.options.model,
            "state": "\n\n".join(turn.asked() for turn in prompt.turns),
            "questions": {NAME: question},
        }

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        return lambda prompt: self._answer(session, prompt, words)

    def _answer(self, session: Session, prompt: Prompt, words: Sequence[str]) -> Answer:
        reply = self.send(session, PATH, self._body(prompt, words))
        self.check_name(reply)
        answer = field(reply, "answers", NAME)
        scores = log_probabilities(field(answer, "probabilities"), words)
        usage = reply.get("usage")
        n_tokens = count(usage.get("input_tokens")) if isinstance(usage, Mapping) else -1
        return Answer(scores, None, None, _mass(reply, answer), n_tokens)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        _, answer, checks = tried(self, lambda model: model._answer(session, prompt, words))
        shown = ", ".join(
            f"{word} {math.exp(value):.1%}"
            for word, value in zip(words, answer.scores, strict=True)
        )
        return [*checks, Check("answer", "ok", shown)]


def log_probabilities(given: Any, words: Sequence[str]) -> NDArray[np.float64]:
    """Return the logarithms of the probabilities of all words, and of nothing else (RowError)."""
    if not isinstance(given, dict) or set(given) != set(words):
        raise RowError("the reply's probabilities are not those of the label words")
    values = [given[word] for word in words]
    if not all(type(value) in (int, float) and 0 <= value <= 1 + 1e-3 for value in values):
        raise RowError("a probability in the reply is no number from 0 to 1")
    if abs(sum(values) - 1) > SUM_TOLERANCE:
        raise RowError(f"the reply's probabilities sum to {sum(values):.3f}")
    return np.log(np.clip(values, LEAST, 1.0))


def _mass(reply: Mapping[str, Any], answer: Any) -> float:
    """Return the probability of all label words together; NaN where the server does not say it."""
    for place in (answer, reply):
        found = place.get("diagnostics") if isinstance(place, Mapping) else None
        value: Any = found.get("label_mass") if isinstance(found, Mapping) else None
        if type(value) in (int, float) and 0 <= value <= 1 + 1e-3:
            return float(value)
    return float("nan")
