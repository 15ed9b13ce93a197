"""A chat template that a server fills in, around prompts that are sent as tokens."""

from __future__ import annotations

import re
import secrets
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from fewfit.errors import InputError, ModelError
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.slot import Tokenize, before_slot
from fewfit.models.remote.transport import Session
from fewfit.prompts import Part, Prompt


class ServedChat(RemoteModel):
    """Base of the dialects of completions that know their model's chat template.

    With ``chat=true`` the prompt is the user's turn, after the message ``system=`` and before what
    the model has said already, ``prefix=``. What the template has around the turns is asked for
    once, with marks in the place of what is said.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._frames: dict[int, list[str]] = {}
        self._parts: dict[tuple[str, bool], list[int]] = {}
        for name in ("system", "prefix"):
            if getattr(self.options, name) is not None and not self.options.chat:
                raise InputError(f"{self.scheme}: {name} is of a chat; add chat=true")

    @abstractmethod
    def _tokens(
        self, session: Session, text: str, *, special: bool, first: bool = False
    ) -> list[int]:
        """Return the tokens of a text; `special` ones are read by their names, or are text."""

    @abstractmethod
    def _applied(self, session: Session, said: Sequence[dict[str, str]]) -> Any:
        """Return the text of a chat, up to where the model begins to speak."""

    def _end_of(self, session: Session, prompt: Prompt) -> tuple[Prompt, Tokenize]:
        """Return the prompt as the slot's neighbours see it, and how texts there are tokenised."""
        chat = self.options.chat
        if chat:  # the word stands after the template's end, whatever the prompt's own words are
            prompt = Prompt((Part("literal", self._frame(session, prompt)[-1]), Part("mask", "")))

        def tokenize(text: str) -> list[int]:
            return self._tokens(session, text, special=chat)

        return prompt, tokenize

    def _sent(self, session: Session, prompt: Prompt) -> str | list[int]:
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
            text = self._applied(session, said)
            pieces = re.split("|".join(marks), text) if isinstance(text, str) else []
            if len(pieces) != n + 1:
                raise ModelError(f"{self.scheme}: the chat template leaves out what is said")
            prefix = self.options.prefix
            pieces[-1] += f"{prefix.rstrip()} " if prefix else ""
            self._frames[n] = pieces
        return list(self._frames[n])

    def _said(self, prompt: Prompt) -> str:
        """Return what is said in a chat, for a person to read."""
        texts = [turn.asked() for turn in prompt.turns]
        return "\n\n".join([*filter(None, [self.options.system]), *texts])
