"""One connection: a request goes out, one reply comes in, and nothing else is believed."""

from __future__ import annotations

import io
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from fewfit.errors import ModelError
from fewfit.models.remote.proxies import Proxy
from fewfit.models.remote.verdict import RowError

_OURS = "fe3ff172"
MARK = f"{_OURS}-0000-4000-8000-000000000000"
"""Stands in a request for what names it: in ``X-Request-Id``, and where a dialect puts it.

A UUID, since some servers refuse any other; its first part is ours.
"""

HEAD_LIMIT = 2**18
"""Bytes of a reply before its body, replies of status 1xx included."""

_MARKED = re.compile(rb"%s-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}" % _OURS.encode())
_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(;.*)?")
_LINE_LIMIT = 4096
_TRAILERS = 100


class Doubled(Exception):
    """A reply that seems to be another request's: the same bytes, or another request's mark."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the reply is that to another request")
        self._said = hash(data)

    def same(self, data: bytes) -> bool:
        """Whether `data` is the reply that was doubted."""
        return hash(data) == self._said


class Connection:
    """A socket, and what was last said on it.

    Attributes
    ----------
    proxy : Proxy or None
        What it goes through.
    since : float
        When it became idle.
    reusable : bool
        Whether the last reply ended as it should, with nothing after it.
    """

    def __init__(self, sock: socket.socket, proxy: Proxy | None) -> None:
        self.sock = sock
        self.proxy = proxy
        self.since = 0.0
        self.reusable = False
        self._last: tuple[int, int] | None = None

    def quiet(self) -> bool:
        """Whether nothing has come since the last reply, its end included."""
        try:
            if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
                return False
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(self.sock, select.POLLIN)
                return not poll.poll(0)
            return not select.select([self.sock], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def exchange(
        self, method: str, request: bytes, ends: float, limit: int
    ) -> tuple[HTTPResponse, bytes]:
        """Send a request, and return the reply and its body.

        Parameters
        ----------
        ends : float
            The moment, as ``time.monotonic`` has it, at which the last byte is there.
        limit : int
            Bytes that a body may have.

        Raises
        ------
        RowError
            If the reply is longer than it may be.
        OSError, HTTPException
            If there is no whole reply.
        """
        self.reusable = False
        self.sock.settimeout(max(ends - time.monotonic(), 0.001))
        self.sock.sendall(request)
        timed = _Timed(self.sock, ends)
        reply = _head(timed, method)
        lengths = set(reply.headers.get_all("Content-Length", []))
        if len(lengths) > 1 or (lengths and not reply.chunked and reply.length is None):
            raise HTTPException("the reply says no usable Content-Length")
        # Chunks take a few bytes each.
        timed.left = limit + HEAD_LIMIT if not reply.chunked else 2 * limit + HEAD_LIMIT
        data = _body(reply, timed.stream, limit)
        both = reply.chunked and bool(lengths)
        self.reusable = not (reply.will_close or both or timed.more())
        return reply, data

    def check(
        self, payload: bytes, data: bytes, reply: HTTPResponse, mark: str, *, repeats: bool
    ) -> None:
        """Refuse a reply that belongs to another request (Doubled).

        Servers that repeat the mark of a request, in a header or in the reply, tell it; of others,
        the bytes of the reply before. `repeats` is whether the server was found to say the same
        to different requests.
        """
        echoed = reply.getheader("X-Request-Id", "").encode("ascii", "replace")
        marks = set(_MARKED.findall(echoed)) | (
            set(_MARKED.findall(data)) if _OURS.encode() in data else set()
        )
        before, self._last = self._last, (hash(payload), hash(data))
        again = before is not None and before[1] == self._last[1] and before[0] != self._last[0]
        if (marks and mark.encode() not in marks) or (again and not repeats):
            self.reusable = False
            raise Doubled(data)

    def cut(self) -> None:
        """End what is under way, from another thread."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        self.sock.close()


