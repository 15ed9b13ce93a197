"""The dialect of llama.cpp's ``llama-server``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from fewfit.models.base import Check
from fewfit.models.remote.causal import TopTokens, Vector
from fewfit.models.remote.listing import Listing, read_tokens
from fewfit.models.remote.replies import count, field, last_vector, token_ids
from fewfit.models.remote.slot import before_slot, first_tokens
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.prompts import Prompt


class LlamaCpp(TopTokens):
    """``llamacpp:URL``: ``/completion`` and ``/tokenize``, and ``/embedding`` if asked for.

    Scores are log-probabilities before sampling of the label words' first tokens among the `top_k`
    (default 512) most probable ones, matched by token id. With ``hidden=URL`` of a second server,
    started with ``--embedding --pooling last``, its vector of the prompt, not normalised, is the
    hidden state: a second request of the same query.
    """

    scheme = "llamacpp"
    has: ClassVar[frozenset[str]] = TopTokens.has - {"case"}
    by_text = False
    needs_model = False
    default_top_k = 512

    def _targets(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> list[Collection[Any]]:
        def tokenize(text: str) -> list[int]:
            body = {"content": text, "add_special": False, "parse_special": False}
            return token_ids(session.post("/tokenize", body))

        return [(token,) for token in first_tokens(prompt, words, tokenize)]

    def _listed(self, session: Session, text: str) -> Listing:
        reply = self.send(
            session,
            "/completion",
            {
                "prompt": text,
                "n_predict": 1,
                "temperature": 0,
                "n_probs": self.top_k,
                "post_sampling_probs": False,
                "cache_prompt": False,
                "return_tokens": True,
                "stream": False,
            },
        )
        self.check_name(reply)
        top = field(reply, "completion_probabilities", 0)
        if reply.get("truncated"):
            raise RowError("the prompt is longer than the server's context and was cut")
        if not isinstance(top, dict) or "top_logprobs" not in top:
            raise RowError("completion_probabilities without top_logprobs: an older llama.cpp")
        pairs, texts = read_tokens(top["top_logprobs"], by_id=True)
        return Listing(pairs, count(reply.get("tokens_evaluated")), texts)

    def _embedding(self, session: Session, text: str) -> Vector:
        reply = session.post("/embedding", {"content": text, "embd_normalize": -1})
        values = field(reply, 0, "embedding") if isinstance(reply, list) else reply
        values = field(values, "embedding") if isinstance(values, dict) else values
        return last_vector(values)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        listing = self._listed(session, before_slot(prompt))
        return self._check_listing(listing, prompt, words, "n_probs")
