from __future__ import annotations

import csv
import errno
import io
import re
import socket
import sqlite3
import tempfile
import threading
import zipfile
from pathlib import Path
from urllib.parse import quote, urljoin

import numpy as np
import pytest

pytest.importorskip("fastapi", exc_type=ImportError)

from fastapi import FastAPI
from fastapi.testclient import TestClient

from fewfit import FewShotClassifier
from fewfit.errors import StoreError
from fewfit.serve.batching import Queue
from fewfit.serve.guard import Bounds, kind_and_place
from fewfit.serve.page import fitting, uploads
from fewfit.serve.page.jobs import Cancelled
from fewfit.store import StoredModel
from tests.cli.helpers import write_xlsx
from tests.serve.helpers import running
from tests.serve.page.helpers import FILE, Page, app

# A fit keeps the library's warnings to itself, by a filter that all threads share.
pytestmark = pytest.mark.filterwarnings("ignore::fewfit.errors.FewfitWarning")

WORDS = {"neg": "bad", "pos": "good"}
EVIL = "<img src=x onerror=alert(1)>"


def test_a_file_is_looked_at_before_it_is_a_task(page):
    found = page.upload("/read", FILE, file="mood.csv")
    assert (found["text"], found["label"], found["n"]) == (["text"], "label", 10)
    assert found["columns"][2]["labels"] == {"counts": [["pos", 4], ["neg", 3]], "blank": 3}
    assert found["columns"][1]["labels"] is None
    assert found["said"] == ["mood.csv: read as utf-8, delimiter ';'"]
    assert page.get("/tasks")["tasks"] == []


def test_a_task_from_a_file_to_an_artifact(page, tmp_path):
    state = page.create()
    assert state["counts"] == {"neg": 3, "pos": 3}
    assert (state["blank"], state["without_text"], state["stale"], state["fitted"]) == (
        *(3, 1, True),
        False,
    )
    page.send("PUT", "/tasks/mood/words", {"words": {"neg": ["bad"], "pos": ["good", "fine"]}})
    state = page.fitted()
    assert not state["stale"]
    result = state["result"]
    expected = result["expected"]
    assert expected["n"] == 6
    counts = np.array(result["confusion"]["counts"])
    assert counts.sum(axis=1).tolist() == [3, 3]
    assert np.trace(counts) == round(expected["accuracy"] * 6)
    assert {item["place"] for item in result["suggestions"]} <= {6, 7, 8}
    assert len(result["suggestions"]) == 3

    told = page.attempt("mood", {"text": "so bad"})["classes"]
    clf = FewShotClassifier.load(tmp_path / "mood", store=None)
    proba = clf.predict_proba(["so bad"])[0]
    assert told[0]["label"] == clf.predict(["so bad"])[0]
    assert told[0]["probability"] == pytest.approx(proba.max())

    answer = page.client.get("/page/tasks/mood/artifact.zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "out")
    lines = state["python"].replace('"mood"', repr(str(tmp_path / "out" / "mood")))
    names: dict = {}
    exec(lines, names)
    assert (names["clf"].predict_proba(["so bad"]) == clf.predict_proba(["so bad"])).all()


def test_a_label_is_given_taken_back_and_downloaded(page):
    page.create()
    state = page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})
    assert (state["counts"]["pos"], state["blank"]) == (4, 2)
    page.send("PUT", "/tasks/mood/rows/1", {"label": "pos"})
    rows = list(csv.reader(io.StringIO(page.client.get("/page/tasks/mood/labels.csv").text)))
    assert rows[0] == ["\ufeffid", "text", "label"]
    assert rows[2] == ["2", "bad taste", "pos"]
    assert rows[7] == ["7", "a good day", "pos"]
    assert rows[8] == ["8", "a bad day", ""]
    state = page.send("POST", "/tasks/mood/undo")
    assert (state["row"]["place"], state["row"]["label"]) == (1, "neg")
    state = page.send("POST", "/tasks/mood/undo")
    assert (state["row"]["place"], state["row"]["label"], state["blank"]) == (6, None, 3)
    assert (
        "no label was changed"
        in page.send("POST", "/tasks/mood/undo", code=422)["error"]["message"]
    )