def connect(
    address: tuple[str, int], secure: ssl.SSLContext | None, proxy: Proxy | None, seconds: float
) -> Connection:
    """Open a connection, through a proxy if there is one.

    Raises
    ------
    ModelError
        If the name of the server can be none, or the proxy wants a password.
    OSError, HTTPException
        If there is no connection.
    """
    ends = time.monotonic() + seconds
    where = address if proxy is None else (proxy.host, proxy.port)
    try:
        sock = socket.create_connection(where, seconds)
    except UnicodeError:
        raise ModelError(f"{where[0][:60]!r} cannot be the name of a server") from None
    except OSError as error:
        if proxy is None:
            raise
        raise OSError(f"{proxy}: {error}") from None
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if secure is not None:
            if proxy is not None:
                _tunnel(sock, address, proxy, ends)
            sock.settimeout(max(ends - time.monotonic(), 0.001))
            sock = secure.wrap_socket(sock, server_hostname=address[0])
    except BaseException:
        sock.close()
        raise
    return Connection(sock, proxy)


def _tunnel(sock: socket.socket, address: tuple[str, int], proxy: Proxy, ends: float) -> None:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    lines = [f"CONNECT {host}:{address[1]} HTTP/1.1", f"Host: {host}:{address[1]}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    sock.settimeout(max(ends - time.monotonic(), 0.001))
    sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
    timed = _Timed(sock, ends)
    reply = _head(timed, "CONNECT")
    if reply.status == 407:
        raise ModelError(
            f"{proxy} wants a user and a password (HTTP 407): write them into the environment's "
            "proxy, http://user:password@host:port, or list the server in NO_PROXY"
        )
    if not 200 <= reply.status < 300 or timed.more():
        raise HTTPException(f"{proxy} lets nothing through (HTTP {reply.status})")


class _Timed(io.RawIOBase):
    """What is read of a socket: until a moment, however slowly the bytes drip, and only so many."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock = sock
        self._ends = ends
        self.left = HEAD_LIMIT
        self.stream: io.BufferedReader = io.BufferedReader(self)
        self._over = False

    def makefile(self, mode: str) -> Any:
        return self.stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._over:
            return 0
        seconds = self._ends - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the reply took too long")
        self._sock.settimeout(seconds)
        n = self._sock.recv_into(buffer)
        self.left -= n
        if self.left < 0:
            raise RowError("the reply is longer than it may be, head and framing included")
        return n

    def more(self) -> bool:
        """End reading; return whether something that was read already was not used."""
        self._over = True
        return bool(self.stream.peek(1))


def _head(timed: _Timed, method: str) -> HTTPResponse:
    """Read up to the body, past any number of replies of status 1xx that the head may hold."""
    while True:
        reply = HTTPResponse(cast(socket.socket, timed), method=method)
        try:
            reply.begin()
        finally:  # or it would close it, now or when it is collected, which then may fail
            reply.fp = None  # pyright: ignore[reportAttributeAccessIssue]
        if not 100 <= reply.status < 200:
            return reply


def _body(reply: HTTPResponse, stream: io.BufferedReader, limit: int) -> bytes:
    too_long = f"more than the {limit} bytes allowed"
    if reply.chunked:
        parts: list[bytes] = []
        total = 0
        for part in _chunks(stream):
            total += len(part)
            if total > limit:
                raise RowError(f"the reply has {too_long}")
            parts.append(part)
        return b"".join(parts)
    if reply.length is None:
        data = stream.read(limit + 1)
        if len(data) > limit:
            raise RowError(f"the reply has {too_long}")
        return data
    if reply.length > limit:
        raise RowError(f"the reply has {reply.length} bytes, {too_long}")
    return _exactly(stream, reply.length)


def _chunks(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yield the parts of a chunked body, at most 64 KiB at once."""
    while True:
        match = _SIZE.fullmatch(_line(stream))
        if match is None:
            raise HTTPException("the reply's chunks have no usable size")
        size = int(match[1], 16)
        if size == 0:
            break
        while size:
            part = _exactly(stream, min(size, 2**16))
            size -= len(part)
            yield part
        if _line(stream):
            raise HTTPException("a chunk of the reply is longer than it says")
    for _ in range(_TRAILERS):
        if not _line(stream):
            return
    raise HTTPException(f"the reply has more than {_TRAILERS} trailers")


def _line(stream: io.BufferedReader) -> bytes:
    line = stream.readline(_LINE_LIMIT + 1)
    if not line.endswith(b"\n"):
        raise HTTPException("the reply ended early, or has an endless line")
    return line.rstrip(b"\r\n")


def _exactly(stream: io.BufferedReader, n: int) -> bytes:
    data = stream.read(n)
    if len(data) < n:
        raise HTTPException(f"the reply ended {n - len(data)} bytes early")
    return data
