"""The embedded encoder against the shortest way to the same numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fewfit import DecT, FewShotClassifier, LinearProbe, Template
from fewfit.compare import DecoderMethod, Experiment
from fewfit.errors import InputError, MissingExtraError, ModelError
from fewfit.models import EmbeddedEncoder
from fewfit.models import embedded as embedded_module
from fewfit.models.costs import Size
from fewfit.observations import Status
from tests.conftest import TEMPLATE, prompts
from tests.models.test_base import WORDS


def directly(embedded, text: str) -> np.ndarray:
    """Mean-pooled last layer of one text, by the shortest way."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = embedded_module.find_files()["config.json"].parent
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder).eval()
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
    with torch.no_grad():
        return network(**encoded).last_hidden_state[0].mean(dim=0).numpy()


def test_the_size_of_embedded_is_that_of_its_file(embedded):
    n = sum(p.numel() for p in embedded.network.network.parameters())
    assert embedded.size == Size(n, encoder_decoder=False)


def test_embedded_equals_a_direct_computation(embedded):
    text = "A gripping , funny film ; bring a friend !"
    answers = embedded.observe(prompts(text), WORDS)
    hidden = directly(embedded, text)
    np.testing.assert_allclose(answers.hidden[0], hidden, atol=1e-5)
    labels = [directly(embedded, f"In summary, it was {word}.") for word in WORDS]
    cosine = [hidden @ label / np.linalg.norm(hidden) / np.linalg.norm(label) for label in labels]
    np.testing.assert_allclose(answers.scores[0], cosine, atol=1e-5)


def test_embedded_joins_three_fields_and_leaves_them_out_of_the_label_sentence(embedded):
    triple = Template("{a} ? {mask}, {b} {c}")
    row = {"a": "one", "b": "two", "c": "three"}
    answers = embedded.observe([triple.render(row)], WORDS)
    hidden = answers.hidden[0]
    np.testing.assert_allclose(hidden, directly(embedded, "one two three"), atol=1e-5)
    label = directly(embedded, "? bad,")
    expected = hidden @ label / np.linalg.norm(hidden) / np.linalg.norm(label)
    np.testing.assert_allclose(answers.scores[0, 0], expected, atol=1e-5)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_embedded_reads_two_fields_as_two_texts(embedded):
    pair = Template("{a} ? {mask}, {b}")
    texts = "A man plays the guitar.", "Nobody makes music."
    answers = embedded.observe([pair.render(dict(zip("ab", texts, strict=True)))], WORDS)
    u, v = (unit(directly(embedded, text)) for text in texts)
    by_hand = np.concatenate([u, v, abs(u - v), u * v * 384**0.5])
    np.testing.assert_allclose(answers.hidden[0], by_hand, atol=1e-5)
    expected = unit(u + v) @ unit(directly(embedded, "? bad,"))
    np.testing.assert_allclose(answers.scores[0, 0], expected, atol=1e-5)
    counts = [embedded.observe(prompts(text), WORDS).n_tokens[0] for text in texts]
    assert answers.n_tokens.tolist() == [sum(counts)]


def test_pairs_of_any_length_come_back_in_order(embedded):
    pair = Template("{a} ? {mask}, {b}")
    rows = [
        {"a": "word " * (i % 7 + 1), "b": "other " * (300 if i == 40 else 1)} for i in range(70)
    ]
    answers = embedded.observe([pair.render(row) for row in rows], WORDS)
    for i in (0, 6, 40, 69):
        alone = embedded.observe([pair.render(rows[i])], WORDS)
        np.testing.assert_allclose(answers.hidden[i], alone.hidden[0], atol=2e-6)
        np.testing.assert_allclose(answers.scores[i], alone.scores[0], atol=2e-6)
    assert np.flatnonzero(answers.status == Status.TRUNCATED).tolist() == [40]


def test_views_of_one_and_of_two_fields_do_not_go_together(embedded):
    clf = FewShotClassifier(
        embedded, template=["{a} {mask}, {b}", "{a} {mask}"], labels={0: "no", 1: "yes"}, store=None
    )
    with pytest.raises(InputError, match="give every template two fields"):
        clf.fit([{"a": "x", "b": "y"}] * 2, [0, 1])
    rows = [{"a": str(i), "b": "y"} for i in range(4)]
    with pytest.raises(InputError, match="give every template two fields"):
        Experiment(
            rows[:2],
            [0, 1],
            rows[2:],
            [0, 1],
            template="{a} {mask}, {b}",
            labels={0: "no", 1: "yes"},
            models=[embedded],
            methods={"one": DecoderMethod(LinearProbe(), template="{a} {mask}"), "two": DecT()},
            shots=[1],
            seeds=1,
        )


def test_embedded_answers_several_templates_in_one_call(embedded):
    other = Template("{text} The topic is {mask}.")
    mixed = [TEMPLATE.render({"text": "x"}), other.render({"text": "x"})]
    both = embedded.observe(mixed, WORDS)
    for i, prompt in enumerate(mixed):
        np.testing.assert_allclose(
            both.scores[i], embedded.observe([prompt], WORDS).scores[0], atol=2e-6
        )
    assert abs(both.scores[0] - both.scores[1]).max() > 0.01


def test_embedded_cuts_long_texts_and_says_so(embedded):
    long = "word " * 1000
    answers = embedded.observe(prompts(long, "word " * 254, "word " * 255), WORDS)
    assert answers.n_tokens.tolist() == [256, 256, 256]
    assert answers.status.tolist() == [Status.TRUNCATED, Status.OK, Status.TRUNCATED]
    np.testing.assert_allclose(answers.hidden[0], answers.hidden[1], atol=2e-6)


def test_special_tokens_in_user_text_are_text(embedded):
    answers = embedded.observe(prompts("[SEP]", "[MASK] [MASK]"), WORDS)
    assert answers.n_tokens.tolist() == [5, 8]  # "[", "sep", "]" are pieces like any other


def test_the_package_is_trusted_by_hash_only(embedded, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(embedded_module.find_files()["config.json"].parent, folder)
    files = {name: folder / name for name in embedded_module.SHA256}
    assert embedded_module.verified(files) == folder
    data = bytearray((folder / "tokenizer.json").read_bytes())
    data[1000] ^= 1
    (folder / "tokenizer.json").write_bytes(data)
    monkeypatch.setattr(embedded_module, "find_files", lambda: files)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not the published file"):
        EmbeddedEncoder().observe(prompts("x"), WORDS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read"):
        embedded_module.verified(files)


def test_where_the_package_is_missing_the_hub_serves(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(repository, name, *, revision):
        asked.append((repository, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(embedded_module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert embedded_module.find_files()["config.json"] == tmp_path / "config.json"
    assert set(asked) == {(embedded_module.REPOSITORY, embedded_module.REVISION)}

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(ModelError, match=r'pip install "fewfit\[embedded\]"'):
        EmbeddedEncoder().observe(prompts("x"), WORDS)


def test_a_missing_extra_is_one_line(monkeypatch, embedded):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[embedded\]"') as error:
        EmbeddedEncoder().observe(prompts("x"), WORDS)
    assert "\n" not in str(error.value)


def test_identity_needs_no_weights_and_holds_no_path():
    identity = EmbeddedEncoder().identity
    assert not any(str(Path.home()) in value or "/site-packages" in value for value in identity)
    assert identity["weights_sha256"].startswith("53aa5117")
