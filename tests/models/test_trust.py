"""What a file may make this machine do by naming a model."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from fewfit import FewShotClassifier
from fewfit.errors import ArtifactError, ModelMismatchError
from fewfit.models.trust import check_unnamed, spec_to_write
from tests.fake_server import FakeServer
from tests.raw_server import Proxy

TEXTS, Y = [f"t{i}" for i in range(8)], ["neg", "pos"] * 4
LABELS = {"neg": "bad", "pos": "good"}
QUICK = "model=toy&backoff=0&timeout=5"
KEY = "sk-thisIsTheSecretKey0123456789"


def fitted(spec, folder):
    clf = FewShotClassifier(spec, template="{text} It was {mask}.", labels=LABELS, store=None)
    clf.fit(TEXTS, Y).save(folder)
    return clf


@pytest.fixture
def elsewhere(monkeypatch):
    """A server of another name, which only the proxy can find."""
    with FakeServer() as server, Proxy(server.port) as proxy:
        for name in ("http_proxy", "no_proxy", "NO_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        yield server


def test_texts_go_to_another_machine_only_if_the_user_names_it(elsewhere, tmp_path, monkeypatch):
    spec = f"sglang:http://gpu-box.example:8000?{QUICK}"
    clf = fitted(spec, tmp_path / "task")
    asked = len(elsewhere.requests)
    with pytest.raises(ArtifactError, match="only if you name it: add --model 'sglang:http://gpu"):
        FewShotClassifier.load(tmp_path / "task", store=None)
    assert len(elsewhere.requests) == asked
    monkeypatch.setenv("MY_KEY", KEY)
    again = FewShotClassifier.load(tmp_path / "task", model=f"{spec}&key_env=MY_KEY", store=None)
    assert_array_equal(again.predict_proba(["x"]), clf.predict_proba(["x"]))
    assert elsewhere.requests[asked].headers["Authorization"] == f"Bearer {KEY}"


def test_a_server_of_this_machine_is_asked_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FakeServer() as server:
        clf = fitted(f"sglang:{server.url}?{QUICK}&key_env=MY_KEY", tmp_path / "task")
        asked = len(server.requests)
        again = FewShotClassifier.load(tmp_path / "task", store=None)
        assert_array_equal(again.predict_proba(["x"]), clf.predict_proba(["x"]))
        sent = [r.headers for r in server.requests]
    assert all("Authorization" in headers for headers in sent[:asked])
    assert any("Authorization" not in headers for headers in sent[asked:])


def test_a_second_server_is_not_written_and_has_to_be_named(tmp_path):
    with FakeServer() as server, FakeServer() as second:
        spec = f"llamacpp:{server.url}?{QUICK}&hidden={second.url}"
        clf = fitted(spec, tmp_path / "task")
        manifest = json.loads((tmp_path / "task" / "manifest.json").read_text())
        assert str(second.port) not in manifest["model_spec"]
        asked = len(second.requests)
        with pytest.raises(ArtifactError, match="hidden=URL"):
            FewShotClassifier.load(tmp_path / "task", store=None)
        assert len(second.requests) == asked
        again = FewShotClassifier.load(tmp_path / "task", model=spec, store=None)
        assert_array_equal(again.predict_proba(["x"]), clf.predict_proba(["x"]))
        with pytest.raises(ModelMismatchError, match="another frozen model"):
            FewShotClassifier.load(
                tmp_path / "task", model=spec.replace(second.url, server.url), store=None
            )


def test_the_same_server_for_hidden_states_is_no_second_one(tmp_path):
    with FakeServer() as server:
        spec = f"ollama:{server.url}?{QUICK}&top_k=200&hidden={server.url}"
        clf = fitted(spec, tmp_path / "task")
        again = FewShotClassifier.load(tmp_path / "task", store=None)
        assert_array_equal(again.predict_proba(["x"]), clf.predict_proba(["x"]))


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        (None, None),
        ("embedded", "embedded"),
        ("hf:gpt2@abc?dtype=float32", "hf:gpt2@abc?dtype=float32"),
        ("openai:http://h?model=m&key_env=K&top_k=3", "openai:http://h?model=m&top_k=3"),
        ("vllm:http://h?model=m&hidden=http%3A%2F%2Fg", "vllm:http://h?model=m"),
        ("vllm:http://h?model=m&hidden=https%3A%2F%2Fh", "vllm:http://h?model=m"),
    ],
)
def test_what_of_a_name_is_written(spec, kept):
    assert spec_to_write(spec) == kept


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1:80", True),
        ("[::1]:8000", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("2130706433", False),
        ("[::ffff:8.8.8.8]", False),
    ],
)
def test_which_servers_are_on_this_machine(host, here, tmp_path):
    if here:
        check_unnamed(f"sglang:http://{host}", tmp_path)
        return
    with pytest.raises(ArtifactError):
        check_unnamed(f"sglang:http://{host}", tmp_path)


def test_a_folder_of_this_machine_may_be_named_and_a_pipe_in_it_is_not_opened(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    check_unnamed(f"hf:{tmp_path / 'model'}?dtype=float32", tmp_path)
    os.mkfifo(tmp_path / "model" / "tokenizer.json")
    with pytest.raises(ArtifactError, match="not a regular file"):
        check_unnamed(f"hf:{tmp_path / 'model'}", tmp_path)


def test_a_kind_that_another_package_adds_has_to_be_named(tmp_path):
    with pytest.raises(ArtifactError, match="add --model theirs:x"):
        check_unnamed("theirs:x", tmp_path)


def test_a_missing_artifact_is_named_by_its_folder(tmp_path):
    with pytest.raises(ArtifactError, match=r"there is no artifact at .*nowhere: no such folder"):
        FewShotClassifier.load(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        FewShotClassifier.load(tmp_path)


@pytest.mark.parametrize("scheme", ["hf", "encoder"])
@pytest.mark.parametrize("name", ["../models/x", "./x", "~/x", "/data/models/x", "a/b/c"])
def test_a_folder_that_is_not_seen_from_here_is_not_looked_for_on_the_hub(scheme, name, tmp_path):
    with pytest.raises(ArtifactError) as found:
        check_unnamed(f"{scheme}:{name}", tmp_path)
    said = str(found.value)
    assert f"folder {shlex.quote(name)} is not found from {Path.cwd()}" in said
    assert f"--model {scheme}:FOLDER" in said
    assert "hub" not in said
