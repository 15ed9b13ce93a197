"""The probe behind ``fewfit doctor``: what it finds out, and what that costs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, load_model
from fewfit.cli import app
from fewfit.errors import ModelError
from fewfit.models.base import Check
from fewfit.models.fake import FakeModel
from fewfit.models.probe import TEXTS, probe
from tests.fake_server import FakeServer, Reply, edited, hidden_state, log_probabilities
from tests.models.remote.test_base import QUICK, SCHEMES, ids, with_hidden
from tests.models.remote.test_secrets import KEY

run = CliRunner().invoke
ROUTES = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "vllm": "/v1/completions",
    "sglang": "/generate",
    "llamacpp": "/completion",
    "ollama": "/api/generate",
    "embeddings": "/v1/embeddings",
    "tei": "/embed",
}


def found(report):
    return {check.name: check for check in report.checks}


def shown(scheme, server, options=""):
    return load_model(f"{scheme}:{server.url}?model=toy&retries=0&{QUICK}{options}")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_healthy_server_of_each_dialect(scheme):
    with FakeServer() as server:
        report = probe(with_hidden(scheme, server))
        asked = [
            request
            for request in server.requests
            if request.path == ROUTES[scheme] and request.text.startswith(TEXTS)
        ]
    checks = found(report)
    assert report.answers
    assert len(asked) == report.queries <= 5
    assert not [check for check in report.checks if check.outcome == "ignored"]
    assert checks["asked again, words reversed"].value == 0
    assert checks["asked together with another"].value == 0
    assert checks["another text"].outcome == "ok"
    length = checks["hidden state's length"]
    assert (length.outcome == "note") == (scheme == "ollama"), "Ollama normalises"


def test_the_numbers_are_those_of_the_server():
    with FakeServer() as server:
        checks = found(probe(shown("sglang", server)))
    text = f"{TEXTS[0]} It was"
    assert checks["label mass"].value == pytest.approx(
        np.exp(log_probabilities(text)[ids()]).sum(), rel=1e-5
    )
    assert checks["hidden state's length"].value == pytest.approx(
        float(np.linalg.norm(hidden_state(text))), rel=1e-5
    )


@pytest.mark.parametrize(
    ("scheme", "field", "path", "to"),
    [
        ("vllm", "logprob_token_ids", ("choices", 0, "logprobs", "top_logprobs", 0), {"w": -1.0}),
        ("sglang", "return_hidden_states", ("meta_info", "hidden_states"), None),
        ("sglang", "token_ids_logprob", ("meta_info", "output_token_ids_logprobs"), [[[-1, 7]]]),
    ],
)
def test_a7_fields_that_are_ignored_are_named(scheme, field, path, to):
    def script(request, before):
        side = ("/tokenize", "/v1/models", "/info")
        return None if request.path in side else edited(request.honest, *path, to=to)

    with FakeServer(script) as server:
        report = probe(shown(scheme, server))
    assert found(report)[field].outcome.startswith("ignored")
    assert not report.answers, "label scores or hidden states would be missing"


def test_a10_vectors_that_are_normalised_although_that_was_not_wanted():
    def script(request, before):
        if request.path != "/embed":
            return None
        unit = [(row / np.linalg.norm(row)).tolist() for row in map(np.array, request.honest.body)]
        return replace(request.honest, body=unit)

    with FakeServer(script) as server:
        checks = found(probe(shown("tei", server)))
    assert checks["normalize"].outcome.startswith("ignored")
    assert checks["hidden state's length"].outcome == "note"


def test_a7_echo_is_tried_and_may_be_ignored():
    def deaf(request, before):
        return Reply(server.reply(request.path, {**request.body, "echo": False}))

    with FakeServer() as server:
        assert found(probe(shown("openai", server)))["echo"].outcome == "honoured"
        server.script = deaf
        assert found(probe(shown("openai", server)))["echo"].outcome == "ignored"


def test_a7_a_server_that_rejects_the_fields_is_a_finding():
    said = {"error": {"message": "Unsupported parameters: logprobs"}}
    with FakeServer(lambda request, n: Reply(said, 422)) as server:
        report = probe(shown("openai-chat", server))
    assert not report.answers
    assert "Unsupported parameters: logprobs" in found(report)["fields"].detail
    assert report.queries <= 5


def test_a8_label_words_that_the_model_does_not_say():
    thinking = [{"token": "<think>", "logprob": -1e-4}, {"token": "\n", "logprob": -10.0}]
    place = ("choices", 0, "logprobs", "content", 0)

    def script(request, before):
        reply = edited(request.honest, *place, "token", to="<think>")
        return edited(reply, *place, "top_logprobs", to=thinking)

    with FakeServer(script) as server:
        checks = found(probe(shown("openai-chat", server)))
    assert checks["answers at once"].outcome == "no"
    assert checks["tokens listed"].detail == "'<think>' 100.0%, '\\n' 0.0%"
    assert "reasoning model" in checks["words not listed"].detail
    assert "reasoning_effort=none" in checks["answer"].detail


def test_a11_answers_that_belong_to_another_prompt():
    other = {f"{TEXTS[0]} It was": f"{TEXTS[1]} It was", f"{TEXTS[1]} It was": f"{TEXTS[0]} It was"}

    def script(request, before):
        if request.path != "/generate" or (request.text.startswith(TEXTS[0]) and before < 3):
            return None
        state = hidden_state(other[request.text]).tolist()
        return edited(request.honest, "meta_info", "hidden_states", to=[state])

    with FakeServer(script) as server:
        check = found(probe(shown("sglang", server)))["another text"]
    assert (check.outcome, "exchanged" in check.detail) == ("problem", True)


def test_a12_noise_is_measured():
    def script(request, before):
        if request.path != "/generate":
            return None
        values = request.honest.body["meta_info"]["output_token_ids_logprobs"]
        for entry in values[0]:
            entry[0] -= 0.2 * before
        return edited(request.honest, "meta_info", "output_token_ids_logprobs", to=values)

    with FakeServer(script) as server:
        check = found(probe(shown("sglang", server)))["asked again, words reversed"]
    assert check.outcome == "problem"
    assert check.value == pytest.approx(0.2, abs=1e-5)


def test_a_model_that_does_not_read_the_text():
    constant = hidden_state("the same").tolist()

    def script(request, before):
        if request.path == "/embed":
            return replace(request.honest, body=[constant for _ in request.body["inputs"]])
        return None

    with FakeServer(script) as server:
        assert found(probe(shown("tei", server)))["another text"].outcome == "problem"


def test_the_fake_model():
    model = FakeModel()
    report = probe(model, template=Template("{a} {b} {mask}"), words=["x", "y", "z"])
    assert model.queries == report.queries == 4
    assert report.answers
    assert json.loads(json.dumps(report.to_dict()))["words"] == ["x", "y", "z"]


def test_the_command_prints_a_table_or_json_and_fails_without_answers():
    with FakeServer() as server:
        spec = f"vllm:{server.url}?model=toy&{QUICK}"
        done = run(app, ["doctor", spec, "--words", "good,bad"])
        assert done.exit_code == 0
        assert "| logprob_token_ids " in done.output
        done = run(app, ["doctor", spec, "--json"])
        report = json.loads(done.output)
        assert report["answers"] is True
        assert {check["name"] for check in report["checks"]} >= {"label mass", "one query"}
        server.script = lambda request, n: Reply({}, 401)
        done = run(app, ["doctor", spec])
        assert done.exit_code == 3
        assert "401" in done.output


def test_each_further_template_is_probed_for_its_answer_and_the_words():
    model, view = FakeModel(), Template("Of {text} one says {mask}")
    report = probe(model, further=[view])
    mass = model.observe([view.render({"text": TEXTS[0]})], ["good", "bad"]).label_mass[0]
    assert found(report)["label mass, template 2"].value == pytest.approx(float(mass))
    assert report.queries == probe(FakeModel()).queries + 1 == model.queries - 1

    class Logits(FakeModel):
        """Tells the label mass of a template only when asked for it, as local models do."""

        def check_fields(self, prompt, words):
            return [Check("label mass", "problem", prompt.text("_"), 0.0)]

    report = probe(Logits(space="logit"), further=[view, Template("{mask}: {text}")])
    assert found(report)["label mass, template 3"].detail == f"_: {TEXTS[0]}"
    assert report.queries == 1 + 4 + 2 + 2
    unknown = FakeModel(faults={4: ModelError("this template is not answered")})
    checks = found(probe(unknown, further=[view]))
    assert checks["answer, template 2"].outcome == "problem"
    assert found(probe(FakeModel(space="similarity"), further=[view]))["answer, template 2"]


def test_fit_probes_every_template_and_says_what_is_wrong(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\none,n\ntwo,p\n")
    arguments = ["fit", str(tmp_path / "train.csv"), "--model", "fake", "--doctor"]
    arguments += ["--label", "n=bad", "--label", "p=good", "--store", "none"]
    arguments += ["--template", "{text} It was {mask}.", "--template", "{mask}: {text}"]
    done = run(app, [*arguments, "--output", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    classifier = FewShotClassifier.load(tmp_path / "a", store=None)
    assert classifier.doctor_ is not None
    names = [check["name"] for check in classifier.doctor_["checks"]]
    assert "label mass, template 2" in names
    assert f"doctor: {classifier.doctor_['queries']} queries, problems: 0" in done.output


def test_fit_keeps_the_report_in_the_artifact(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    (tmp_path / "train.csv").write_text("text,label\none,n\ntwo,p\nthree,n\nfour,p\n")
    with FakeServer() as server:
        spec = f"sglang:{server.url}?model=toy&key_env=MY_KEY&{QUICK}"
        arguments = ["fit", str(tmp_path / "train.csv"), "--model", spec, "--doctor"]
        arguments += ["--label", "n=bad", "--label", "p=good", "--output", str(tmp_path / "a")]
        arguments += ["--template", "{text} It was {mask}.", "--store", str(tmp_path / "s.sqlite")]
        done = run(app, [*arguments, "--max-queries", "8"])  # 5 of them the doctor's
        assert done.exit_code == 6
        assert "2 are left" in done.output
        done = run(app, [*arguments, "--max-queries", "8", "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["queries"] == 2
        assert json.loads(done.stdout)["retries"] == 0
        classifier = FewShotClassifier.load(tmp_path / "a", store=None)
        assert classifier.doctor_ is not None
        assert classifier.doctor_["answers"] is True
        assert classifier.doctor_["words"] == ["bad", "good"]
        classifier.save(tmp_path / "b")
        assert FewShotClassifier.load(tmp_path / "b", store=None).doctor_ == classifier.doctor_

        (tmp_path / "new.csv").write_text("text\nfive\nsix BAD\n")
        bad = replace(Reply({}), status=400)
        server.script = lambda r, n: bad if r.path == "/generate" and "BAD" in r.text else None
        arguments = ["predict", str(tmp_path / "a"), str(tmp_path / "new.csv"), "--model", spec]
        arguments += ["--store", str(tmp_path / "s.sqlite"), "--proba"]
        assert run(app, arguments).exit_code == 3
        done = run(app, [*arguments, "--errors", "nan", "--output", str(tmp_path / "out.csv")])
        assert done.exit_code == 0, done.output
        lines = (tmp_path / "out.csv").read_text().splitlines()
        assert (
            lines[0] == "text,prediction,probability,prediction_status,probability_n,probability_p"
        )
        assert lines[1].split(",")[3] == "ok"
        assert lines[2].startswith("six BAD,,,")
        assert "failed: HTTP 400" in lines[2]
        assert lines[1].split(",")[1] in ("n", "p")
        done = run(app, [*arguments, "--errors", "nan", "--json", "-o", str(tmp_path / "out.json")])
        last = json.loads((tmp_path / "out.json").read_text().splitlines()[1])
        assert last == {
            "prediction": None,
            "probabilities": {"n": None, "p": None},
            "status": "failed",
            "reason": "HTTP 400: {}",
        }
