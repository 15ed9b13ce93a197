"""Transforms as data: there and back, saved, named on the command line, written by a model."""

from __future__ import annotations

import codecs
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from fewfit import FewShotClassifier
from fewfit.artifacts import schema
from fewfit.cli.app import app
from fewfit.errors import ArtifactError, InputError, ModelError, ModelWarning
from fewfit.estimators.transforms import open_transform
from fewfit.models import FakeModel
from fewfit.prompts import Conjugate, InContext, paraphrased
from fewfit.prompts.transforms import ENCODINGS, make_transform
from tests.fake_server import FakeServer, Reply, edited

TEMPLATE = "{text} It was {mask}."
TEXTS = ["good fun", "bad taste", "fine", "so bad"]
Y = ["pos", "neg", "pos", "neg"]
LABELS = {"pos": "good", "neg": "bad"}
LEET = {"characters": {"e": "3", "a": "4", "o": "0"}}
FORMAT = {"format": "<p>{text}</p>"}


@pytest.mark.parametrize(
    ("data", "text", "expected"),
    [
        ("rot13", "Fun 1!", "Sha 1!"),
        ("base64", "é", "w6k="),
        ("json", 'say "hé"\n', '"say \\"hé\\"\\n"'),
        ("reversed", "abc", "cba"),
        ("spelled", "so fun", "s-o f-u-n"),
        ("swapcase", "Ab", "aB"),
        (LEET, "a code 30", "4 c0d3 eo"),
        ({"characters": {"a": "b", "b": "c"}}, "abc", "bca"),
        (FORMAT, "x", "<p>x</p>"),
    ],
)
def test_there_and_back(data, text, expected):
    way = make_transform(data)
    assert way.there(text) == expected
    assert way.back(expected) == text
    assert way.is_exact
    view = Conjugate(TEMPLATE, data)
    assert view.spell("good") == way.there("good")
    assert view.render({"text": text}).parts[0].text == expected
    assert view.read(f" {way.there('good')}\n") == "good"


@settings(max_examples=40, deadline=None)
@given(text=st.text(), name=st.sampled_from([*ENCODINGS, "leet", "format"]))
def test_what_does_not_come_back_is_refused(text, name):
    data = {"leet": LEET, "format": FORMAT}.get(name, name)
    view = Conjugate(TEMPLATE, data)
    try:
        there = view.spell(text)
    except (InputError, UnicodeEncodeError):
        return
    assert view.transform.back(there) == text


@pytest.mark.parametrize(
    "data",
    [
        *("rot26", 5, [], {}, {"characters": {}}, {"characters": {"a": "bc"}}),
        *({"characters": {"a": "x", "b": "x"}}, {"characters": {"a": 1}}, {"format": "x"}),
        *({"format": "{text}"}, {"format": "{text}{text}"}, {"format": 1}, {"other": 1}),
    ],
    ids=repr,
)
def test_what_is_no_transform(data):
    with pytest.raises(InputError, match="transform"):
        make_transform(data)


def test_code_needs_the_way_back_and_garbage_has_none():
    with pytest.raises(InputError, match="needs the way back"):
        Conjugate(TEMPLATE, str.upper)
    for name in ("base64", "json"):
        with pytest.raises(InputError, match="is not"):
            make_transform(name).back("{x")
    assert make_transform("json").back("5") == "5"
    assert make_transform(FORMAT).back("x") == "x"


def edit(folder, transform):
    """Put another transform into an artifact's last view, sealed; return the one that was."""
    manifest, arrays = schema.read(folder)
    *others, last = manifest.template
    changed = last.model_copy(update={"transform": transform})
    schema.write(folder, manifest.model_copy(update={"template": [*others, changed]}), arrays)
    return last.transform


