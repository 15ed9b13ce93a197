"""What is on the wire: framing, one reply for one request, proxies, and how much is spent."""

from __future__ import annotations

import base64
import resource
import ssl
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fewfit import Template, load_model
from fewfit.errors import ModelError, ModelWarning
from fewfit.models.remote import transport
from fewfit.models.remote.verdict import _retry_after
from fewfit.observations import Status
from tests.fake_server import TOKENS, FakeServer, Reply, log_probabilities
from tests.raw_server import Proxy, RawServer, completion, http, prompt_of

WORDS = ("good", "bad")
TEMPLATE = Template("{text} It was {mask}.")
TLS = Path(__file__).parent / "tls"
PASSWORD = "s3cret/Pass:word"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def prompts(*texts):
    return [TEMPLATE.render({"text": text}) for text in texts]


def model_of(server, options="retries=0&backoff=0.001&timeout=5&connections=1"):
    return load_model(f"openai:{server.url}?model=toy&top_k=200&{options}")


def observed(model, *texts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ModelWarning)
        answers = model.observe(prompts(*texts), WORDS)
    return answers, " ".join(str(warning.message) for warning in caught)


def right(*texts):
    """The toy model's scores of the words, (N, W)."""
    rows = [log_probabilities(f"{text} It was") for text in texts]
    spelled = [[TOKENS.index(" " + word), TOKENS.index(word)] for word in WORDS]
    return np.array([[np.logaddexp.reduce(row[ids]) for ids in spelled] for row in rows])


# --- framing ----------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def flood(start, part=b" " * 2**16):
    """Send without end; the client has to go away."""

    def script(number, request):
        yield start
        while True:
            yield part

    return script


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (CHUNKED + b"-1\r\n", b" " * 2**16),
        (CHUNKED + b"ffffffffffffffff\r\n", b" " * 2**16),
        (CHUNKED + b"7fffffff\r\n", b" " * 2**16),
        (CHUNKED + b"+10\r\n", b" " * 2**16),
        (CHUNKED + b"0x10\r\n", b" " * 2**16),
        (CHUNKED + b"1_0\r\n", b" " * 2**16),
        (CHUNKED, b"1\r\n \r\n" * 1000),
        (CHUNKED, b"10000\r\n" + b" " * 2**16 + b"\r\n"),
        (CHUNKED + b"1;", b"x" * 2**16),
        (CHUNKED + b"0\r\n", b"X-Trailer: 1\r\n" * 1000),
        (CHUNKED + b"0\r\nX: ", b"x" * 2**16),
        (HEAD + b"\r\n", b" " * 2**16),
        (HEAD + b"Content-Length: -1\r\n\r\n", b" " * 2**16),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", b" " * 2**16),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b" " * 2**16),
        (HEAD, b"X-Header: 1\r\n" * 1000),
        (HEAD + b"X: ", b"x" * 2**16),
        (b"HTTP/1.1 ", b"2" * 2**16),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 1000),
        (b"", b"\r\n" * 1000),
    ],
    ids=lambda value: repr(value[-20:]),
)
def test_no_framing_makes_more_of_a_reply_than_is_allowed(start, part, monkeypatch):
    monkeypatch.setattr(transport, "BODY_LIMIT", 2**20)
    with RawServer(flood(start, part)) as server:
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        answers, said = observed(model_of(server, "retries=0&timeout=30"), "x")
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert answers.status[0] == Status.FAILED
    assert "1 of 1" in said
    assert time.monotonic() - began < 15, "it is left before the timeout"
    assert grown < 64 * 2**10, "kilobytes"
    assert server.sent < 24 * 2**20


@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data),
        lambda data: (
            CHUNKED + b"".join(b"1;a=b\r\n%c\r\n" % c for c in data) + b"0\r\nX: y\r\n\r\n"
        ),
        lambda data: (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
            + HEAD
            + b"Content-Length: %d\r\n\r\n%s" % (len(data), data)
        ),
    ],
    ids=["one chunk", "a chunk a byte, with extensions and a trailer", "1xx before it"],
)
def test_framings_that_are_right_are_read_and_their_connection_is_kept(wrap):
    def script(number, request):
        data = http(completion(prompt_of(request))).partition(b"\r\n\r\n")[2]
        yield wrap(data)

    with RawServer(script) as server:
        answers, _ = observed(model_of(server), "a", "b", "c")
    assert_allclose(answers.scores, right("a", "b", "c"), rtol=1e-5)
    assert server.connections == 1


