"""What servers list at the slot: which tokens spell a label word, and rows where none does."""

from __future__ import annotations

import json
import math
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, ZeroShot, load_model
from fewfit.cli import app
from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.models.base import Capabilities
from fewfit.models.fake import FakeModel
from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.store import StoredModel, statistics
from tests.fake_server import TOKENS, FakeServer, Reply, edited
from tests.models.remote.test_base import LABELS, QUICK, TEMPLATE, WORDS, model_of, prompts

LISTS = {
    "openai": ("choices", 0, "logprobs", "top_logprobs", 0),
    "openai-chat": ("choices", 0, "logprobs", "content", 0, "top_logprobs"),
    "ollama": ("logprobs", 0, "top_logprobs"),
    "llamacpp": ("completion_probabilities", 0, "top_logprobs"),
}
THOUGHT = {"<think>": 0.9, "Okay": 0.05, "\n": 0.01}


def listing(scheme, tokens, **more):
    """What a dialect writes for tokens with these probabilities."""
    logs = {token: math.log(p) for token, p in tokens.items()}
    if scheme == "openai":
        return logs
    return [
        {"id": TOKENS.index(t) if t in TOKENS else 500 + i, "token": t, "logprob": value, **more}
        for i, (t, value) in enumerate(logs.items())
    ]


def says(scheme, tokens, where=""):
    """A server that lists these tokens for prompts that contain `where`."""

    def script(request, before):
        side = ("/tokenize", "/v1/embeddings", "/embedding", "/api/embed", "/v1/models")
        if request.path in side or where not in request.text:
            return None
        return edited(request.honest, *LISTS[scheme], to=listing(scheme, tokens))

    return script


def classifier_of(scheme, server, store=None, options="", **more):
    spec = f"{scheme}:{server.url}?model=toy&{QUICK}{options}"
    more = {"labels": LABELS, "decoder": ZeroShot(), **more}
    return FewShotClassifier(spec, template=TEMPLATE.source, store=store, **more)


def quietly(action):
    with pytest.warns(ModelWarning):
        return action()


# --- a row without any label word has no label ---------------------------------------------------


@pytest.mark.parametrize("scheme", LISTS)
def test_a_row_without_any_listed_label_word_has_no_answer_and_is_not_stored(scheme, tmp_path):
    texts = ["one", "two HIDE", "three"]
    with FakeServer(says(scheme, THOUGHT, "HIDE")) as server:
        model = StoredModel(
            model_of(scheme, server, f"&hidden={server.url}"), tmp_path / "s.sqlite"
        )
        with pytest.warns(ModelWarning, match=r"1 of 3 .* listed \(1\): '<think>', 'Okay'"):
            answers = model.observe(prompts(*texts), WORDS)
        assert answers.status.tolist() == [Status.OK, Status.FAILED, Status.OK]
        assert np.isnan(answers.scores[1]).all()
        assert np.isnan(answers.hidden[1]).all()
        assert "'<think>', 'Okay'" in answers.reason[1]
        assert answers.reason[0] == ""
        assert statistics(tmp_path / "s.sqlite")["rows"] == 2
        embedded = [r for r in server.requests if "HIDE" in r.text and "embed" in r.path]
        assert not embedded, "what cannot be used is not asked for"
        server.script = None
        assert model.observe(prompts(*texts), WORDS).queries == 1, "it is asked again, alone"


@pytest.mark.parametrize("scheme", LISTS)
def test_in_fit_and_predict_such_a_row_has_no_label(scheme):
    texts, y = ["a", "b", "c HIDE", "d"], ["neg", "pos", "neg", "pos"]
    with FakeServer(says(scheme, THOUGHT, "HIDE")) as server:
        clf = classifier_of(scheme, server, errors="nan")
        quietly(lambda: clf.fit(texts, y))
        assert clf.n_examples_ == 3
        proba = quietly(lambda: clf.predict_proba(["e", "f HIDE", "g"]))
        assert np.isfinite(proba[[0, 2]]).all()
        assert np.isnan(proba[1]).all()
        with pytest.warns(ModelWarning), pytest.raises(ModelError, match="no label"):
            clf.predict(["e", "f HIDE"])
        strict = classifier_of(scheme, server)
        with pytest.warns(ModelWarning), pytest.raises(ModelError, match=r"1 of 5 .*'<think>'"):
            strict.fit(texts, y)