def test_what_was_fitted_is_fitted_again_when_a_label_changes(page):
    page.create()
    before = page.fitted()["result"]
    assert page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})["job"] is not None
    after = page.settled()
    assert not after["stale"]
    assert after["result"]["examples"] == before["examples"] + 1
    assert 6 not in [item["place"] for item in after["result"]["suggestions"]]


def test_no_answer_is_paid_for_twice(page):
    page.create()
    state = page.fitted()
    assert state["job"]["error"] == ""
    assert state["result"]["queries"] == 10  # six labelled, three not, and the empty text
    page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})
    assert page.settled()["result"]["queries"] == 0


def test_without_a_label_the_words_suggest(page):
    page.create(label=None)
    assert "two classes" in page.fitted()["job"]["error"]
    page.send("PUT", "/tasks/mood/words", {"words": {"sad": ["bad"], "glad": ["good"]}})
    result = page.fitted()["result"]
    assert not result["learnt"]
    assert result["expected"] is None
    assert len(result["suggestions"]) == 9
    told = page.attempt("mood", {"text": "good"})["classes"]
    assert told[0]["label"] == "glad"


def test_a_slip_is_shown_until_a_person_has_looked(page):
    rows = b"text,label\n" + b"".join(b"good %d,pos\nbad %d,neg\n" % (i, i) for i in range(6))
    page.create(data=rows + b"good good,neg\n")
    page.send("PUT", "/tasks/mood/words", {"words": {"neg": ["bad"], "pos": ["good"]}})
    doubts = page.fitted()["result"]["doubts"]
    assert (12, "neg", "pos") in [(d["place"], d["label"], d["told"]) for d in doubts]
    sure = page.send("PUT", "/tasks/mood/rows/12", {"label": "neg"})
    assert 12 not in [d["place"] for d in sure["result"]["doubts"]]
    assert not sure["stale"]
    assert 12 not in [d["place"] for d in page.fitted()["result"]["doubts"]]


class Slow:
    """Stops in the middle of asking until it may go on."""

    def __init__(self, monkeypatch):
        self.begun, self.go = threading.Event(), threading.Event()
        stream = StoredModel.stream

        def slow(model, prompts, words):
            self.begun.set()
            assert self.go.wait(20)
            yield from stream(model, prompts, words)

        monkeypatch.setattr(StoredModel, "stream", slow)


def test_a_fit_is_found_again_and_cancelled(page, monkeypatch):
    page.create()
    slow = Slow(monkeypatch)
    page.send("POST", "/tasks/mood/fit", code=202)
    assert slow.begun.wait(20)
    state = page.get("/tasks/mood")  # as after a reload
    assert (state["job"]["state"], state["job"]["done"], state["job"]["total"]) == (
        "running",
        0,
        10,
    )
    # Labels go on being saved meanwhile, and are fitted afterwards.
    assert page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})["counts"]["pos"] == 4
    assert page.send("DELETE", "/tasks/mood/fit")["job"]["state"] == "cancelling"
    slow.go.set()
    state = page.settled()
    assert (state["job"]["state"], state["fitted"], state["stale"]) == ("cancelled", False, True)
    assert page.fitted()["result"]["examples"] == 7


def test_a_label_during_a_fit_is_in_the_next_one(page, monkeypatch):
    page.create()
    slow = Slow(monkeypatch)
    page.send("POST", "/tasks/mood/fit", code=202)
    assert slow.begun.wait(20)
    page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})
    slow.go.set()
    page.settled()
    state = page.settled()  # the one that follows has begun when the first has ended
    assert (state["result"]["examples"], state["stale"]) == (7, False)


def test_a_fit_that_fails_says_why_and_the_next_one_works(page, monkeypatch):
    page.create()
    with monkeypatch.context() as broken:
        broken.setattr(fitting, "fit", lambda *_, **__: 1 / 0)
        state = page.fitted()
        assert state["job"]["state"] == "failed"
        assert "log" in state["job"]["error"]
    assert page.fitted()["job"]["state"] == "done"


