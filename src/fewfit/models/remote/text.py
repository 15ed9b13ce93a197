"""Chat models that answer in words: what they are asked, and scores from how often they say what.

Symbols: W label words, n answers of which n_w name word w.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, Check
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.fields import tried
from fewfit.models.remote.guard import Silence
from fewfit.models.remote.transport import Session
from fewfit.models.remote.words import FIELD, Labels, Unusable
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

INSTRUCTION = "Which of these labels fits? Answer with the label alone.\n\n{labels}"
IN_JSON = f'Which of these labels fits? Answer in JSON, {{"{FIELD}": "..."}}.\n\n{{labels}}'

LENGTH = 64
"""Tokens of an answer: label words of several, in JSON."""

_READING = "1"  # a change of the request or of how answers are matched is another identity
Turns = list[dict[str, str]]


class Said(NamedTuple):
    """What a model answered to one request.

    Attributes
    ----------
    answers : list of str or Unusable
        The text of each answer, or why it has none.
    n_tokens : int
        Those that were read and written, reasoning included; -1 if unknown.
    n_reasoned : int
        Those of them that were written before the answers; 0 if unknown.
    is_structured : bool
        Whether the answers came in the form that was asked for.
    """

    answers: list[str | Unusable]
    n_tokens: int = -1
    n_reasoned: int = 0
    is_structured: bool = False


class TextAnswers(RemoteModel):
    """Base of the dialects in which the answer is a text.

    The label list and the question are the user's message, and the answer has to be one of the
    label words (:class:`fewfit.models.remote.words.Labels`). A refusal, a call of another tool,
    half an answer or any other text names no label: with it a row fails, unless other samples of
    the row do name one.

    The score of a word is the logarithm of how often it was said,

        log((n_w + 1/W) / (n + 1))

    with one answer's worth of evidence for all words alike (Perks' prior), so that what was never
    said is not impossible. n counts the answers that name a label; their share of all is the label
    mass. The probabilities have steps of 1/n, which :attr:`capabilities` declares.

    A prompt's length counts all tokens that the server bills: read and written.
    """

    has: ClassVar[frozenset[str]] = frozenset(
        {"samples", "output", "instruction", "system", "max_tokens", "temperature"}
    )
    outputs: ClassVar[tuple[str, ...]]
    """The ways in which an answer can be asked for; the first is the default."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        if self.output not in self.outputs:
            either = f"{', '.join(self.outputs[:-1])} or {self.outputs[-1]}"
            raise InputError(f"{self.scheme}: option 'output' is {either}")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=ScoreSpace.LOGPROB, hidden=False, resolution=1 / self.options.samples
        )

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            **super().identity,
            "answers": "text",
            "output": self.output,
            "instruction": self.instruction,
            "reading": _READING,
        }

    @property
    def output(self) -> str:
        """How an answer is asked for."""
        return self.options.output or self.outputs[0]

    @property
    def instruction(self) -> str:
        """What stands before the question; ``{labels}`` is the list of labels."""
        default = IN_JSON if self.output == "schema" else INSTRUCTION
        return self.options.instruction or default

    def messages(self, prompt: Prompt, words: Sequence[str]) -> Turns:
        """Return what is said in turn: the instruction and the questions, and their answers."""
        listed = "\n".join(f"- {word}" for word in words)
        said = [turn.asked() for turn in prompt.turns]
        said[0] = f"{self.instruction.replace('{labels}', listed)}\n\n{said[0]}"
        for i in range(1, len(said), 2):
            if self.output == "schema":
                said[i] = json.dumps({FIELD: said[i]}, ensure_ascii=False)
        return [
            {"role": "assistant" if i % 2 else "user", "content": text}
            for i, text in enumerate(said)
        ]

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        body = self._body(prompt, words, self.options.samples)
        return json.dumps(body, ensure_ascii=False, indent=1)

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        silence = Silence(self.scheme)
        labels = {lead: Labels(words, lead) for lead in {p.lead for p in prompts}}

        def ask(prompt: Prompt) -> Answer:
            said = self._all(session, prompt, words)
            return silence(self._scored(said, labels[prompt.lead], len(words)))

        return ask

    def _all(self, session: Session, prompt: Prompt, words: Sequence[str]) -> Said:
        """Ask until there are all samples: some servers give one, however many are wanted."""
        answers: list[str | Unusable] = []
        n_tokens, n_reasoned, structured = 0, 0, True
        while len(answers) < self.options.samples:
            said = self._said(session, prompt, words, self.options.samples - len(answers))
            answers += said.answers
            n_tokens = -1 if n_tokens < 0 or said.n_tokens < 0 else n_tokens + said.n_tokens
            n_reasoned += said.n_reasoned
            structured &= said.is_structured
        return Said(answers, n_tokens, n_reasoned, structured)

    def _scored(self, said: Said, labels: Labels, W: int) -> Answer:
        found: list[int] = []
        lost: list[Unusable] = []
        for answer in said.answers:
            try:
                if isinstance(answer, Unusable):
                    raise answer
                found.append(labels.find(answer))
            except Unusable as error:
                lost.append(error)
        if not found:
            return Answer(reason=lost[0].reason, details=lost[0].details)
        n_w = np.bincount(found, minlength=W)
        scores = np.log((n_w + 1 / W) / (len(found) + 1))
        return Answer(scores, None, None, len(found) / len(said.answers), said.n_tokens)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        model, said, checks = tried(self, lambda m: m._all(session, prompt, words))
        answer = model._scored(said, Labels(words, prompt.lead), len(words))
        shown = "; ".join(
            a.reason + a.details if isinstance(a, Unusable) else repr(a[:60]) for a in said.answers
        )
        checks.append(Check("answer", "problem" if answer.reason else "ok", shown))
        if answer.reason:
            checks.append(Check("label", "problem", answer.reason + answer.details))
        if model.output != "plain":
            outcome = "honoured" if said.is_structured else "ignored"
            checks.append(Check(f"output={model.output}", outcome, "the form of the answer"))
        reasoned = f", {said.n_reasoned} of them reasoning" if said.n_reasoned else ""
        if said.n_tokens >= 0:
            detail = f"{said.n_tokens} for one query{reasoned}"
            outcome = "note" if reasoned else "ok"
            checks.append(Check("tokens", outcome, detail, float(said.n_tokens)))
        return checks

    @abstractmethod
    def _body(self, prompt: Prompt, words: Sequence[str], n: int) -> dict[str, Any]:
        """Return the request for a prompt."""

    @abstractmethod
    def _said(self, session: Session, prompt: Prompt, words: Sequence[str], n: int) -> Said:
        """Ask for `n` answers; at least one, and at most `n`, are returned."""
