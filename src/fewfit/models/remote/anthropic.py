"""The messages dialect of Anthropic: ``anthropic:URL?model=NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fewfit.models.generation import Writing, Written
from fewfit.models.remote.openai import said_in_turn
from fewfit.models.remote.openai_text import CUT
from fewfit.models.remote.replies import count, field
from fewfit.models.remote.text import LENGTH, Said, TextAnswers
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.words import CUT_REASONING, FIELD, Unusable, named_label, schema_of
from fewfit.models.remote.writing import WritesTexts, written
from fewfit.prompts import Prompt

PATH = "/v1/messages"


class AnthropicMessages(TextAnswers, WritesTexts):
    """``anthropic:URL?model=NAME``: ``/v1/messages``, answered in words.

    ``output=tool`` (the default) asks for the call of a tool whose one field is one of the label
    words, ``plain`` for the label alone. Each of ``samples=n`` is a request of its own. What a
    model thinks before it answers is not read, but counted among the tokens.
    """

    scheme = "anthropic"
    has: ClassVar[frozenset[str]] = TextAnswers.has
    outputs = ("tool", "plain")
    key_hosts: ClassVar[Mapping[str, str]] = {"api.anthropic.com": "ANTHROPIC_API_KEY"}
    key_header = "X-Api-Key: "
    headers = ("anthropic-version: 2023-06-01",)

    def _body(self, prompt: Prompt, words: Sequence[str], n: int) -> dict[str, Any]:
        options = self.options
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": options.max_tokens or LENGTH,
            "messages": self.messages(prompt, words),
        }
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.system is not None:
            body["system"] = options.system
        if self.output == "tool":
            about = "Say which of the labels fits the text."
            body["tools"] = [
                {"name": FIELD, "description": about, "input_schema": schema_of(words)}
            ]
            body["tool_choice"] = {"type": "tool", "name": FIELD}
        return body

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        options = self.options
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": how.max_tokens,
            "messages": said_in_turn(prompt, None),
        }
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.system is not None:
            body["system"] = options.system
        if how.stop:
            body["stop_sequences"] = list(how.stop)
        reply, blocks, read, said = self._asked(session, body)
        reason = reply.get("stop_reason")
        if reason == "refusal":
            raise RowError("the model refused to answer")
        text = _text_of(blocks)
        if reason == "max_tokens" and not text.strip():
            raise RowError(CUT)
        return written(text, how, read, said, is_whole=reason != "max_tokens")

    def _asked(
        self, session: Session, body: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], int, int]:
        """Return a reply, its blocks, and the tokens that were read and written (RowError)."""
        reply = self.send(session, PATH, body)
        self.check_name(reply)
        blocks = field(reply, "content")
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise RowError("the reply's content is not a list of blocks")
        usage = reply.get("usage")
        read, said = -1, -1
        if isinstance(usage, Mapping):
            cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
            more = sum(max(count(usage.get(name)), 0) for name in cached)
            read, said = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
            read = read + more if read >= 0 else -1
        return reply, blocks, read, said

    def _said(self, session: Session, prompt: Prompt, words: Sequence[str], n: int) -> Said:
        reply, blocks, read, said = self._asked(session, self._body(prompt, words, 1))
        n_tokens = read + said if read >= 0 and said >= 0 else -1
        try:
            text, formed = self._text(blocks, reply.get("stop_reason"))
        except Unusable as error:
            return Said([error], n_tokens)
        return Said([text], n_tokens, is_structured=formed)

    def _text(self, blocks: Sequence[Mapping[str, Any]], reason: Any) -> tuple[str, bool]:
        kinds = [block.get("type") for block in blocks]
        if reason == "refusal":
            raise Unusable("the model refused to answer")
        if reason == "max_tokens":
            only = not {"text", "tool_use"} & set(kinds)
            raise Unusable(CUT_REASONING if only else CUT)
        calls = [block for block in blocks if block.get("type") == "tool_use"]
        if calls:
            if self.output != "tool" or len(calls) > 1 or calls[0].get("name") != FIELD:
                raise Unusable("the model called a tool in place of an answer")
            return named_label(calls[0].get("input")), True
        return _text_of(blocks), False

    def alternative(self, field: str, said: str) -> dict[str, Any] | None:
        if field in ("tools", "tool_choice"):
            return {"output": "plain"}
        return {"temperature": None} if field == "temperature" else None


def _text_of(blocks: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a reply; what the model thought is not part of it (RowError)."""
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise RowError("a block of text in the reply holds none")
    return "".join(map(str, texts))
