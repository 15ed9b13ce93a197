"""Models that answer in words: what is asked, what counts as a label, what it is worth."""

from __future__ import annotations

import json
import pickle
import tracemalloc
import uuid

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, ZeroShot, load_model
from fewfit.cli import app
from fewfit.compare import compare
from fewfit.errors import CapabilityError, InputError, LabelWordWarning, ModelError, ModelWarning
from fewfit.models.probe import probe
from fewfit.models.remote.openai_text import OpenAIChatText
from fewfit.models.remote.words import Labels, Unusable
from fewfit.observations import Status
from fewfit.prompts import InContext
from fewfit.testing import check_frozen_model
from tests import faults
from tests.fake_server import FakeServer, Reply, edited, probabilities, said_label
from tests.models.remote.test_base import QUICK, model_of, prompts

WORDS = ("good", "bad")
IN_WORDS = {
    "openai-chat": "&answers=text",
    "anthropic": "",
    "systemone": "",
}
PATHS = {
    "openai-chat": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "systemone": "/v1/systemone",
}
TEXTS = [f"text number {i}" for i in range(12)]


def in_words(scheme, server, options=""):
    return model_of(scheme, server, IN_WORDS[scheme] + options)


# --- which label an answer names --------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("sports", 0),
        (" Sports.\n", 0),
        ("**SPORTS**", 0),
        ('"sports"', 0),
        ("science  fiction", 1),
        ("Ｓcience fiction", 1),
        ("Science\nFiction!", 1),
        ("The topic is sports.", 0),
        ("Topic is sports.", 0),
        ("is science fiction", 1),
        ("What is it? The topic is c++", 2),
        ("the  topic is: sports", None),
        ('{"label": "sports"}', 0),
        ('{"label": "Sports."}', 0),
        ("C++", 2),
        ("c", 3),
        ("`C`", 3),
        ("<think>c++? sports?</think> C", 3),
        ("c++ or sports?</think>C", 3),
        ("<|channel|>analysis<|message|>C++<|end|><|channel|>final<|message|>sports", 0),
        ("[THINK]c[/THINK]sports", 0),
        ("-1", 5),
        ("1", 4),
    ],
)
def test_an_answer_that_is_a_label_names_it(answer, label):
    labels = Labels(
        ["sports", "science fiction", "C++", "c", "1", "-1"], "What is it? The topic is "
    )
    if label is None:
        with pytest.raises(Unusable):
            labels.find(answer)
    else:
        assert labels.find(answer) == label


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "...",
        "transports",
        "sportsman",
        "no sports",
        "sports or news",
        "sports\nnews",
        "Sports: the text is about a match.",
        "not sports",
        "sport",
        "спорт",
        "deporte",
        "I cannot help with that.",
        "~sports",
        "-sports",
        '{"label": "sports"',
        '{"label": "transports"}',
        '{"Label": "sports"}',
        '{"label": "sports", "sure": false}',
        '{"label": "news", "label": "sports"}',
        '{"label": {"label": "sports"}}',
        "<think>sports",
        "<think>news</think>",
        "us",
    ],
)
def test_anything_else_names_none(answer):
    with pytest.raises(Unusable):
        Labels(["sports", "news", "US", "Us"]).find(answer)


def test_words_that_differ_in_case_are_told_apart_by_it_alone():
    labels = Labels(["US", "us"])
    assert [labels.find(answer) for answer in ("US", "us", "'US'")[:2]] == [0, 1]
    with pytest.raises(Unusable):
        labels.find("Us")


def test_demonstrations_before_the_slot_take_no_memory_of_their_own():
    """A template that begins with the slot's words has them all in its lead, row by row."""
    lead = (
        "".join(f"a text of {i} words, it is about news\n\n" for i in range(400)) + "It is about "
    )
    tracemalloc.start()
    try:
        labels = Labels(["sports", "news"], lead)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    assert labels.find("It is about sports.") == 0
    assert labels.find("about news") == 1


# --- what is asked, and what it is worth ------------------------------------------------------


