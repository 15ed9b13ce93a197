"""SGLang's dialect: label scores and hidden state of the slot in one request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.base import Capabilities, Check
from fewfit.models.generation import Writing, Written
from fewfit.models.remote.causal import ChosenTokens, Sent, Vector
from fewfit.models.remote.replies import count, field, last_vector, log_probabilities, token_ids
from fewfit.models.remote.slot import before_slot
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.writing import WritesTexts, written
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt


class SGLang(ChosenTokens, WritesTexts):
    """``sglang:URL``: ``/generate`` with ``token_ids_logprob`` and ``return_hidden_states``.

    Scores are log-probabilities of the label words' first tokens; the hidden state is the last
    layer's at the last token of the prompt. Both come from one forward pass. Start the server with
    ``--return-hidden-states-mode last`` (or ``--enable-return-hidden-states``), and with
    ``--disable-radix-cache``: with it, versions have mixed up hidden states between requests.
    ``fewfit doctor`` tries that.
    """

    scheme = "sglang"
    has: ClassVar[frozenset[str]] = frozenset({"multi_token"})
    needs_model = False

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=True)

    def _tokenizer(self, session: Session) -> Callable[[str], list[int]]:
        models = field(session.get("/v1/models"), "data")
        if not isinstance(models, list) or not models:
            raise RowError("/v1/models lists no model")
        served = [field(model, "id") for model in models]
        if self.options.model is not None and self.options.model not in served:
            self.check_name({"model": str(served[0])})

        def tokenize(text: str) -> list[int]:
            body = {"model": str(served[0]), "prompt": text, "add_special_tokens": False}
            return token_ids(session.post("/tokenize", body))

        return tokenize

    def _prompt_tokens(self, session: Session, text: str) -> list[int]:
        return token_ids(
            session.post("/tokenize", {"model": self.options.model or "default", "prompt": text})
        )

    def _scored(
        self, session: Session, second: Session | None, text: Sent, ids: Sequence[int]
    ) -> tuple[NDArray[np.float64], Vector | None, int]:
        meta = self._generate(session, text, ids)
        found = dict(_listed(meta))
        missing = [i for i in ids if i not in found]
        if missing:
            raise ModelError(
                f"sglang: the server does not honour token_ids_logprob (token {missing[0]} was "
                "asked for and is not in the reply)"
            )
        if meta.get("hidden_states") is None:
            raise ModelError(
                "sglang: the reply has no hidden state; start the server with "
                "--return-hidden-states-mode last, or ask for label scores alone with openai:"
            )
        # One entry for each step of generation; the first is the prompt's.
        steps = meta["hidden_states"]
        nested = isinstance(steps, list) and steps and isinstance(steps[0], list)
        hidden = last_vector(steps[0] if nested else steps)
        return np.array([found[i] for i in ids]), hidden, count(meta.get("prompt_tokens"))

    def _generate(self, session: Session, text: Sent, ids: Sequence[int]) -> Any:
        reply = self.send(
            session,
            "/generate",
            {
                "text" if isinstance(text, str) else "input_ids": text,
                "sampling_params": {"max_new_tokens": 1, "temperature": 0},
                "return_logprob": True,
                "token_ids_logprob": list(ids),
                "return_hidden_states": "last",
            },
        )
        return self._meta(reply)

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        sampled: dict[str, Any] = {"max_new_tokens": how.max_tokens, "temperature": 0}
        if how.stop:
            sampled["stop"] = list(how.stop)
        body = {"text": before_slot(prompt), "sampling_params": sampled}
        reply = self.send(session, "/generate", body)
        meta = self._meta(reply)
        ended = meta.get("finish_reason")
        cut = isinstance(ended, dict) and ended.get("type") == "length"
        tokens = meta.get("prompt_tokens"), meta.get("completion_tokens")
        return written(field(reply, "text"), how, *tokens, is_whole=not cut)

    def _meta(self, reply: Any) -> Any:
        """Return what a reply says beside its text, if it is no failure."""
        meta = field(reply, "meta_info")
        if not isinstance(meta, dict):
            raise RowError("meta_info is not an object")
        ended = meta.get("finish_reason")
        if isinstance(ended, dict) and ended.get("type") == "abort":
            raise RowError(f"the server gave up: {str(ended.get('message'))[:200]}")
        self.same("weight_version", meta.get("weight_version"), mark=True)
        return meta

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        ids = self._tokenizer(session)(" " + words[0])[:1]
        meta = self._generate(session, before_slot(prompt), ids)
        listed = [token for token, _ in _listed(meta)]
        states = meta.get("hidden_states")
        return [
            Check(
                "token_ids_logprob",
                "honoured" if listed == ids else "ignored",
                f"asked for token {ids[0]}, got {listed}",
            ),
            Check(
                "return_hidden_states",
                "ignored" if states is None else "honoured",
                "no hidden state" if states is None else "there is one",
            ),
        ]


def _listed(meta: Any) -> list[tuple[int, float]]:
    entries = field(meta, "output_token_ids_logprobs", 0)
    if not isinstance(entries, list) or not all(isinstance(entry, list) for entry in entries):
        raise RowError("output_token_ids_logprobs is not a list of lists")
    pairs = log_probabilities([(field(entry, 1), field(entry, 0)) for entry in entries])
    if any(type(token) is not int for token, _ in pairs):
        raise RowError("output_token_ids_logprobs has a token that is not an id")
    if len({token for token, _ in pairs}) != len(set(pairs)):
        raise RowError("a token is listed twice, with two probabilities")
    return pairs