@pytest.mark.parametrize("data", ["rot13", LEET, FORMAT], ids=str)
def test_an_artifact_holds_it(data, tmp_path):
    view = Conjugate(TEMPLATE, data)
    clf = FewShotClassifier(FakeModel(), template=[TEMPLATE, view], labels=LABELS, store=None)
    clf.fit(TEXTS, Y).save(tmp_path / "a")
    again = FewShotClassifier.load(tmp_path / "a", model=FakeModel(), store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
    plain = FewShotClassifier(FakeModel(), template=[TEMPLATE], labels=LABELS, store=None)
    assert not np.allclose(plain.fit(TEXTS, Y).predict_proba(TEXTS), clf.predict_proba(TEXTS))
    assert "through a transform" in (tmp_path / "a" / "README.md").read_text()
    assert edit(tmp_path / "a", "rot26") == data
    with pytest.raises(ArtifactError, match="does not hold together"):
        FewShotClassifier.load(tmp_path / "a", model=FakeModel(), store=None)


def french(server, **more):
    spec = f"openai-chat:{server.url}?model=toy&retries=0&backoff=0"
    return {"language": "French", "writer": spec, **more}


def translator(request, before):
    """A toy translator: rot13 is French."""
    if request.path != "/v1/chat/completions":
        return None
    told, _, text = request.text.partition("\n\n")
    assert told.startswith(("Translate into French", "Translate into English"))
    if text == "nothing":
        return edited(request.honest, "choices", 0, "message", "content", to=" ")
    return edited(
        request.honest, "choices", 0, "message", "content", to=codecs.encode(text, "rot13")
    )


def test_a_language_that_a_model_writes(tmp_path):
    store = tmp_path / "s.sqlite"
    with FakeServer(translator) as server:
        way = open_transform(french(server), store)
        view = Conjugate(TEMPLATE, way)
        clf = FewShotClassifier(FakeModel(), template=view, labels=LABELS, store=store)
        clf.fit(TEXTS, Y)
        asked = len(server.requests)
        rendered = view.render({"text": "good fun"})
        assert rendered.text(view.spell("good")) == "tbbq sha Vg jnf tbbq."
        assert len(server.requests) == asked, "each text is translated once"
        assert view.read(" tbbq ") == "good"
        clf.save(tmp_path / "a")
        assert len(server.requests) == asked + 1
        again = FewShotClassifier.load(tmp_path / "a", model=FakeModel(), store=store)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
        assert len(server.requests) == asked + 1, "nor after loading, since it is stored"
        with pytest.raises(ModelError, match="the answer is empty"):
            way.there("nothing")
        assert pickle.loads(pickle.dumps(way.data)) == way.data
    edit(tmp_path / "a", {**way.data, "writer": "openai-chat:https://example.com?model=toy"})
    with pytest.raises(ArtifactError, match="another machine only if you name it"):
        FewShotClassifier.load(tmp_path / "a", model=FakeModel(), store=store)


def test_a_translation_that_is_cut_is_said():
    def script(request, before):
        reply = translator(request, before)
        long = "tbbq sha" in json.dumps(reply.body)
        return edited(reply, "choices", 0, "finish_reason", to="length") if long else reply

    with FakeServer(script) as server:
        way = open_transform(french(server))
        with pytest.warns(ModelWarning, match="1 of 2 texts .* 256 tokens .*'good fun'"):
            way.prepare(["good fun", "good"])
        assert way.there(" good fun ") == " tbbq sha "


def test_a_writer_that_no_artifact_may_name_is_refused_before_it_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "abcdefgh12345678")
    table, way = tmp_path / "t.csv", tmp_path / "way.json"
    table.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(TEXTS, Y, strict=True)))
    with FakeServer(translator) as server:
        data = french(server)
        data["writer"] += "&key_env=A_KEY"
        clf = FewShotClassifier(
            FakeModel(),
            template=Conjugate(TEMPLATE, open_transform(data)),
            labels=LABELS,
            store=None,
        ).fit(TEXTS, Y)
        with pytest.raises(ArtifactError, match="no artifact may name the writer"):
            clf.save(tmp_path / "a")
        assert not (tmp_path / "a").exists()
        asked = len(server.requests)
        fit = ["fit", table, "-o", tmp_path / "a", "--model", "fake", "--transform", way]
        for writer in (data["writer"], "openai-chat:https://example.com?model=toy"):
            way.write_text(json.dumps({**data, "writer": writer}))
            done = CliRunner().invoke(app, [str(argument) for argument in fit])
            assert done.exit_code == 4
            assert "no artifact may name the writer" in done.output
        assert len(server.requests) == asked


def test_a_view_that_learns_nothing_of_the_examples_can_be_cross_validated():
    for view in (Conjugate(TEMPLATE, "rot13"), paraphrased(TEMPLATE, lambda text: [text], n=1)):
        clf = FewShotClassifier(FakeModel(), template=view, labels=LABELS, store=None)
        assert clf.fit(TEXTS, Y).expected_accuracy().accuracy is not None
    shown = InContext(TEMPLATE, n=1)
    clf = FewShotClassifier(FakeModel(), template=shown, labels=LABELS, store=None)
    assert clf.fit(TEXTS, Y).expected_accuracy().accuracy is None


def test_a_language_needs_a_writer():
    for data in (
        {"language": "French"},
        {"language": "French", "writer": "embedded"},
        {"language": "French", "writer": "fake", "more": "x"},
        {"language": " ", "writer": "fake"},
        {"language": "French", "writer": "openai:http://x?model=m", "prompt": "no text"},
    ):
        with pytest.raises(Exception, match=r"transform|writes no texts"):
            open_transform(data)
    with FakeServer(lambda request, before: Reply({"error": "no"}, status=400)) as server:
        way = open_transform(french(server))
        with pytest.raises(ModelError, match="no translation of 'good'"):
            way.there("good")


def test_from_the_command_line(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in zip(TEXTS, Y, strict=True)))
    own = tmp_path / "own.json"
    own.write_text(json.dumps(LEET))
    words = ("--label", "pos=good", "--label", "neg=bad", "--template", TEMPLATE)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    fit = ("fit", table, "-o", tmp_path / "a", "--model", "fake", *words)
    done = run(*fit, "--transform", "none", "--transform", own)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "a" / "manifest.json").read_text())["template"]
    assert [view["transform"] for view in found] == [None, LEET]
    assert run("predict", tmp_path / "a", table).exit_code == 0
    shown = run(*fit, "--transform", "rot13", "--show-prompt").output
    assert "Vg jnf" in shown
    compare = ("compare", table, table, "--model", "fake", *words, "--shots", "1", "--seeds", "1")
    done = run(*compare, "--transform", "spelled", "--drop-overlap", "--dry-run")
    assert done.exit_code in (0, 2), done.output
    for wrong in (("rot13", "rot13"), ("rot26",), (tmp_path / "no.json",)):
        options = [part for name in wrong for part in ("--transform", name)]
        assert run(*fit, *options).exit_code == 2
    own.write_text("5")
    assert run(*fit, "--transform", own).exit_code == 2
    with FakeServer() as server:
        write = ("generate", table, "--model", f"openai:{server.url}?model=toy", "--show-prompt")
        assert run(*write, "--transform", "reversed").output.strip() == "nuf doog"
        assert run(*write, "--transform", "none").output.strip() == "good fun"
        assert run(*write, "--transform", "rot13", "--prompt", "urial").exit_code == 2