def test_where_the_servers_files_are_is_for_its_log_alone(page, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FEWFIT_CACHE", str(tmp_path / "cache"))
    page.create()

    def full(*_, **__):
        raise StoreError(f"the store {tmp_path}/cache/answers cannot be used: disk full")

    monkeypatch.setattr(fitting, "fit", full)
    assert page.fitted()["job"]["error"] == "the store answers cannot be used: disk full"

    def locked(*_, **__):
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as broken:
        broken.setattr(sqlite3, "connect", locked)
        told = page.get("/tasks", 503)["error"]
    assert told == {"code": "store", "message": "page.sqlite3: cannot be used: database is locked"}
    for said in (f"{tmp_path}/cache/answers", f"{tmp_path}/page.sqlite3"):
        assert said in caplog.text


@pytest.mark.parametrize("there", [True, False])
def test_a_server_without_room_for_a_file_says_so(page, monkeypatch, tmp_path, caplog, there):
    place = str(tmp_path / "temporary")
    full = OSError(errno.ENOSPC, "No space left on device", f"{place}/x")

    def none():
        raise FileNotFoundError(errno.ENOENT, f"No usable temporary directory found in ['{place}']")

    def refused(*_):
        raise full

    if there:
        monkeypatch.setattr(tempfile, "tempdir", place)
        (tmp_path / "temporary").mkdir()
        monkeypatch.setattr(Path, "write_bytes", refused)
    else:
        monkeypatch.setattr(tempfile, "gettempdir", none)
    told = page.upload("/read", FILE, 503, file="mood.csv")["error"]
    assert told["code"] == "store"
    assert ("No space left" if there else "No such file") in told["message"]
    assert "$TMPDIR" in told["message"]
    assert told["message"] in caplog.text
    assert place not in told["message"]
    assert "mood.csv" not in caplog.text
    assert "No space left" in kind_and_place(full)
    assert place not in kind_and_place(full)


def test_a_task_that_is_deleted_leaves_nothing(page, tmp_path):
    page.create()
    page.create("other")
    page.fitted()
    assert "not the name" in str(page.send("DELETE", "/tasks/mood", {"name": "x"}, 422))
    page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})  # and a fit begins
    page.send("DELETE", "/tasks/mood", {"name": "mood"})
    assert [task["name"] for task in page.get("/tasks")["tasks"]] == ["other"]
    assert page.client.get("/v1/tasks").json()["tasks"] == []
    page.get("/tasks/mood", 404)
    assert not (tmp_path / "mood").exists()
    page.send("DELETE", "/tasks/other", {"name": "other"})
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b"bad taste" not in kept
    assert page.create()["job"] is None  # the name is free again
    assert page.fitted()["result"]["examples"] == 6


def test_all_fields_of_a_template_are_tried(tmp_path):
    clf = FewShotClassifier("fake", template="{a} and {b}: {mask}", labels=WORDS, store=None)
    clf.fit([{"a": "good", "b": "good"}, {"a": "bad", "b": "bad"}], ["pos", "neg"])
    clf.save(tmp_path / "pair")
    with TestClient(app(tmp_path)) as client:
        page = Page(client)
        assert page.get("/tasks/pair")["fields"] == ["a", "b"]
        row = {"a": "so bad", "b": "bad"}
        told = page.attempt("pair", row)["classes"]
        assert told[0]["label"] == clf.predict([row])[0]
        assert told[0]["probability"] == pytest.approx(clf.predict_proba([row]).max())
        assert "'b'" in str(page.attempt("pair", {"a": "x"}, 422))


def test_all_is_there_after_a_restart(page, tmp_path):
    page.create()
    page.fitted()
    page.send("PUT", "/tasks/mood/rows/6", {"label": "pos"})
    before = page.settled()
    with TestClient(app(tmp_path)) as client:
        after = Page(client).get("/tasks/mood")
        for name in ("result", "counts", "words", "blank", "fitted", "revision"):
            assert after.get(name) == before.get(name), name
        told = Page(client).attempt("mood", {"text": "good"})
        assert told["classes"][0]["probability"] > 0.5


def test_markup_in_texts_and_labels_stays_text(page):
    page.create(data=f"text,label\n{EVIL} good,{EVIL}\nbad,neg\n".encode())
    _, evil = sorted(page.get("/tasks/mood")["words"], key=len)
    assert evil == EVIL
    answer = page.client.get("/page/tasks/mood")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    rows = page.get("/tasks/mood/rows")["rows"]
    assert rows[0]["text"] == f"{EVIL} good"