@pytest.mark.parametrize("output", ["schema", "tool", "plain"])
def test_one_answer_is_one_answers_worth(output):
    with FakeServer() as server:
        model = in_words("openai-chat", server, f"&output={output}")
        check_frozen_model(model)
        answers = model.observe(prompts(*TEXTS), WORDS)
        asked = [r.body["messages"][-1]["content"] for r in server.requests][-12:]
    assert isinstance(model, OpenAIChatText)
    assert model.capabilities.resolution == 1
    said = {text: said_label(text, list(WORDS)) for text in asked}
    expected = [said[next(t for t in asked if t.endswith(f"\n{text} It was"))] for text in TEXTS]
    assert set(expected) == set(WORDS)
    rows = np.array([[1.5, 0.5] if word == "good" else [0.5, 1.5] for word in expected])
    assert_allclose(answers.scores, np.log(rows / 2), rtol=1e-6)
    assert_array_equal(answers.label_mass, np.ones(12))


def test_samples_are_frequencies_and_what_is_no_label_is_no_sample():
    said = ["good", "bad.", "no idea", "GOOD", ""]

    def script(request, before):
        choices = request.honest.body["choices"]
        for choice, text in zip(choices, said, strict=True):
            choice["message"]["content"] = text
        return Reply({**request.honest.body, "choices": choices[::-1]})

    options = "&samples=5&temperature=1&output=plain"
    with FakeServer(script) as server:
        model = in_words("openai-chat", server, options)
        answers = model.observe(prompts("x"), (*WORDS, "fine"))
        body = server.requests[0].body
    assert (body["n"], body["temperature"]) == (5, 1)
    assert_allclose(answers.scores[0], np.log((np.array([2, 1, 0]) + 1 / 3) / 4), rtol=1e-6)
    assert answers.label_mass[0] == pytest.approx(0.6)
    assert model.capabilities.resolution == pytest.approx(0.2)
    assert answers.queries == 1


def test_that_weights_of_words_have_no_effect_on_votes_is_said():
    labels = {"pos": {"good": 1.0, "fine": 0.1}, "neg": "bad"}
    with FakeServer() as server:
        spec = f"openai-chat:{server.url}/v1?model=toy&answers=text"
        clf = FewShotClassifier(spec, labels=labels, decoder=ZeroShot(), store=None)
        with pytest.warns(LabelWordWarning, match="weights of label words have no effect"):
            weighed = clf.fit([], []).predict_proba(TEXTS)
        labels["pos"] = ["good", "fine"]
        plain = clf.fit([], []).predict_proba(TEXTS)  # and is not, where there are none
    assert_array_equal(weighed, plain)


def test_samples_of_a_server_that_gives_one_at_a_time():
    def one(request, before):
        return edited(request.honest, "choices", to=request.honest.body["choices"][:1])

    with FakeServer(one) as server:
        answers = in_words("openai-chat", server, "&samples=3&temperature=1").observe(
            prompts("x"), WORDS
        )
        assert [r.body.get("n") for r in server.requests] == [3, 2, None]
    assert np.exp(answers.scores).sum() == pytest.approx(1)
    with FakeServer() as server:
        model = in_words("anthropic", server, "&samples=3&temperature=none")
        assert model.observe(prompts("x"), WORDS).queries == 1
        assert len(server.requests) == 3
        assert "temperature" not in server.requests[0].body


def test_all_that_was_read_and_written_is_counted():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 90,
        "completion_tokens_details": {"reasoning_tokens": 80},
    }
    with FakeServer(lambda r, n: edited(r.honest, "usage", to=usage)) as server:
        model = in_words("openai-chat", server)
        assert model.observe(prompts("x"), WORDS).n_tokens.tolist() == [100]
        checks = {check.name: check for check in probe(model).checks}
    assert checks["tokens"].detail == "100 for one query, 80 of them reasoning"
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 5}
    with FakeServer(lambda r, n: edited(r.honest, "usage", to=usage)) as server:
        assert in_words("anthropic", server).observe(prompts("x"), WORDS).n_tokens[0] == 12
    with FakeServer(lambda r, n: edited(r.honest, "usage", to=None)) as server:
        for scheme in IN_WORDS:
            assert in_words(scheme, server).observe(prompts("x"), WORDS).n_tokens[0] == -1


def test_probabilities_of_allowed_answers_are_scores():
    def script(request, before):
        return edited(request.honest, "answers", "label", "diagnostics", to={"label_mass": 0.25})

    with FakeServer(script) as server:
        model = in_words("systemone", server, "&instruction=Which?")
        answers = model.observe(prompts(*TEXTS), WORDS)
        body = server.requests[0].body
    given = [probabilities(f"{text} It was", list(WORDS)) for text in TEXTS]
    p = [[row[word] for word in WORDS] for row in given]
    assert_allclose(answers.scores, np.log(p), rtol=1e-5)
    assert_array_equal(answers.label_mass, np.full(12, 0.25, np.float32))
    assert body["questions"]["label"] == {
        "type": "choice",
        "instructions": "Which?",
        "criteria": {"good": None, "bad": None},
    }
    with pytest.raises(CapabilityError, match="at most 26"):
        FewShotClassifier("systemone:http://h?model=m", store=None).fit(
            TEXTS * 3, [f"c{i}" for i in range(36)]
        )


