"""The OpenAI dialect, which most servers speak: completions and chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewfit.models.base import Check
from fewfit.models.remote.causal import Listed, TopTokens, Vector
from fewfit.models.remote.replies import count, field, items, last_vector, log_probabilities
from fewfit.models.remote.slot import before_slot
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.prompts import Prompt


class _OpenAI(TopTokens):
    """What completions and chat share."""

    def _embedding(self, session: Session, text: str) -> Vector:
        reply = session.post(
            "/v1/embeddings",
            {"model": self.options.model, "input": text, "encoding_format": "float"},
        )
        self.check_name(reply)
        return last_vector(field(items(field(reply, "data"), 1, "data")[0], "embedding"))

    def _choice(self, reply: Any) -> Any:
        """Return the only choice of a reply, after checking who answered."""
        if isinstance(reply, dict) and reply.get("error") is not None:
            raise RowError(f"HTTP 200 with an error: {str(reply['error'])[:200]}")
        self.check_name(reply)
        choice = items(field(reply, "choices"), 1, "choices")[0]
        self.same("system_fingerprint", reply.get("system_fingerprint"))
        if choice.get("finish_reason") == "content_filter":
            raise RowError("the answer was withheld by a content filter")
        if choice.get("logprobs") is None:
            raise RowError("the reply has no logprobs: the server ignores that they are asked for")
        return choice


class OpenAICompletions(_OpenAI):
    """``openai:URL?model=NAME``: ``/v1/completions``, and ``/v1/embeddings`` if asked for.

    The prompt up to the slot is continued by one token. Scores are log-probabilities of the label
    words among the `top_k` (default 5, OpenAI's limit) most probable tokens; they are matched by
    their text, so a label word has to be one token. With ``hidden=URL`` the embedding of the
    prompt from ``/v1/embeddings`` there is the hidden state (where a server does not pool, that of
    the last token), a second request of the same query.
    """

    scheme = "openai"
    default_top_k = 5

    def _listed(self, session: Session, text: str) -> tuple[Listed, int]:
        reply = session.post("/v1/completions", self._body(text))
        choice = self._choice(reply)
        top = field(choice, "logprobs", "top_logprobs")
        if not isinstance(top, list) or len(top) != 1 or not isinstance(top[0], Mapping):
            raise RowError("logprobs.top_logprobs is not one object for one token")
        return log_probabilities(top[0].items()), _prompt_tokens(reply)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        text = before_slot(prompt)
        reply = session.post("/v1/completions", {**self._body(text), "echo": True})
        choice = self._choice(reply)
        top = field(choice, "logprobs", "top_logprobs")
        last = len(top[-1] or ()) if isinstance(top, list) and top else 0
        echoed = str(choice.get("text", "")).startswith(text)
        return [
            Check(
                "logprobs",
                "honoured" if last >= (self.top_k) else "in part",
                f"asked for {self.top_k} tokens, {last} listed",
            ),
            Check(
                "echo",
                "honoured" if echoed else "ignored",
                "not needed: only the token after the prompt is scored",
            ),
        ]

    def _body(self, text: str) -> dict[str, Any]:
        return {
            "model": self.options.model,
            "prompt": text,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": self.top_k,
        }


class OpenAIChat(_OpenAI):
    """``openai-chat:URL?model=NAME``: ``/v1/chat/completions``.

    The prompt up to the slot is the user's message, and the first token of the answer is scored,
    among the `top_k` (default 20, OpenAI's limit) most probable ones. A model that thinks before
    it answers gives label words no probability there; ``fewfit doctor`` shows it.
    """

    scheme = "openai-chat"
    default_top_k = 20

    def _listed(self, session: Session, text: str) -> tuple[Listed, int]:
        reply = session.post("/v1/chat/completions", self._body(text))
        choice = self._choice(reply)
        if field(choice, "message").get("refusal"):
            raise RowError("the model refused to answer")
        content = field(choice, "logprobs", "content")
        if not isinstance(content, list) or not content:
            raise RowError("logprobs.content is empty")
        top = field(content[0], "top_logprobs")
        pairs = [(field(entry, "token"), field(entry, "logprob")) for entry in top]
        return log_probabilities(pairs), _prompt_tokens(reply)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        reply = session.post("/v1/chat/completions", self._body(before_slot(prompt)))
        choice = self._choice(reply)
        listed = len(field(choice, "logprobs", "content", 0, "top_logprobs"))
        first = str(field(choice, "logprobs", "content", 0).get("token", ""))
        thinks = "think" in first.casefold() or bool(
            field(choice, "message").get("reasoning_content")
        )
        return [
            Check(
                "top_logprobs",
                "honoured" if listed >= (self.top_k) else "in part",
                f"asked for {self.top_k} tokens, {listed} listed",
            ),
            Check(
                "answers at once",
                "no" if thinks else "yes",
                f"the answer begins with {first!r}",
            ),
        ]

    def _body(self, text: str) -> dict[str, Any]:
        return {
            "model": self.options.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.top_k,
        }


def _prompt_tokens(reply: Mapping[str, Any]) -> int:
    usage = reply.get("usage")
    return count(usage.get("prompt_tokens")) if isinstance(usage, Mapping) else -1
