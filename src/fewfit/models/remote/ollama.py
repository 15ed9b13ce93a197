"""Ollama's own dialect."""

from __future__ import annotations

from fewfit.models.remote.causal import Listed, TopTokens, Vector
from fewfit.models.remote.replies import count, field, log_probabilities, vector
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError


class Ollama(TopTokens):
    """``ollama:URL?model=NAME``: ``/api/generate``, and ``/api/embed`` if asked for.

    Scores are log-probabilities among the `top_k` (default and most: 20) most probable tokens,
    matched by their text. With ``hidden=URL`` (of the same server, or another) the vector of
    ``/api/embed`` is the hidden state; Ollama normalises it and pools it as the model's file says.
    """

    scheme = "ollama"
    default_top_k = 20

    def _listed(self, session: Session, text: str) -> tuple[Listed, int]:
        reply = session.post(
            "/api/generate",
            {
                "model": self.options.model,
                "prompt": text,
                "raw": True,
                "stream": False,
                "truncate": False,
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
        top = field(logprobs, 0, "top_logprobs")
        pairs = [(field(entry, "token"), field(entry, "logprob")) for entry in top]
        return log_probabilities(pairs), count(reply.get("prompt_eval_count"))

    def _embedding(self, session: Session, text: str) -> Vector:
        reply = session.post(
            "/api/embed", {"model": self.options.model, "input": text, "truncate": False}
        )
        self.check_name(reply)
        return vector(field(reply, "embeddings", 0))