@pytest.mark.parametrize("options", ["", "&connections=1"])
def test_a_model_that_never_says_a_label_word_stops_soon_and_is_named(options):
    with FakeServer(says("openai-chat", THOUGHT)) as server:
        spec = f"openai-chat:{server.url}?model=toy{options}"
        with pytest.raises(ModelError, match=r"first 16 prompts.*'<think>'.*reasoning model"):
            load_model(spec).observe(prompts(*map(str, range(200))), WORDS)
        assert len(server.queries()) <= 16 + 16


def test_a_model_that_does_now_and_then_is_asked_to_the_end():
    texts = ["good", *(f"HIDE {i}" for i in range(60))]
    with FakeServer(says("openai", THOUGHT, "HIDE")) as server:
        model = load_model(f"openai:{server.url}?model=toy&connections=1")
        answers = quietly(lambda: model.observe(prompts(*texts), WORDS))
    assert (answers.status == Status.FAILED).sum() == 60


def test_a_content_free_prompt_without_a_label_word_says_what_was_listed():
    def script(request, before):
        return says("openai", THOUGHT)(request, before) if request.text == " It was" else None

    with FakeServer(script) as server:
        clf = classifier_of("openai", server, errors="nan")
        with (
            pytest.warns(ModelWarning),
            pytest.raises(ModelError, match=r"content-free.*'<think>'.*calibration='none'"),
        ):
            clf.fit(["a", "b"], ["neg", "pos"])
        quietly(
            lambda: classifier_of("openai", server, calibration="none").fit(["a"] * 2, [*LABELS])
        )


def test_the_command_line_leaves_such_rows_empty_and_says_why(tmp_path):
    (tmp_path / "new.csv").write_text("text\nfine\nodd HIDE\n")
    with FakeServer(says("openai", THOUGHT, "HIDE")) as server:
        quietly(lambda: classifier_of("openai", server).fit(["a", "b"], ["neg", "pos"])).save(
            tmp_path / "a"
        )
        command = ["predict", str(tmp_path / "a"), str(tmp_path / "new.csv"), "--store", "none"]
        run = CliRunner().invoke
        done = run(app, command)
        assert done.exit_code == 3
        assert "'<think>'" in done.output
        assert "Traceback" not in done.output
        done = run(app, [*command, "--errors", "nan", "-o", str(tmp_path / "out.csv")])
        assert done.exit_code == 0, done.output
        lines = (tmp_path / "out.csv").read_text().splitlines()
        assert lines[0] == "text,prediction,probability,prediction_status"
        assert lines[1].endswith(",ok")
        assert lines[2].startswith('odd HIDE,,,"failed: none of the label words')
        run(app, [*command, "--errors", "nan", "--json", "-o", str(tmp_path / "out.json")])
        first, last = map(json.loads, (tmp_path / "out.json").read_text().splitlines())
    assert first["status"] == "ok"
    assert (last["prediction"], last["status"]) == (None, "failed")
    assert "'<think>'" in last["reason"]


class Bounds(FakeModel):
    """Somebody's own model, whose answers may be nothing but bounds."""

    @property
    def capabilities(self):
        return Capabilities(scores=ScoreSpace.LOGPROB, hidden=True, top_k=5)

    def stream(self, prompts, words):
        for positions, answers in super().stream(prompts, words):
            hidden = np.array([["HIDE" in prompts[i].text("_")] * len(words) for i in positions])
            values = {name: getattr(answers, name) for name in vars(answers)}
            yield positions, Observations(**{**values, "censored": hidden})


