"""The border of ``models/remote``: when a run stops, and no secret leaves."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from fewfit.errors import ModelError
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.secrets import Redactor
from fewfit.models.remote.verdict import RowError
from fewfit.prompts import Prompt

GIVE_UP = 16
"""Prompts in a row without a usable answer after which a run stops: the server is the problem."""


class Guard:
    """Asks, and stops the run when prompt after prompt gets no answer."""

    def __init__(self, ask: Callable[[Prompt], Answer], scheme: str, redactor: Redactor) -> None:
        self._ask = ask
        self._scheme = scheme
        self._redactor = redactor
        self._in_a_row = 0
        self._lock = threading.Lock()

    def __call__(self, prompt: Prompt) -> Answer:
        said = self._redactor
        try:
            answer = self._ask(prompt)
        except ModelError as error:
            redact(error, said)
            raise
        except RowError as error:
            with self._lock:
                self._in_a_row += 1
            if self._in_a_row >= GIVE_UP:
                raise ModelError(
                    f"{self._scheme}: {GIVE_UP} prompts in a row got no usable answer, the last: "
                    f"{said(str(error))}. What the store has is not asked again"
                ) from None
            raise RowError(said(str(error))) from None
        self._in_a_row = 0
        if answer.reason or answer.note:
            told = {name: said(getattr(answer, name)) for name in ("reason", "details", "note")}
            return answer._replace(**told)
        return answer


class Silence:
    """Stops a run none of whose first answers says anything usable, each for a reason of its own.

    Later on such answers are rows that failed.
    """

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._heard = threading.Event()
        self._silent = itertools.count(1)

    def __call__(self, answer: Answer) -> Answer:
        """Take note of an answer, and return it (ModelError)."""
        if not answer.reason:
            self._heard.set()
        elif not self._heard.is_set() and next(self._silent) >= GIVE_UP:
            raise ModelError(
                f"{self._scheme}: for the first {GIVE_UP} prompts, {answer.reason}{answer.details}."
                " What the store has is not asked again"
            )
        return answer


def redact(error: Exception, redactor: Redactor) -> None:
    """Make what an error says one line without a secret."""
    error.args = tuple(redactor(a) if isinstance(a, str) else a for a in error.args)
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, redactor(value))
