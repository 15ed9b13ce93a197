"""What a browser may do here: headers of every answer, and who may write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

JSON, BYTES = "application/json", "application/octet-stream"
"""The types of a body that another site cannot send from a form."""

_CLOSE = {"Connection": "close"}  # or what is left of the body would be waited for
_READING = ("GET", "HEAD", "OPTIONS")


class PageRoute(APIRoute):
    """A route whose answers carry the headers, and which no other site can make write."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            check_origin(request)
            response = await handle(request)
            for name, value in HEADERS.items():
                response.headers[name] = value
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded


def check_origin(request: Request) -> None:
    """Refuse what another site makes a browser write here (HTTPException 403, 415)."""
    if request.method in _READING:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    same = origin is None or origin.partition("://")[2] == request.headers.get("host")
    if site not in (None, "same-origin", "none") or not same:
        raise HTTPException(403, "Only this page itself may change anything here")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, BYTES):
        raise HTTPException(415, f"Expected a body of type {JSON} or {BYTES}, got {kind!r:.60}")


async def read_body(request: Request, largest: int, seconds: float) -> bytes:
    """Return the body of a request that is neither too large nor too slow.

    Parameters
    ----------
    largest : int
        Bytes (HTTPException 413).
    seconds : float
        Until it is there (HTTPException 408).
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > largest:
                    said = f"The page takes files of at most {largest >> 20} MB"
                    raise HTTPException(413, said, _CLOSE)
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"The file did not come within {seconds:g} s", _CLOSE) from None
    return b"".join(parts)
