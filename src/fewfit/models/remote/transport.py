"""HTTP for every server dialect: JSON out, checked JSON in, retried, bounded in time and size.

The heads of replies are read by the standard library's ``http.client``, their bodies here, where
no framing makes more of them than is allowed. A query is one small request, so the client's own
work decides the throughput, and this costs a quarter of the processor time of httpx2
(``benchmarks/speed/http_throughput.py``), which cannot keep 64 connections busy at 20 ms of
latency. No redirect is followed, no cookie kept and nothing decompressed, which is what is wanted
here.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import ssl
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from fewfit.errors import ModelError
from fewfit.models.remote.connection import MARK, Connection, Doubled, connect
from fewfit.models.remote.options import Limits
from fewfit.models.remote.proxies import Proxy, proxy_for
from fewfit.models.remote.secrets import Redactor, is_plain_name
from fewfit.models.remote.verdict import Forbidden, RowError, Transient, read_reply, refused

BODY_LIMIT = 16 * 2**20

RETRIES_AT_FIRST, RETRIES_EARNED = 32, 0.5
"""Further attempts that a run may make on its own account, and what each answer adds to them."""

_IDLE_SECONDS = 4.0  # servers commonly drop a quiet connection after 5


class Transport:
    """One server: its address, its idle connections, and how many requests it was sent.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``, without a key, a password or a query.
    key_env : str or None
        Name of the environment variable with the API key. It is read when a request is sent; what
        masks it in messages lives as long as a run.
    key_header : str
        What stands before the key in the head of a request.
    headers : sequence of str
        Further lines of the head.

    Attributes
    ----------
    requests, retries : int
        First attempts and further attempts so far.
    """

    def __init__(
        self,
        url: str,
        *,
        key_env: str | None,
        limits: Limits,
        key_header: str = "Authorization: Bearer ",
        headers: Sequence[str] = (),
    ) -> None:
        split = urlsplit(url)
        assert split.hostname is not None
        self.limits = limits
        self.requests = 0
        self.retries = 0
        self.random = random.Random()
        self.lock = threading.Lock()
        self.repeats = False
        """Whether this server was found to give different prompts the same bytes."""
        self._scheme = split.scheme
        self._root = split.path.rstrip("/")
        self._netloc = split.netloc
        self._host = split.hostname
        self._port = split.port or (443 if split.scheme == "https" else 80)
        self._secure = ssl.create_default_context() if split.scheme == "https" else None
        self._key_env = key_env
        self._key_header = key_header
        self._headers = tuple(headers)
        self._idle: deque[Connection] = deque()
        weakref.finalize(self, _close, self._idle)

    def head(
        self, method: str, path: str, length: int, mark: str = MARK, proxy: Proxy | None = None
    ) -> bytes:
        """Return a request up to its body: one write for both saves a switch of threads."""
        proxy = proxy if self._secure is None else None  # else it was told when it connected
        target = "" if proxy is None else f"http://{self._netloc}"
        lines = [
            f"{method} {target}{self._root}{path} HTTP/1.1",
            f"Host: {self._netloc}",
            "User-Agent: fewfit",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            f"Content-Length: {length}",
            f"X-Request-Id: {mark}",
            *self._headers,
        ]
        if proxy is not None and proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        if self._key_env is not None:
            lines.append(self._key_header + self._key())
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    def secrets(self) -> list[str]:
        """Return what must not be said: the key, and what the proxy is told."""
        key = os.environ.get(self._key_env, "").strip() if self._key_env is not None else ""
        proxy = self._proxy()
        return [secret for secret in (key, *(proxy.secrets if proxy else ())) if secret]

    def take(self, seconds: float, *, fresh: bool = False) -> Connection:
        """Return an idle connection on which nothing has come unasked, or a new one."""
        while self._idle and not fresh:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if time.monotonic() - connection.since < _IDLE_SECONDS and connection.quiet():
                return connection
            connection.close()
        return connect((self._host, self._port), self._secure, self._proxy(), seconds)

    def give_back(self, connection: Connection) -> None:
        connection.since = time.monotonic()
        self._idle.append(connection)

    def _proxy(self) -> Proxy | None:
        return proxy_for(self._scheme, self._netloc)

    def _key(self) -> str:
        name = self._key_env
        assert name is not None
        key = os.environ.get(name, "").strip()
        shown = name if is_plain_name(name) else "that key_env= names"
        if not key:
            raise ModelError(
                f"the environment variable {shown}, for the API key, is empty or not set"
                + "; key_env= takes the name of a variable, not the key" * (shown != name)
            )
        if not (key.isascii() and key.isprintable()):
            raise ModelError(f"the environment variable {shown} does not hold an API key")
        return key


class _Run:
    """What the requests of one run share."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.halted = threading.Event()
        self.aborted = False
        self.heard = False
        self.busy: set[Connection] = set()
        self.spare = float(RETRIES_AT_FIRST)
        self.lock = threading.Lock()

    def earn(self) -> None:
        with self.lock:
            self.spare = min(self.spare + RETRIES_EARNED, 1e6)

    def spend(self) -> bool:
        with self.lock:
            if self.spare < 1:
                return False
            self.spare -= 1
            return True


