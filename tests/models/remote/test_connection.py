"""Faults of a whole server, and the forms of its address."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from fewfit import load_model
from fewfit.errors import (
    InputError,
    ModelError,
    ModelWarning,
)
from fewfit.models.remote.guard import GIVE_UP
from fewfit.observations import Status
from fewfit.store import StoredModel
from tests.fake_server import (
    FakeServer,
    Reply,
)
from tests.models.remote.test_base import QUICK, WORDS, prompts
from tests.models.remote.test_secrets import KEY


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("openai:http://127.0.0.1:{free}", "refused"),
        ("openai:http://no-such-host.invalid", "no reply"),
        ("openai:https://127.0.0.1:{plain}", "no reply"),
    ],
    ids=["A3: connection refused", "A3: unknown host", "A3: TLS to a server without"],
)
def test_a_server_that_is_not_there(url, says):
    with FakeServer() as server:
        url = url.format(free=free_port(), plain=server.port)
        model = load_model(f"{url}?model=toy&retries=1&{QUICK}")
        with pytest.warns(ModelWarning, match=says):
            answers = model.observe(prompts("one", "two"), WORDS)
        assert (answers.status == Status.FAILED).all()
        if "refused" in says:
            with pytest.raises(ModelError, match="in a row"):
                model.observe(prompts(*map(str, range(60))), WORDS)


ASKS = """
import contextlib, gc, sys
from fewfit import load_model
from fewfit.errors import ModelError
from tests.models.remote.test_base import WORDS, prompts

gc.disable()
with contextlib.suppress(ModelError):
    load_model(sys.argv[1]).observe(prompts(*map(str, range(30))), WORDS)
gc.collect()
"""


def test_nothing_fails_when_replies_are_collected():
    """What does is printed from Python 3.13 on, and before in the development mode."""
    with FakeServer(lambda *_: Reply({"choices": "none"})) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", ASKS, f"openai:{server.url}?model=toy&{QUICK}"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert "Exception ignored" not in done.stderr


def test_a_server_that_dies_stops_the_run_soon_and_keeps_what_it_said(tmp_path):
    asked = []

    def dying(request, before):
        asked.append(request.text)
        return Reply({}, 500) if len(asked) > 20 else None

    texts = [f"number {i}" for i in range(200)]
    with FakeServer(dying) as server:
        model = StoredModel(
            load_model(f"openai:{server.url}?model=toy&retries=0&connections=1&backoff=0"),
            tmp_path / "s.sqlite",
        )
        with pytest.raises(ModelError, match="in a row"):
            model.observe(prompts(*texts), WORDS)
        assert len(asked) == 20 + GIVE_UP
        time.sleep(0.2)
        died = len(asked)
        assert died == len(server.queries())
        asked.clear()
        server.script = None
        answers = model.observe(prompts(*texts), WORDS)
        again = server.queries()[died:]
    assert answers.queries == 180
    assert len(again) == 180


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{}",
        "http://127.0.0.1:{}/",
        "http://localhost:{}/v1",
        "http://127.0.0.1:{}/v1/",
    ],
)
def test_a13_forms_of_the_address(url):
    with FakeServer() as server:
        model = load_model(f"openai:{url.format(server.port)}?model=toy&{QUICK}")
        assert model.observe(prompts("x"), WORDS).queries == 1
        assert server.requests[0].path == "/v1/completions"


def test_a13_a_path_before_the_api_is_kept():
    with FakeServer() as server:
        model = load_model(f"openai:{server.url}/team/a/v1?model=toy&{QUICK}")
        with pytest.raises(ModelError, match="404"):
            model.observe(prompts("x"), WORDS)
        assert server.requests[0].path == "/team/a/v1/completions"


@pytest.mark.parametrize(
    "rest",
    [
        "unix:/tmp/socket",
        "ftp://host/",
        "http://",
        "http://host:notaport",
        "http://host#part",
        "localhost:8000",
        "http://[::1",
        "http://host/a b",
        "http://host/\r\nX: y",
    ],
)
def test_a13_addresses_that_are_none(rest):
    with pytest.raises(InputError, match="openai"):
        load_model(f"openai:{rest}?model=m")


def test_a13_ipv6():
    model = load_model("openai:http://[::1]:9/v1?model=m")
    assert model.spec == "openai:http://[::1]:9?model=m"


def test_a13_the_key_does_not_follow_a_redirect(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FakeServer() as other:
        target = f"{other.url}/v1/completions"
        with FakeServer(lambda request, n: Reply({}, 307, {"Location": target})) as server:
            model = load_model(f"openai:{server.url}?model=toy&key_env=MY_KEY&{QUICK}")
            with pytest.raises(ModelError, match="redirects"):
                model.observe(prompts("x"), WORDS)
        assert not other.requests


def test_a15_work_done_and_reply_lost_is_asked_twice_and_counted():
    with FakeServer(
        lambda request, n: replace(request.honest, cut=0) if n == 0 else None
    ) as server:
        model = load_model(f"openai:{server.url}?model=toy&{QUICK}")
        answers = model.observe(prompts("x"), WORDS)
        assert len(server.queries()) == 2
    assert (answers.queries, model.retries) == (1, 1)
