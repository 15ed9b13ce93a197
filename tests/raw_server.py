"""Servers that speak HTTP by hand: bytes as a script says, and a proxy that keeps a diary."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable

from tests.fake_server import FakeServer

Script = Callable[[int, bytes], Iterable[bytes]]
"""From the number of a request and the request to what is sent; an empty part closes."""


def http(body: object, **headers: str) -> bytes:
    """A right reply, by hand."""
    data = json.dumps(body).encode()
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return f"{head}{more}\r\n".encode() + data


def completion(text: str) -> dict:
    """What the toy model of :class:`FakeServer` says to a prompt, in the dialect openai."""
    return FakeServer._v1_completions(_toy(), {"prompt": text, "logprobs": 200})


def prompt_of(request: bytes) -> str:
    return json.loads(request.partition(b"\r\n\r\n")[2])["prompt"]


def _toy() -> FakeServer:
    server = FakeServer.__new__(FakeServer)
    server.model = "toy"
    return server


class RawServer:
    """Use as a context manager; `requests` holds what came, `sent` how many bytes went out."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self.sent = 0
        self.lock = threading.Lock()
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        self.connections += 1
        try:
            with (
                sock
                if self.context is None
                else self.context.wrap_socket(sock, server_side=True) as stream
            ):
                while (request := read_request(stream)) is not None:
                    with self.lock:
                        number = len(self.requests)
                        self.requests.append(request)
                    for part in self.script(number, request):
                        if not part:
                            return
                        stream.sendall(part)
                        self.sent += len(part)
        except OSError:
            return


def read_request(sock: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        part = sock.recv(65536)
        if not part:
            return None
        body += part
    return head + b"\r\n\r\n" + body


class Proxy:
    """Forwards everything to one port, whatever it is asked for, and writes down what it was."""

    def __init__(self, target: int, *, refuses: int = 0) -> None:
        self.asked: list[bytes] = []
        self._target, self._refuses = target, refuses
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._sock.getsockname()[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._forward(sock)
            except OSError:
                return

    def _forward(self, sock: socket.socket) -> None:
        request = read_request(sock)
        if request is None:
            return
        self.asked.append(request.partition(b"\r\n\r\n")[0])
        if self._refuses:
            sock.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % self._refuses)
            return
        with socket.create_connection(("127.0.0.1", self._target)) as other:
            if request.startswith(b"CONNECT"):
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # an origin server wants the path alone
                first, rest = request.split(b"\r\n", 1)
                method, target, version = first.split(b" ")
                path = b"/" + target.split(b"/", 3)[3]
                once = b"\r\nConnection: close\r\n"  # the next request is rewritten too
                other.sendall(b" ".join([method, path, version]) + once + rest)
            _pump(sock, other)


def _pump(one: socket.socket, other: socket.socket) -> None:
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        ready, _, _ = select.select([one, other], [], [], 0.2)
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
