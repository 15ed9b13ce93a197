"""Texts that models write: every dialect, a model of this process, the store and the budget."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

import numpy as np
import pytest

from fewfit import load_model
from fewfit.errors import BudgetExceededError, CapabilityError, InputError, ModelError
from fewfit.models.generation import Writing, Written, writes
from fewfit.prompts import Template, Urial
from fewfit.store import StoredModel, statistics, tables
from fewfit.store.texts import write_texts
from tests.fake_server import FakeServer, Reply, continued, edited

DIALECTS = (
    *("openai", "openai-chat", "openai-chat:text", "anthropic", "llamacpp", "llamacpp:chat"),
    *("vllm", "sglang", "ollama"),
)
TEMPLATE = Template("{text}{mask}")
TEXTS = ("Why?", "How?", "Why?")


def prompts(*texts):
    return [TEMPLATE.render({"text": text}) for text in texts]


def named(scheme, server, more=""):
    kind, _, way = scheme.partition(":")
    way = {"": "", "text": "&answers=text", "chat": "&chat=true"}[way]
    return load_model(f"{kind}:{server.url}?model=toy&retries=0&backoff=0{way}{more}")


def texts_of(model, asked, how, **options):
    found: dict[int, Written] = {}
    for where, written in write_texts(model, asked, how, **{"store": None, **options}):
        found |= dict(zip(where.tolist(), written, strict=True))
    return [found[i] for i in range(len(asked))]


@pytest.mark.parametrize("scheme", DIALECTS)
def test_a_dialect_writes_what_the_server_says(scheme):
    with FakeServer() as server:
        model = named(scheme, server)
        said = texts_of(model, prompts(*TEXTS), Writing(stop=("# Query",)))
        cut = texts_of(model, prompts("Why?"), Writing(max_tokens=2))[0]
        sent = {r.text for r in server.requests if r.path not in ("/tokenize", "/apply-template")}
    assert len(sent) == 2, "a repeated prompt is asked once"
    assert [text.was_asked for text in said] == [True, True, False]
    assert said[0].text == said[2].text != said[1].text
    if not scheme.endswith(":chat"):
        assert said[0].text.strip() == continued("Why?", 99, ("# Query",))[0].strip()
    assert all(text.is_whole and text.n_tokens > 0 and not text.reason for text in said)
    assert "# Query" not in said[0].text
    assert not cut.is_whole
    assert len(cut.text.split()) == 2


@pytest.mark.parametrize("scheme", DIALECTS)
@pytest.mark.parametrize("odd", [None, 5, "\ud800", ["x"]], ids=repr)
def test_what_is_no_text_is_that_rows_failure(scheme, odd):
    where = {
        "openai": ("choices", 0, "text"),
        "openai-chat": ("choices", 0, "message", "content"),
        "anthropic": ("content", 0, "text"),
        "llamacpp": ("content",),
        "vllm": ("choices", 0, "text"),
        "sglang": ("text",),
        "ollama": ("response",),
    }[scheme.partition(":")[0]]

    def script(request, before):
        bad = "BAD" in request.text or "BAD" in str(request.body)
        if request.path in ("/tokenize", "/apply-template") or not bad:
            return None
        return edited(request.honest, *where, to=odd)

    with FakeServer(script) as server:
        model = named(scheme.partition(":")[0], server)
        said = texts_of(model, prompts("Why?", "BAD"), Writing())
    assert not said[0].reason
    assert said[0].text.strip()
    empty = scheme.startswith("openai-chat") and odd is None
    assert (said[1].text, bool(said[1].reason)) == ("", not empty)


def test_refusals_calls_and_reasoning_are_no_texts():
    told = {
        "refused": {"content": None, "refusal": "no"},
        "called": {"content": None, "tool_calls": [{}]},
        "thought": {"content": "<think>well", "role": "assistant"},
        "said": {"content": "<think>well</think>Fine."},
        "opened": {"content": "well, <think>?</think> hm</think>Fine."},
        "quoted": {"content": "Put it into <think> and </think>."},
    }

    def script(request, before):
        return edited(request.honest, "choices", 0, "message", to=told[request.text])

    with FakeServer(script) as server:
        said = texts_of(named("openai-chat", server), prompts(*told), Writing())
    expected = ["", "", "", "Fine.", "Fine.", "Put it into <think> and </think>."]
    assert [text.text for text in said] == expected
    assert [bool(text.reason) for text in said] == [True, True, True, False, False, False]


def test_a_server_that_says_nothing_usable_ends_the_run():
    with FakeServer(lambda request, before: Reply({"choices": []})) as server:
        model = named("openai", server)
        with pytest.raises(ModelError, match="16 prompts in a row"):
            texts_of(model, prompts(*map(str, range(40))), Writing())
    with pytest.raises(CapabilityError, match="writes no texts"):
        writes(load_model("embedded"))
    with pytest.raises(InputError, match="at least 1"):
        Writing(0)


def test_texts_are_stored_and_paid_for_once(tmp_path):
    path, how = tmp_path / "s.sqlite", Writing(stop=("# Query",))
    rows = prompts(*(f"text {i}" for i in range(7)))
    with FakeServer() as server:
        model = StoredModel(named("openai", server), tmp_path / "other.sqlite")
        with pytest.raises(BudgetExceededError, match="4 are left"):
            texts_of(model, rows, how, store=path, max_queries=3)
        assert len(server.requests) == 3
        first = texts_of(model, rows, how, store=path, max_queries=4)
        assert len(server.requests) == 7
        again = texts_of(model, rows, how, store=path, max_queries=0)
        assert len(server.requests) == 7
        with pytest.raises(BudgetExceededError, match="Nothing was asked"):
            texts_of(model, rows, how, max_queries=3)
        texts_of(model, rows[:1], Writing(stop=("# Query",), max_tokens=5), store=path)
        assert len(server.requests) == 8, "another length is another text"
    assert [t.text for t in again] == [t.text for t in first]
    assert [t.n_tokens for t in again] == [t.n_tokens for t in first]
    assert not any(t.was_asked for t in again)
    assert statistics(path)["rows"] == 8


def test_ctrl_c_keeps_what_is_written_while_texts_are_stored(tmp_path, monkeypatch):
    asked, write, stored = prompts(*(f"text {i}" for i in range(60))), tables.write, []

    def interrupted(connection, kind, rows, **options):
        if rows and not stored:
            stored.append(len(rows))
            until = time.monotonic() + 20
            while len(server.queries()) < len(rows) + 20 and time.monotonic() < until:
                time.sleep(0.005)
            raise KeyboardInterrupt
        return write(connection, kind, rows, **options)

    monkeypatch.setattr(tables, "write", interrupted)
    with FakeServer(lambda request, n: replace(request.honest, delay=0.005)) as server:
        model, how = named("openai", server, "&connections=4"), Writing(max_tokens=3)
        with pytest.raises(KeyboardInterrupt):
            texts_of(model, asked, how, store=tmp_path / "s.sqlite")
        first = len(server.queries())
        assert stored[0] + 20 <= first < 60
        texts = texts_of(model, asked, how, store=tmp_path / "s.sqlite")
    assert first + sum(text.was_asked for text in texts) - 60 <= 4, "no more than was under way"


def test_a_damaged_text_is_written_again(tmp_path):
    path = tmp_path / "s.sqlite"
    with FakeServer() as server:
        model = named("openai", server)
        [before] = texts_of(model, prompts("Why?"), Writing(), store=path)
        connection = sqlite3.connect(path)
        [[data]] = connection.execute("SELECT data FROM pieces").fetchall()
        for damaged in (data[:-7] + b"x" + data[-6:], data[:6]):
            connection.execute("UPDATE pieces SET data=?", (damaged,))
            connection.commit()
            [after] = texts_of(model, prompts("Why?"), Writing(), store=path)
            assert after.was_asked
            assert after.text == before.text
        connection.close()
        [kept] = texts_of(model, prompts("Why?"), Writing(), store=path)
    assert not kept.was_asked


def test_a_failed_text_is_not_stored(tmp_path):
    path = tmp_path / "s.sqlite"

    def script(request, before):
        return None if before else Reply({"error": {"message": "no"}}, status=400)

    with FakeServer(script) as server:
        model = named("openai", server)
        [lost] = texts_of(model, prompts("Why?"), Writing(), store=path)
        [found] = texts_of(model, prompts("Why?"), Writing(), store=path)
    assert "400" in lost.reason
    assert found.text
    assert np.isfinite(found.n_tokens)


def test_urial_asks_what_it_shows():
    view = Urial()
    text = view.render({"text": "Why {this}?"}).text("")
    assert text == view.prompt("Why {this}?")
    assert text.count("\n# Answer:\n") == 1 + len(view.examples) == 4
    assert view.read(" Because.\n```\n\n# Query:") == "Because."
