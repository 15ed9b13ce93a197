"""HTTP for every server dialect: JSON out, checked JSON in, retried, bounded in time and size.

Connections and replies are those of the standard library's ``http.client``. A query is one small
request, so the client's own work decides the throughput, and this costs a quarter of the processor
time of httpx2 (``benchmarks/http_throughput.py``), which cannot keep 64 connections busy at 20 ms
of latency. No redirect is followed, no cookie kept and nothing decompressed, which is what is
wanted here. Proxies named in the environment are not used.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, cast
from urllib.parse import urlsplit

from fewfit.errors import ModelError
from fewfit.models.remote.options import Limits
from fewfit.models.remote.verdict import RowError, Transient, read_reply

BODY_LIMIT = 16 * 2**20

_IDLE_SECONDS = 4.0  # servers commonly drop a quiet connection after 5


class Transport:
    """One server: its address, its idle connections, and how many requests it was sent.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``, without a key, a password or a query.
    key_env : str or None
        Name of the environment variable with the API key. It is read when a request is sent and
        kept nowhere.

    Attributes
    ----------
    requests, retries : int
        First attempts and further attempts so far.
    """

    def __init__(self, url: str, *, key_env: str | None, limits: Limits) -> None:
        split = urlsplit(url)
        assert split.hostname is not None
        self.limits = limits
        self.requests = 0
        self.retries = 0
        self.random = random.Random()
        self.lock = threading.Lock()
        self._root = split.path.rstrip("/")
        self._host = split.netloc
        self._address = (split.hostname, split.port)
        self._secure = ssl.create_default_context() if split.scheme == "https" else None
        self._key_env = key_env
        self._idle: deque[tuple[float, HTTPConnection]] = deque()
        weakref.finalize(self, _close, self._idle)

    def head(self, method: str, path: str, length: int) -> bytes:
        """Return a request up to its body: one write for both saves a switch of threads."""
        lines = [
            f"{method} {self._root}{path} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: fewfit",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            f"Content-Length: {length}",
        ]
        if self._key_env is not None:
            lines.append(f"Authorization: Bearer {self._key()}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def redacted(self, text: str) -> str:
        """`text` without the key, should a server have sent it back."""
        return text.replace(self._key(), "***") if self._key_env is not None else text

    def take(self) -> HTTPConnection:
        while self._idle:
            try:
                since, connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if time.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()
        host, port = self._address
        if self._secure is not None:
            return HTTPSConnection(host, port, context=self._secure)
        return HTTPConnection(host, port)

    def give_back(self, connection: HTTPConnection) -> None:
        self._idle.append((time.monotonic(), connection))

    def _key(self) -> str:
        assert self._key_env is not None
        key = os.environ.get(self._key_env, "").strip()
        if not key:
            raise ModelError(f"the environment variable {self._key_env}, for the API key, is empty")
        if not (key.isascii() and key.isprintable()):
            raise ModelError(f"the environment variable {self._key_env} does not hold an API key")
        return key


class Session:
    """Requests that stop together: those of one run over many prompts, to one or two servers."""

    def __init__(self, transport: Transport, *, beside: Session | None = None) -> None:
        self.transport = transport
        self._halted = threading.Event() if beside is None else beside._halted
        self._busy: set[HTTPConnection] = set() if beside is None else beside._busy

    def halt(self) -> None:
        """Let requests under way end, and start no further attempt."""
        self._halted.set()

    def abort(self) -> None:
        """Halt, and cut off requests under way."""
        self._halted.set()
        for connection in list(self._busy):
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def get(self, path: str) -> Any:
        """Return the JSON at `path`, which is relative to the address's root."""
        return self._ask("GET", path, b"")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON of the reply.

        Raises
        ------
        RowError
            If no attempt brought JSON with a status of success.
        ModelError
            If asking on makes no sense: key refused, quota used up, no such model or route,
            redirected elsewhere.
        """
        return self._ask("POST", path, json.dumps(body).encode("ascii"))

    def _ask(self, method: str, path: str, payload: bytes) -> Any:
        transport, limits = self.transport, self.transport.limits
        ends = time.monotonic() + limits.deadline
        with transport.lock:
            transport.requests += 1
        for attempt in itertools.count():
            left = ends - time.monotonic()
            try:
                return self._attempt(method, path, payload, min(limits.timeout, max(left, 0.001)))
            except Transient as error:
                wait = error.wait
                if wait is None:
                    longest = min(2**attempt, 8) * limits.backoff
                    wait = longest * transport.random.uniform(0.5, 1.0)
                hopeless = attempt >= limits.retries or time.monotonic() + wait >= ends
                if hopeless or self._halted.wait(wait):
                    tries = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
                    raise RowError(f"{error} ({tries})") from None
                with transport.lock:
                    transport.retries += 1
        raise AssertionError  # itertools.count does not end

    def _attempt(self, method: str, path: str, payload: bytes, seconds: float) -> Any:
        transport = self.transport
        request = transport.head(method, path, len(payload)) + payload
        connection = transport.take()
        self._busy.add(connection)
        ends = time.monotonic() + seconds
        keep = False
        try:
            if connection.sock is None:
                connection.timeout = seconds
                connection.connect()
            sock = cast(socket.socket, connection.sock)
            sock.settimeout(seconds)
            sock.sendall(request)
            reply = HTTPResponse(cast(socket.socket, _Timed(sock, ends)), method=method)
            reply.begin()
            data = _body(reply)
            keep = not reply.will_close
        except ssl.SSLCertVerificationError as error:
            raise ModelError(f"the server's certificate is not trusted: {error.reason}") from None
        except (OSError, HTTPException) as error:
            what = str(error) or type(error).__name__
            raise Transient(transport.redacted(f"no reply: {what}")) from None
        finally:
            self._busy.discard(connection)
            if keep and not self._halted.is_set():  # abort() may be cutting it off just now
                transport.give_back(connection)
            else:
                connection.close()
        return read_reply(reply, data, transport.redacted)


class _Timed(io.RawIOBase):
    """What HTTPResponse reads of a socket, until a moment, however slowly the bytes drip."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock = sock
        self._ends = ends

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply took too long")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def _close(idle: deque[tuple[float, HTTPConnection]]) -> None:
    while idle:
        idle.pop()[1].close()


def _body(reply: HTTPResponse) -> bytes:
    if reply.length is not None and reply.length > BODY_LIMIT:
        reply.will_close = True
        raise RowError(f"the reply has {reply.length} bytes, more than the {BODY_LIMIT} allowed")
    data = reply.read(BODY_LIMIT + 1)
    if len(data) > BODY_LIMIT:
        raise RowError(f"the reply has more than the {BODY_LIMIT} bytes allowed")
    if reply.length:
        raise HTTPException(f"the reply ended {reply.length} bytes early")
    if not reply.isclosed():
        reply.read()  # the end of a chunked body, so that the connection can be used again
    return data