def test_a_body_until_the_connection_closes_is_read():
    def script(number, request):
        yield HEAD + b"\r\n" + http(completion(prompt_of(request))).partition(b"\r\n\r\n")[2]
        yield b""

    with RawServer(script) as server:
        answers, _ = observed(model_of(server), "a", "b")
    assert_allclose(answers.scores, right("a", "b"), rtol=1e-5)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_truncated_body_is_a_retry_and_every_request_is_counted(chunked):
    def script(number, request):
        whole = http(completion(prompt_of(request)))
        if chunked:
            data = whole.partition(b"\r\n\r\n")[2]
            whole = CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        yield whole[:-20] if number == 0 else whole
        if number == 0:
            yield b""

    with RawServer(script) as server:
        model = model_of(server, "retries=2&backoff=0.001&connections=1")
        answers, _ = observed(model, "a")
    assert_allclose(answers.scores, right("a"), rtol=1e-5)
    assert (model.requests, model.retries, len(server.requests)) == (1, 1, 2)


# --- one reply for one request ----------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.02])
@pytest.mark.parametrize("copies", [2, 5])
def test_a_doubled_reply_shifts_no_row(copies, pause):
    """The copy comes with the reply, or while the next request is under way."""
    texts = [f"text {i}" for i in range(30)]

    def script(number, request):
        whole = http(completion(prompt_of(request)))
        yield whole if pause else whole * (copies if number % 3 == 0 else 1)
        if pause and number % 3 == 0:
            time.sleep(pause)
            yield whole * (copies - 1)

    with RawServer(script) as server:
        answers, _ = observed(model_of(server, "retries=3&backoff=0.001&connections=2"), *texts)
    assert_allclose(answers.scores, right(*texts), rtol=1e-5)


@pytest.mark.parametrize("where", ["header", "id"])
def test_a_reply_with_another_requests_mark_is_not_believed(where):
    """Replies of the same connection, one request late, each of them different."""
    marks = []

    def script(number, request):
        name = b"X-Request-Id: "
        marks.append(next(line for line in request.split(b"\r\n") if line.startswith(name))[14:])
        late = number if number != 1 else 0  # the second is told the first's mark
        body, mark = completion(prompt_of(request)), marks[late].decode()
        if number == 1:
            body = completion("another prompt")
        if where == "id":
            yield http({**body, "id": f"cmpl-{mark}-0"})
        else:
            yield http(body, X_Request_Id=mark)

    with RawServer(script) as server:
        model = model_of(server, "retries=3&backoff=0.001&connections=1")
        answers, _ = observed(model, "a", "b", "c")
    assert_allclose(answers.scores, right("a", "b", "c"), rtol=1e-5)
    assert (model.retries, len(server.requests)) == (1, 4)
    assert len(set(marks)) == 4


def test_a_server_that_says_the_same_to_everybody_is_doubted_once():
    with RawServer(lambda number, request: [http(completion("x"))]) as server:
        model = model_of(server, "retries=0&connections=1")
        answers, _ = observed(model, *map(str, range(20)))
    assert (answers.status == Status.OK).all()
    assert (model.retries, len(server.requests)) == (1, 21)


# --- what a run may waste ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 200])
def test_a_server_that_is_broken_every_second_row_costs_no_more_than_is_said(status):
    texts = [f"{'BROKEN' if i % 2 else 'whole'} {i}" for i in range(400)]
    broken = Reply(raw=b"{", status=status)
    with FakeServer(lambda r, n: broken if "BROKEN" in r.text else None) as server:
        model = model_of(server, "retries=5&backoff=0.0001&connections=4")
        answers, said = observed(model, *texts)
        asked = len(server.requests)
    assert (answers.status == Status.FAILED).sum() == 200
    assert asked == 400 + model.retries
    doubted = 4  # the same bytes twice, at most once on each connection
    assert model.retries <= transport.RETRIES_AT_FIRST + transport.RETRIES_EARNED * 200 + doubted
    assert "not tried again" in said


def test_a_server_that_fails_now_and_then_loses_no_row():
    with FakeServer(lambda r, n: Reply({}, 503) if n == 0 and hash(r.text) % 3 == 0 else None) as s:
        answers, _ = observed(model_of(s, "retries=5&backoff=0.0001"), *map(str, range(300)))
    assert (answers.status == Status.OK).all()


