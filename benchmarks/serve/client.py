"""A client that asks as fast as it is told to, and says how long each reply took.

Bytes out, bytes in, on kept connections: what is measured is the server. Closed: so many users,
each asks when it has its reply. Open: requests leave at a rate, whatever has come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

IDLE_SECONDS = 3.0
"""After which a connection is not used again: servers commonly close it after five."""


@dataclass
class Told:
    """What came back.

    Attributes
    ----------
    seconds : dict of int to list of float
        Status -> how long each reply with it took, 0 for a request without one.
    wall : float
        Seconds from the first request to the last reply.
    retry_after : int
        Replies of status 429 that say when to come again.
    wrong : list of str
        What `check` had to say, or why there was no reply.
    """

    seconds: dict[int, list[float]] = field(default_factory=dict)
    wall: float = 0.0
    retry_after: int = 0
    wrong: list[str] = field(default_factory=list)

    def percentile(self, q: float, status: int = 200) -> float:
        """Return milliseconds; NaN where there was no such reply."""
        own = self.seconds.get(status, [])
        return 1000 * float(np.percentile(own, q)) if own else float("nan")

    def counts(self) -> dict[int, int]:
        """Return the number of replies of each status."""
        return dict(Counter({status: len(own) for status, own in self.seconds.items()}))

    def per_second(self, status: int = 200) -> float:
        """Return replies of a status in a second."""
        return len(self.seconds.get(status, [])) / self.wall


def request(path: str, body: Any, *, method: str = "POST", key: str | None = None) -> bytes:
    """Return the bytes of a request."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *([f"Authorization: Bearer {key}"] if key else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


Check = Callable[[int, bytes], str | None]
"""From a status and a body to what is wrong with them."""


class Connections:
    """Kept connections to a port; a request takes one that is idle, or a new one."""

    def __init__(self, port: int, told: Told, check: Check | None = None) -> None:
        self.port, self.told, self.check = port, told, check
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self, data: bytes) -> None:
        """Send a request and note what came back."""
        begun = time.perf_counter()
        writer = None
        try:
            reader, writer = await self._take()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            status = int(lines[0].split()[1])
            fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
        except (OSError, EOFError, ValueError) as error:
            self.told.seconds.setdefault(0, []).append(time.perf_counter() - begun)
            self.told.wrong.append(f"no reply: {type(error).__name__}: {error}")
            await _closed(writer)
            return
        self.told.seconds.setdefault(status, []).append(time.perf_counter() - begun)
        self.told.retry_after += status == 429 and "retry-after" in fields
        if fields.get("connection") == "close":
            await _closed(writer)
        else:
            self._idle.append((reader, writer, time.monotonic()))
        if self.check and (said := self.check(status, body)):
            self.told.wrong.append(said)

    async def close(self) -> None:
        """Close what is idle."""
        for _, writer, _ in self._idle:
            await _closed(writer)

    async def _take(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer, since = self._idle.pop()
            if time.monotonic() - since < IDLE_SECONDS:
                return reader, writer
            await _closed(writer)
        return await asyncio.open_connection("127.0.0.1", self.port)


async def _closed(writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def closed(
    port: int,
    requests: Iterable[bytes],
    *,
    users: int,
    seconds: float = float("inf"),
    check: Check | None = None,
) -> Told:
    """Ask with so many users until `requests` end or the time is over."""
    told = Told()
    connections = Connections(port, told, check)
    left: Iterator[bytes] = iter(requests)
    begun = time.perf_counter()

    async def user() -> None:
        for data in left:
            await connections.ask(data)
            if time.perf_counter() - begun > seconds:
                break

    await asyncio.gather(*(user() for _ in range(users)))
    told.wall = time.perf_counter() - begun
    await connections.close()
    return told


async def open_loop(port: int, requests: Iterable[bytes], *, rate: float, seconds: float) -> Told:
    """Send `rate` requests a second for some seconds, and wait for all replies."""
    told = Told()
    connections = Connections(port, told)
    left = iter(requests)
    begun = time.perf_counter()
    running: set[asyncio.Task[None]] = set()
    for i in range(int(rate * seconds)):
        ahead = begun + i / rate - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(connections.ask(next(left)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    told.wall = time.perf_counter() - begun
    await connections.close()
    return told
