"""The routes, asked over a socket as any program asks them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.serve.guard import Bounds
from fewfit.serve.tasks import Tasks
from tests.serve.helpers import EXAMPLES, WORDS, fitted, serving

TEXTS = ["good taste", "bad fun", "fine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tasks")
    for i, name in enumerate(("mood", "taste")):
        fitted(root, name, shift=10 * i)
    MultiLabelClassifier("fake", store=None).fit(
        ["good fun", "bad fun", "good", "bad"], [["g", "f"], ["f"], ["g"], []]
    ).save(root / "several")
    FewShotClassifier("fake", template="{a} {b} {mask}", labels=WORDS, store=None).fit(
        [{"a": text, "b": "x"} for text in EXAMPLES[0]], EXAMPLES[1]
    ).save(root / "pair")
    return root


@pytest.fixture(scope="module")
def site(folder):
    with serving(Tasks([folder])) as running:
        yield running


def test_predict_says_what_the_classifiers_of_the_folders_say(site, folder):
    reply = site.predict(TEXTS, ["taste", "mood"])
    assert reply.status == 200
    for name in ("mood", "taste"):
        known = FewShotClassifier.load(folder / name, store=None)
        expected = known.predict_proba(TEXTS)
        for row, p, label in zip(
            reply.body["results"][name], expected, known.predict(TEXTS), strict=True
        ):
            assert list(row["probabilities"].values()) == pytest.approx(p.tolist(), abs=1e-9)
            assert (row["label"], row["status"]) == (label, "ok")


def test_one_text_rows_of_fields_and_several_labels(site, folder):
    assert len(site.predict("good", "mood").body["results"]["mood"]) == 1
    row = site.predict([{"a": "good", "b": "fun"}], "pair")
    assert row.status == 200
    assert row.body["results"]["pair"][0]["label"] == "yes"
    known = MultiLabelClassifier.load(folder / "several", store=None)
    told = [row["labels"] for row in site.predict(TEXTS, "several").body["results"]["several"]]
    assert told == known.predict(TEXTS)


def test_what_is_wrong_with_a_request_is_said(site):
    for body, status in (
        ({"texts": ["x"], "tasks": ["nobody"]}, 404),
        ({"texts": ["x"]}, 422),  # four tasks, and none is named
        ({"texts": [], "tasks": ["mood"]}, 422),
        ({"texts": [7], "tasks": ["mood"]}, 422),
        ({"texts": ["x"], "tasks": ["mood"], "deadline": "1"}, 422),
        ({"texts": ["x"], "tasks": ["mood"], "more": 1}, 422),
        ({"texts": ["x"], "tasks": ["pair"]}, 422),
        ({"texts": [{"b": "x"}], "tasks": ["pair"]}, 422),
        ({"texts": ["\ud800"], "tasks": ["mood"]}, 422),
        ({"texts": [{"\ud800": "x"}], "tasks": ["mood"]}, 422),
        ({"texts": ["x"], "tasks": ["\ud800"]}, 422),
        ([1], 422),
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b"[" * 100_000, 422),
        (b'{"texts": ["x"], "tasks": ["mood"], "deadline": 1e400}', 422),
    ):
        reply = site.ask("POST", "/v1/predict", body)
        assert reply.status in (status, 400 if status == 422 else status), (body, reply)
        assert set(reply.body["error"]) == {"code", "message"}, body
    assert site.ask("PUT", "/v1/tasks").headers["allow"] == "GET, POST"
    for method, path, body, told in (
        ("POST", "/v1/predict", b'{"texts": ["x" "y"]}', "no JSON: Expecting ',' delimiter, chara"),
        ("POST", "/v1/predict", b"", "the body: "),
        ("POST", "/v1/predict", b'{"texts": "\xe4"}', "send JSON in UTF-8"),
        ("POST", "/v1/predict", gzip.compress(b"{}"), "not compressed"),
        ("GET", "/v1/predict", None, "for POST alone"),
        ("PUT", "/v1/tasks", b"{}", "for GET, POST alone"),
        ("GET", "/v1/nothing", None, "/openapi.json lists"),
    ):
        assert told in site.ask(method, path, body).body["error"]["message"], (path, body)
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/predict", 405),
        ("GET", "/v1/tasks/nobody", 404),
    ):
        reply = site.ask(method, path)
        assert (reply.status, set(reply.body["error"])) == (status, {"code", "message"})


def test_tasks_are_listed_and_described(site):
    listed = site.ask("GET", "/v1/tasks").body
    assert [task["name"] for task in listed["tasks"]] == ["mood", "pair", "several", "taste"]
    mood = site.ask("GET", "/v1/tasks/mood").body
    assert mood["classes"] == ["no", "yes"]
    assert mood["fields"] == ["text"]
    assert mood["examples"] == 4


def test_texts_to_label_are_suggested(site, folder):
    pool = ["good", "bad", "awful", "fun", "so good"]
    labelled = [{"text": "good", "label": "yes"}, {"text": "bad", "label": "no"}]
    body = {"task": "mood", "texts": pool, "n": 2, "labelled": labelled}
    reply = site.ask("POST", "/v1/suggest", body)
    assert reply.status == 200
    known = FewShotClassifier.load(folder / "mood", store=None)
    expected = known.suggest(pool, 2, labelled=(["good", "bad"], ["yes", "no"]))
    told = [(one["row"], one["text"], one["reason"]) for one in reply.body["suggestions"]]
    assert told == [(one.index, pool[one.index], one.reason) for one in expected]
    assert site.ask("POST", "/v1/suggest", {**body, "task": "several"}).status == 422


def test_fitting_is_off_unless_it_is_allowed(site, folder):
    reply = site.ask("POST", "/v1/tasks", {"name": "x", "examples": [{"text": "a", "label": "b"}]})
    assert reply.status == 403
    assert "--allow-fit" in reply.body["error"]["message"]
    assert not (folder / "x").exists()


def test_what_lies_in_the_folder_and_is_not_served_is_not_replaced_unasked(tmp_path):
    body = {
        "name": "new",
        "examples": [{"text": t, "label": y} for t, y in zip(*EXAMPLES, strict=True)],
        "labels": WORDS,
    }
    broken, foreign = tmp_path / "new" / "manifest.json", tmp_path / "notes" / "mine.txt"
    for file in (broken, foreign):
        file.parent.mkdir()
        file.write_text("{}")
    with serving(Tasks([tmp_path]), allow_fit=True) as site:
        for name in ("new", "notes"):
            assert site.ask("POST", "/v1/tasks", {**body, "name": name}).status == 409
        refused = site.ask("POST", "/v1/tasks", {**body, "name": "notes", "replace": True})
        assert (refused.status, refused.body["error"]["code"]) == (409, "conflict")
        assert refused.body["error"]["message"].startswith("notes holds other files")
        [why] = site.ask("GET", "/v1/tasks").body["broken"].values()
        assert why.startswith("new/manifest.json is not the manifest")
        assert (broken.read_text(), foreign.read_text()) == ("{}", "{}")
        assert site.ask("POST", "/v1/tasks", {**body, "replace": True}).status == 201


def test_a_task_that_is_served_from_a_deeper_folder_is_not_replaced_for_a_while(tmp_path):
    fitted(tmp_path / "team", "zz")
    examples = [{"text": t, "label": y} for t, y in zip(*EXAMPLES, strict=True)]
    body = {"name": "zz", "examples": examples, "labels": WORDS, "replace": True}
    with serving(Tasks([tmp_path]), allow_fit=True) as site:
        refused = site.ask("POST", "/v1/tasks", body)
        assert (refused.status, refused.body["error"]["code"]) == (409, "conflict")
        assert "another folder" in refused.body["error"]["message"]
        assert str(tmp_path) not in refused.body["error"]["message"]
        assert not (tmp_path / "zz").exists()
        fitted(tmp_path, "zz")  # beside the one that is served, by hand
        [(where, why)] = site.ask("POST", "/v1/reload").body["broken"].items()
        assert (where, why.split()[0]) == ("zz", "team/zz")


def test_a_task_is_fitted_served_and_kept(tmp_path):
    examples = [{"text": t, "label": y} for t, y in zip(*EXAMPLES, strict=True)]
    body = {"name": "new", "examples": examples, "labels": WORDS}
    with serving(Tasks([tmp_path]), allow_fit=True) as site:
        made = site.ask("POST", "/v1/tasks", body)
        assert made.status == 201
        assert (made.body["queries"], made.body["task"]["classes"]) == (5, ["no", "yes"])
        own = FewShotClassifier("fake", labels=WORDS, store=None).fit(*EXAMPLES)
        told = site.predict(TEXTS, "new").body["results"]["new"]
        p = [list(row["probabilities"].values()) for row in told]
        assert np.allclose(p, own.predict_proba(TEXTS), atol=1e-9)
        assert site.ask("POST", "/v1/tasks", body).status == 409
        assert site.ask("POST", "/v1/tasks", {**body, "replace": True}).status == 201
        for change, status in (
            ({"name": "../up"}, 422),
            ({"name": ".hidden"}, 422),
            ({"name": "a/b"}, 422),
            ({"name": "manifest.json"}, 422),
            ({"model": "openai:http://169.254.169.254?model=x"}, 422),
            ({"examples": []}, 422),
            ({"template": "no slot {text}"}, 422),
            ({"labels": {"yes": "good"}}, 422),
        ):
            assert (
                site.ask("POST", "/v1/tasks", {**body, "name": "other", **change}).status == status
            )
    assert Tasks([tmp_path]).names() == ["new"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["new"]


def test_requests_have_a_largest_size(folder):
    bounds = Bounds(body=2000, texts=3, characters=50)
    with serving(Tasks([folder]), allow_fit=True, bounds=bounds) as site:
        assert site.predict(["x"] * 3, "mood").status == 200
        assert site.predict(["x"] * 2, ["mood", "taste"]).status == 413
        assert site.predict([{"a": "x" * 51, "b": ""}], "pair").status == 413
        for text in ("x" * 51, "x" * 2000):  # a word for programs, whichever bound it was
            assert site.predict([text], "mood").body["error"]["code"] == "too_large"
        suggest = {"task": "mood", "texts": ["x"] * 4}
        assert site.ask("POST", "/v1/suggest", suggest).status == 413
        one = {"model": "mood", "state": "x" * 51, "questions": {"q": {"criteria": WORDS}}}
        assert site.ask("POST", "/v1/systemone", one).status == 413
        fit = {"name": "new", "examples": [{"text": "a", "label": "yes"}]}
        for more, what in (
            ({"template": "{text} " + "x" * 50 + " {mask}"}, "template: "),
            ({"labels": {"yes": ["a", "b"], "no": ["c", "d"]}}, "labels: at most 3 of them"),
            ({"labels": {"yes": "x" * 51, "no": "c"}}, "labels: text 0 has 51"),
        ):
            refused = site.ask("POST", "/v1/tasks", {**fit, **more})
            assert (refused.status, refused.body["error"]["message"][: len(what)]) == (413, what)
