"""Keys are sent where they belong and written nowhere."""

from __future__ import annotations

import pickle
import traceback
import warnings

import pytest

from fewfit import FewShotClassifier, load_model
from fewfit.errors import (
    InputError,
    ModelError,
    ModelWarning,
)
from tests.fake_server import (
    FakeServer,
    Reply,
)
from tests.models.remote.test_base import QUICK, WORDS, prompts

KEY = "sk-thisIsTheSecretKey0123456789"


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    bad = []

    def script(request, before):
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if bad and request.path == "/generate":
            return Reply({"error": {"message": f"Incorrect key {KEY}", "code": "x"}}, bad[0])
        return None

    with FakeServer(script) as server:
        spec = f"sglang:{server.url}?model=toy&key_env=MY_KEY&{QUICK}&retries=0"
        store = tmp_path / "store.sqlite"
        classifier = FewShotClassifier(
            spec, template="{text} It was {mask}.", labels={"n": "bad", "p": "good"}, store=store
        ).fit(["one", "two"], ["n", "p"])
        classifier.save(tmp_path / "artifact")
        written = [repr(classifier), repr(classifier.task_.model.model), str(spec)]
        written.append(repr(vars(classifier.task_.model.model)))
        for code in (401, 400, 500):
            bad[:] = [code]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with pytest.raises(ModelError) as error:
                    classifier.predict([f"three {code}"])
            written += [str(w.message) for w in caught]
            written.append("".join(traceback.format_exception(error.value)))
        bad[:] = [200]
        with pytest.warns(ModelWarning), pytest.raises(ModelError):
            classifier.predict(["four"])
        written += [caplog.text, pickle.dumps(classifier.task_.model.model).decode("latin1")]
    for file in [p for p in tmp_path.rglob("*") if p.is_file()]:
        written.append(file.read_bytes().decode("latin1"))
    assert KEY not in "\n".join(written)
    manifest = (tmp_path / "artifact" / "manifest.json").read_text()
    assert "MY_KEY" not in manifest, "an artifact cannot name a variable for its server to be told"
    assert "***" in "\n".join(written), "the server's message is there, without the key"


def test_a_key_in_the_spec_is_refused_and_not_repeated():
    for rest in (
        f"http://user:{KEY}@host/v1?model=m",
        f"http://{KEY}@host/v1?model=m",
        f"http://host/v1?model=m&api_key={KEY}",
        f"http://host/v1?model=m&Token={KEY}",
        f"http://host/v1?model=m&hidden=http://u:{KEY}@other",
        f"http://host/v1?model=m&retries={KEY}",
    ):
        with pytest.raises(InputError) as error:
            load_model(f"openai:{rest}")
        assert KEY not in str(error.value)


LONG = "Ab12Cd34Ef56Gh78Ij90Kl12Mn34Op56Qr"
SHAPES = [
    *(f"sk-proj-{LONG}", f"sk-{LONG}".lower(), "sk-or-v1-" + "0a1b2c3d" * 8, KEY, f"hf_{LONG}"),
    *(f"gsk_{LONG}", f"ghp_{LONG}", f"github_pat_{LONG}", f"xai-{LONG}", f"AIza{LONG}"),
    "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",  # of letters alone, as they are
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI{LONG}",
]


@pytest.mark.parametrize("key", SHAPES)
def test_what_has_the_shape_of_a_key_is_refused_in_every_part_and_not_repeated(key):
    for rest in (
        f"https://gw.example.com/{key}/v1?model=m",
        f"https://gw.example.com/v1/%{ord(key[0]):x}{key[1:]}?model=m",
        f"https://{key}.example.com?model=m",
        f"https://gw.example.com/v1?model={key}",
        f"https://gw.example.com/v1?model=m&fingerprint={key}",
        f"https://gw.example.com/v1?model=m&key_env={key}",
        f'https://gw.example.com/v1?model=m&extra={{"user":"Bearer {key}"}}',
        f'https://gw.example.com/v1?model=m&extra={{"a":[{{"b":"{key}"}}]}}',
        f'https://gw.example.com/v1?model=m&extra={{"{key}":1}}',
    ):
        with pytest.raises(InputError, match="key") as error:
            load_model(f"openai:{rest}")
        assert key[4:] not in str(error.value)


