"""all-MiniLM-L6-v2 in float32, which was `embedded` up to version 0.1."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fewfit import Template
from fewfit.errors import MissingExtraError, ModelError
from fewfit.models import Float32Encoder
from fewfit.models.costs import Size
from fewfit.models.embedded import minilm as module
from fewfit.observations import Status
from tests.conftest import prompts

WORDS = ("bad", "great")


def directly(minilm, text: str) -> np.ndarray:
    """Mean-pooled last layer of one text, by the shortest way."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = module.find_files()["config.json"].parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder).eval()
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
    with torch.no_grad():
        return network(**encoded).last_hidden_state[0].mean(dim=0).numpy()


def test_the_size_of_minilm_is_that_of_its_file(minilm):
    n = sum(p.numel() for p in minilm.network.network.parameters())
    assert minilm.size == Size(n, encoder_decoder=False)


def test_minilm_equals_a_direct_computation(minilm):
    text = "A gripping , funny film ; bring a friend !"
    answers = minilm.observe(prompts(text), WORDS)
    hidden = directly(minilm, text)
    np.testing.assert_allclose(answers.hidden[0], hidden, atol=1e-5)
    labels = [directly(minilm, f"In summary, it was {word}.") for word in WORDS]
    cosine = [hidden @ label / np.linalg.norm(hidden) / np.linalg.norm(label) for label in labels]
    np.testing.assert_allclose(answers.scores[0], cosine, atol=1e-5)


def test_minilm_joins_three_fields_and_leaves_them_out_of_the_label_sentence(minilm):
    triple = Template("{a} ? {mask}, {b} {c}")
    row = {"a": "one", "b": "two", "c": "three"}
    answers = minilm.observe([triple.render(row)], WORDS)
    hidden = answers.hidden[0]
    np.testing.assert_allclose(hidden, directly(minilm, "one two three"), atol=1e-5)
    label = directly(minilm, "? bad,")
    expected = hidden @ label / np.linalg.norm(hidden) / np.linalg.norm(label)
    np.testing.assert_allclose(answers.scores[0, 0], expected, atol=1e-5)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_minilm_reads_two_fields_as_two_texts(minilm):
    pair = Template("{a} ? {mask}, {b}")
    texts = "A man plays the guitar.", "Nobody makes music."
    answers = minilm.observe([pair.render(dict(zip("ab", texts, strict=True)))], WORDS)
    u, v = (unit(directly(minilm, text)) for text in texts)
    by_hand = np.concatenate([u, v, abs(u - v), u * v * 384**0.5])
    np.testing.assert_allclose(answers.hidden[0], by_hand, atol=1e-5)
    expected = unit(u + v) @ unit(directly(minilm, "? bad,"))
    np.testing.assert_allclose(answers.scores[0, 0], expected, atol=1e-5)
    counts = [minilm.observe(prompts(text), WORDS).n_tokens[0] for text in texts]
    assert answers.n_tokens.tolist() == [sum(counts)]


def test_minilm_cuts_long_texts_and_says_so(minilm):
    long = "word " * 1000
    answers = minilm.observe(prompts(long, "word " * 254, "word " * 255), WORDS)
    assert answers.n_tokens.tolist() == [256, 256, 256]
    assert answers.status.tolist() == [Status.TRUNCATED, Status.OK, Status.TRUNCATED]
    np.testing.assert_allclose(answers.hidden[0], answers.hidden[1], atol=2e-6)


def test_special_tokens_in_user_text_are_text(minilm):
    answers = minilm.observe(prompts("[SEP]", "[MASK] [MASK]"), WORDS)
    assert answers.n_tokens.tolist() == [5, 8]  # "[", "sep", "]" are pieces like any other


def test_the_package_is_trusted_by_hash_only(minilm, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(module.find_files()["config.json"].parent, folder)
    files = {name: folder / name for name in module.SHA256}
    assert module.verified(files) == folder
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[1000] ^= 1
    (folder / "tokenizer.json").write_bytes(data)
    monkeypatch.setattr(module, "find_files", lambda: files)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not the published file"):
        Float32Encoder().observe(prompts("x"), WORDS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        module.verified(files)


def test_where_the_package_is_missing_the_hub_serves(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repository, name, *, revision):
        asked.append((repository, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert module.find_files()["config.json"] == tmp_path / "config.json"
    assert set(asked) == {(module.REPOSITORY, module.REVISION)}

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(ModelError, match=r'pip install "fewfit\[minilm\]"'):
        Float32Encoder().observe(prompts("x"), WORDS)


def test_a_missing_extra_is_one_line(monkeypatch, minilm):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[minilm\]"') as error:
        Float32Encoder().observe(prompts("x"), WORDS)
    assert "\n" not in str(error.value)


def test_identity_needs_no_weights_and_holds_no_path():
    identity = Float32Encoder().identity
    assert not any(str(Path.home()) in value or "/site-packages" in value for value in identity)
    assert identity["weights_sha256"].startswith("53aa5117")
