"""Keys come back from servers in every form and place, and are typed where they do not belong."""

from __future__ import annotations

import base64
import html
import json
import os
import pickle
import random
import traceback
import warnings
from urllib.parse import quote

import pytest

from fewfit import FewShotClassifier, Template, ZeroShot, load_model
from fewfit.errors import FewfitError
from fewfit.models.probe import probe
from fewfit.models.remote.secrets import Redactor
from fewfit.store import StoredModel
from tests.fake_server import FakeServer, Reply
from tests.fuzz import CASES

WORDS = ("good", "bad")
TEMPLATE = Template("{text} It was {mask}.")
SHOWN = 8
"""So many characters of a key in a row are a leak."""

DIALECTS = {
    "openai": "/v1/completions",
    "openai-chat": "/v1/chat/completions",
    "vllm": "/v1/completions",
    "sglang": "/generate",
    "llamacpp": "/completion",
    "ollama": "/api/generate",
    "embeddings": "/v1/embeddings",
    "tei": "/embed",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
PUNCTUATION = "-_./+=~!#$%&'()*,:;<>?@[]^`{|}\"\\ "


def new_key(rng: random.Random) -> str:
    letters = LETTERS + PUNCTUATION * rng.choice((0, 0, 1))
    body = "".join(rng.choice(letters) for _ in range(rng.choice((12, 20, 40, 80))))
    return rng.choice(("sk-", "hf_", "", "Key ")) + body.strip()


def written(key: str, rng: random.Random) -> str:
    """The key as a server may write it."""
    data = key.encode()
    forms = [
        key,
        key,
        "".join(f"\\u{ord(c):04x}" for c in key),
        quote(key, safe=""),
        "".join(f"%{byte:02X}" for byte in data),
        html.escape(key),
        repr(key),
        json.dumps(key),
        json.dumps(json.dumps(key)),
        key.upper(),
        key.lower(),
        data.hex(),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(b"Bearer " + data).decode(),
        base64.b64encode(b"user:" + data).decode(),
        key[: rng.randint(SHOWN, len(key))],
        key[-rng.randint(SHOWN, len(key)) :],
        f"Bearer {key}",
        "x" * rng.randint(0, 70) + key,
        "x" * rng.randint(150, 210) + key,
        "x" * rng.randint(1950, 2010) + key,
        key + key,
        f"{key[: len(key) // 2]}\n{key[len(key) // 2 :]}",
    ]
    return rng.choice(forms)


def escaped(value: object, rng: random.Random) -> bytes:
    """JSON with some characters of its text escaped though they need not be."""
    text = json.dumps(value)
    if rng.random() < 0.3:
        text = "".join(
            f"\\u{ord(c):04x}"
            if c.isalnum() and rng.random() < 0.5 and text[i - 1] not in "\\u" and _plain(text, i)
            else c
            for i, c in enumerate(text)
        )
    return text.encode()


def _plain(text: str, i: int) -> bool:
    """Whether a place of JSON is inside a string, and in no escape."""
    quotes = text.count('"', 0, i) - text.count('\\"', 0, i)
    return quotes % 2 == 1 and "\\" not in text[max(0, i - 6) : i]


def echo(request, key: str, rng: random.Random) -> Reply:
    """A reply that has the key somewhere."""
    said = written(key, rng)
    honest = request.honest.body
    body = dict(honest) if isinstance(honest, dict) else honest
    where = rng.randrange(14)
    if where == 0:
        body = {"error": {"message": f"Incorrect key {said}", "param": said, "code": said}}
        return Reply(raw=escaped(body, rng), status=rng.choice((400, 401, 403, 404, 422, 429, 500)))
    if where == 1:
        body = {"detail": [{"loc": ["body", said], "msg": said}]}
        return Reply(raw=escaped(body, rng), status=rng.choice((400, 422)))
    if where == 2:
        return Reply(raw=said.encode(), status=rng.choice((200, 400, 401, 500, 503)))
    if where == 3:
        return Reply(raw=b"<html>" + b" " * rng.randint(0, 60) + said.encode(), status=200)
    if where == 4:
        target = rng.choice(
            ("http://{}.example/", "http://h/{}", "{}", "http://{}@h/", "http://[{}")
        )
        return Reply({}, 307, {"Location": _line(target.format(said))})
    if where == 5:
        return Reply(raw=b"{", headers={"Content-Type": _line(said)})
    if where == 6:
        return Reply(honest, headers={"Content-Encoding": _line(said)})
    if where == 7:
        return Reply(honest, 429, {"Retry-After": _line(said)})
    if where == 8 or not isinstance(body, dict):
        return Reply(raw=escaped({"error": {"message": said}}, rng))
    if where == 9:
        return Reply(raw=escaped({**body, "error": said}, rng))
    if where == 10:
        name = rng.choice(("model", "system_fingerprint", "weight_version", "id", "object", said))
        return Reply(raw=escaped({**body, name: said}, rng))
    return Reply(raw=escaped(_planted(body, said, rng), rng))


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _planted(value, said: str, rng: random.Random):
    """Put the key in the place of a text or a name somewhere in a reply."""
    if isinstance(value, dict) and value:
        name = rng.choice(list(value))
        if rng.random() < 0.2:
            return {said if k == name else k: v for k, v in value.items()}
        return {**value, name: _planted(value[name], said, rng)}
    if isinstance(value, list) and value:
        i = rng.randrange(min(len(value), 4))
        return [*value[:i], _planted(value[i], said, rng), *value[i + 1 :]]
    return said


def leaks(text: str, key: str) -> str:
    """A piece of the key that the text shows, if it does."""
    low, secret = text.lower(), key.lower()
    pieces = (secret[i : i + SHOWN] for i in range(len(secret) - SHOWN + 1))
    return next((piece for piece in pieces if piece in low), "")


@pytest.mark.parametrize("scheme", DIALECTS)
def test_no_key_that_a_server_sends_back_is_said_or_written(scheme, tmp_path, monkeypatch):
    rng = random.Random(f"secrets of {scheme}")
    state = {"key": "", "echo": False}
    heard: list[str] = []

    def script(request, before):
        heard.append(request.headers.get("Authorization", ""))
        if state["echo"] and rng.random() < 0.8:
            return echo(request, state["key"], rng)
        return None

    said: list[str] = []
    keys: list[str] = []
    with FakeServer(script) as server:
        for case in range(max(CASES // len(DIALECTS), 20)):
            key = state["key"] = new_key(rng)
            keys.append(key)
            monkeypatch.setenv("MY_KEY", key)
            options = "model=toy&key_env=MY_KEY&retries=1&backoff=0&fingerprint=f"
            state["echo"] = True
            del said[:]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model = load_model(f"{scheme}:{server.url}?{options}")
                try:
                    said.append(_worked(model, case, tmp_path))
                except FewfitError as error:
                    said += [str(error), repr(error), "".join(traceback.format_exception(error))]
            said += [str(warning.message) for warning in caught]
            said += [repr(model), model.spec, str(model.identity), str(pickle.dumps(model))]
            found = [(leaks(text, key), text) for text in said if leaks(text, key)]
            assert not found, (key, found[0])
    assert heard
    assert all(header.startswith("Bearer ") for header in heard)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes().decode("latin-1")
        assert not any(leaks(content, key) for key in keys[-50:])


def _worked(model, case: int, tmp_path) -> str:
    prompts = [TEMPLATE.render({"text": f"text {case} {i}"}) for i in range(2)]
    kind = case % 4
    if kind == 0:
        return json.dumps(probe(model, template=TEMPLATE, words=WORDS).to_dict())
    if kind == 1:
        return str([c.detail + c.outcome for c in model.check_fields(prompts[0], WORDS)])
    if kind == 2:
        stored = StoredModel(model, tmp_path / "store.sqlite")
        answers = stored.observe(prompts, WORDS)
        return str(getattr(answers, "reasons", "")) + str(answers)
    clf = FewShotClassifier(
        model,
        template=TEMPLATE.source,
        labels={"neg": "bad", "pos": "good"},
        decoder=ZeroShot(),
        store=None,
        errors="nan",
        max_censored=1.0,
    ).fit(["a", "b", "c", "d"], ["neg", "pos"] * 2)
    folder = tmp_path / "task"
    clf.save(folder)
    return "".join(path.read_text(errors="replace") for path in sorted(folder.iterdir()))


TYPED = [
    "openai:http://{}@host/v1?model=m",
    "openai:http://user:{}@host/v1?model=m",
    "openai:http://{}:@host/v1?model=m",
    "openai:http://host:{}/v1?model=m",
    "openai:http://host/v1?model=m&api_key={}",
    "openai:http://host/v1?model=m&API-KEY={}",
    "openai:http://host/v1?model=m&x-api-key={}",
    "openai:http://host/v1?model=m&token={}",
    "openai:http://host/v1?model=m&access_token={}",
    "openai:http://host/v1?model=m&key={}",
    "openai:http://host/v1?model=m&authorization=Bearer {}",
    "openai:http://host/v1?model=m&headers={{\"Authorization\": \"Bearer {}\"}}",
    "openai:http://host/v1?model=m&header=X-Api-Key: {}",
    "openai:http://host/v1?model=m&password={}",
    "openai:http://host/v1?model=m&{}",
    "openai:http://host/v1?model=m&{}=1",
    "openai:http://host/v1?model=m#{}",
    "openai:http://host/v1#{}?model=m",
    "openai:http://host/v1;key={}?model=m",
    "openai:http://host/v1?model=m;api_key={}",
    "openai:http://host/v1?model=m?api_key={}",
    "openai:http://host/v1?model=Bearer {}",
    "openai:http://host/v1?model=m&key_env={}",
    "openai:http://host/v1?model=m&retries={}",
    "openai:http://host/v1?model=m&temperature={}",
    "openai:http://host/v1?model=m&hidden=http://{}@other",
    "openai:http://host/v1?model=m&hidden=http://other?key={}",
    "openai:http://host/v1?model=m&hidden={}",
    "openai:http://host/v1?model=m&extra={{\"api_key\": \"{}\"}}",
    "openai:http://host/v1?model=m&extra={{\"a\": {{\"Authorization\": \"{}\"}}}}",
    "openai:http://host/v1?model=m&extra={}",
    "openai:http://host/v1?model=m&model={}",
    "openai:http://host/v1?model=m&fingerprint=token={}",
    "openai:http://host/v1?model=m&case={}",
    "openai:{}@host",
    "openai:https:{}",
    "http://{}@host/v1",
    "https://user:{}@host/v1",
]  # fmt: skip


@pytest.mark.parametrize("form", TYPED)
def test_a_key_typed_where_it_does_not_belong_is_refused_and_not_repeated(form, monkeypatch):
    rng = random.Random(form)
    for _ in range(max(CASES // len(TYPED), 5)):
        key = "sk-" + "".join(rng.choice(LETTERS + "-_") for _ in range(rng.choice((12, 30, 48))))
        with pytest.raises(FewfitError) as error:
            load_model(form.format(key)).observe([TEMPLATE.render({"text": "x"})], WORDS)
        said = "".join(traceback.format_exception(error.value))
        assert not leaks(said, key), said


def test_a_name_of_a_variable_that_is_a_key_is_not_repeated(monkeypatch):
    rng = random.Random(5)
    with FakeServer() as server:
        for _ in range(max(CASES // 50, 10)):
            key = rng.choice("sh") + "".join(rng.choice(LETTERS + "_") for _ in range(30))
            monkeypatch.delenv(key, raising=False)
            model = load_model(f"openai:{server.url}?model=toy&key_env={key}")
            with pytest.raises(FewfitError, match="key_env= takes the name") as error:
                model.observe([TEMPLATE.render({"text": "x"})], WORDS)
            assert not leaks(str(error.value), key)
        assert not server.requests


def test_what_is_no_key_is_left_alone():
    key = "sk-thisIsTheSecretKey0123456789"
    redactor = Redactor([key])
    for text in ("this is the", "secret", "key", "0123456", "", "Ein Wört 🙂", "x" * 10_000):
        assert redactor(text) == text
        assert redactor.json({text: [text, 1.0]}) == {text: [text, 1.0]}
    assert Redactor([])("anything") == "anything"
    assert Redactor(["x"])("an axe") == "an axe", "keys of one letter are in every word"
    assert Redactor(["EMPTY"]).json(["EMPTY"]) == ["EMPTY"], "a label word is not touched"
    with pytest.raises(TypeError):
        pickle.dumps(redactor)
    assert key not in repr(redactor)
    assert "PATH" in os.environ
