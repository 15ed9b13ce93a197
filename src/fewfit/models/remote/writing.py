"""Servers that go on writing: one text for each prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fewfit.models.generation import Texts, Writing, Written
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.guard import Guard
from fewfit.models.remote.pool import Arrived, answer_all
from fewfit.models.remote.replies import count
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.streams import mapped
from fewfit.prompts import Prompt


class WritesTexts(RemoteModel):
    """Base of the dialects that write; a prompt without a text has the reason in its place."""

    def write(self, prompts: Sequence[Prompt], how: Writing) -> Iterator[Texts]:
        """Write a text for each prompt.

        Raises
        ------
        ModelError
            If asking on is pointless, as in :meth:`stream`.
        """
        session = self.session()

        def ask(prompt: Prompt) -> Any:
            return self._written(session, prompt, how)

        guarded = Guard(ask, self.scheme, session.redactor)

        def texts(group: Arrived) -> Iterator[Texts]:
            where = np.array([i for i, _ in group], dtype=np.intp)
            yield (
                where,
                [Written(reason=str(w)) if isinstance(w, RowError) else w for _, w in group],
            )

        groups = answer_all(lambda i: guarded(prompts[i]), len(prompts), session)
        yield from mapped(groups, texts)

    @abstractmethod
    def _written(self, session: Session, prompt: Prompt, how: Writing) -> Written:
        """Ask for the text of one prompt (RowError if there is none)."""


def completion(
    model: str | None, text: str | list[int], how: Writing, temperature: float | None
) -> Any:
    """Return the request for a text in the dialect of OpenAI's completions."""
    body: dict[str, Any] = {"model": model, "prompt": text, "max_tokens": how.max_tokens}
    if temperature is not None:
        body["temperature"] = temperature
    if how.stop:
        body["stop"] = list(how.stop)
    return body


def written(text: Any, how: Writing, read: Any, said: Any, *, is_whole: bool) -> Written:
    """Return what a reply says, if it says it as it should (RowError).

    Parameters
    ----------
    text : Any
        As the reply has it.
    how : Writing
    read, said : Any
        The numbers of tokens of the prompt and of the text, as the reply has them.
    is_whole : bool
        Whether the reply says that the text came to its end.
    """
    if not isinstance(text, str):
        raise RowError("the text in the reply is none")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise RowError("the text in the reply is not valid Unicode")
    n_read, n_said = count(read), count(said)
    n_tokens = n_read + n_said if n_read >= 0 and n_said >= 0 else -1
    cut = how.cut(text)
    return Written(cut, n_tokens, is_whole or len(cut) < len(text))


def of_choice(reply: Any, choice: Mapping[str, Any], text: Any, how: Writing) -> Written:
    """Return what a choice of OpenAI's dialect says (RowError)."""
    if choice.get("finish_reason") == "content_filter":
        raise RowError("the answer was withheld by a content filter")
    usage = reply.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return written(text, how, *tokens, is_whole=choice.get("finish_reason") != "length")