def test_a_request_is_named_by_a_uuid_of_its_own():
    """Some servers (starlette-context, and so llama-cpp-python) refuse any other name."""
    with FakeServer() as server:
        in_words("openai-chat", server).observe(prompts(*TEXTS), WORDS)
        names = [request.headers["X-Request-Id"] for request in server.requests]
    assert len(set(names)) == len(TEXTS)
    assert [str(uuid.UUID(name, version=4)) for name in names] == names


def test_decisions_are_asked_and_read_in_openais_form():
    with FakeServer() as server:
        model = model_of("decisions", server, "&instruction=Which?")
        answers = model.observe(prompts(*TEXTS), WORDS)
        body = server.requests[0].body
        assert json.loads(model.show(prompts(TEXTS[0])[0], WORDS))["questions"] == body["questions"]
        found = {c.name: c for c in probe(model).checks}
    given = [probabilities(f"{text} It was", list(WORDS)) for text in TEXTS]
    p = [[row[word] for word in WORDS] for row in given]
    assert_allclose(answers.scores, np.log(p), rtol=1e-5)
    assert np.isnan(answers.label_mass).all()
    assert (answers.n_tokens > 0).all()
    assert body["questions"] == [
        {
            "type": "choice",
            "name": "label",
            "instructions": "Which?",
            "choices": [{"value": "good"}, {"value": "bad"}],
        }
    ]
    assert found["answer"].outcome == "ok"
    assert model.capabilities.max_labels == 255


def test_demonstrations_are_turns():
    view = InContext(
        "{text} It was {mask}.",
        n=1,
        turns=True,
        demonstrations=[({"text": "Fun"}, "good")],
    )
    prompt = view.render({"text": "Dull"})
    assert prompt.text("bad") == "Fun It was good\n\nDull It was bad."
    with FakeServer() as server:
        for scheme, options in IN_WORDS.items():
            options += "" if scheme == "systemone" else "&system=Be+brief"
            model = model_of(scheme, server, options)
            model.observe([prompt], WORDS)
            assert json.loads(model.show(prompt, WORDS)) == server.requests[-1].body
        chat, claude, one = (request.body for request in server.requests)
    assert [m["role"] for m in chat["messages"]] == ["system", "user", "assistant", "user"]
    said = [m["content"] for m in chat["messages"]]
    assert said[0] == claude["system"] == "Be brief"
    assert said[1].endswith("- good\n- bad\n\nFun It was")
    assert said[2:] == ['{"label": "good"}', "Dull It was"]
    assert [m["content"] for m in claude["messages"]][1:] == ["good", "Dull It was"]
    assert one["state"] == "Fun It was\n\ngood\n\nDull It was"
    assert InContext("{text} {mask}", **view.options()).turns


def test_a_slot_in_the_middle_is_a_gap_and_long_lists_are_whole():
    words = [f"label {i}" for i in range(200)]
    prompt = Template("{mask} news: {text}").render({"text": "Hi"})
    with FakeServer() as server:
        answers = in_words("anthropic", server).observe([prompt], words)
        text = server.requests[0].body["messages"][0]["content"]
        schema = server.requests[0].body["tools"][0]["input_schema"]
    assert text.endswith("___ news: Hi")
    assert text.count("\n- label ") == 200
    assert schema["properties"]["label"]["enum"] == words
    assert np.exp(answers.scores).sum() == pytest.approx(1, abs=1e-5)


# --- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("openai-chat:http://h?model=m&answers=text&samples=3", "temperature=1"),
        ("openai-chat:http://h?model=m&answers=text&samples=0", "at least 1"),
        ("openai-chat:http://h?model=m&answers=words", "tokens or text"),
        ("openai-chat:http://h?model=m&answers=text&output=xml", "schema, tool or plain"),
        ("openai-chat:http://h?model=m&answers=text&top_k=5", "no option 'top_k'"),
        ("openai-chat:http://h?model=m&samples=5", "no option 'samples'"),
        ("anthropic:http://h?model=m&output=schema", "tool or plain"),
        ("anthropic:http://h", "which model"),
        ('openai-chat:http://h?model=m&answers=text&extra={"tools":[]}', "'tools'"),
    ],
)
def test_options_that_mean_nothing_are_refused(spec, says):
    with pytest.raises(InputError, match=says):
        load_model(spec)


