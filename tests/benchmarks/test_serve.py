"""What the load proofs count and measure with."""

from __future__ import annotations

import asyncio

from benchmarks.serve.client import closed, open_loop, request
from tests.fake_server import FakeServer, Reply


def asked(n):
    return [request("/v1/embeddings", {"input": f"text {i}"}) for i in range(n)]


def test_closed_users_ask_each_request_once_and_note_each_status():
    def script(request, before):
        if request.text.endswith("3"):
            return Reply({"error": "busy"}, status=429, headers={"Retry-After": "1"})
        return Reply(request.honest.body, delay=0.02) if request.text.endswith("7") else None

    with FakeServer(script) as server:
        told = asyncio.run(
            closed(
                server.port,
                asked(50),
                users=4,
                check=lambda status, body: "no data" if b"data" not in body else None,
            )
        )
        assert sorted(r.text for r in server.requests) == sorted(f"text {i}" for i in range(50))
    assert told.counts() == {200: 45, 429: 5}
    assert told.retry_after == 5
    assert told.wrong == ["no data"] * 5
    assert told.percentile(99) >= 20 > told.percentile(50)
    assert told.per_second() == 45 / told.wall


def test_an_open_load_leaves_at_its_rate_and_a_lost_reply_is_none_of_any_status():
    def script(request, before):
        return Reply(request.honest.body, cut=3, delay=0.1 * request.text.endswith("9"))

    with FakeServer(script) as server:
        told = asyncio.run(open_loop(server.port, asked(30), rate=150, seconds=0.2))
    assert told.counts() == {0: 30}
    assert all(said.startswith("no reply: IncompleteReadError") for said in told.wrong)
    assert told.wall > 0.2  # the last left at 29/150 s, and took a tenth
