"""Replicas of one model behind one address: what docs/scale.md promises of a fleet."""

from __future__ import annotations

import json
import threading
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from fewfit import Template, load_model
from fewfit.errors import ModelError
from fewfit.observations import Status
from fewfit.store import StoredModel
from tests.fake_server import (
    TOKENS,
    FakeServer,
    Reply,
    Request,
    edited,
    hidden_state,
    log_probabilities,
)

WORDS = ["good", "bad"]
ASKED = ("/v1/completions", "/generate")
PROMPTS = [Template("{text} It was {mask}.").render({"text": f"mail {i}"}) for i in range(120)]


class Balancer:
    """A reverse proxy: requests in turn; 502 where a replica is gone, and on without it."""

    def __init__(self, *replicas: FakeServer) -> None:
        self.turn = 0
        self.refused = 0
        self.connections: set[Any] = set()
        self.whole: list[str] = []  # prompts with an answer
        lock = threading.Lock()
        alive = list(replicas)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    outer.connections.add(self.client_address)
                    outer.turn += 1
                    replica = alive[outer.turn % len(alive)]
                status, headers, data = 502, {}, b"<html>Bad Gateway</html>"
                upstream = HTTPConnection("127.0.0.1", replica.port, timeout=5)
                try:
                    upstream.request(self.command, self.path, body, dict(self.headers))
                    reply = upstream.getresponse()
                    status, headers, data = reply.status, dict(reply.headers), reply.read()
                except (OSError, HTTPException):
                    with lock:
                        outer.refused += 1
                        if replica in alive and len(alive) > 1:
                            alive.remove(replica)
                finally:
                    upstream.close()
                if status == 200 and self.path in ASKED:
                    asked = json.loads(body)
                    outer.whole.append(asked.get("prompt") or asked["text"])
                self.send_response(status)
                if "Retry-After" in headers:
                    self.send_header("Retry-After", headers["Retry-After"])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Balancer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()


def killed_after(n: int) -> tuple[threading.Event, Any]:
    """Script of a replica that dies: from the n-th prompt on, no reply is whole."""
    dead, lock, seen = threading.Event(), threading.Lock(), [0]

    def script(request: Request, before: int) -> Reply | None:
        with lock:
            seen[0] += request.path in ASKED
            if seen[0] > n:
                dead.set()
        return Reply(request.honest.body, cut=0) if dead.is_set() else None

    return dead, script


def paces(request: Request, before: int) -> Reply | None:
    """Script of a replica that is asked too much now and then."""
    if request.path in ASKED and before == 0 and request.text.split()[1].endswith("7"):
        return Reply({"error": "busy"}, status=429, headers={"Retry-After": "0"})
    return None


@pytest.mark.parametrize(
    ("spec", "hidden"),
    [("vllm:{}?model=toy", False), ("sglang:{}?", True)],
)
def test_a_replica_that_is_killed_midway_loses_nothing(spec, hidden, tmp_path):
    dead, dies = killed_after(25)
    with FakeServer(dies) as first, FakeServer(paces) as second, Balancer(first, second) as front:
        spec += "&connections=4&backoff=0.01&fingerprint=toy-on-two"
        model = load_model(spec.format(front.url))
        answers = StoredModel(model, tmp_path / "store").observe(PROMPTS, WORDS)
        assert dead.is_set()
        assert front.refused > 0
        # Nothing lost, and each row its own: what the toy model says of that very prompt.
        texts = [f"mail {i} It was" for i in range(len(PROMPTS))]
        columns = [TOKENS.index(f" {word}") for word in WORDS]
        assert (answers.status == Status.OK).all()
        golden = np.array([log_probabilities(text)[columns] for text in texts])
        np.testing.assert_allclose(answers.scores, golden)
        if hidden:
            np.testing.assert_array_equal(answers.hidden, [hidden_state(text) for text in texts])
        # A prompt is one query, however many attempts it took; whole replies are one a prompt.
        assert answers.queries == len(PROMPTS)
        assert model.retries >= front.refused
        assert sorted(front.whole) == sorted(texts)
        # The client kept its connections, whoever answered.
        assert len(front.connections) <= 8
        # The fleet is one model: at another address, by the same fingerprint, nothing is asked.
        asked = len(second.requests)
        alone = StoredModel(load_model(spec.format(second.url)), tmp_path / "store")
        again = alone.observe(PROMPTS, WORDS)
        np.testing.assert_array_equal(again.scores, answers.scores)
        assert (again.queries, len(second.requests)) == (0, asked)


def test_replicas_of_other_builds_need_the_users_word():
    def other(request: Request, before: int) -> Reply | None:
        if request.path not in ASKED:
            return None
        return edited(request.honest, "system_fingerprint", to="fp2")

    with FakeServer() as first, FakeServer(other) as second, Balancer(first, second) as front:
        spec = f"vllm:{front.url}?model=toy&connections=2"
        with pytest.raises(ModelError, match="add replicas=true"):
            load_model(spec).observe(PROMPTS[:8], WORDS)
        answers = load_model(f"{spec}&replicas=true").observe(PROMPTS[:8], WORDS)
        assert (answers.status == Status.OK).all()
