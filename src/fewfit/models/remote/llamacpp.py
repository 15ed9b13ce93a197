"""The dialect of llama.cpp's ``llama-server``."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from fewfit.errors import InputError, ModelError
from fewfit.models.base import Check
from fewfit.models.generation import Writing, Written
from fewfit.models.remote.causal import Sent, TopTokens, Vector
from fewfit.models.remote.listing import Listing, read_tokens
from fewfit.models.remote.replies import count, field, last_vector, token_ids
from fewfit.models.remote.slot import Tokenize, before_slot, first_tokens, trie_of
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.remote.writing import WritesTexts, written
from fewfit.prompts import Part, Prompt
from fewfit.prompts.trie import Trie


class LlamaCpp(TopTokens, WritesTexts):
    """``llamacpp:URL``: ``/completion`` and ``/tokenize``, and ``/embedding`` if asked for.

    Scores are log-probabilities before sampling of the label words' first tokens among the `top_k`
    (default 512) most probable ones, matched by token id. With ``hidden=URL`` of a second server,
    started with ``--embedding --pooling last``, its vector of the prompt, not normalised, is the
    hidden state: a second request of the same query.

    With ``chat=true`` the prompt is the user's turn in the model's own chat template, which the
    server fills in (``/apply-template``), after the message ``system=`` and before what the model
    has said already, ``prefix=``. Prompts are then sent as tokens: those of the template's special
    tokens, and those of the user's text as plain text, which is one more request for each.
    """

    scheme = "llamacpp"
    has: ClassVar[frozenset[str]] = (TopTokens.has - {"case"}) | {
        "chat",
        "system",
        "prefix",
        "multi_token",
    }
    by_text = False
    needs_model = False
    default_top_k = 512

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._frames: dict[int, list[str]] = {}
        self._parts: dict[tuple[str, bool], list[int]] = {}
        for name in ("system", "prefix"):
            if getattr(self.options, name) is not None and not self.options.chat:
                raise InputError(f"{self.scheme}: {name} is of a chat; add chat=true")

    def _targets(
        self, session: Session, prompt: Prompt, words: Sequence[str]
    ) -> list[Collection[Any]]:
        lead, tokenize = self._end_of(session, prompt)
        return [(token,) for token in first_tokens(lead, words, tokenize)]

    def _trie(self, session: Session, prompt: Prompt, words: Sequence[str]) -> Trie:
        lead, tokenize = self._end_of(session, prompt)
        return trie_of(lead, words, tokenize)

    def _end_of(self, session: Session, prompt: Prompt) -> tuple[Prompt, Tokenize]:
        """Return the prompt as the slot's neighbours see it, and how texts there are tokenised."""
        chat = self.options.chat
        if chat:  # the word stands after the template's end, whatever the prompt's own words are
            prompt = Prompt((Part("literal", self._frame(session, prompt)[-1]), Part("mask", "")))

        def tokenize(text: str) -> list[int]:
            return self._tokens(session, text, special=chat)

        return prompt, tokenize

    def _prompt_tokens(self, session: Session, text: str) -> list[int]:
        return self._tokens(session, text, special=False, first=True)

    def _tokens(
        self, session: Session, text: str, *, special: bool, first: bool = False
    ) -> list[int]:
        """Return the tokens of a text; `special` ones are read by their names, or are text."""
        body = {"content": text, "add_special": first, "parse_special": special}
        return token_ids(session.post("/tokenize", body))

    def _sent(self, session: Session, prompt: Prompt) -> Sent:
        if not self.options.chat:
            return before_slot(prompt)
        frame = self._frame(session, prompt)
        frame[-1] = frame[-1].rstrip(" ")
        ids: list[int] = []
        for i, (before, turn) in enumerate(zip(frame, prompt.turns, strict=False)):
            ids += self._part(session, before, i == 0)
            ids += self._tokens(session, turn.asked(), special=False)
        return ids + self._part(session, frame[-1], False)

    def _part(self, session: Session, text: str, first: bool) -> list[int]:
        """Return the tokens of a part of the template; asked once."""
        known = self._parts.get((text, first))
        if known is None:
            known = self._tokens(session, text, special=True, first=first)
            self._parts[text, first] = known
        return known

    def _frame(self, session: Session, prompt: Prompt) -> list[str]:
        """Return what the chat template has around the contents of a prompt's turns; asked once."""
        n = len(prompt.turns)
        if n not in self._frames:
            marks = [secrets.token_hex(16) for _ in range(n)]
            said = [
                {"role": "assistant" if i % 2 else "user", "content": mark}
                for i, mark in enumerate(marks)
            ]
            if self.options.system is not None:
                said.insert(0, {"role": "system", "content": self.options.system})
            body = {"messages": said, "chat_template_kwargs": {"enable_thinking": False}}
            text = field(session.post("/apply-template", body), "prompt")
            pieces = re.split("|".join(marks), text) if isinstance(text, str) else []
            if len(pieces) != n + 1:
                raise ModelError(f"{self.scheme}: the chat template leaves out what is said")
            prefix = self.options.prefix
            pieces[-1] += f"{prefix.rstrip()} " if prefix else ""
            self._frames[n] = pieces
        return list(self._frames[n])

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        if not self.options.chat:
            return super().show(prompt, words)
        texts = [turn.asked() for turn in prompt.turns]
        return "\n\n".join([*filter(None, [self.options.system]), *texts])

    def _listed(self, session: Session, text: Sent) -> Listing:
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

    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        body = {
            "prompt": self._sent(session, prompt),
            "n_predict": how.max_tokens,
            "temperature": 0,
            "stop": list(how.stop),
            "cache_prompt": False,
            "stream": False,
        }
        reply = self.send(session, "/completion", body)
        self.check_name(reply)
        text = field(reply, "content")
        if reply.get("truncated"):
            raise RowError("prompt and text are longer than the server's context")
        tokens = reply.get("tokens_evaluated"), reply.get("tokens_predicted")
        return written(text, how, *tokens, is_whole=reply.get("stop_type") != "limit")

    def _embedding(self, session: Session, text: Sent) -> Vector:
        reply = session.post("/embedding", {"content": text, "embd_normalize": -1})
        values = field(reply, 0, "embedding") if isinstance(reply, list) else reply
        values = field(values, "embedding") if isinstance(values, dict) else values
        return last_vector(values)

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        listing = self._listed(session, self._sent(session, prompt))
        return self._check_listing(listing, prompt, words, "n_probs")