class Session:
    """Requests that stop together: those of one run over many prompts, to one or two servers."""

    def __init__(
        self,
        transport: Transport,
        redactor: Redactor | None = None,
        *,
        beside: Session | None = None,
    ) -> None:
        self.transport = transport
        self._run = (
            _Run(redactor or Redactor(transport.secrets())) if beside is None else beside._run
        )

    @property
    def redactor(self) -> Redactor:
        """What masks the keys of this run."""
        return self._run.redactor

    def halt(self) -> None:
        """Let requests under way end, and start no further attempt."""
        self._run.halted.set()

    def abort(self) -> None:
        """Halt, and cut off requests under way."""
        self._run.aborted = True
        self._run.halted.set()
        for connection in list(self._run.busy):
            connection.cut()

    def get(self, path: str) -> Any:
        """Return the JSON at `path`, which is relative to the address's root."""
        return self._ask("GET", path, b"")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON and return the JSON of the reply, with the keys in use masked.

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
        transport, limits, run = self.transport, self.transport.limits, self._run
        ends = time.monotonic() + limits.deadline
        doubled: Doubled | None = None
        with transport.lock:
            transport.requests += 1
        for attempt in itertools.count():
            left = ends - time.monotonic()
            seconds = min(limits.timeout, max(left, 0.001))
            try:
                answer = self._attempt(method, path, payload, seconds, doubled)
                run.earn()
                run.heard = True
                return answer
            except Forbidden as error:
                if run.heard:  # of this prompt: others were answered with the same key
                    raise RowError(str(error)) from None
                raise ModelError(refused(str(error))) from None
            except Doubled as error:
                doubled, wait, worth, said = error, 0.0, attempt == 0, str(error)
            except Transient as error:
                doubled, wait, said = None, error.wait, str(error)
                if wait is None:
                    longest = min(2**attempt, 8) * limits.backoff
                    wait = longest * transport.random.uniform(0.5, 1.0)
                worth = attempt < limits.retries and time.monotonic() + wait < ends
                if worth and not error.paced and not run.spend():
                    worth = False
                    said += "; it is not tried again, since too many attempts of this run fail"
            if not worth or run.halted.wait(wait):
                tries = "1 attempt" if attempt == 0 else f"{attempt + 1} attempts"
                raise RowError(f"{said} ({tries})") from None
            with transport.lock:
                transport.retries += 1
        raise AssertionError  # itertools.count does not end

    def _attempt(
        self, method: str, path: str, payload: bytes, seconds: float, doubled: Doubled | None
    ) -> Any:
        transport, redactor = self.transport, self._run.redactor
        mark = MARK[:8] + str(uuid.uuid4())[8:]
        payload = payload.replace(MARK.encode(), mark.encode())
        ends = time.monotonic() + seconds
        connection: Connection | None = None
        keep = False
        try:
            connection = transport.take(seconds, fresh=doubled is not None)
            self._run.busy.add(connection)
            if self._run.aborted:
                raise ConnectionAbortedError("cut off")
            head = transport.head(method, path, len(payload), mark, connection.proxy)
            reply, data = connection.exchange(method, head + payload, ends, BODY_LIMIT)
            if 200 <= reply.status < 300:
                transport.repeats |= doubled is not None and doubled.same(data)
                connection.check(payload, data, reply, mark, repeats=transport.repeats)
            keep = connection.reusable
        except ssl.SSLCertVerificationError as error:
            raise ModelError(f"the server's certificate is not trusted: {error.reason}") from None
        except (OSError, HTTPException) as error:
            raise Transient(redactor(f"no reply: {str(error) or type(error).__name__}")) from None
        finally:
            if connection is not None:
                self._run.busy.discard(connection)
                if keep and not self._run.halted.is_set():  # abort() may be cutting it off now
                    transport.give_back(connection)
                else:
                    connection.close()
        return read_reply(reply, data, redactor)


def _close(idle: deque[Connection]) -> None:
    while idle:
        idle.pop().close()
