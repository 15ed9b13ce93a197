"""What servers refuse, with whom a key is shared, and what one prompt's failure may cost others."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fewfit import FewShotClassifier, Template, load_model
from fewfit.calibration import PMICalibration
from fewfit.errors import InputError, ModelError
from fewfit.models.remote.verdict import Refused
from fewfit.observations import Status
from tests.fake_server import FakeServer, Reply, edited
from tests.models.remote.test_base import SCHEMES, WORDS, model_of, prompts

pytestmark = pytest.mark.filterwarnings("ignore::fewfit.errors.ModelWarning")
LEFT_TO_RIGHT = [s for s in SCHEMES if s not in ("embeddings", "tei")]
TEXTS = [f"text number {i}" for i in range(12)]
LABELS = {"pos": "good", "neg": "bad"}


@pytest.mark.parametrize("scheme", LEFT_TO_RIGHT)
def test_a_premise_without_a_field_is_read_from_left_to_right(scheme):
    with FakeServer() as server:
        classifier = FewShotClassifier(
            model_of(scheme, server),
            template="{text} It was {mask}.",
            labels=LABELS,
            calibration=PMICalibration(premise="It was {mask}"),
        )
        classifier.fit(TEXTS[:4], ["pos", "neg"] * 2)
        assert any(text.endswith("It was") and "number" not in text for text in server.queries())


def test_nothing_before_the_slot_is_refused():
    with FakeServer() as server, pytest.raises(InputError, match="from left to right"):
        model_of("openai", server).observe([Template("{mask} {text}").render({"text": "x"})], WORDS)


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("&key_env=FIRST", {"first": "Bearer one", "second": None}),
        ("&key_env=FIRST&hidden_key_env=SECOND", {"first": "Bearer one", "second": "Bearer two"}),
        ("&hidden_key_env=SECOND", {"first": None, "second": "Bearer two"}),
    ],
)
def test_a_key_goes_to_the_server_that_it_was_named_for(monkeypatch, options, sent):
    monkeypatch.setenv("FIRST", "one")
    monkeypatch.setenv("SECOND", "two")
    with FakeServer() as first, FakeServer() as second:
        model = model_of("openai", first, f"&hidden={second.url}{options}")
        model.observe(prompts("fun"), WORDS)
        again = pickle.loads(pickle.dumps(model))
        again.observe(prompts("dull"), WORDS)
        for name, server in (("first", first), ("second", second)):
            found = {request.headers.get("Authorization") for request in server.requests}
            assert found == {sent[name]}, name
    assert "key_env" not in model.spec
    with pytest.raises(InputError, match="hidden_key_env= takes the name"):
        load_model("openai:http://host/v1?model=m&hidden=http://other&hidden_key_env=a-b")


def test_on_one_server_one_key_serves_both(monkeypatch):
    monkeypatch.setenv("FIRST", "one")
    with FakeServer() as server:
        model = model_of("openai", server, f"&hidden={server.url}&key_env=FIRST")
        model.observe(prompts("fun"), WORDS)
        assert {r.headers.get("Authorization") for r in server.requests} == {"Bearer one"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, {"code": 403, "message": "Your input was flagged"}),
        (400, {"message": "not allowed by the model provider"}),
        (400, {"message": "unexpected system failure of this text"}),
    ],
)
def test_a_text_that_is_refused_fails_alone_once_others_were_answered(status, error):
    def script(request, before):
        if "number 7" in request.text:
            return Reply({"error": error}, status=status)
        return None

    with FakeServer(script) as server:
        model = model_of("openai", server)
        model.observe(prompts("fun"), WORDS)
        answers = model.observe(prompts("fine", *TEXTS), WORDS)
    assert [i for i, s in enumerate(answers.status) if s == Status.FAILED] == [8]


def test_a_key_that_is_refused_from_the_first_prompt_on_ends_the_run():
    def script(request, before):
        return Reply({"error": {"message": "forbidden"}}, status=403)

    with FakeServer(script) as server, pytest.raises(ModelError, match="the server refuses"):
        model_of("openai", server).observe(prompts(*TEXTS), WORDS)
    assert len(server.queries()) <= 4


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ("Unsupported parameter: 'model'", "model"),
        ("unknown model=toy", "model"),
        ("it is not allowed by the model provider", None),
        ("temperature must be at most 1", "temperature"),
        ("invalid system", None),
    ],
)
def test_a_field_is_blamed_by_name_and_not_by_a_word_of_a_sentence(said, field):
    assert Refused(said).names(("model", "temperature", "system")) == field


@pytest.mark.parametrize("scheme", ["openai", "openai-chat", "vllm"])
@pytest.mark.parametrize(
    ("error", "again"),
    [
        ({"code": 429, "message": "slow down"}, True),
        ({"code": "502", "message": "upstream"}, True),
        ({"type": "overloaded_error", "message": "busy"}, True),
        ({"code": "content_policy", "message": "this text is not wanted"}, False),
    ],
)
@pytest.mark.parametrize("place", ["reply", "body", "both", "choice"])
def test_an_error_in_a_reply_of_success_is_told_and_tried_again_where_it_may_pass(
    scheme, error, again, place
):
    def script(request, before):
        if before or "choices" not in request.honest.body:
            return None
        if place == "reply":
            return Reply({"error": error})
        if place == "body":  # as vLLM said it before it had "error"
            return Reply({"object": "error", **error})
        if place == "both":
            return Reply({"object": "error", "error": error})
        return edited(request.honest, "choices", 0, "error", to=error)

    with FakeServer(script) as server:
        model = model_of(scheme, server)
        first = model.observe(prompts("fun"), WORDS)
        assert (first.status[0] == Status.OK) == again
        assert again or "this text is not wanted" in str(first.why_failed())
        assert model.observe(prompts("fun"), WORDS).status == [Status.OK]


def test_an_answer_that_the_server_broke_off_is_asked_for_again():
    def script(request, before):
        return None if before else edited(request.honest, "choices", 0, "finish_reason", to="error")

    with FakeServer(script) as server:
        assert model_of("openai", server).observe(prompts("fun"), WORDS).status == [Status.OK]


def test_label_sentences_are_embedded_once_however_many_parts_a_run_has():
    with FakeServer() as server:
        model = model_of("embeddings", server)
        for text in TEXTS:
            model.observe(prompts(text), WORDS)
        asked = [r for r in server.requests if len(r.body["input"]) > 1]
    assert len(asked) == 1


def test_votes_for_several_words_of_a_class_add_up():
    said = ["good", "great", "nice", "bad", "bad"]

    def script(request, before):
        reply = request.honest
        for i in range(len(reply.body["choices"])):
            to = f'{{"label": "{said[before + i]}"}}'
            reply = edited(reply, "choices", i, "message", "content", to=to)
        return reply

    with FakeServer(script) as server:
        spec = f"openai-chat:{server.url}?model=toy&answers=text&samples=5&temperature=1"
        classifier = FewShotClassifier(
            spec,
            template="{text} It was {mask}.",
            labels={"neg": ["bad"], "pos": ["good", "great", "nice"]},
            decoder="zero-shot",
            calibration="none",
            store=None,
        ).fit([], [])
        [proba] = classifier.predict_proba(["fun"])
    # n_k + (words of k) / W of n + 1: 3 + 3/4 and 2 + 1/4 of 6
    assert proba == pytest.approx(np.array([2.25, 3.75]) / 6, abs=1e-6)


def test_instructions_may_speak_of_keys_and_tokens():
    asked = "Answer with one token: {labels}"
    spec = "openai-chat:http://host?model=m&answers=text&instruction="
    assert load_model(spec + asked).options.instruction == asked  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="looks like a key"):
        load_model(spec + "use sk-ant-api03-Ab12Cd34Ef56Gh78Ij90Kl12")
