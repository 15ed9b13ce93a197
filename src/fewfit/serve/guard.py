"""What stands in front of every route: who may ask, how large a request is, and what is counted."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import re
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from fewfit.errors import FewfitError, StoreError, printable
from fewfit.serve.metrics import Metrics

LOG = logging.getLogger("fewfit.serve")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = ("/health/live", "/health/ready", "/", "/page/static/")
"""What is answered without the key: nothing of it says anything about a task."""

_FILES = (("POST", "/page/read"), ("POST", "/page/tasks"))
"""What takes files, larger and slower than other bodies: the page bounds them itself."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Bounds:
    """How large a request may be.

    Parameters
    ----------
    body : int
        Bytes, of all but the page's files, which the page bounds.
    seconds : float
        Until its body is there.
    texts, characters : int
        Texts of a request, or label words, and of each, and of a template, the characters.
    """

    body: int = 8 * 2**20
    seconds: float = 20.0
    texts: int = 1000
    characters: int = 20_000

    def check(self, texts: Sequence[Any], n_tasks: int = 1, *, name: str = "texts") -> None:
        """Refuse texts, or rows of fields, that are too many or too long (HTTPException 413)."""
        if (n := len(texts) * n_tasks) > self.texts:
            what = "texts times tasks" if name == "texts" else "of them"
            raise HTTPException(
                413, f"{name}: at most {self.texts:,} {what} in a request, not {n:,}"
            )
        for i, text in enumerate(texts):
            parts = text.values() if isinstance(text, dict) else [text]
            if (longest := max(map(len, parts), default=0)) > self.characters:
                raise HTTPException(
                    413,
                    f"{name}: text {i} has {longest:,} characters, and at most "
                    f"{self.characters:,} are read",
                )


class Guard:
    """An ASGI application in front of another.

    Parameters
    ----------
    app : ASGI application
    metrics : Metrics
    bounds : Bounds
    key : str, optional
        Is asked for, as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.
    hosts : sequence of str, optional
        Names under which the server may be addressed; any, if left out. On a loopback address it
        keeps other sites from reaching it through a name of theirs.
    """

    def __init__(
        self,
        app: Any,
        *,
        metrics: Metrics,
        bounds: Bounds,
        key: str | None = None,
        hosts: Sequence[str] | None = None,
    ) -> None:
        self.app, self.metrics, self.bounds = app, metrics, bounds
        self._key = None if key is None else key.encode()
        self._hosts = hosts

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = self._refuse(scope)
            if refused is None and (scope["method"], scope["path"]) not in _FILES:
                receive, refused = await self._read(scope, receive)
            if refused is not None:
                await _answer(noted, *refused)
                return
            await self.app(scope, receive, noted)
        except Exception as error:
            # It ends here, or others would log what it says.
            LOG.error("%s: %s", scope["method"], kind_and_place(error))
            if not status:
                await _answer(noted, 500, "failed", "the server failed; its log says where")
        finally:
            # Routes, and no paths: what callers invent would grow for ever.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begun)

    def _refuse(self, scope: Any) -> tuple[int, str, str] | None:
        headers = dict(scope["headers"])
        whole = headers.get(b"host", b"").decode("latin-1")
        if self._hosts is not None and re.sub(r":\d+$", "", whole).lower() not in self._hosts:
            return 421, "wrong_host", f"this server is not {whole!r:.80}; address it as localhost"
        path = scope["path"]
        is_open = any(
            path == one or (one.endswith("static/") and path.startswith(one)) for one in OPEN
        )
        if self._key is None or is_open:
            return None
        given = headers.get(b"x-api-key", b"")
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = token.strip()
        if hmac.compare_digest(given, self._key):
            return None
        return 401, "no_key", "send the server's key as 'Authorization: Bearer KEY'"

    async def _read(
        self, scope: Any, receive: Receive
    ) -> tuple[Receive, tuple[int, str, str] | None]:
        """Return what gives the body again, which has been read whole, or why it was not."""
        body, more = bytearray(), scope["method"] in ("POST", "PUT", "PATCH", "DELETE")
        most = self.bounds.body
        large = 413, "too_large", f"a request has at most {most:,} bytes; send fewer texts at once"
        try:
            async with asyncio.timeout(self.bounds.seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return receive, (499, "gone", "the client has gone")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        return receive, large
        except TimeoutError:
            return receive, (408, "too_slow", f"no whole request in {self.bounds.seconds:g} s")
        kind = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if body and kind != b"application/json":  # what another site can send from a form is none
            return receive, (415, "wrong_type", "send the body as Content-Type: application/json")
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again, None


def kind_and_place(error: Exception) -> str:
    """Return what a log holds of an error: not what it says, which may be a user's text.

    The system's own words are none: that a disk is full.
    """
    kind = type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        kind = f"{kind}: {os.strerror(error.errno)}"
    return f"{kind}\n{''.join(traceback.format_tb(error.__traceback__))}"


def logged(error: FewfitError) -> str:
    """Return what a log holds of an error of the library's own.

    Of a file of the server's, all: no text is in it, and callers are not told where it is.
    """
    kind = type(error).__name__
    return f"{kind}: {printable(str(error))}" if isinstance(error, StoreError) else kind


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"error": {"code": code, "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
