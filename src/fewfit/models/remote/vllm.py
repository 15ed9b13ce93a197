"""vLLM's dialect: any token scored by its id, and hidden states from a second server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.base import Capabilities, Check
from fewfit.models.generation import Writing, Written
from fewfit.models.remote.causal import ChosenTokens, Sent, Vector
from fewfit.models.remote.chat import ServedChat
from fewfit.models.remote.replies import (
    count,
    field,
    items,
    log_probabilities,
    token_ids,
    vector,
)
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.writing import WritesTexts, completion, of_choice
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

MAX_LABELS = 128


class VLLM(ServedChat, ChosenTokens, WritesTexts):
    """``vllm:URL?model=NAME``: ``/v1/completions`` with ``logprob_token_ids``, and ``/tokenize``.

    Scores are log-probabilities of the label words' first tokens, at most 128 words. With
    ``hidden=URL`` of a second server of the same model (``--runner pooling --convert embed
    --pooler-config '{"pooling_type": "LAST"}'``), its ``/pooling`` vector of the prompt, not
    normalised, is the hidden state: a second request of the same query. Servers older than July
    2026 ignore ``logprob_token_ids``, which is noticed at the first reply.

    With ``chat=true`` the prompt is the user's turn in the model's own chat template, which the
    server fills in (``/tokenize`` of messages, and ``/detokenize``). It reads what looks like a
    special token in a text as one.
    """

    scheme = "vllm"
    has: ClassVar[frozenset[str]] = frozenset({"hidden", "multi_token", "chat", "system", "prefix"})

    @property
    def capabilities(self) -> Capabilities:
        most = MAX_LABELS if self.options.multi_token == "first" else None
        return Capabilities(
            scores=ScoreSpace.LOGPROB, hidden=self._second is not None, max_labels=most
        )

    def _tokenizer(self, session: Session) -> Callable[[str], list[int]]:
        return lambda text: self._tokens(session, text, special=True)

    def _tokens(
        self, session: Session, text: str, *, special: bool, first: bool = False
    ) -> list[int]:
        if not text:
            return []
        body = {"model": self.options.model, "prompt": text, "add_special_tokens": False}
        return token_ids(session.post("/tokenize", body))

    def _neighbours(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> tuple[Prompt, Sequence[str]]:
        return self._end_of(session, prompt)[0], words

    def _applied(self, session: Session, said: Sequence[dict[str, str]]) -> Any:
        body = {
            "model": self.options.model,
            "messages": said,
            "add_generation_prompt": True,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        ids = token_ids(session.post("/tokenize", body))
        reply = session.post("/detokenize", {"model": self.options.model, "tokens": ids})
        return field(reply, "prompt")

    def _prompt_tokens(self, session: Session, text: str) -> list[int]:
        return token_ids(session.post("/tokenize", {"model": self.options.model, "prompt": text}))

    def _scored(
        self, session: Session, second: Session | None, text: Sent, ids: Sequence[int]
    ) -> tuple[NDArray[np.float64], Vector | None, int]:
        reply = self._complete(session, text, ids[:MAX_LABELS])
        found = dict(self._listed(reply))
        for start in range(MAX_LABELS, len(ids), MAX_LABELS):
            more = self._complete(session, text, ids[start : start + MAX_LABELS])
            found |= dict(self._listed(more))
        missing = [i for i in ids if f"token_id:{i}" not in found]
        if missing:
            raise ModelError(
                f"vllm: the server does not honour logprob_token_ids (token {missing[0]} was asked "
                "for and is not in the reply); it is older than July 2026. Upgrade it, or ask "
                "for its most probable tokens with openai: in place of vllm:"
            )
        hidden = None if second is None else self._pooled(second, text)
        usage = reply.get("usage")
        n_tokens = count(usage.get("prompt_tokens")) if isinstance(usage, Mapping) else -1
        return np.array([found[f"token_id:{i}"] for i in ids]), hidden, n_tokens

    def _complete(self, session: Session, text: Sent, ids: Sequence[int]) -> Any:
        reply = self.send(
            session,
            "/v1/completions",
            {
                "model": self.options.model,
                "prompt": text,
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": 1,
                "logprob_token_ids": list(ids),
                "return_tokens_as_token_ids": True,
            },
        )
        self.check_name(reply)
        return reply

    def _listed(self, reply: Any) -> list[tuple[Any, float]]:
        choice = items(field(reply, "choices"), 1, "choices")[0]
        self.same("system_fingerprint", reply.get("system_fingerprint"), mark=True)
        top = field(choice, "logprobs", "top_logprobs", 0)
        if not isinstance(top, dict):
            raise RowError("logprobs.top_logprobs is not a list of objects")
        return log_probabilities(top.items())

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        body = completion(self.options.model, self._sent(session, prompt), how, 0.0)
        reply = self.send(session, "/v1/completions", body)
        self.check_name(reply)
        [choice] = items(field(reply, "choices"), 1, "choices")
        return of_choice(reply, choice, field(choice, "text"), how)

    def _pooled(self, session: Session, text: Sent) -> Vector:
        reply = session.post(
            "/pooling",
            {
                "model": self.options.model,
                "input": text,
                "task": "embed",
                "use_activation": False,
                "encoding_format": "float",
            },
        )
        self.check_name(reply)
        return vector(field(items(field(reply, "data"), 1, "data")[0], "data"))

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return self._said(prompt) if self.options.chat else super().show(prompt, words)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        ids = self._tokenizer(session)(" " + words[0])[:1]
        listed = self._listed(self._complete(session, self._sent(session, prompt), ids))
        names = [str(token) for token, _ in listed]
        honoured = names[:1] == [f"token_id:{ids[0]}"] or f"token_id:{ids[0]}" in names
        return [
            Check(
                "logprob_token_ids",
                "honoured" if honoured else "ignored",
                f"asked for token {ids[0]}, got {', '.join(names)}",
            )
        ]
