"""What a reply means: JSON to read, a reason to try again, to give up on the row, or to stop."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from fewfit.errors import ModelError
from fewfit.models.remote.secrets import Redactor

LONGEST_WAIT = 60.0

_TRANSIENT = {408, 409, 425, 429}
_HOPELESS = {401, 402, 404, 405, 501}

_BUSY = re.compile(r"overloaded|rate.?limit|too.?many|time.?out|unavailable", re.IGNORECASE)

_ALSO_WORDS = frozenset(
    {"model", "prompt", "messages", "input", "inputs", "text", "content", "system", "stop", "state"}
)
"""Fields whose names a refusal may have in a sentence, without blaming them."""

_TOO_LONG = re.compile(
    r"context|too long|longer than|maximum.{0,20}length|(input|inputs|prompt) tokens", re.IGNORECASE
)
_UNWANTED = re.compile(
    r"unsupported|not (supported|permitted|allowed|implemented)|unrecogni[sz]ed|unknown|unexpected|"
    r"extra (inputs|fields)|invalid|must be|should be|at (most|least)|(less|greater) than|exceed|"
    r"out of range",
    re.IGNORECASE,
)


class RowError(Exception):
    """This prompt got no usable answer; others may. Never leaves ``models/remote``."""


class Refused(RowError):
    """The server refuses a request as it stands (HTTP 4xx); `param` is what it names as wrong."""

    def __init__(self, reason: str, param: str | None = None) -> None:
        super().__init__(reason)
        self.param = param

    def names(self, fields: Collection[str]) -> str | None:
        """Return which of the `fields` of the request is refused, if it is one of them."""
        reason = str(self)
        if _TOO_LONG.search(reason):  # of this prompt, whatever field is blamed
            return None
        if self.param is not None:
            return self.param if self.param in fields else None
        if not _UNWANTED.search(reason):
            return None
        found = [name for name in fields if _blamed(name, reason)]
        return min(found, key=reason.index, default=None)


def _blamed(name: str, reason: str) -> bool:
    name = re.escape(name)
    if name in _ALSO_WORDS:
        return re.search(rf"""["'`]{name}["'`]|\b{name}\s*[=:]""", reason) is not None
    return re.search(rf"\b{name}\b", reason) is not None


class Forbidden(Exception):
    """HTTP 403: of the key where nothing has been answered yet, and else of this prompt."""


class Transient(Exception):
    """An attempt failed in a way that may pass.

    Attributes
    ----------
    wait : float or None
        What the server asked for, in seconds.
    paced : bool
        Whether the server only asks for fewer requests, and has done no work for this one.
    """

    def __init__(self, reason: str, wait: float | None = None, *, paced: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.paced = paced


def read_reply(reply: HTTPResponse, data: bytes, redactor: Redactor) -> Any:
    """Return the JSON of a reply, without the keys in use, should the server have sent them back.

    Raises
    ------
    Transient
        If the same request may fare better later: too many requests, an error of the server, a
        body that is not whole.
    RowError
        If this request has no answer.
    Forbidden
        If the server does not want this request, or any.
    ModelError
        If no request will have one.
    """
    if 200 <= reply.status < 300:
        found = _parse(reply, data, redactor)
        _check_whole(found)
        return found
    raise _refusal(reply, data, redactor)


def _check_whole(reply: Any) -> None:
    """Refuse a reply of success that holds an error, as proxies send them."""
    if not isinstance(reply, dict):
        return
    choices = reply.get("choices")
    parts = [reply, *(c for c in (choices if isinstance(choices, list) else []) if c)]
    for part in parts:
        if not isinstance(part, dict):
            continue
        error = part.get("error") or (part if part.get("object") == "error" else None)
        if error:
            told = error if isinstance(error, dict) else {"message": error}
            kinds = [str(told.get(name)) for name in ("code", "type", "status") if told.get(name)]
            said = f"HTTP 200 with an error: {_short(str(told.get('message', error)), 200)}"
            numbers = [int(kind) for kind in kinds if kind.isdecimal() and len(kind) == 3]
            if any(n in _TRANSIENT or n >= 500 for n in numbers) or any(map(_BUSY.search, kinds)):
                raise Transient(said)
            raise RowError(said)
        if part.get("finish_reason") == "error":
            raise Transient("the server broke off its answer with an error")


def _parse(reply: HTTPResponse, data: bytes, redactor: Redactor) -> Any:
    if reply.getheader("Content-Encoding", "identity").strip().lower() not in ("identity", ""):
        raise RowError("the reply is compressed, which was not asked for")
    try:
        return redactor.json(
            json.loads(
                data.decode("utf-8-sig"),
                parse_int=_integer,
                parse_constant=_no_constant,
                object_pairs_hook=_once,
            )
        )
    except RowError:
        raise
    except (ValueError, RecursionError):
        kind = _short(redactor(reply.getheader("Content-Type", "nothing")), 60)
        start = _short(redactor(data[:2000].decode("utf-8", "replace")), 60)
        raise Transient(
            f"HTTP {reply.status}, but the body ({kind}) is not whole JSON: {start!r}"
        ) from None


def _refusal(reply: HTTPResponse, data: bytes, redactor: Redactor) -> Exception:
    status = reply.status
    detail = data[:20_000].decode("utf-8", "replace")
    said = f"HTTP {status}: {_short(redactor(_message(detail)), 200)}"
    if 300 <= status < 400:
        where = _short(redactor(_origin(reply.getheader("Location", ""))), 80)
        return ModelError(
            f"the server redirects to {where} (HTTP {status}); redirects are not followed, "
            "since the key would go along. Name the final address"
        )
    if status == 403:
        return Forbidden(said)
    if status in _HOPELESS or (status == 429 and "insufficient_quota" in detail):
        return ModelError(refused(said))
    if status in _TRANSIENT or status >= 500:
        wait = _retry_after(reply)
        return Transient(said, wait, paced=status == 429 or (status == 503 and wait is not None))
    return Refused(said, _param(detail))


def refused(said: str) -> str:
    """Return the message of a run that a server's refusal ends."""
    return f"the server refuses ({said}). What the store has is not asked again"


def _origin(location: str) -> str:
    """Return scheme and host of where a redirect leads."""
    try:
        target = urlsplit(location)
        return f"{target.scheme}://{target.hostname}" if target.hostname else "elsewhere"
    except ValueError:
        return "elsewhere"


def _param(detail: str) -> str | None:
    """Return the field of the request that an error names as such: OpenAI's way, or FastAPI's."""
    try:
        whole = json.loads(detail)
        error = whole.get("error", whole)
        if isinstance(error, dict) and isinstance(error.get("param"), str):
            return error["param"].partition(".")[0] or None
        place = whole["detail"][0]["loc"]
        return place[1] if place[0] == "body" and isinstance(place[1], str) else None
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return None


def _retry_after(reply: HTTPResponse) -> float | None:
    """Seconds to wait: milliseconds, seconds or a date; None if there is none that makes sense."""
    milliseconds, value = reply.getheader("Retry-After-Ms"), reply.getheader("Retry-After", "")
    try:
        seconds = float(milliseconds) / 1000 if milliseconds else float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            date = date if date.tzinfo else date.replace(tzinfo=UTC)  # of a form without a zone
            seconds = date.timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(seconds, LONGEST_WAIT) if seconds >= 0 else None


def _message(detail: str) -> str:
    """What a server's error says."""
    try:
        error = json.loads(detail)
        error = error.get("error", error.get("detail", error.get("message", error)))
        if isinstance(error, dict):
            error = error.get("message", error)
        detail = error if isinstance(error, str) else json.dumps(error)
    except (ValueError, AttributeError, RecursionError):
        pass
    return detail


def _short(text: str, longest: int) -> str:
    """One line of at most so many characters; what must not be said is out of it already."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[:longest] + "…"


def _integer(digits: str) -> int | float:
    """A number that fits no array is read as one of floating point, and so as infinite."""
    return int(digits) if len(digits) < 300 else float(digits)


def _no_constant(name: str) -> Any:
    raise RowError(f"the reply holds {name}, which is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise RowError("the reply is ambiguous: a key occurs twice in one object")
    return entries