def test_nothing_but_bounds_is_no_label_whoever_says_it_nor_is_it_kept(tmp_path):
    path = tmp_path / "s.sqlite"
    model = Bounds()
    clf = FewShotClassifier(model, labels=LABELS, store=path, errors="nan")
    quietly(lambda: clf.fit(["good", "bad", "HIDE good"], ["pos", "neg", "pos"]))
    assert clf.n_examples_ == 2
    assert np.isnan(clf.predict_proba(["HIDE", "good"])[:, 0]).tolist() == [True, False]
    asked = model.queries
    clf.predict_proba(["HIDE", "good"])
    assert model.queries == asked + 1, "not kept, and so asked again"


def test_bounds_that_an_older_version_kept_are_not_believed(tmp_path):
    model = StoredModel(Bounds(), tmp_path / "s.sqlite")
    with mock.patch.object(Observations, "unlisted", np.zeros(2, dtype=bool)):
        model.observe(prompts("HIDE", "good"), WORDS)
    assert statistics(model.path)["rows"] == 2
    assert model.count(prompts("HIDE", "good"), WORDS) == 1
    assert model.observe(prompts("HIDE", "good"), WORDS).queries == 1


def test_a_word_without_weight_gives_no_label():
    answers = Observations(
        columns=("a", "b", "c"),
        scores=np.full((2, 3), -1.0),
        space=ScoreSpace.LOGPROB,
        hidden=np.ones((2, 4)),
        label_mass=np.full(2, 0.5),
        n_tokens=np.zeros(2),
        status=np.zeros(2),
        asked=np.ones(2),
        censored=np.array([[False, True, True], [True, False, True]]),
    )
    found = answers.by_class(["x", "y"], [0, 0, 1], [0.0, 1.0, 1.0])
    assert found.status.tolist() == [Status.FAILED, Status.OK]
    for name in ("scores", "hidden", "label_mass", "word_scores"):
        assert np.isnan(getattr(found, name)[0]).all()
    assert not answers.unlisted.any()
    assert "no label word" in found.why_failed()


# --- which tokens are a label word ---------------------------------------------------------------


def scores_of(scheme, tokens, words=WORDS, options="", template=TEMPLATE):
    with FakeServer(says(scheme, tokens)) as server:
        model = model_of(scheme, server, options)
        return model.observe([template.render({"text": "x"})], words)


@pytest.mark.parametrize("scheme", ["openai", "openai-chat", "ollama"])
@pytest.mark.parametrize(
    ("token", "word"),
    [
        ("good", "good"),
        (" good", "good"),
        ("Ġgood", "good"),
        ("▁good", "good"),
        ("ĠschÃ¶n", "schön"),
        ("schÃ¶n", "schön"),
        ("▁schön", "schön"),
        ("<0x67>", "g"),
        ("1", "1"),
        ("▁", "▁"),
    ],
)
def test_the_spellings_of_vocabularies_are_read(scheme, token, word):
    answers = scores_of(scheme, {token: 0.6, "x": 0.1}, [word, "bad"])
    assert answers.scores[0, 0] == pytest.approx(math.log(0.6), rel=1e-5)
    assert answers.censored.tolist() == [[False, True]]


def test_the_bytes_beside_a_token_are_its_text_where_they_are_whole():
    def script(request, before):
        top = [
            {"token": "sch�n", "logprob": math.log(0.5), "bytes": [*"schön".encode()]},
            {"token": "�", "logprob": math.log(0.2), "bytes": [0xC3]},
            {"token": "bad", "logprob": math.log(0.1), "bytes": "odd"},
        ]
        return edited(request.honest, *LISTS["openai-chat"], to=top)

    with FakeServer(script) as server:
        answers = model_of("openai-chat", server).observe(prompts("x"), ["schön", "bad"])
    assert_allclose(answers.scores, np.log([[0.5, 0.1]]), rtol=1e-5)


