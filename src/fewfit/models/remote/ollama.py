"""Ollama's own dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fewfit.models.base import Check
from fewfit.models.generation import Writing, Written
from fewfit.models.remote.causal import TopTokens, Vector
from fewfit.models.remote.listing import Listing, read_tokens
from fewfit.models.remote.replies import count, field, vector
from fewfit.models.remote.slot import before_slot
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.writing import WritesTexts, written
from fewfit.prompts import Prompt


class Ollama(TopTokens, WritesTexts):
    """``ollama:URL?model=NAME``: ``/api/generate``, and ``/api/embed`` if asked for.

    Scores are log-probabilities among the `top_k` (default and most: 20) most probable tokens,
    matched by their text. With ``hidden=URL`` (of the same server, or another) the vector of
    ``/api/embed`` is the hidden state; Ollama normalises it and pools it as the model's file says.
    """

    scheme = "ollama"
    has: ClassVar[frozenset[str]] = TopTokens.has | {"truncate"}
    default_top_k = 20

    def _listed(self, session: Session, text: str) -> Listing:
        reply = self.send(
            session,
            "/api/generate",
            {
                "model": self.options.model,
                "prompt": text,
                "raw": True,
                "stream": False,
                "truncate": self.options.truncate,
                "shift": False,
                "logprobs": True,
                "top_logprobs": self.top_k,
                "options": {"num_predict": 1, "temperature": 0},
            },
        )
        self.check_name(reply)
        logprobs = field(reply, "logprobs")
        if not isinstance(logprobs, list) or not logprobs:
            raise RowError("logprobs is empty; an older Ollama ignores that it is asked for")
        pairs, _ = read_tokens(field(logprobs, 0, "top_logprobs"))
        return Listing(
            pairs, count(reply.get("prompt_eval_count")), thinks=bool(reply.get("thinking"))
        )

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        body = {
            "model": self.options.model,
            "prompt": before_slot(prompt),
            "raw": True,
            "stream": False,
            "truncate": self.options.truncate,
            "shift": False,
            "options": {"num_predict": how.max_tokens, "temperature": 0, "stop": list(how.stop)},
        }
        reply = self.send(session, "/api/generate", body)
        self.check_name(reply)
        tokens = reply.get("prompt_eval_count"), reply.get("eval_count")
        whole = reply.get("done_reason") != "length"
        return written(field(reply, "response"), how, *tokens, is_whole=whole)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        listing = self._listed(session, before_slot(prompt))
        return self._check_listing(listing, prompt, words, "top_logprobs")

    def _embedding(self, session: Session, text: str) -> Vector:
        reply = session.post(
            "/api/embed",
            {"model": self.options.model, "input": text, "truncate": self.options.truncate},
        )
        self.check_name(reply)
        return vector(field(reply, "embeddings", 0))
