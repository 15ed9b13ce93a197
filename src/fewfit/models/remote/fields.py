"""The fields of a request: the user's own among them, and those that a server refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fewfit.errors import ModelError
from fewfit.models.base import Check
from fewfit.models.remote.options import spelled
from fewfit.models.remote.verdict import Refused

PROMPT_FIELDS = frozenset({"prompt", "messages", "text", "content", "input", "inputs"})
"""Fields that differ from prompt to prompt: one that is refused says nothing about the others."""

_TRIES = 4


class FieldRefused(ModelError):
    """The server refuses a field that every request has.

    Attributes
    ----------
    field, said : str
        Which, and how the server put it.
    """

    def __init__(self, message: str, field: str, said: str) -> None:
        super().__init__(message)
        self.field = field
        self.said = said


def merged(body: Mapping[str, Any], extra: str | None) -> dict[str, Any]:
    """Return a request with the fields of the option ``extra``; objects in it are merged."""
    whole = dict(body)
    for name, value in json.loads(extra or "{}").items():
        sent: Any = whole.get(name)
        both = isinstance(sent, dict) and isinstance(value, dict)
        whole[name] = {**sent, **value} if both else value
    return whole


def refused(
    scheme: str, body: Mapping[str, Any], field: str, error: Refused, other: dict[str, Any] | None
) -> FieldRefused:
    """Return the error that stops a run, with what to do: `other` options, if there are any."""
    if other is not None:
        remedy = f"add {spelled(other)} to the model's address"
    elif field in ("logprobs", "top_logprobs"):
        remedy = (
            "try another dialect or server, since one without log-probabilities cannot score label "
            "words; embeddings: needs none"
        )
    elif field == "model":
        remedy = "name a model that the server has, with model="
    else:
        remedy = "change or leave out the option that sets it, or use another dialect or server"
    return FieldRefused(
        f"{scheme}: the server refuses {field}={str(body[field])[:60]}: "
        f"{str(error).rstrip('.')}. To go on, "
        f"{remedy}. What the store has is not asked again",
        field,
        str(error),
    )


def tried(model: Any, ask: Callable[[Any], Any]) -> tuple[Any, Any, list[Check]]:
    """Ask, and where the server refuses a field, try what else it may take.

    Returns
    -------
    (model, reply, checks)
        The model that was answered, with other options where need be, and what to say of them.

    Raises
    ------
    FieldRefused
        If nothing else is to be tried.
    """
    own, options = model, {}
    checks: list[Check] = []
    while True:
        try:
            reply = ask(own)
            break
        except FieldRefused as error:
            other = own.alternative(error.field, error.said)
            if other is None or len(checks) == _TRIES:
                raise
            checks.append(Check(f"{error.field}, refused", "problem", error.said))
            options |= other
            own = type(model)(model.url, **{**model.options.given(), **options})
    if options:
        said = f"the server answers with {spelled(options)}"
        checks.append(Check("options to add", "problem", said))
    return own, reply, checks