def test_a_server_that_asks_for_patience_gets_it():
    """Being told to slow down is no failure: half of all attempts, and every row is answered."""
    busy = Reply({}, 429, {"Retry-After": "0"})
    with FakeServer(lambda request, before: busy if before < 2 else None) as server:
        model = model_of(server, "retries=5&backoff=0.0001")
        answers, _ = observed(model, *map(str, range(100)))
    assert (answers.status == Status.OK).all()
    assert model.retries == 200


@pytest.mark.parametrize("zone", ["Pacific/Honolulu", "Asia/Tokyo", "UTC"])
@pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_a_date_to_wait_for_is_one_of_greenwich(zone, form, monkeypatch):
    """HTTP has two forms of it, of which one names no zone."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        date = time.strftime(form, time.gmtime(time.time() + 20))
        reply = SimpleNamespace(getheader={"Retry-After": date}.get)
        assert 15 < _retry_after(reply) <= 20
    finally:
        monkeypatch.undo()
        time.tzset()


# --- proxies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "form", ["http://127.0.0.1:{}", "127.0.0.1:{}", "http://u:p@127.0.0.1:{}/"]
)
def test_http_goes_through_the_proxy_that_the_environment_names(name, form, monkeypatch):
    with FakeServer() as server, Proxy(server.port) as proxy:
        monkeypatch.setenv(name, form.format(proxy.port))
        model = load_model("openai:http://model.example/v1?model=toy&retries=0&top_k=200")
        answers, _ = observed(model, "a")
        assert_allclose(answers.scores, right("a"), rtol=1e-5)
        head = proxy.asked[0].decode()
    assert head.startswith("POST http://model.example/v1/completions HTTP/1.1\r\n")
    assert "Host: model.example\r\n" in head
    assert ("Proxy-Authorization: Basic dTpw" in head) == ("u:p" in form)


@pytest.mark.parametrize("value", ["127.0.0.1", "other, 127.0.0.1", "*", "127.0.0.1:{}"])
def test_no_proxy_is_asked_for_what_no_proxy_lists(value, monkeypatch):
    with FakeServer() as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        observed(model_of(server), "a")
        assert len(proxy.asked) == 1
        monkeypatch.setenv("NO_PROXY", value.format(server.port))
        observed(model_of(server), "a")
        assert len(proxy.asked) == 1


def test_https_is_tunnelled_and_the_proxy_sees_nothing_of_it(monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")
    key = "sk-thisIsTheSecretKey0123456789"
    pair = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    script = lambda number, request: [http(completion(prompt_of(request)))]  # noqa: E731
    with RawServer(script, context) as server, Proxy(server.port) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "cert.pem"))
        monkeypatch.setenv("MY_KEY", key)
        quoted = PASSWORD.replace("/", "%2F").replace(":", "%3A")
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{quoted}@127.0.0.1:{proxy.port}")
        spec = "openai:https://model.example:8443/v1?model=toy&retries=0&top_k=200&key_env=MY_KEY"
        answers, said = observed(load_model(spec), "a", "b")
        assert not said
        assert_allclose(answers.scores, right("a", "b"), rtol=1e-5)
        head = proxy.asked[0].decode()
        assert f"Authorization: Bearer {key}".encode() in server.requests[0]
    assert head.startswith("CONNECT model.example:8443 HTTP/1.1\r\n")
    assert f"Proxy-Authorization: Basic {pair}" in head
    assert key not in head
    assert pair.encode() not in server.requests[0]


@pytest.mark.parametrize(
    ("address", "refuses", "says"),
    [
        ("http://user:{}@127.0.0.1:{port}", 407, "wants a user and a password"),
        ("http://user:{}@127.0.0.1:{port}", 502, "lets nothing through"),
        ("http://user:{}@127.0.0.1:1", 0, "the proxy 127.0.0.1:1"),
        ("socks5://user:{}@127.0.0.1:{port}", 0, "HTTPS_PROXY is not http://host:port"),
        ("http://user:{}@127.0.0.1:notaport", 0, "HTTPS_PROXY is not http://host:port"),
    ],
)
def test_a_proxy_that_is_no_use_is_named_without_its_password(address, refuses, says, monkeypatch):
    with Proxy(1, refuses=refuses) as proxy:
        quoted = PASSWORD.replace("/", "%2F").replace(":", "%3A")
        monkeypatch.setenv("HTTPS_PROXY", address.format(quoted, port=proxy.port))
        model = load_model("openai:https://model.example/v1?model=toy&retries=0")
        try:
            _, said = observed(model, "a")
        except ModelError as error:
            said = str(error)
    assert says in said
    assert PASSWORD not in said
    assert quoted not in said
