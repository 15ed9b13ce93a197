"""A server that runs: who may ask, health, counts, reloads under load, clients that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import shutil
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from prometheus_client.parser import text_string_to_metric_families

import fewfit.serve.guard as guard
from fewfit import FewShotClassifier, ZeroShot
from fewfit.errors import InputError, ModelError
from fewfit.models import FakeModel
from fewfit.serve.app import create_app
from fewfit.serve.batching import Limits
from fewfit.serve.guard import LOCAL, Bounds
from fewfit.serve.tasks import Tasks
from tests.cli.helpers import run
from tests.serve.helpers import KEY, WORDS, fitted, running, serving, slow
from tests.warm import Program


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fitted(tmp_path, "mood")
    return tmp_path


def test_the_key_is_asked_for_everywhere_but_for_the_health_and_the_empty_page(folder, monkeypatch):
    compared = []
    compare = guard.hmac.compare_digest
    monkeypatch.setattr(
        guard.hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b)
    )
    with serving(Tasks([folder]), api_key=KEY) as site:
        for path in ("/v1/tasks", "/metrics", "/openapi.json", "/page/x", "/page/tasks", "/v1/x"):
            for given in ({}, {"X_API_Key": KEY[:-1]}, {"Authorization": "Bearer \xe9"}):
                reply = site.ask("GET", path, **given)
                assert reply.status == 401, path
                assert reply.headers["www-authenticate"].startswith("Bearer")
        assert len(compared) == 18, "in constant time"
        for given in ({"X_API_Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert site.ask("GET", "/v1/tasks", **given).status == 200
        assert site.ask("GET", "/health/live").status == 200
        body = {"texts": ["a"], "tasks": ["mood"]}
        assert site.ask("POST", "/v1/predict", body).status == 401
        assert site.ask("POST", "/v1/predict", body, X_API_Key=KEY).status == 200


def test_a_local_server_answers_under_its_own_name_alone_and_no_other_site(folder):
    with serving(Tasks([folder]), hosts=LOCAL) as site:
        for host, status in (
            ("localhost", 200),
            ("LocalHost:80", 200),
            ("127.0.0.1:80", 200),
            ("evil.example", 421),
            ("127.0.0.1.evil.example", 421),
        ):
            assert site.ask("GET", "/v1/tasks", Host=host).status == status
        body = b'{"texts": ["a"], "tasks": ["mood"]}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "text/json"):
            assert site.ask("POST", "/v1/predict", body, Content_Type=kind).status == 415
        kind = "application/json; charset=utf-8"
        assert site.ask("POST", "/v1/predict", body, Content_Type=kind).status == 200
        reply = site.ask("GET", "/v1/tasks", Origin="https://evil.example")
        assert "access-control-allow-origin" not in reply.headers
        assert site.ask("OPTIONS", "/v1/predict", Origin="https://evil.example").status == 405


def test_ready_says_whether_the_model_answers(folder, monkeypatch):
    down = True
    answers = FakeModel.stream

    def stream(self, prompts, words):
        if down:
            raise ModelError("connection refused")
        yield from answers(self, prompts, words)

    monkeypatch.setattr(FakeModel, "stream", stream)
    monkeypatch.setattr("fewfit.serve.api._SELDOM", 0.0)
    with serving(Tasks([folder])) as site:
        ready = site.ask("GET", "/health/ready")
        assert (ready.status, ready.body["failing"]) == (503, {"fake": "ModelError"})
        reply = site.predict(["a"], "mood")
        assert (reply.status, reply.body["error"]["code"]) == (503, "model")
        assert site.ask("GET", "/health/live").status == 200
        with serving(Tasks([folder]), api_key=KEY) as guarded:
            told = guarded.ask("GET", "/health/ready").body["failing"]
            assert told == {"fake": "ModelError"}, "no address without the key"
        down = False
        assert site.ask("GET", "/health/ready").status == 200
        assert site.predict(["a"], "mood").status == 200


@pytest.fixture
def refusing(monkeypatch):
    """What a text holds that the model gives no answer to, each for a reason that repeats it."""
    refused = ["secret"]
    answers = FakeModel.stream

    def stream(self, prompts, words):
        for where, seen in answers(self, prompts, words):
            lost = np.array([refused[0] in prompts[i].user_text for i in where])
            yield where, seen.failing(lost, f"refused: {prompts[where[0]].user_text}")

    monkeypatch.setattr(FakeModel, "stream", stream)
    monkeypatch.setattr("fewfit.serve.api._SELDOM", 0.0)
    return refused


def test_a_text_that_the_model_refuses_does_not_make_the_server_unready(folder, refusing):
    with serving(Tasks([folder])) as site:
        for _ in range(3):
            [row] = site.predict(["a secret text"], "mood").body["results"]["mood"]
            assert (row["status"], row["reason"]) == ("failed", "refused: a secret text")
            ready = site.ask("GET", "/health/ready")
            assert (ready.status, ready.body["failing"]) == (200, {})


def test_a_model_that_answers_no_text_makes_the_server_unready_until_it_does(folder, refusing):
    refusing[0] = ""  # as a server that is down answers the few rows of a small batch
    with serving(Tasks([folder])) as site:
        for _ in range(2):
            site.predict(["a secret text"], "mood")
            ready = site.ask("GET", "/health/ready")
            assert (ready.status, ready.body["failing"]) == (503, {"fake": "no usable answer"})
        refusing[0] = "secret"
        assert site.ask("GET", "/health/ready").status == 200


def test_a_client_of_language_models_is_told_that_the_model_gave_no_answer(folder, refusing):
    question = {"q": {"type": "choice", "criteria": {"no": None, "yes": None}}}
    with serving(Tasks([folder])) as site:
        for text, status in (("a secret text", 503), ("good", 200)):
            body = {"model": "mood", "state": text, "questions": question}
            reply = site.ask("POST", "/v1/systemone", body)
            assert reply.status == status
            assert status == 200 or reply.body["error"]["code"] == "model"
        told = site.ask("GET", "/metrics").body
    assert 'fewfit_texts_total{task="mood"} 2.0' in told
    assert 'fewfit_texts_failed_total{task="mood"} 1.0' in told


def test_counts_are_those_of_what_was_asked(folder):
    with serving(Tasks([folder])) as site:
        for texts in (["a"], ["b", "c"]):
            site.predict(texts, "mood")
        site.ask("GET", "/no/such/path")
        told = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(site.ask("GET", "/metrics").body)
            for sample in family.samples
        }
    assert told["fewfit_texts_total", "mood"] == told["fewfit_queries_total",] == 3
    assert told["fewfit_requests_total", "/v1/predict", "200"] == 2
    assert told["fewfit_requests_total", "other", "404"] == 1
    assert told["fewfit_request_seconds_count", "/v1/predict"] == 2
    assert told["fewfit_tasks",] == 1
    assert told["fewfit_prompts_waiting",] == 0


def test_a_client_of_language_models_gets_the_probabilities_of_the_classifier(folder):
    texts = ["good taste", "bad fun", 'fine {braces} and "quotes"', ""]
    known = FewShotClassifier.load(folder / "mood", store=None)
    with serving(Tasks([folder]), api_key=KEY) as site:
        for labels in ({"no": "bad", "yes": "good"}, {"no": "no", "yes": "yes"}):
            options = {"template": "{text}{mask}", "calibration": "none", "store": None}
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("OPENAI_API_KEY", KEY)
                client = FewShotClassifier(
                    f"systemone:{site.url}?model=mood&key_env=OPENAI_API_KEY",
                    labels=labels,
                    decoder=ZeroShot(),
                    **options,
                ).fit([], [])
                p = client.predict_proba(texts)
            np.testing.assert_allclose(p, known.predict_proba(texts), atol=1e-6)
        question = {"type": "choice", "criteria": {"no": None, "yes": None}}
        body = {"model": "mood", "state": "good", "questions": {"q": question, "r": question}}
        reply = site.ask("POST", "/v1/systemone", body, X_API_Key=KEY).body
        assert reply["answers"]["q"] == reply["answers"]["r"]
        assert reply["answers"]["q"]["choice"] == known.predict(["good"])[0]
        assert reply["usage"]["input_tokens"] > 0
        for change, status in (
            ({"model": "nobody"}, 404),
            ({"questions": {}}, 422),
            ({"questions": {"q": {"type": "score", "criteria": WORDS}}}, 422),
            ({"questions": {"q": {"criteria": {"no": None, "maybe": None}}}}, 422),
        ):
            asked = site.ask("POST", "/v1/systemone", {**body, **change}, X_API_Key=KEY)
            assert asked.status == status, change


def test_reloads_under_load_drop_nothing(folder, tmp_path):
    """Clients ask all the time; the task changes and comes and goes; no answer is another's."""
    fitted(tmp_path, "other", shift=50)
    (tmp_path / "out").mkdir()
    known = [FewShotClassifier.load(folder / "mood", store=None)]
    known.append(fitted(tmp_path / "out", "mood", shift=7))
    expected = [one.predict_proba(["a text"])[0] for one in known]
    assert abs(expected[0] - expected[1]).max() > 1e-3
    wrong: list[object] = []
    n, over = [0, 0], threading.Event()

    def ask(site):
        while not over.is_set():
            reply = site.predict(["a text"], "mood")
            p = list(reply.body["results"]["mood"][0]["probabilities"].values())
            which = [np.allclose(p, one, atol=1e-6) for one in expected]
            if reply.status != 200 or not any(which):
                wrong.append(reply)
                return
            n[which.index(True)] += 1

    with serving(Tasks([folder])) as site:
        threads = [threading.Thread(target=ask, args=(site,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for i in range(6):
            fitted(folder, "mood", shift=(7, 0)[i % 2])
            shutil.rmtree(folder / "other", ignore_errors=True)
            if i % 2:
                fitted(tmp_path, "other", shift=i)
            assert site.ask("POST", "/v1/reload").status == 200
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert min(n) > 0


def test_a_full_server_says_when_to_come_again(folder):
    tasks = Tasks([folder])
    slow(tasks, 0.25)
    replies = []
    with serving(tasks, limits=Limits(batch=1, waiting=2)) as site:
        threads = [
            threading.Thread(target=lambda k=k: replies.append(site.predict([f"{k}"], "mood")))
            for k in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        late = site.predict(["late"], "mood", deadline=0.1)
        assert (late.status, late.body["error"]["code"]) == (504, "late")
    assert {reply.status for reply in replies} == {200, 429}
    for reply in replies:
        assert reply.status == 200 or int(reply.headers["retry-after"]) >= 1


def test_what_a_client_asked_that_has_gone_is_never_asked(folder):
    tasks = Tasks([folder])
    model = slow(tasks, 1.0)
    body = json.dumps({"texts": ["gone"], "tasks": ["mood"]}).encode()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with serving(tasks, limits=Limits(batch=1)) as site:
        first = threading.Thread(target=site.predict, args=(["first"], "mood"))
        first.start()
        time.sleep(0.05)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", site.port)) as gone:
                gone.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                time.sleep(0.02)
        first.join()
        model.seconds = 0
        assert site.predict(["last"], "mood").status == 200
    assert model.queries == 2


def test_clients_that_are_slow_or_lie_or_hurry(folder):
    body = json.dumps({"texts": ["a"], "tasks": ["mood"]}).encode()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with serving(Tasks([folder]), bounds=Bounds(seconds=0.2, body=10_000)) as site:

        def send(data, end=False):
            with socket.create_connection(("127.0.0.1", site.port), timeout=5) as raw:
                raw.sendall(data)
                if end:
                    raw.shutdown(socket.SHUT_WR)
                said = b""
                while part := raw.recv(65536):
                    said += part
            return said

        asked = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        last = asked.replace(b"Host: x", b"Host: x\r\nConnection: close")
        assert send(head + b"Content-Length: 999\r\n\r\n" + body).startswith(b"HTTP/1.1 408")
        send(head + b"Content-Length: 999\r\n\r\n" + body, end=True)  # nobody is there any more
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        assert send(chunked + chunk).startswith(b"HTTP/1.1 413")
        assert send(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
        both = send(asked + last)
        assert both.count(b"HTTP/1.1 200") == both.count(b'"label"') == 2, "one after the other"
        assert site.predict(["a"], "mood").status == 200


def test_a_body_in_many_pieces_is_not_copied_for_each(folder):
    app = create_app(Tasks([folder]), bounds=Bounds(seconds=5))
    pieces, sent = 1 << 16, []  # of 127 bytes; copied for each they took a minute

    async def receive():
        nonlocal pieces
        await asyncio.sleep(0)
        pieces -= 1
        return {"type": "http.request", "body": b"x" * 127, "more_body": pieces > 0}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}
    asyncio.run(app(scope | {"query_string": b""}, receive, send))
    assert sent[0]["status"] == 422


def test_no_text_is_logged_whatever_happens(folder, monkeypatch, caplog, capfd):
    def stream(self, prompts, words):
        raise RuntimeError(f"cannot read {prompts[0].user_text}")
        yield

    monkeypatch.setattr(FakeModel, "stream", stream)
    caplog.set_level(logging.DEBUG)
    with serving(Tasks([folder])) as site:
        reply = site.predict(["a secret text"], "mood")
        assert (reply.status, reply.body["error"]["code"]) == (500, "failed")
        site.predict(["a secret text" * 9000], "mood")
        site.ask("POST", "/v1/predict", b'{"a secret text": ')
        site.ask("GET", "/v1/tasks/a%20secret%20text")
    out, err = capfd.readouterr()
    assert "secret" not in caplog.text + out + err + json.dumps(reply.body)
    assert "RuntimeError" in caplog.text
    assert "test_site.py" in caplog.text, "where it failed is said"


def test_where_new_tasks_would_go_into_an_artifact_fitting_is_refused(folder):
    with pytest.raises(InputError, match="artifact itself"):
        create_app(Tasks([folder / "mood"]), allow_fit=True)


def test_commands_that_are_refused_before_anything_is_served(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("FEWFIT_API_KEY", raising=False)
    short, key = tmp_path / "short", tmp_path / "key"
    short.write_text("short")
    key.write_text(KEY)
    (tmp_path / "bytes").write_bytes(b"\xff" * 16)
    (tmp_path / "lines").write_text(f"{KEY}\n{KEY}\n")
    for options, what in (
        (["--host", "0.0.0.0"], "a key is needed"),
        (["--api-key-file", short], "at least 16"),
        (["--api-key-file", tmp_path / "none"], "No such file"),
        (["--api-key-file", tmp_path / "bytes"], "is no text"),
        (["--api-key-file", tmp_path / "lines"], "is one line"),  # no header could hold it
        (["--allow-fit", "--model", "fake", "--model", "wat:x"], "wat"),
        (["--host", "0.0.0.0", "--api-key-file", short], "at least 16"),
    ):
        assert what in run("serve", folder, *options, code=2).output.replace("\n", " ")
    assert "no folder" in run("serve", tmp_path / "nothing", code=2).output.replace("\n", " ")
    run("serve", folder / "mood", "--allow-fit", "--api-key-file", key, code=2)


def test_a_port_that_is_taken_is_an_error_of_the_command_and_not_of_a_model(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", folder, "--port", port, code=2)
    assert f"--port {port}: the server cannot listen there" in done.stderr


@pytest.mark.parametrize("has_key", [False, True])
def test_on_loopback_a_key_takes_the_place_of_the_check_of_names(
    folder, tmp_path, monkeypatch, has_key
):
    monkeypatch.delenv("FEWFIT_API_KEY", raising=False)
    (tmp_path / "key").write_text(KEY)
    given = ["--api-key-file", tmp_path / "key"] if has_key else []

    def check(server, *_):
        sent = {"Host": "fewfit.example.com", "Origin": "http://fewfit.example.com"}
        body, status = {"text": {"text": "so good"}}, 200 if has_key else 421
        with running(server.config.app) as site:
            for method, path, given in (
                ("GET", "/v1/tasks", None),
                ("POST", "/page/tasks/mood/try", body),
            ):
                asked.append(site.ask(method, path, given, X_API_Key=KEY, **sent).status == status)

    asked: list[bool] = []
    monkeypatch.setattr("fewfit.cli.serve._run", check)
    run("serve", folder, *given)
    assert asked == [True, True]


def test_a_process_reloads_on_sighup_and_answers_what_it_took_on_sigterm(folder):
    code = """
        import sys, time, warnings
        from fewfit.errors import ModelWarning
        from fewfit.models import FakeModel
        answers = FakeModel.stream
        def stream(self, prompts, words):
            if any("slow" in p.user_text for p in prompts):
                print("asked", file=sys.stderr, flush=True)
                for _ in range(3):
                    warnings.warn("it said 'slow'", ModelWarning)
                time.sleep(0.5)
            yield from answers(self, prompts, words)
        FakeModel.stream = stream
        from fewfit.cli import main
        main()
    """
    program = Program(code, "serve", folder, "--port", 0)
    url = _said(program, "http://")
    assert url.startswith("http://127.0.0.1:")
    fitted(folder, "new", shift=9)
    program.send_signal(signal.SIGHUP)
    _said(program, "reloaded: 1 new, 0 gone")
    found = []

    def ask():
        data = json.dumps({"texts": ["slow"], "tasks": ["new"]}).encode()
        given = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}v1/predict", data, given)
        with urllib.request.urlopen(request, timeout=20) as reply:
            found.append((reply.status, json.load(reply)))

    thread = threading.Thread(target=ask)
    thread.start()
    _said(program, "asked")
    _said(program, "warning: ModelWarning at ")
    time.sleep(0.1)
    said = Path(program._files[1]).read_text()
    assert said.count("ModelWarning") == 1
    assert "slow" not in said
    program.send_signal(signal.SIGTERM)
    thread.join()
    assert program.wait() in (0, -signal.SIGTERM)
    assert found
    assert found[0][0] == 200
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", int(url.rsplit(":", 1)[1].strip("/"))).connect()


def test_a_sighup_that_comes_while_tasks_are_loaded_is_heard_when_they_are(folder):
    code = """
        import os, signal
        from fewfit.cli import main
        from fewfit.serve.tasks import Tasks
        load, done = Tasks.reload, []
        def reload(self):
            report = load(self)
            if not done:
                os.kill(os.getpid(), signal.SIGHUP)
            done.append(report)
            return report
        Tasks.reload = reload
        main()
    """
    program = Program(code, "serve", folder, "--port", 0)
    _said(program, "http://")
    _said(program, "reloaded: 0 new, 0 gone")
    program.send_signal(signal.SIGTERM)
    assert program.wait() in (0, -signal.SIGTERM)


def test_ctrl_c_ends_it_and_says_nothing_of_what_is_kept(folder):
    program = Program("from fewfit.cli import main\nmain()", "serve", folder, "--port", 0)
    _said(program, "http://")
    program.send_signal(signal.SIGINT)
    assert program.wait() == 130
    assert "interrupted" not in program._said[1]


def _said(program: Program, what: str) -> str:
    """Return the word that begins so, or all, of what a program says on stderr."""
    until = time.monotonic() + 60
    while what not in (said := Path(program._files[1]).read_text()):
        assert program.poll() is None, said
        assert time.monotonic() < until, said
        time.sleep(0.01)
    return said[said.index(what) :].split()[0]


def test_examples_of_the_page_of_the_interface_are_answered(tmp_path):
    texts = {"billing": "charged twice", "delivery": "a late parcel"}
    FewShotClassifier("fake", store=None).fit(list(texts.values()), list(texts)).save(
        tmp_path / "topics"
    )
    with serving(Tasks([tmp_path]), allow_fit=True, models=("fake",)) as site:
        page = site.ask("GET", "/openapi.json").body
        n = 0
        for path, methods in page["paths"].items():
            for method, about in methods.items():
                assert about.get("description") or about.get("summary"), path
                if "requestBody" not in about:
                    continue
                [content] = about["requestBody"]["content"].values()
                name = content["schema"]["$ref"].rsplit("/", 1)[1]
                examples = page["components"]["schemas"][name]["examples"]
                for example in examples:
                    reply = site.ask(method.upper(), path, example)
                    assert reply.status in (200, 201), (path, reply)
                    n += 1
    assert n >= 5