def test_rows_are_searched_by_what_is_written(page):
    page.create(data=b"text,label\n100% good,pos\n100 good,pos\nbad_,neg\nbad,neg\nso,\n")
    assert [r["text"] for r in page.get("/tasks/mood/rows?search=0%25")["rows"]] == ["100% good"]
    assert [r["text"] for r in page.get("/tasks/mood/rows?search=_")["rows"]] == ["bad_"]
    assert page.get("/tasks/mood/rows?label=pos")["n"] == 2
    page.create("kalt", data="text,label\nÜber Größe,a\nso ÜBERALL,b\nso,\n".encode())
    for search in ("über", "ÜBER"):
        assert page.get("/tasks/kalt/rows?search=" + quote(search))["n"] == 2
    assert [r["place"] for r in page.get("/tasks/kalt/rows?search=GR%C3%96SSE")["rows"]] == [0]
    assert [r["place"] for r in page.get("/tasks/mood/rows?blank=true")["rows"]] == [4]
    assert page.get("/tasks/mood/rows?offset=4") == {
        "n": 5,
        "offset": 4,
        "rows": [{"place": 4, "text": "so", "label": None, "sure": 0}],
    }


def test_another_site_changes_nothing(page):
    page.create()
    sent = {"content-type": "application/json"}
    for headers, code in (
        ({"origin": "http://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}, 200),
    ):
        answer = page.client.put(
            "/page/tasks/mood/rows/0", content=b'{"label": null}', headers={**sent, **headers}
        )
        assert answer.status_code == code, headers
        assert page.get("/tasks/mood")["counts"]["pos"] == (2 if code == 200 else 3), headers


WRONG = [
    ("GET", "/tasks/other", None, 404, "'other'"),
    ("GET", "/tasks/other/rows", None, 404, "'other'"),
    ("POST", "/tasks/other/fit", None, 404, "'other'"),
    ("PUT", "/tasks/mood/rows/99", {"label": None}, 404, "row 99"),
    ("PUT", "/tasks/mood/rows/0", {"label": "new"}, 422, "add it first"),
    ("PUT", "/tasks/mood/words", {"words": {"pos": ["good"]}}, 422, "'neg'"),
    ("PUT", "/tasks/mood/words", {"words": {"pos": ["x"], "neg": ["X"]}}, 422, "x"),
    ("PUT", "/tasks/mood/words", {"words": {"pos": ["a\nb"], "neg": []}}, 422, "a line"),
    ("PUT", "/tasks/mood/words", {"words": {"pos": 1}}, 422, "list"),
    ("POST", "/tasks/mood/try", {"text": {"text": "good"}}, 409, "not fitted"),
    ("GET", "/tasks/mood/artifact.zip", None, 409, "not fitted"),
    ("PUT", f"/tasks/mood/rows/{10**24}", {"label": "pos"}, 422, "place"),
    ("PUT", f"/tasks/mood/rows/{-(10**24)}", {"label": "pos"}, 422, "place"),
    ("GET", f"/tasks/mood/rows?offset={10**24}", None, 422, "offset"),
    ("GET", f"/tasks/mood/rows?search={'_' * 30_000}", None, 422, "search"),
    ("GET", "/static/index.html", None, 404, "no file"),
    ("GET", "/static/..%2froutes.py", None, 404, ""),
]


def test_what_is_wrong_is_said_and_changes_nothing(page):
    before = page.create()
    for method, path, body, code, said in WRONG:
        headers = {"content-type": "application/json"}
        answer = page.client.request(method, f"/page{path}", json=body, headers=headers)
        assert answer.status_code == code, (path, answer.text)
        assert said in answer.text, (path, answer.text)
        after = page.get("/tasks/mood")
        assert after == {name: before[name] for name in after}, path


NO_TASK = [
    ({"name": "../up"}, "no name of a task"),
    ({"name": "n" * 300}, "no name of a task"),
    ({"name": "mood"}, "already"),
    ({"name": "MOOD"}, "already"),
    ({"text": "nothing"}, "no column 'nothing'"),
    ({"text": "label"}, "another one"),
    ({"file": "mood.xyz"}, "The page has no such option: save the file as .csv in UTF-8"),
    ({"file": "mood.csv\0csv"}, "format"),
    ({"file": "mood." + "x" * 300}, "format"),
    ({"file": "mood.cs/../v"}, "format"),
    ({"model": "hf:/etc"}, "not one of"),
    ({"data": b"text,label\n,pos\n"}, "no row has a text"),
    ({"data": b"text,label\ngood,A\nbad,a\n"}, "'A'"),
    ({"data": b"text,label\ngood,pos,more\n"}, "mood.csv: line 2 has 3 values"),
    ({"data": b"\x1f\x8b\x08\x00"}, "compressed"),
    (
        {"data": b"text,label\n" + b"".join(b"t%d,l%d\n" % (i, i) for i in range(300))},
        "more than 200 classes",
    ),
    ({"name": "folder"}, "there is a folder"),
]


def test_a_file_that_is_no_task_is_refused(page, tmp_path):
    page.create()
    (tmp_path / "folder").mkdir()
    for change, said in NO_TASK:
        given = {"file": "mood.csv", "text": "text", "label": "label", "name": "other", **change}
        data = given.pop("data", FILE)
        error = page.upload("/tasks", data, 422, **given)["error"]
        assert said in error["message"], change
        assert error["code"] == "invalid", change
    assert [task["name"] for task in page.get("/tasks")["tasks"]] == ["mood"]


def test_what_is_not_unicode_is_shown_and_downloaded_with_escapes(page):
    lines = b'{"text": "good", "m\\ud800": "\\udfff", "label": "pos"}\n'
    told = page.upload("/read", lines, file="mood.jsonl")
    assert told["rows"] == [["good", "\\udfff", "pos"]]
    page.create(data=lines, file="mood.jsonl")
    text = page.client.get("/page/tasks/mood/labels.csv").text
    assert list(csv.reader(io.StringIO(text)))[1] == ["good", "\\udfff", "pos"]
    page.create("other", lines.replace(b"\\udfff", b"fine"), file="mood.jsonl", text="m\\ud800")


def test_a_workbook_is_read_as_it_was_meant(page, tmp_path):
    pytest.importorskip("python_calamine")
    path = tmp_path / "mood.xlsx"
    write_xlsx(path, [["message", "stars"], ["good", 5], ["so bad", 1], ["fine", 5], ["bad", 1]])
    found = page.upload("/read", path.read_bytes(), file="mood.xlsx")
    assert (found["text"], found["label"]) == (["message"], "stars")
    state = page.create(data=path.read_bytes(), file="mood.xlsx", text="message", label="stars")
    assert state["counts"] == {"1": 2, "5": 2}


def test_a_column_without_a_name_that_tells_is_found_by_what_it_holds(page):
    rows = "".join(f"{i},a sentence that is number {i},{'ab'[i % 2]}\n" for i in range(20))
    found = page.upload("/read", f"no,what,kind\n{rows}".encode(), file="x.csv")
    assert (found["text"], found["label"]) == (["what"], "kind")
    one = page.upload("/read", b"what\nfirst\nsecond\n", file="x.csv")
    assert (one["text"], one["label"]) == (["what"], None)


def test_files_are_bounded(page, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_BYTES", 20)
    assert "at most" in page.upload("/read", FILE, 413, file="mood.csv")["error"]["message"]
    monkeypatch.setattr(uploads, "MAX_BYTES", 10**6)
    monkeypatch.setattr(uploads, "MAX_ROWS", 3)
    assert "10 rows" in page.upload("/read", FILE, 422, file="mood.csv")["error"]["message"]


@pytest.mark.parametrize("kind", ["xlsx", "parquet"])
def test_files_are_bounded_by_what_they_unpack_to(page, monkeypatch, tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    rows: list[list[object]] = [["so good " * 100, "pos"], ["bad", "neg"]] * 1000
    if kind == "xlsx":
        pytest.importorskip("python_calamine")
        write_xlsx(path, [["text", "label"], *rows])
    else:
        pa = pytest.importorskip("pyarrow")
        texts, labels = zip(*rows, strict=True)
        pytest.importorskip("pyarrow.parquet").write_table(
            pa.table({"text": texts, "label": labels}), path
        )
    data = path.read_bytes()
    monkeypatch.setattr(uploads, "MAX_UNPACKED", 2**19)
    for route, query in (("/read", {}), ("/tasks", {"name": "big", "text": "text"})):
        told = page.upload(route, data, 422, file=f"my.{kind}", **query)["error"]["message"]
        assert told.startswith(f"my.{kind}: is more than 0 MB unpacked")
    assert page.get("/tasks")["tasks"] == []


def test_a_file_that_cannot_be_read_is_named_as_the_user_names_it(page):
    pytest.importorskip("python_calamine")
    told = page.upload("/read", b"PK\3\4 and no more", 422, file="my.xlsx")["error"]["message"]
    assert "again" in told
    assert told.count(".xlsx") == told.count("my.xlsx") == 2


def test_a_file_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_SECONDS", 0.2)
    head = "HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    head += "Content-Length: 999\r\n\r\ntext,label\n"
    with running(app(tmp_path)) as site:
        for path in ("/page/read?file=a.csv", "/page/tasks?name=a&file=a.csv&text=text"):
            with socket.create_connection(("127.0.0.1", site.port), timeout=5) as raw:
                raw.sendall(f"POST {path} {head}".encode())
                said = b""
                while part := raw.recv(65536):
                    said += part
            assert said.startswith(b"HTTP/1.1 408"), said


def test_what_is_no_file_has_the_bounds_of_every_request(tmp_path):
    bounds = Bounds(body=2000, seconds=0.2, characters=50, texts=200)
    with TestClient(app(tmp_path, bounds=bounds)) as client:
        page = Page(client)
        page.create(data=FILE + b"11;" + b"good " * 1000 + b";pos\n")
        page.fitted()
        page.attempt("mood", {"text": "x" * 50})
        assert "at most 50" in str(page.attempt("mood", {"text": "x" * 51}, 413))
        words = {"words": {"pos": [str(i) for i in range(200)], "neg": ["b"]}}
        assert "words: at most 200" in str(page.send("PUT", "/tasks/mood/words", words, 413))
        for method, path in (("POST", "/try"), ("PUT", "/words"), ("PUT", "/rows/0"), ("POST", "")):
            body = {"pad": "x" * 2000}
            assert "2,000 bytes" in str(page.send(method, f"/tasks/mood{path}", body, 413))
    head = b"POST /page/tasks/mood/try HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
    with (
        running(app(tmp_path, bounds=bounds)) as site,
        socket.create_connection(("127.0.0.1", site.port), timeout=5) as raw,
    ):
        raw.sendall(head + b"Content-Type: application/json\r\n\r\n{")
        assert raw.recv(65536).startswith(b"HTTP/1.1 408")


def test_without_leave_to_fit_one_can_only_try(page, tmp_path):
    page.create()
    page.fitted()
    with TestClient(app(tmp_path, allow_fit=False)) as client:
        other = Page(client)
        listed = other.get("/tasks")
        assert listed["tasks"] == [{"name": "mood", "mine": False}]
        assert "--allow-fit" in listed["off"]
        state = other.get("/tasks/mood")
        assert (state["mine"], "words" in state) == (False, False)
        assert other.attempt("mood", {"text": "bad"})["classes"][0]["label"] == "neg"
        for method, path in (
            ("GET", "/tasks/mood/rows"),
            ("GET", "/tasks/mood/labels.csv"),
            ("POST", "/tasks/mood/fit"),
            ("PUT", "/tasks/mood/words"),
        ):
            body = {"words": {}} if method != "GET" else None
            answer = client.request(method, f"/page{path}", json=body)
            assert answer.status_code == 403
            assert "--allow-fit" in answer.json()["error"]["message"]


def test_with_a_key_the_page_is_open_and_what_it_asks_is_not(tmp_path):
    with TestClient(app(tmp_path, key="secret")) as client:
        assert client.get("/").status_code == 200
        assert client.get("/page/static/app.js").status_code == 200
        for path in ("/page/tasks", "/page/tasks/mood/labels.csv"):
            assert client.get(path).status_code == 401
        headers = {"authorization": "Bearer secret"}
        assert client.get("/page/tasks", headers=headers).json()["tasks"] == []


def test_what_programs_fit_and_what_the_page_fits_is_one_list(page):
    examples = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in "12"]
    made = page.client.post("/v1/tasks", json={"name": "theirs", "examples": examples})
    assert made.status_code == 201, made.text
    page.create()
    page.fitted()
    listed = page.get("/tasks")["tasks"]
    assert [(task["name"], task["mine"]) for task in listed] == [("mood", True), ("theirs", False)]
    told = page.attempt("theirs", {"text": "good"})["classes"]
    assert told[0]["label"] == "good"
    names = [task["name"] for task in page.client.get("/v1/tasks").json()["tasks"]]
    assert names == ["mood", "theirs"]
    again = page.client.post("/v1/reload").json()
    assert again["kept"] == ["mood", "theirs"], again
    given = {"file": "x.csv", "text": "text", "name": "theirs"}
    assert "already" in page.upload("/tasks", FILE, 422, **given)["error"]["message"]


EXAMPLES = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in "12"]


def test_a_program_does_not_take_the_name_of_a_task_of_the_page(page, tmp_path):
    page.create()
    for name in ("mood", "MOOD"):
        for replace in (False, True):
            body = {"name": name, "examples": EXAMPLES, "replace": replace}
            refused = page.client.post("/v1/tasks", json=body)
            assert refused.status_code == 409
            assert "the page has a task" in refused.json()["error"]["message"]
    assert not (tmp_path / "mood").exists()
    page.fitted()
    told = page.client.get("/v1/tasks/mood").json()["classes"]
    assert told == ["neg", "pos"]


def test_a_name_that_is_taken_while_a_program_fits_stays_the_pages(page, monkeypatch, tmp_path):
    monkeypatch.setattr("fewfit.serve.api.expect", lambda _: page.create())
    refused = page.client.post("/v1/tasks", json={"name": "mood", "examples": EXAMPLES})
    assert refused.status_code == 409
    assert not (tmp_path / "mood").exists()


def test_a_name_that_is_taken_while_the_page_reads_a_file_stays_the_programs(page, monkeypatch):
    read = uploads.read_rows

    def slow(*given):
        made = page.client.post("/v1/tasks", json={"name": "mood", "examples": EXAMPLES})
        assert made.status_code == 201
        return read(*given)

    monkeypatch.setattr(uploads, "read_rows", slow)
    given = {"file": "mood.csv", "text": "text", "label": "label", "name": "mood"}
    assert "served already" in page.upload("/tasks", FILE, 422, **given)["error"]["message"]
    assert [task["mine"] for task in page.get("/tasks")["tasks"]] == [False]


def test_a_text_without_an_answer_gets_no_probabilities(page, monkeypatch):
    page.create()
    page.fitted()

    async def silent(queue, name, texts):
        return ["neg", "pos"], np.full((1, 2), np.nan)

    monkeypatch.setattr(Queue, "predict", silent)
    assert "no usable answer" in str(page.attempt("mood", {"text": "so"}, 503))


def test_the_page_is_whole_and_asks_nobody_else(page):
    answer = page.client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in answer.text.replace("http-equiv", "")
    # behind a proxy the page may stand at a path of its own: no address of it begins at the root
    absolute = re.compile(r"""["'`=]/[a-z]""")
    assert not absolute.search(answer.text)
    seen, left = set(), {"app.js", "style.css", "icon.svg"}
    while left:
        name = left.pop()
        seen.add(name)
        file = page.client.get(f"/page/static/{name}")
        assert file.status_code == 200, name
        if name.endswith(".js"):
            assert not absolute.search(file.text), name
            for sink in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("):
                assert sink not in file.text, (name, sink)
            left |= {p.split('"')[0] for p in file.text.split('from "./')[1:]} - seen
    assert len(seen) > 8
    listed = {
        file.name for file in uploads.Path(fitting.__file__).parent.joinpath("static").iterdir()
    }
    assert listed == seen | {"index.html"}  # nothing lies about that no page loads


def test_the_page_stands_at_a_path_of_its_own(tmp_path):
    outside = FastAPI()
    outside.mount("/fewfit", app(tmp_path))
    with TestClient(outside, base_url="http://localhost") as client:
        at = "http://localhost/fewfit/"
        addresses = re.findall(r'(?:href|src)="([^"#]+)"', client.get(at).text)
        assert len(addresses) == 3
        for address in [*addresses, "page/tasks"]:
            assert client.get(urljoin(at, address)).status_code == 200, address


def test_a_cancelled_fit_is_no_error_of_the_library():
    assert not issubclass(Cancelled, ValueError | RuntimeError | OSError)
