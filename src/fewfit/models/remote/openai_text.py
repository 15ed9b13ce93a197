"""The chat of the OpenAI dialect, read as text: ``openai-chat:URL?model=NAME&answers=text``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fewfit.models.remote.openai import OpenAIChat, joined, reasoned
from fewfit.models.remote.replies import count, field
from fewfit.models.remote.text import LENGTH, Said, TextAnswers
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.words import CUT_REASONING, FIELD, Unusable, named_label, schema_of
from fewfit.prompts import Prompt

CUT = "the answer was cut: allow for more tokens (max_tokens, or max_completion_tokens)"


class OpenAIChatText(TextAnswers, OpenAIChat):
    """``openai-chat:URL?model=NAME&answers=text``: ``/v1/chat/completions``, answered in words.

    ``output=schema`` (the default) asks for JSON of a schema in which the label is one of the label
    words (``response_format``), ``tool`` for the call of a tool with such a field, ``plain`` for
    the label alone. ``samples=n`` are n choices of one request, or of several where a server gives
    one at a time. Hidden states come from another model (``hidden=`` of an estimator).
    """

    has: ClassVar[frozenset[str]] = TextAnswers.has | {
        "answers",
        "max_completion_tokens",
        "reasoning_effort",
    }
    outputs = ("schema", "tool", "plain")

    def _body(self, prompt: Prompt, words: Sequence[str], n: int) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        options = self.options
        said: list[dict[str, Any]] = []
        if options.system is not None:
            said.append({"role": "system", "content": options.system})
        body = {**self._common(), "messages": [*said, *self.messages(prompt, words)]}
        if options.reasoning_effort is not None:
            body["reasoning_effort"] = options.reasoning_effort
        if n > 1:
            body["n"] = n
        if self.output == "schema":
            form = {"name": FIELD, "strict": True, "schema": schema_of(words)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self.output == "tool":
            tool = {"name": FIELD, "strict": True, "parameters": schema_of(words)}
            body["tools"] = [{"type": "function", "function": tool}]
            body["tool_choice"] = {"type": "function", "function": {"name": FIELD}}
        return body

    def _length(self) -> int:
        return self.options.max_tokens or LENGTH

    def _said(self, session: Session, prompt: Prompt, words: Sequence[str], n: int) -> Said:
        reply = self.send(session, self.path, self._body(prompt, words, n))
        listed = reply.get("choices") if isinstance(reply, dict) else None
        given = len(listed) if isinstance(listed, list) and 0 < len(listed) <= n else n
        answers: list[str | Unusable] = []
        structured = True
        for choice in self._choices(reply, given):
            try:
                text, formed = self._text(choice)
                structured &= formed
                answers.append(text)
            except Unusable as error:
                answers.append(error)
        structured &= any(isinstance(answer, str) for answer in answers)
        return Said(answers, _billed(reply), reasoned(reply), structured)

    def _text(self, choice: Mapping[str, Any]) -> tuple[str, bool]:
        """Return the text of a choice, and whether it has the form that was asked for."""
        message = field(choice, "message")
        if not isinstance(message, dict):
            raise RowError("the reply's message is not an object")
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            raise Unusable("the answer was withheld by a content filter")
        if message.get("refusal"):
            raise Unusable("the model refused to answer")
        thinking = bool(message.get("reasoning_content") or message.get("reasoning"))
        calls = message.get("tool_calls") or message.get("function_call")
        content = joined(message.get("content"))
        if reason == "length":
            raise Unusable(CUT_REASONING if thinking and not content else CUT)
        if calls:
            return _called(calls, self.output == "tool"), True
        if not content.strip() and thinking:
            raise Unusable(
                "the model reasons before it answers, and there is no answer: turn that off with "
                "reasoning_effort=none, or use another model"
            )
        return content, self.output == "schema" and content.lstrip().startswith("{")

    def alternative(self, field: str, said: str) -> dict[str, Any] | None:
        if field in ("response_format", "tools", "tool_choice"):
            return {"output": "plain"}
        if field == "n":
            return {"samples": 1, "temperature": 0}
        if field == "max_tokens" and self.options.max_tokens is None:
            return {"max_completion_tokens": LENGTH}
        return super().alternative(field, said)


def _called(calls: Any, wanted: bool) -> str:
    """Return the label in the arguments of the only tool that was called (Unusable)."""
    try:
        [call] = calls
        function = call["function"]
        name, arguments = function["name"], function["arguments"]
    except (TypeError, ValueError, LookupError):
        name, arguments = None, None
    if not wanted or name != FIELD:
        raise Unusable("the model called a tool in place of an answer")
    if isinstance(arguments, dict):
        return named_label(arguments)
    if not isinstance(arguments, str) or not arguments.lstrip().startswith("{"):
        raise Unusable("the tool was called without a label")
    return arguments


def _billed(reply: Mapping[str, Any]) -> int:
    usage = reply.get("usage")
    if not isinstance(usage, Mapping):
        return -1
    read, written = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    return read + written if read >= 0 and written >= 0 else -1
