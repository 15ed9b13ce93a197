"""What dialects send: options, fields that a server refuses, and replicas."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from fewfit import load_model
from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.models.probe import probe
from fewfit.models.remote import DIALECTS
from fewfit.models.remote.options import Options
from fewfit.observations import Status
from tests.fake_server import FakeServer, Reply, edited
from tests.models.remote.test_base import QUICK, WORDS, model_of, prompts

SIDE = ("/tokenize", "/v1/models", "/info")
ASKS = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "vllm": "/v1/completions",
    "sglang": "/generate",
    "llamacpp": "/completion",
    "ollama": "/api/generate",
    "embeddings": "/v1/embeddings",
    "tei": "/embed",
}


def asked_with(scheme, options):
    """The body of the request that answers a prompt."""
    with FakeServer() as server:
        model_of(scheme, server, options).observe(prompts("x"), WORDS)
        return next(r.body for r in server.requests if r.path == ASKS[scheme])


# --- options ----------------------------------------------------------------------------------


def test_the_options_of_chat_are_sent_as_the_field_spells_them():
    plain = asked_with("openai-chat", "")
    assert set(plain) == {
        "model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs"
    }  # fmt: skip
    assert (plain["max_tokens"], plain["temperature"]) == (1, 0)
    sent = asked_with(
        "openai-chat", "&max_completion_tokens=16&temperature=none&reasoning_effort=none&top_k=5"
    )
    assert set(sent) ^ set(plain) == {
        "max_tokens", "max_completion_tokens", "temperature", "reasoning_effort"
    }  # fmt: skip
    assert sent["max_completion_tokens"] == 16
    assert sent["reasoning_effort"] == "none"
    assert sent["top_logprobs"] == 5
    assert asked_with("openai", "&max_tokens=2&temperature=0.5") == {
        **asked_with("openai", ""), "max_tokens": 2, "temperature": 0.5
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ASKS)
def test_further_fields_are_sent_by_every_dialect(scheme):
    extra = {"seed": 1, "chat_template_kwargs": {"enable_thinking": False}}
    text = json.dumps(extra, indent=1)
    sent = asked_with(scheme, f"&extra={quote(text)}")
    assert sent == {**asked_with(scheme, ""), **extra}
    model = load_model(f"{scheme}:http://h?model=m&extra={quote(text)}")
    same = DIALECTS[scheme]("http://h", model="m", extra=dict(reversed(extra.items())))
    assert model.identity == same.identity != load_model(f"{scheme}:http://h?model=m").identity
    assert load_model(model.spec).identity == model.identity


def test_objects_in_further_fields_are_merged():
    sent = asked_with("ollama", "&extra=" + quote('{"options": {"num_ctx": 4096}}'))
    assert sent["options"] == {"num_predict": 1, "temperature": 0, "num_ctx": 4096}
    assert asked_with("tei", "&truncate=true")["truncate"] is True
    assert asked_with("tei", "")["truncate"] is False


@pytest.mark.parametrize("name", ["temperature", "case", "extra", "reasoning_effort", "max_tokens"])
def test_an_option_that_decides_an_answer_is_in_the_identity(name):
    value = {"case": "any", "extra": '{"a":1}'}.get(name, "1")
    plain = load_model("openai-chat:http://h?model=m")
    other = load_model(f"openai-chat:http://h?model=m&{name}={quote(value)}")
    assert dict(plain.identity).items() < dict(other.identity).items()
    assert load_model(other.spec).identity == other.identity


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("modle=m", "did you mean 'model'"),
        ("model=m&Temperature=1", "did you mean 'temperature'"),
        ("model=m&logprobs=5", "did you mean 'top_k'"),
        ("model=m&seed=1", "extra="),
        ("model=m&truncate=true", "no option 'truncate'"),
        ("model=m&temperature=hot", "is a number"),
        ("model=m&temperature=-1", "at least 0"),
        ("model=m&temperature=nan", "at least 0"),
        ("model=m&temperature=inf", "finite"),
        ("model=m&timeout=none", "is a number"),
        ("model=m&replicas=maybe", "true or false"),
        ("model=m&case=upper", "exact or any"),
        ("model=m&max_tokens=0", "at least 1"),
        ("model=m&max_tokens=1&max_completion_tokens=1", "not both"),
        ("model=m&extra={", "JSON object"),
        ("model=m&extra=[1]", "JSON object"),
        ("model=m&extra=NaN", "JSON object"),
        ("model=m&extra=" + "[" * 5000, "JSON object"),
        ('model=m&extra={"a":NaN}', "JSON object"),
        ('model=m&extra={"model":"other"}', "'model' is fewfit's own"),
        ('model=m&extra={"messages":[]}', "'messages'"),
        ('model=m&extra={"options":{"num_predict":9}}', "'num_predict'"),
        ('model=m&extra={"x":[{"Api-Key":"sk-1234"}]}', "key_env"),
        ("model=m&X-API-Key=sk-1234", "key_env"),
    ],
)
def test_options_that_are_refused(rest, says):
    with pytest.raises(InputError, match=re.escape(says)) as error:
        load_model(f"openai-chat:http://h?{rest}")
    assert "sk-1234" not in str(error.value)


def test_options_from_python_are_checked_alike():
    make = DIALECTS["openai-chat"]
    assert make("http://h", model="m", temperature=None).options.temperature is None
    assert make("http://h", model="m", extra={"a": {1: 2}}).options.extra == '{"a":{"1":2}}'
    for wrong in ({"extra": {"a": object()}}, {"extra": {"a": np.nan}}, {"connections": None}):
        with pytest.raises(InputError):
            make("http://h", model="m", **wrong)


def test_the_document_names_every_option_with_its_default():
    text = (Path(__file__).parents[3] / "docs" / "models-remote.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", text, flags=re.MULTILINE))
    told = {f.name: f.default for f in fields(Options)}
    assert rows.keys() == told.keys()
    for name, default in told.items():
        if default not in (None, False) and not isinstance(default, str):
            assert float(rows[name]) == default, name


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("roberta-large", "is 'hf:roberta-large'"),
        ("FacebookAI/roberta-large@main", "is 'hf:FacebookAI/roberta-large@main'"),
        ("http://user:sk-1234@h/v1", "'openai:http://...?model=NAME'"),
        ("https://h/sk-1234", "'openai-chat:http://"),
        ("opnai:http://h", "did you mean 'openai'"),
        ("Embedded", "did you mean 'embedded'"),
        ("", "choose one of embedded"),
    ],
)
def test_an_unknown_model_says_what_was_meant(spec, says, tmp_path):
    with pytest.raises(InputError, match=re.escape(says)) as error:
        load_model(spec)
    assert "sk-1234" not in str(error.value)
    (tmp_path / "manifest.json").touch()
    with pytest.raises(InputError, match="is 'tuned:"):
        load_model(str(tmp_path))


# --- fields that a server refuses -------------------------------------------------------------

LEGACY = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."  # noqa: E501


def openai_error(message, param=None, code="unsupported_parameter"):
    kind = "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def strict(request, before):
    """A server of models that reason: it refuses what theirs refuse, one thing after the other."""
    body = request.body
    if "max_tokens" in body:
        return Reply(openai_error(LEGACY, "max_tokens"), 400)
    if body.get("temperature", 1) != 1:
        said = "Unsupported value: 'temperature' does not support 0 with this model."
        return Reply(openai_error(said, "temperature"), 400)
    if body.get("top_logprobs", body.get("logprobs", 0)) > 5:
        said = "Invalid value for 'top_logprobs': must be less than or equal to 5."
        return Reply(openai_error(said, "top_logprobs"), 400)
    return None


def test_a_field_that_is_refused_stops_at_once_and_every_remedy_works():
    options = ""
    with FakeServer(strict) as server:
        for field, remedy in (
            ("max_tokens", "max_completion_tokens=1"),
            ("temperature", "temperature=none"),
            ("top_logprobs", "top_k=5"),
        ):
            model = load_model(f"openai-chat:{server.url}?model=toy&connections=2{options}")
            before = len(server.requests)
            with pytest.raises(ModelError, match=rf"refuses {field}=.*add {remedy}"):
                model.observe(prompts(*map(str, range(40))), WORDS)
            assert len(server.requests) - before <= 2
            assert model.retries == 0
            options += f"&{remedy}"
        model = load_model(f"openai-chat:{server.url}?model=toy{options}")
        assert (model.observe(prompts("x"), WORDS).status == Status.OK).all()


@pytest.mark.parametrize(
    ("said", "stops"),
    [
        (openai_error("Unrecognized request argument supplied: temperature"), "temperature=none"),
        ({"detail": [{"loc": ["body", "logprobs"], "msg": "Input should be 2"}]}, "top_k=2"),
        ({"object": "error", "message": "logprobs must be at most 3", "code": 400}, "top_k=3"),
        ({"detail": "Extra inputs are not permitted: max_tokens"}, "max_completion_tokens=1"),
        (openai_error("no such model", "model"), "model="),
        (openai_error("You requested 9000 tokens (8999 in the messages, 1 in max_tokens), beyond "
                      "the context length", "messages", "context_length_exceeded"), None),
        (openai_error("max_tokens: context length exceeded", "max_tokens"), None),
        (openai_error("The response was filtered", "prompt", "content_filter"), None),
        (openai_error("The prompt asks for logprobs and max_tokens"), None),
        ({"detail": {}}, None),
        (["logprobs"], None),
    ],
)  # fmt: skip
def test_what_is_refused_for_all_prompts_and_what_for_one(said, stops):
    def script(request, before):
        return Reply(said, 400) if "BAD" in request.text or stops is not None else None

    with FakeServer(script) as server:
        model = load_model(f"openai:{server.url}?model=toy&{QUICK}")
        if stops is not None:
            with pytest.raises(ModelError, match=re.escape(stops)):
                model.observe(prompts("one", "two"), WORDS)
            return
        with pytest.warns(ModelWarning, match="HTTP 400"):
            answers = model.observe(prompts("one", "two BAD"), WORDS)
    assert answers.status.tolist() == [Status.OK, Status.FAILED]


def test_a_refused_field_of_the_users_own_is_said():
    def script(request, before):
        return None if request.path in SIDE else Reply({"detail": "Unsupported: top_x"}, 422)

    with FakeServer(script) as server:
        model = load_model(f'sglang:{server.url}?extra={{"top_x":1}}&{QUICK}')
        with pytest.raises(ModelError, match=r"refuses top_x=1.*change or leave out the option"):
            model.observe(prompts("x"), WORDS)


def test_doctor_tries_what_else_a_server_may_take():
    with FakeServer(strict) as server:
        report = probe(load_model(f"openai-chat:{server.url}?model=toy&{QUICK}"))
        checks = {check.name: check for check in report.checks}
        assert not report.answers
        assert "max_completion_tokens" in checks["max_tokens, refused"].detail
        assert checks["top_logprobs, refused"].outcome == "problem"
        said = checks["options to add"].detail.partition(" with ")[2]
        assert said == "max_completion_tokens=1&temperature=none&top_k=5"
        assert probe(load_model(f"openai-chat:{server.url}?model=toy&{said}")).answers
        server.script = lambda r, n: Reply(
            openai_error("no logprobs: unsupported", "logprobs"), 400
        )
        report = probe(load_model(f"openai:{server.url}?model=toy&top_k=1&{QUICK}"))
        assert "refuses logprobs" in report.checks[-1].detail


# --- replicas ---------------------------------------------------------------------------------

MARKS = {
    "openai": ("system_fingerprint",),
    "openai-chat": ("system_fingerprint",),
    "vllm": ("system_fingerprint",),
    "sglang": ("meta_info", "weight_version"),
}


@pytest.mark.parametrize("scheme", MARKS)
def test_replicas_are_one_model_if_the_user_says_so(scheme):
    number = iter(range(10**6))

    def alternating(request, before):
        if request.path in SIDE:
            return None
        return edited(request.honest, *MARKS[scheme], to=f"fp{next(number) % 2}")

    texts = prompts(*map(str, range(6)))
    with FakeServer(alternating) as server, FakeServer() as plain:
        model = model_of(scheme, server)
        with pytest.raises(ModelError, match=r"add replicas=true"):
            model.observe(texts, WORDS)
        vouched = model_of(scheme, server, "&replicas=true")
        assert vouched.identity == model.identity, "what was answered stays valid"
        found = vouched.observe(texts, WORDS)
        np.testing.assert_array_equal(
            found.scores, model_of(scheme, plain).observe(texts, WORDS).scores
        )
        server.script = lambda r, n: None if r.path in SIDE else edited(r.honest, "model", to="b")
        if scheme != "sglang":  # which names no model in a reply
            with pytest.raises(ModelError, match="answered by 'b'"):
                vouched.observe(texts, WORDS)


def test_a_model_that_was_changed_goes_on_under_another_fingerprint():
    with FakeServer(lambda r, n: edited(r.honest, "system_fingerprint", to="old")) as server:
        model = model_of("openai", server)
        model.observe(prompts("x"), WORDS)
        server.script = lambda r, n: edited(r.honest, "system_fingerprint", to="new")
        with pytest.raises(ModelError, match=r"another fingerprint=\.\.\. and so without"):
            model.observe(prompts("y"), WORDS)
        other = model_of("openai", server, "&fingerprint=new-weights")
        assert other.observe(prompts("y"), WORDS).queries == 1
    assert other.identity != model.identity


@pytest.mark.parametrize(
    ("scheme", "options"), [*((name, "") for name in ASKS), ("openai-chat", "&system=Be+brief.")]
)
def test_what_is_shown_of_a_prompt_is_what_is_sent(scheme, options):
    with FakeServer() as server:
        model = model_of(scheme, server, options)
        model.observe(prompts("x"), WORDS)
        *before, sent = [r for r in server.requests if r.path == ASKS[scheme]]
        said = [turn["content"] for turn in sent.body.get("messages", [])] or [sent.text]
        if scheme in ("embeddings", "tei"):  # whose label sentences are asked once, first
            name = {"embeddings": "input", "tei": "inputs"}[scheme]
            said.append("\n".join(text for r in before for text in r.body[name]))
        assert model.show(prompts("x")[0], WORDS) == "\n\n".join(said)