def test_case_is_told_apart_unless_the_user_says_that_it_is_not():
    tokens = {"Good": 0.5, " GOOD": 0.1, "bad": 0.2}
    with pytest.warns(ModelWarning, match="'Good' is more probable .* 'good'.*case=any"):
        exact = scores_of("openai", tokens)
    assert exact.censored.tolist() == [[True, False]]
    folded = scores_of("openai", tokens, options="&case=any")
    assert_allclose(folded.scores, np.log([[0.6, 0.2]]), rtol=1e-5)
    with pytest.raises(InputError, match="case"):
        scores_of("openai", tokens, ["US", "us"], options="&case=any")
    one, other = (load_model(f"openai:http://h?model=m{more}") for more in ("", "&case=any"))
    assert dict(one.identity) == {
        "kind": "openai",
        "model": "m",
        "server": "http://h",
        "top_k": "5",
        "hidden": "False",
    }, "stored answers stay valid"
    assert dict(other.identity) == {**one.identity, "case": "any"}


@pytest.mark.parametrize(
    ("scheme", "tokens", "words", "template", "says"),
    [
        ("openai", {"Good": 0.5}, ["good", "bad"], "", "'Good' differs .* case=any"),
        ("llamacpp", {"Good": 0.5}, ["good", "bad"], "", "'Good' differs .* case: write the"),
        ("openai", {" good": 0.5}, ["good", "bad"], "{text} ({mask}", "space before"),
        ("openai", {"New": 0.5}, ["New York", "Rome"], "", "'New' may begin 'New York'"),
        ("openai", {"I": 0.5}, ["New York", "Rome"], "", "'New York' is no single token"),
        ("openai", {"token_id:3": 0.5}, ["good", "bad"], "", "vllm:"),
        ("openai-chat", {"<think>": 0.9}, ["good", "bad"], "", "reasoning model"),
        ("openai-chat", {"<|channel|>": 0.9}, ["good", "bad"], "", "reasoning model"),
        ("ollama", {"◁think▷": 0.9}, ["good", "bad"], "", "reasoning model"),
        ("openai", {"I": 0.5, "The": 0.2}, ["good", "bad"], "", "'I', 'The'; choose label words"),
    ],
)
def test_the_message_shows_what_was_listed_and_what_to_do(scheme, tokens, words, template, says):
    view = Template(template) if template else TEMPLATE
    with pytest.warns(ModelWarning, match=says):
        scores_of(scheme, tokens, words, template=view)


def test_a_word_that_begins_another_is_noted():
    with pytest.warns(ModelWarning, match="'1' is listed and may be the beginning of '12'"):
        answers = scores_of("openai", {"1": 0.5, "3": 0.1}, ["1", "12", "3"])
    assert answers.censored.tolist() == [[False, True, False]]
    assert not scores_of("openai", {"1": 0.5, "12": 0.1}, ["1", "12"]).censored.any()


def test_an_entry_that_is_listed_twice_is_one_token():
    def script(request, before):
        good = {"token": "good", "logprob": math.log(0.4)}
        top = [good, good, {"token": "bad", "logprob": math.log(0.1)}]
        return edited(request.honest, *LISTS["openai-chat"], to=top)

    with FakeServer(script) as server:
        answers = model_of("openai-chat", server).observe(prompts("x"), WORDS)
    assert_allclose(answers.scores, np.log([[0.4, 0.1]]), rtol=1e-5)


def test_llama_cpps_completions_are_read_or_named():
    def content(request, before):
        top = [{"id": 1, "token": " good", "bytes": [32, *b"good"], "logprob": math.log(0.5)}]
        logprobs = {"content": [{**top[0], "top_logprobs": top}]}
        return edited(request.honest, "choices", 0, "logprobs", to=logprobs)

    def nothing(request, before):
        reply = edited(request.honest, "choices", 0, "logprobs", to={"content": []})
        return Reply({**reply.body, "timings": {"prompt_ms": 1.0}})

    with FakeServer(content) as server:
        model = model_of("openai", server)
        assert model.observe(prompts("x"), WORDS).scores[0, 0] == pytest.approx(math.log(0.5))
        server.script = nothing
        with pytest.warns(ModelWarning, match="llamacpp: in place of openai:"):
            model.observe(prompts("y"), WORDS)