def test_what_decides_an_answer_is_in_the_identity():
    specs = ["", "&answers=text"]
    more = ("samples=2&temperature=1", "output=tool", "instruction=Hi", "system=Hi", "max_tokens=9")
    specs += [f"&answers=text&{option}" for option in more]
    models = [load_model(f"openai-chat:http://h?model=m{spec}") for spec in specs]
    identities = [tuple(sorted(model.identity.items())) for model in models]
    assert len(set(identities)) == len(models)
    for model in models:
        again = pickle.loads(pickle.dumps(model))
        assert type(again) is type(model)
        assert again.identity == load_model(model.spec).identity == model.identity


def test_the_key_and_the_version_go_where_the_dialect_wants_them(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret-secret")
    with FakeServer() as server:
        in_words("anthropic", server, "&key_env=MY_KEY").observe(prompts("x"), WORDS)
        headers = {name.lower(): value for name, value in server.requests[0].headers.items()}
    assert headers["x-api-key"] == "sk-secret-secret"
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", IN_WORDS)
@pytest.mark.parametrize("fault", faults.GENERIC, ids=lambda fault: fault.what)
def test_fault_of_any_reply(scheme, fault):
    def script(request, before):
        hit = "FAULT" in request.text and (fault.times is None or before < fault.times)
        return fault.reply(request) if hit else None

    with FakeServer(script) as server:
        model = in_words(scheme, server, "&retries=3")
        asked = prompts("one", "FAULT", "two")
        if fault.outcome == "stops":
            with pytest.raises(ModelError, match=fault.says):
                model.observe(asked, WORDS)
            return
        if fault.outcome == "answered":
            assert (model.observe(asked, WORDS).status == Status.OK).all()
            assert model.retries == 1
            return
        with pytest.warns(ModelWarning, match=fault.says):
            answers = model.observe(asked, WORDS)
    assert answers.status.tolist() == [0, 2, 0]


def test_a_model_that_never_says_a_label_stops_the_run_soon():
    def script(request, before):
        return edited(request.honest, "choices", 0, "message", "content", to="Hm.")

    with FakeServer(script) as server:
        model = load_model(f"openai-chat:{server.url}?model=toy&answers=text&connections=1")
        with pytest.raises(ModelError, match=r"first 16 prompts.*none of the label words: 'Hm.'"):
            model.observe(prompts(*map(str, range(40))), WORDS)
        assert len(server.requests) < 20


@pytest.mark.parametrize("field", ["response_format", "n", "temperature", "max_tokens"])
def test_doctor_says_what_to_set(field):
    def script(request, before):
        if field in request.body:
            error = {"message": f"Unsupported parameter: {field}", "param": field}
            return Reply({"error": error}, 400)
        return None

    other = {
        "response_format": "output=plain",
        "n": "samples=1&temperature=0",
        "temperature": "temperature=none",
        "max_tokens": "max_completion_tokens=64",
    }[field]
    options = "&samples=2&temperature=1" if field == "n" else ""
    with FakeServer(script) as server:
        model = in_words("openai-chat", server, options)
        checks = {check.name: check for check in probe(model).checks}
        assert other in checks["options to add"].detail
        assert checks["answer"].outcome == "problem"  # as it is, it is refused
        with pytest.raises(ModelError, match=other):
            model.observe(prompts("x"), WORDS)


def test_doctor_says_what_is_ignored_and_what_a_refused_tool_is_replaced_by():
    def plain(request, before):
        text = said_label(request.text, list(WORDS))
        if request.path == PATHS["anthropic"]:
            if "tools" in request.body:
                return Reply({"error": {"message": "tool_choice is not supported"}}, 400)
            return None
        if request.path == PATHS["systemone"]:
            return None
        return edited(request.honest, "choices", 0, "message", "content", to=text)

    with FakeServer(plain) as server:
        found = {c.name: c for c in probe(in_words("openai-chat", server)).checks}
        assert found["output=schema"].outcome == "ignored"
        found = {c.name: c for c in probe(in_words("anthropic", server)).checks}
        assert "output=plain" in found["options to add"].detail
        found = {c.name: c for c in probe(in_words("systemone", server)).checks}
        assert "good" in found["answer"].detail


# --- learning from it -------------------------------------------------------------------------

Y = ["pos" if i % 2 else "neg" for i in range(12)]
LABELS = {"neg": "bad", "pos": "good"}


def knowing(request, before):
    """A chat model that knows three texts in four."""
    if "number " not in request.text:
        return edited(request.honest, "choices", 0, "message", "content", to="Hm?")
    number = int(request.text.split("number ")[1].split()[0])
    word = WORDS[(number + (number % 4 == 0)) % 2 == 0]
    body = json.dumps({"label": word})
    return edited(request.honest, "choices", 0, "message", "content", to=body)


@pytest.mark.filterwarnings("ignore:.*1 of 13 prompts:fewfit.errors.ModelWarning")
@pytest.mark.filterwarnings("ignore:.*by which an artifact:fewfit.errors.ModelWarning")
def test_a_decoder_learns_what_the_answers_are_worth(tmp_path):
    with FakeServer(knowing) as server:
        spec = f"openai-chat:{server.url}?model=toy&{QUICK}&answers=text"
        options = {"template": "{text} It was {mask}.", "labels": LABELS, "store": None}
        clf = FewShotClassifier(spec, **options).fit(TEXTS, Y)
        assert clf.n_queries_ == 13, "the text that verifies an artifact is one, and may fail"
        assert clf.task_.calibration.name == "none"
        plain = FewShotClassifier(spec, decoder=ZeroShot(), **options).fit(TEXTS, Y)
        assert clf.score(TEXTS, Y) >= plain.score(TEXTS, Y) == 0.75
        both = FewShotClassifier(spec, hidden="fake", **options).fit(TEXTS, Y)
        assert both.decoder_.coef_.shape == (2, 16)
        batch = FewShotClassifier(spec, calibration="batch", **options).fit(TEXTS, Y)
        assert np.isfinite(batch.predict_proba(TEXTS)).all()
        clf.save(tmp_path / "task")
        again = FewShotClassifier.load(tmp_path / "task", store=None)
        assert_array_equal(again.predict_proba(TEXTS), clf.predict_proba(TEXTS))
        asked = len(server.requests)
        for name in ("contextual", "domain-context", "pmi", "ratio"):
            with pytest.raises(CapabilityError, match=r"answers in words|is defined for"):
                FewShotClassifier(spec, calibration=name, **options).fit(TEXTS, Y)
        with pytest.raises(CapabilityError, match="hidden"):
            FewShotClassifier(spec, decoder="linear-probe", **options).fit(TEXTS, Y)
        many = spec + "&samples=10&temperature=1"
        assert FewShotClassifier(many, **options)._task  # enough samples for a prior
        assert len(server.requests) == asked


def test_compare_has_the_answers_alone_the_vectors_alone_and_both():
    with FakeServer(knowing) as server:
        chat = f"openai-chat:{server.url}?model=toy&{QUICK}&answers=text"
        found = compare(
            TEXTS[:8],
            Y[:8],
            TEXTS[8:],
            Y[8:],
            template="{text} It was {mask}.",
            labels=LABELS,
            methods=["offset-regression"],
            models=[chat, "fake", f"{chat} + fake"],
            shots=[2],
            seeds=1,
            store=None,
        )
    assert [row.queries for row in found.summaries] == [4, 5, 4]
    assert found.summaries[0].tokens > found.summaries[1].tokens


def test_the_prompt_is_shown_and_nothing_asked(tmp_path):
    rows = "\n".join(f"{text},{label}" for text, label in zip(TEXTS, Y, strict=True))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}\n")
    with FakeServer() as server:
        spec = f"openai-chat:{server.url}?model=toy&answers=text&instruction=Pick:{{labels}}"
        command = ["fit", str(tmp_path / "train.csv"), "-o", str(tmp_path / "task")]
        found = CliRunner().invoke(app, [*command, "--model", spec, "--show-prompt"])
        assert found.exit_code == 0, found.output
        shown = json.loads(found.output)
        assert shown["messages"][0]["content"].startswith("Pick:- neg\n- pos")
        logprobs = spec.partition("&answers")[0]
        found = CliRunner().invoke(app, [*command, "--model", logprobs, "--show-prompt"])
        assert found.output == "text number 0 This is about\n"
        found = CliRunner().invoke(
            app, [*command, "--model", "fake", "--hidden", "embedded", "--show-prompt"]
        )
        assert found.output == "text number 0 This is about {mask}.\n"
        assert not server.requests
    assert not (tmp_path / "task").exists()
