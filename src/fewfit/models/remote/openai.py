"""The OpenAI dialect, which most servers speak: completions and chat."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fewfit.models.base import Check
from fewfit.models.generation import Writing, Written
from fewfit.models.remote.causal import TopTokens, Vector
from fewfit.models.remote.fields import tried
from fewfit.models.remote.listing import Listing, read_tokens, thinks
from fewfit.models.remote.replies import count, field, items, last_vector, log_probabilities
from fewfit.models.remote.slot import before_slot
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.words import Unusable, spoken
from fewfit.models.remote.writing import WritesTexts, completion, of_choice
from fewfit.prompts import Prompt


class _OpenAI(TopTokens, WritesTexts):
    """What completions and chat share."""

    has: ClassVar[frozenset[str]] = TopTokens.has | {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
    }
    path: ClassVar[str]

    @abstractmethod
    def _body(self, text: str) -> dict[str, Any]:
        """Return the request for a prompt."""

    @abstractmethod
    def _listing(self, reply: Any) -> Listing:
        """Read the tokens that a reply lists for the slot."""

    def _listed(self, session: Session, text: str) -> Listing:
        return self._listing(self.send(session, self.path, self._body(text)))

    def _common(self) -> dict[str, Any]:
        """Return what both kinds of request say of the model and of how it answers."""
        options = self.options
        body: dict[str, Any] = {"model": options.model}
        if options.max_completion_tokens is not None:
            body["max_completion_tokens"] = options.max_completion_tokens
        else:
            body["max_tokens"] = self._length()
        if options.temperature is not None:
            body["temperature"] = options.temperature
        return body

    def _length(self) -> int:
        return self.options.max_tokens or 1

    def _embedding(self, session: Session, text: str) -> Vector:
        reply = session.post(
            "/v1/embeddings",
            {"model": self.options.model, "input": text, "encoding_format": "float"},
        )
        self.check_name(reply)
        return last_vector(field(items(field(reply, "data"), 1, "data")[0], "embedding"))

    def _choice(self, reply: Any) -> Mapping[str, Any]:
        """Return the only choice of a reply, after checking who answered."""
        [choice] = self._choices(reply, 1)
        if choice.get("finish_reason") == "content_filter":
            raise RowError("the answer was withheld by a content filter")
        if choice.get("logprobs") is None:
            raise RowError(
                "the reply has no logprobs: the server ignores that they are asked for"
                + _LLAMA * _is_llama(reply)
            )
        return choice

    def _choices(self, reply: Any, n: int) -> list[Mapping[str, Any]]:
        """Return the choices of a reply, after checking who answered."""
        self.check_name(reply)
        choices = items(field(reply, "choices"), n, "choices")
        self.same("system_fingerprint", reply.get("system_fingerprint"), mark=True)
        return choices

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Ask, and where the server refuses a field, try what else it may take."""
        text = before_slot(prompt)
        model, reply, checks = tried(self, lambda model: model._ask_all(session, text))
        return [*checks, *model._checks(reply, prompt, words)]

    def alternative(self, field: str, said: str) -> dict[str, Any] | None:
        options = self.options
        if field == "max_tokens" and options.max_tokens is None:
            return {"max_completion_tokens": 1}
        if field in ("max_tokens", "max_completion_tokens"):  # some ask for 16 at least
            return {field: 16} if (getattr(options, field) or 1) < 16 else None
        if field == "temperature" and options.temperature is not None:
            return {"temperature": None}
        if field in ("logprobs", "top_logprobs"):
            allowed = [int(number) for number in re.findall(r"\b\d{1,4}\b", said)]
            fewer = max((n for n in [*allowed, 5] if 0 < n < self.top_k), default=None)
            return None if fewer is None else {"top_k": fewer}
        return None

    def _ask_all(self, session: Session, text: str) -> Any:
        """Ask with every field that is worth trying."""
        return self.send(session, self.path, self._body(text))

    @abstractmethod
    def _checks(self, reply: Any, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Judge the reply to :meth:`_ask_all`."""


class OpenAICompletions(_OpenAI):
    """``openai:URL?model=NAME``: ``/v1/completions``, and ``/v1/embeddings`` if asked for.

    The prompt up to the slot is continued by one token. Scores are log-probabilities of the label
    words among the `top_k` (default 5, OpenAI's limit) most probable tokens; they are matched by
    their text, so a label word has to be one token. With ``hidden=URL`` the embedding of the
    prompt from ``/v1/embeddings`` there is the hidden state (where a server does not pool, that of
    the last token), a second request of the same query.
    """

    scheme = "openai"
    path = "/v1/completions"
    default_top_k = 5

    def _body(self, text: str) -> dict[str, Any]:
        return {**self._common(), "prompt": text, "logprobs": self.top_k}

    def _listing(self, reply: Any) -> Listing:
        return self._slot(reply, self._choice(reply), 0)

    def _slot(self, reply: Any, choice: Mapping[str, Any], place: int) -> Listing:
        logprobs = choice["logprobs"]
        content = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(content, list) and content:  # llama.cpp's server, in the form of chat
            pairs, _ = read_tokens(field(content[place], "top_logprobs"))
            return Listing(pairs, prompt_tokens(reply))
        if isinstance(logprobs, dict) and logprobs.get("top_logprobs") is None:
            raise RowError("the reply lacks logprobs.top_logprobs" + _LLAMA * _is_llama(reply))
        top = field(logprobs, "top_logprobs")
        if not isinstance(top, list) or not top or not isinstance(top[place], Mapping):
            raise RowError("logprobs.top_logprobs is not one object for one token")
        options = self.options
        longest = options.max_tokens or options.max_completion_tokens or 1
        if place == 0 and len(top) > longest:
            raise RowError(f"logprobs.top_logprobs is for {len(top)} tokens, asked for one")
        return Listing(log_probabilities(top[place].items()), prompt_tokens(reply))

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        options = self.options
        body = completion(options.model, before_slot(prompt), how, options.temperature)
        reply = self.send(session, self.path, body)
        [choice] = self._choices(reply, 1)
        return of_choice(reply, choice, field(choice, "text"), how)

    def _ask_all(self, session: Session, text: str) -> Any:
        return self.send(session, self.path, {**self._body(text), "echo": True})

    def _checks(self, reply: Any, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        choice = self._choice(reply)
        listing = self._slot(reply, choice, -1)
        echoed = str(choice.get("text", "")).startswith(before_slot(prompt))
        return [
            *self._check_listing(listing, prompt, words, "logprobs"),
            Check(
                "echo",
                "honoured" if echoed else "ignored",
                "not needed: only the token after the prompt is scored",
            ),
        ]


class OpenAIChat(_OpenAI):
    """``openai-chat:URL?model=NAME``: ``/v1/chat/completions``.

    The prompt up to the slot is the user's message, and the first token of the answer is scored,
    among the `top_k` (default 20, OpenAI's limit) most probable ones. A model that thinks before
    it answers gives label words no probability there: such rows have no answer, and the message
    says why.

    With ``answers=text`` it is :class:`fewfit.models.remote.openai_text.OpenAIChatText`, which
    reads what the model writes.
    """

    scheme = "openai-chat"
    path = "/v1/chat/completions"
    has: ClassVar[frozenset[str]] = _OpenAI.has | {"reasoning_effort", "answers", "system"}
    default_top_k = 20

    def __new__(cls, url: str = "", **options: Any) -> OpenAIChat:
        from fewfit.models.remote.openai_text import OpenAIChatText

        in_words = options.get("answers") == "text"
        return object.__new__(OpenAIChatText if cls is OpenAIChat and in_words else cls)

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return "\n\n".join(filter(None, [self.options.system, super().show(prompt, words)]))

    def _body(self, text: str) -> dict[str, Any]:
        system = self.options.system
        said = [{"role": "system", "content": system}] if system is not None else []
        body = {
            **self._common(),
            "messages": [*said, {"role": "user", "content": text}],
            "logprobs": True,
            "top_logprobs": self.top_k,
        }
        if self.options.reasoning_effort is not None:
            body["reasoning_effort"] = self.options.reasoning_effort
        return body

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        options = self.options
        named = "max_tokens" if options.max_completion_tokens is None else "max_completion_tokens"
        body: dict[str, Any] = {
            "model": options.model,
            "messages": said_in_turn(prompt, options.system),
            named: how.max_tokens,
        }
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.reasoning_effort is not None:
            body["reasoning_effort"] = options.reasoning_effort
        if how.stop:
            body["stop"] = list(how.stop)
        reply = self.send(session, self.path, body)
        [choice] = self._choices(reply, 1)
        message = _message(choice)
        text = joined(message.get("content"))
        if choice.get("finish_reason") == "length" and not text.strip():
            raise Unusable("the answer was cut before it began: allow for more tokens")
        return of_choice(reply, choice, spoken(text), how)

    def _listing(self, reply: Any) -> Listing:
        choice = self._choice(reply)
        message = _message(choice)
        thinking = bool(message.get("reasoning_content") or message.get("reasoning"))
        content = field(choice, "logprobs", "content")
        if not isinstance(content, list) or not content:
            raise RowError(
                "the model reasons before it answers, and there is no answer: turn that off with "
                "reasoning_effort=none, or use another model"
                if thinking or reasoned(reply)
                else "logprobs.content is empty"
            )
        pairs, _ = read_tokens(field(content[0], "top_logprobs"))
        return Listing(pairs, prompt_tokens(reply), thinks=thinking)

    def _checks(self, reply: Any, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        listing = self._listing(reply)
        first = str(field(reply, "choices", 0, "logprobs", "content", 0).get("token", ""))
        most = max(listing.pairs, key=lambda pair: pair[1])[0]
        slow = listing.thinks or thinks(first) or thinks(most)
        return [
            *self._check_listing(listing, prompt, words, "top_logprobs"),
            Check(
                "answers at once",
                "no" if slow else "yes",
                f"the answer begins with {first!r}"
                + ": a reasoning model; try reasoning_effort=none" * slow,
            ),
        ]


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return the message of a choice, which says something (RowError)."""
    message = field(choice, "message")
    if not isinstance(message, dict):
        raise RowError("the reply's message is not an object")
    if message.get("refusal"):
        raise RowError("the model refused to answer")
    if message.get("tool_calls") or message.get("function_call"):
        raise RowError("the model called a tool in place of an answer")
    return message


def said_in_turn(prompt: Prompt, system: str | None) -> list[dict[str, str]]:
    """Return what is said in a chat, in turn; the last is the question."""
    said = [{"role": "system", "content": system}] if system is not None else []
    for i, turn in enumerate(prompt.turns):
        said.append({"role": "assistant" if i % 2 else "user", "content": turn.asked()})
    return said


def joined(content: Any) -> str:
    """Return the text of a message; some servers give it in parts."""
    if isinstance(content, list):
        if not all(isinstance(part, dict) for part in content):
            raise RowError("the parts of the reply's message are not objects")
        content = "".join(
            part["text"]
            for part in content
            if part.get("type") in ("text", "output_text") and isinstance(part.get("text"), str)
        )
    if content is not None and not isinstance(content, str):
        raise RowError("the content of the reply's message is not text")
    return content or ""


_LLAMA = "; it is llama.cpp's server, for which there is llamacpp: in place of openai:"


def _is_llama(reply: Any) -> bool:
    """Whether a reply is that of ``llama-server``, which tells its timings."""
    return isinstance(reply, dict) and isinstance(reply.get("timings"), dict)


def reasoned(reply: Mapping[str, Any]) -> int:
    """Return how many tokens of reasoning a reply bills; 0 where it does not say."""
    try:
        return max(count(reply["usage"]["completion_tokens_details"]["reasoning_tokens"]), 0)
    except (LookupError, TypeError):
        return 0


def prompt_tokens(reply: Mapping[str, Any]) -> int:
    """Return how long a reply says that the prompt was; -1 where it does not say."""
    usage = reply.get("usage")
    return count(usage.get("prompt_tokens")) if isinstance(usage, Mapping) else -1
