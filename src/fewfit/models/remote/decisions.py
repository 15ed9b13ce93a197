"""OpenAI's Decisions dialect: one probability for each choice, ``decisions:URL?model=NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewfit.models.base import Capabilities
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.replies import count, field, items
from fewfit.models.remote.systemone import INSTRUCTION, NAME, SystemOne, log_probabilities
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

PATH = "/v1/decisions"

MOST = 255
"""Choices of one question; some servers take fewer, and say so."""


class Decisions(SystemOne):
    """``decisions:URL?model=NAME``: ``/v1/decisions`` of OpenAI, vLLM and SGLang.

    The prompt is the input, and one question of the type ``choice`` has the label words as its
    choices. Scores are as those of :class:`SystemOne`; a refusal fails the row.
    """

    scheme = "decisions"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=False, max_labels=MOST)

    def _body(self, prompt: Prompt, words: Sequence[str]) -> dict[str, Any]:
        question = {
            "type": "choice",
            "name": NAME,
            "instructions": self.options.instruction or INSTRUCTION,
            "choices": [{"value": word} for word in words],
        }
        return {
            "model": self.options.model,
            "input": "\n\n".join(turn.asked() for turn in prompt.turns),
            "questions": [question],
        }

    def _answer(self, session: Session, prompt: Prompt, words: Sequence[str]) -> Answer:
        reply = self.send(session, PATH, self._body(prompt, words))
        self.check_name(reply)
        [answer] = items(field(reply, "answers"), 1, "answers")
        if answer.get("type") == "refusal":
            raise RowError("the model refused to answer")
        if answer.get("name") not in (NAME, None):
            raise RowError("the reply answers another question")
        listed = field(answer, "probabilities")
        if not isinstance(listed, list) or not all(isinstance(pair, dict) for pair in listed):
            raise RowError("the reply's probabilities are not a list of objects")
        values = [pair.get("value") for pair in listed]
        if not all(isinstance(value, str) for value in values) or len(set(values)) < len(values):
            raise RowError("the reply's probabilities are not those of the label words")
        given = {pair["value"]: pair.get("probability") for pair in listed}
        usage = reply.get("usage")
        n_tokens = count(usage.get("input_tokens")) if isinstance(usage, Mapping) else -1
        return Answer(log_probabilities(given, words), None, None, float("nan"), n_tokens)
