"""Where a checkpoint lies, what it is, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import transformers

from fewfit import load_model
from fewfit.errors import (
    InputError,
    MissingExtraError,
    ModelError,
)
from fewfit.models import TransformersModel
from fewfit.observations import Status
from tests.hf_checkpoints import KINDS, build
from tests.models.local.test_model import TEXTS, WORDS, prompts


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in KINDS}


def test_identity_holds_no_path_and_changes_with_a_byte_of_the_weights(checkpoints, tmp_path):
    copy = shutil.copytree(checkpoints["bert"], tmp_path / "copy")
    model = TransformersModel(checkpoints["bert"])
    identity = dict(model.identity)
    assert identity == dict(TransformersModel(copy).identity)
    assert str(checkpoints["bert"]) not in json.dumps(identity)
    assert "network" not in model._made
    assert identity["kind"] == "transformers-masked"
    for name, key in (
        ("model.safetensors", "weights_sha256"),
        ("tokenizer.json", "tokenizer_sha256"),
        ("config.json", "config_sha256"),
    ):
        path = copy / name
        data = path.read_bytes()
        path.write_bytes(
            data[:-1] + b" " + data[-1:] if name.endswith("json") else data[:-1] + b"?"
        )
        other = TransformersModel(copy).identity
        assert {k for k in identity if identity[k] != other[k]} == {key}
        path.write_bytes(data)
    for options in ({"space": "logprob"}, {"multi_token": "first"}, {"max_tokens": 30}):
        other = TransformersModel(copy, **options).identity
        assert {k for k in identity if identity[k] != other[k]} == set(options)


def test_max_tokens_of_models_that_count_positions_from_the_padding_token(tmp_path):
    folder = build("roberta", tmp_path / "roberta", positions=40)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = TransformersModel(folder)
    assert model.max_tokens == 40
    assert model.observe(prompts(["fun " * 99]), WORDS).status[0] == Status.TRUNCATED
    with pytest.raises(InputError, match="it reads at most 40"):
        _ = TransformersModel(folder, max_tokens=41).max_tokens


def test_spec_round_trips(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "odd @name? #1")
    for options in ("", "?space=logprob", "?multi_token=first&max_tokens=30&dtype=bfloat16"):
        model = load_model(f"hf:{folder}{options}")
        again = load_model(model.spec)
        assert again.spec == model.spec
        assert dict(again.identity) == dict(model.identity)
    assert load_model(f"hf:{folder}?max_tokens=30&space=logprob").max_tokens == 30


@pytest.mark.parametrize(
    "spec",
    [
        "hf:",
        "hf:name@",
        "hf:name?space",
        "hf:name?space=similarity",
        "hf:name?colour=red",
        "hf:name?space=logit&space=logit",
        "hf:name?max_tokens=-1",
        "hf:name?max_tokens=0",
        "hf:name?dtype=int8",
    ],
)
def test_a_malformed_spec_is_refused(spec):
    with pytest.raises(InputError, match="model: "):
        load_model(spec)


def test_a_wrong_path_or_name_is_one_line(tmp_path):
    with pytest.raises(ModelError, match=r"^model: there is no folder '.*/nowhere'$"):
        _ = TransformersModel(str(tmp_path / "nowhere")).identity
    with pytest.raises(ModelError, match="'no-such-model' is no folder here and cannot be had"):
        _ = TransformersModel("no-such-model").identity
    with pytest.raises(ModelError, match=r"no config\.json"):
        _ = TransformersModel(tmp_path).identity
    with pytest.raises(InputError, match="has no revision"):
        _ = TransformersModel(tmp_path, revision="main").identity


def test_a_hub_name_is_pinned_to_the_cached_commit(checkpoints, tmp_path, monkeypatch):
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(checkpoints["bert"], repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = load_model("hf:someone/tiny")
    assert model.identity["commit"] == commit
    assert model.identity["repository"] == "someone/tiny"
    assert model.spec == f"hf:someone/tiny@{commit}?dtype=float32"
    assert dict(load_model(model.spec).identity) == dict(model.identity)
    expected = TransformersModel(checkpoints["bert"]).observe(prompts(TEXTS), WORDS)
    np.testing.assert_array_equal(model.observe(prompts(TEXTS), WORDS).scores, expected.scores)
    with pytest.raises(ModelError, match="at revision 'v2'"):
        _ = load_model("hf:someone/tiny@v2").identity


def test_pickled_weights_and_adapters_are_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        TransformersModel(folder).observe(prompts(["x"]), WORDS)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="merge the adapter"):
        TransformersModel(folder).observe(prompts(["x"]), WORDS)


def test_damaged_weights_are_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "damaged")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="the weights cannot be loaded"):
        TransformersModel(folder).observe(prompts(["x"]), WORDS)


def test_a_checkpoint_without_its_head_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "body")
    transformers.BertModel.from_pretrained(folder).save_pretrained(folder)
    with pytest.raises(ModelError, match="BertModel is not a masked, causal or encoder-decoder"):
        _ = TransformersModel(folder).identity
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["BertForMaskedLM"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="would be random numbers"):
        TransformersModel(folder).observe(prompts(["x"]), WORDS)


def test_a_tokenizer_without_a_mask_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "maskless")
    for path in checkpoints["gpt2"].glob("tokenizer*"):
        shutil.copy(path, folder / path.name)
    with pytest.raises(ModelError, match="has no mask token"):
        TransformersModel(folder).observe(prompts(["x"]), WORDS)


def test_without_torch_the_message_is_the_command(checkpoints, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[hf\]"'):
        _ = TransformersModel(checkpoints["bert"]).identity