@pytest.mark.parametrize(
    "rest",
    [
        "https://gw.example.com/token/abcdef123456/v1?model=m",
        "https://gw.example.com/api-key/abcdef123456?model=m",
        'https://gw.example.com/v1?model=m&extra={"user":"Bearer abcdef123456"}',
        'https://gw.example.com/v1?model=m&extra={"proxy":"http://me:abcdef123456@h"}',
    ],
)
def test_what_has_the_place_of_a_key_is_refused_and_not_repeated(rest):
    with pytest.raises(InputError, match="key") as error:
        load_model(f"openai:{rest}")
    assert "abcdef123456" not in str(error.value)


@pytest.mark.parametrize(
    "rest",
    [
        "https://gw.example.com/v1?model=meta-llama/Llama-3.1-8B-Instruct",
        "https://gw.example.com/v1?model=ft:gpt-4o-mini-2024-07-18:acme::9aBcD3fG",
        "https://gw.example.com/v1?model=sk-learn",
        "https://gw.example.com/v1?model=hf_MobileNetSmallClassifier",
        'https://gw.example.com/v1?model=m&extra={"note":"see https://a.example, or me@b.example"}',
        "https://gw.example.com/v1?model=sk-lora-Qwen2.5-7B-Instruct-v12",
        "https://gw.example.com/v1?model=hf_internal_testing_tiny_random_gpt2",
        "https://sk-inferenceserver01.example.com:8443/v1?model=m",
        "https://task-0123456789abcdef0123.example.com/v1?model=m",
        "https://gw.example.com/auth/openai-compatible-2/v1?model=m",
        "https://gw.example.com/monkey/deployment-2024/v1?model=m",
        "https://gw.example.com/v1?model=m&fingerprint=3f5a9c0e12b44d6f8a7b3f5a9c0e12b44d6f8a7b",
        "https://gw.example.com/v1?model=m&fingerprint=Meta-Llama-3.1-8B-Instruct-Q4_K_M",
        "https://gw.example.com/v1?model=m&key_env=MY_GATEWAY_KEY_2",
        'https://gw.example.com/v1?model=m&extra={"user":"team-42","note":"bearer of news"}',
        'https://gw.example.com/v1?model=m&extra={"chat_template":"{% set token = 1 %}"}',
    ],
)
def test_names_and_addresses_that_are_no_keys_are_taken(rest):
    assert load_model(load_model(f"openai:{rest}").spec)


def test_keys_that_cannot_be_sent_are_refused_without_being_shown(monkeypatch):
    with FakeServer() as server:
        model = load_model(f"openai:{server.url}?model=toy&key_env=MY_KEY&{QUICK}")
        for value in ("", KEY + "\nX-Other: 1", KEY + "é"):
            monkeypatch.setenv("MY_KEY", value)
            with pytest.raises(ModelError, match="MY_KEY") as error:
                model.observe(prompts("x"), WORDS)
            assert KEY not in str(error.value)
        assert not server.requests


def test_openais_key_goes_to_openai_only(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeServer() as server:
        load_model(f"openai:{server.url}?model=toy").observe(prompts("x"), WORDS)
        assert "Authorization" not in server.requests[0].headers
    for url, sent in (
        ("https://api.openai.com/v1", True),
        ("http://api.openai.com/v1", False),
        ("https://api.openai.com.evil.example/v1", False),
    ):
        head = load_model(f"openai:{url}?model=m")._transport.head("POST", "/", 0)
        assert (b"Authorization" in head) == sent
