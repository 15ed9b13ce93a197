"""Sentence encoders: a vector is made of a text as the checkpoint's own files say."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import save_file

from fewfit import FewShotClassifier, Template, load_model
from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.models import Float32Encoder, SentenceEncoder
from fewfit.models.embedded import minilm as minilm_module
from fewfit.observations import Status
from fewfit.testing import check_frozen_model
from tests.conftest import prompts
from tests.hf_checkpoints import unigram, wordpiece

WORDS = ("great", "bad")
TEXTS = ["the movie was fun", "a", "it was a really bad film , really bad and sad", "[SEP] [MASK]"]
H = 32


def save(folder, *, network=None, words=wordpiece, positions=64):
    """Save a bare random encoder."""
    backend, special = words()
    wrapper = t.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=positions, **special
    )
    wrapper.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if network is None:
            config = t.BertConfig(
                vocab_size=len(wrapper),
                hidden_size=H,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=48,
                max_position_embeddings=positions,
                initializer_range=0.3,
            )
            network = t.BertModel(config, add_pooling_layer=False)
        else:
            network = network(len(wrapper))
    network.save_pretrained(folder)
    return folder


def describe(folder, *modules, **files):
    """Write modules.json and the files that it names."""
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))
    return folder


BODY, POOL, LAST = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")


def states(folder, text, limit=None):
    """The last layer's states of one text, by transformers alone."""
    backend = t.AutoTokenizer.from_pretrained(folder).backend_tokenizer
    backend.encode_special_tokens = True
    if limit:
        backend.enable_truncation(limit)
    network = t.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return network(torch.tensor([backend.encode(text).ids])).last_hidden_state[0].numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


BY_HAND = {
    "cls": lambda s: s[0],
    "max": lambda s: s.max(axis=0),
    "mean": lambda s: s.mean(axis=0),
    "mean_sqrt_len_tokens": lambda s: s.sum(axis=0) / len(s) ** 0.5,
    "weightedmean": lambda s: np.average(s, axis=0, weights=np.arange(1, len(s) + 1)),
    "lasttoken": lambda s: s[-1],
}
OLD = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return save(tmp_path_factory.mktemp("bare"))


@pytest.fixture
def folder(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "encoder")


@pytest.mark.parametrize("mode", BY_HAND)
@pytest.mark.parametrize("old", [True, False])
def test_every_pooling_is_what_its_name_says(folder, mode, old):
    config = {OLD[mode]: True} if old else {"pooling_mode": mode}
    describe(folder, BODY, POOL, **{"1_Pooling__config": config})
    found = SentenceEncoder(folder).observe(prompts(*TEXTS), WORDS)
    for row, text in enumerate(TEXTS):
        expected = BY_HAND[mode](states(folder, text))
        np.testing.assert_allclose(found.hidden[row], expected, atol=1e-5)
        label = BY_HAND[mode](states(folder, "In summary, it was bad."))
        cosine = unit(expected) @ unit(label)
        np.testing.assert_allclose(found.scores[row, 1], cosine, atol=1e-5)


def test_several_poolings_stand_side_by_side_and_the_whole_gets_length_1(folder):
    config = {"pooling_mode": ["cls", "mean"]}
    describe(folder, BODY, POOL, LAST, **{"1_Pooling__config": config})
    found = SentenceEncoder(folder).observe(prompts(*TEXTS), WORDS)
    for row, text in enumerate(TEXTS):
        s = states(folder, text)
        expected = unit(np.concatenate([s[0], s.mean(axis=0)]))
        np.testing.assert_allclose(found.hidden[row], expected, atol=1e-5)


def test_a_dense_layer_and_its_function_come_behind_the_pooling(folder):
    config = {"activation_function": "torch.nn.modules.activation.Tanh"}
    dense = ("Dense", "2_Dense")
    describe(
        folder, BODY, POOL, dense, LAST, **{"1_Pooling__config": {}, "2_Dense__config": config}
    )
    layer = {"linear.weight": torch.randn(5, H), "linear.bias": torch.randn(5)}
    save_file(layer, folder / "2_Dense" / "model.safetensors")
    model = SentenceEncoder(folder)
    found = model.observe(prompts(*TEXTS), WORDS)
    assert found.hidden.shape == (len(TEXTS), 5)
    weight, bias = layer["linear.weight"].numpy(), layer["linear.bias"].numpy()
    mean = states(folder, TEXTS[0]).mean(axis=0)
    np.testing.assert_allclose(found.hidden[0], unit(np.tanh(weight @ mean + bias)), atol=1e-5)
    before = dict(model.identity)
    save_file({**layer, "linear.bias": torch.zeros(5)}, folder / "2_Dense" / "model.safetensors")
    after = dict(SentenceEncoder(folder).identity)
    assert {key for key in before if before[key] != after[key]} == {"dense_sha256"}


def test_settings_of_the_texts_are_kept(folder):
    """Length, case and the prompt that stands before every text."""
    describe(
        folder,
        BODY,
        POOL,
        **{
            "1_Pooling__config": {},
            "sentence_bert_config": {"max_seq_length": 12, "do_lower_case": True},
            "config_sentence_transformers": {
                "prompts": {"query": "movie : ", "other": "film : "},
                "default_prompt_name": "query",
            },
        },
    )
    model = SentenceEncoder(folder)
    assert model.max_tokens == 12
    long = "Great FUN " * 20
    found = model.observe(prompts(long, "Great"), WORDS)
    assert found.status.tolist() == [Status.TRUNCATED, Status.OK]
    assert found.n_tokens[0] == 12
    expected = states(folder, f"movie : {long}".lower(), 12).mean(axis=0)
    np.testing.assert_allclose(found.hidden[0], expected, atol=1e-5)
    assert "lower case" in model.identity["hidden"]
    assert SentenceEncoder(folder, max_tokens=9).max_tokens == 9
    with pytest.raises(InputError, match="reads at most 12"):
        _ = SentenceEncoder(folder, max_tokens=13).max_tokens


def test_a_network_in_a_folder_of_its_own_is_found(bare, tmp_path):
    shutil.copytree(bare, tmp_path / "0_Transformer")
    described = ("Transformer", "0_Transformer"), POOL
    describe(tmp_path, *described, **{"1_Pooling__config": {"pooling_mode": "cls"}})
    found = SentenceEncoder(tmp_path).observe(prompts(*TEXTS), WORDS)
    expected = states(tmp_path / "0_Transformer", TEXTS[0])[0]
    np.testing.assert_allclose(found.hidden[0], expected, atol=1e-5)
    assert "weights_sha256" in SentenceEncoder(tmp_path).identity


def test_a_bare_encoder_gives_the_mean_and_says_that_nothing_says_so(bare):
    model = load_model(f"encoder:{bare}")
    found = model.observe(prompts(*TEXTS), WORDS)
    expected = states(bare, TEXTS[2]).mean(axis=0)
    np.testing.assert_allclose(found.hidden[2], expected, atol=1e-5)
    [check] = model.check_fields(prompts("a")[0], WORDS)
    assert check.outcome == "note"
    assert "no modules.json" in check.detail


def test_the_encoder_of_an_encoder_decoder_is_an_encoder(tmp_path):
    def network(n):
        return t.T5EncoderModel(
            t.T5Config(vocab_size=n, d_model=H, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        )

    folder = save(tmp_path, network=network, words=unigram)
    found = SentenceEncoder(folder).observe(prompts("the movie was great"), WORDS)
    words = t.AutoTokenizer.from_pretrained(folder)
    body = t.T5EncoderModel.from_pretrained(folder).eval()
    ids = words("the movie was great", return_tensors="pt")
    expected = body(**ids).last_hidden_state[0].mean(dim=0).detach().numpy()
    np.testing.assert_allclose(found.hidden[0], expected, atol=1e-5)


def test_a_row_is_what_it_is_alone_where_padding_would_be_read(tmp_path):
    """A Fourier transform mixes padding into every state."""

    def network(n):
        config = t.FNetConfig(vocab_size=n, hidden_size=H, num_hidden_layers=2, intermediate_size=8)
        return t.FNetModel(config)

    model = SentenceEncoder(save(tmp_path, network=network), max_tokens=32)
    whole = model.observe(prompts(*TEXTS), WORDS)
    for row, text in enumerate(TEXTS):
        alone = model.observe(prompts(text), WORDS)
        np.testing.assert_allclose(alone.hidden[0], whole.hidden[row], atol=1e-5)


def test_the_promises_of_all_frozen_models_are_kept(bare):
    check_frozen_model(SentenceEncoder(bare))


def test_a_saved_task_is_bound_to_the_encoder(bare, tmp_path):
    X, y = ["great fun", "really bad", "a great movie", "a bad film"], ["p", "n", "p", "n"]
    clf = FewShotClassifier(f"encoder:{bare}", store=None).fit(X, y)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-6)


def test_a_hub_name_is_pinned_to_the_cached_commit(bare, tmp_path, monkeypatch):
    import huggingface_hub.constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(bare, repository / "snapshots" / commit)
    config = {"1_Pooling__config": {"pooling_mode": "cls"}}
    describe(repository / "snapshots" / commit, BODY, POOL, **config)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = load_model("encoder:someone/tiny")
    assert model.identity["commit"] == commit
    assert model.spec == f"encoder:someone/tiny@{commit}?dtype=float32"
    assert dict(load_model(model.spec).identity) == dict(model.identity)
    found = model.observe(prompts(*TEXTS), WORDS)
    np.testing.assert_allclose(found.hidden[0], states(bare, TEXTS[0])[0], atol=1e-5)


def test_minilm_is_the_same_reading_of_the_packaged_weights(minilm):
    folder = minilm_module.find_files()["config.json"].parent
    packaged = SentenceEncoder(folder)
    assert packaged.max_tokens == 256
    texts = prompts(*TEXTS, "word " * 300)
    mine, theirs = minilm.observe(texts, WORDS), packaged.observe(texts, WORDS)
    np.testing.assert_allclose(theirs.hidden, [unit(row) for row in mine.hidden], atol=1e-5)
    np.testing.assert_allclose(theirs.scores, mine.scores, atol=1e-5)
    assert theirs.status.tolist() == mine.status.tolist()
    assert isinstance(Float32Encoder(), SentenceEncoder)


def test_nothing_but_files_of_known_hash_decides_what_minilm_reads(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    shutil.copytree(minilm_module.find_files()["config.json"].parent, folder)
    save(folder / "0_Other")
    describe(folder, ("Transformer", "0_Other"), POOL, **{"1_Pooling__config": {}})
    files = {name: folder / name for name in minilm_module.SHA256}
    monkeypatch.setattr(minilm_module, "find_files", lambda: files)
    found = Float32Encoder().observe(prompts("great fun"), WORDS)
    assert found.hidden.shape == (1, 384)


def test_numbers_that_are_not_finite_are_a_failed_answer(folder):
    """One token's embedding is NaN: only texts with this token fail."""
    words = t.AutoTokenizer.from_pretrained(folder)
    network = t.AutoModel.from_pretrained(folder)
    network.get_input_embeddings().weight.data[words.convert_tokens_to_ids("fun")] = torch.nan
    network.save_pretrained(folder)
    model = SentenceEncoder(folder)
    with pytest.warns(ModelWarning, match="not finite"):
        found = model.observe(prompts("great fun", "a sad film"), WORDS)
    assert found.status.tolist() == [Status.FAILED, Status.OK]
    assert np.isnan(found.scores[0]).all()
    assert np.isfinite(found.hidden[1]).all()
    template = Template("{text} it was {mask} fun")
    with pytest.raises(ModelError, match="label sentence"):
        model.observe([template.render({"text": "a film"})], WORDS)


def test_gradients_pass_through_a_vector_for_whoever_trains_an_adapter(folder):
    describe(folder, BODY, POOL, LAST, **{"1_Pooling__config": {"pooling_mode": "cls"}})
    network = SentenceEncoder(folder).network
    weight = network.network.get_input_embeddings().weight.requires_grad_(True)
    ids = torch.tensor([[2, 9, 8, 3], [2, 7, 3, 0]])
    network(ids, (ids != 0).long())[:, 0].sum().backward()
    assert (weight.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist() == [2, 3, 7, 8, 9]


@pytest.mark.parametrize(
    ("modules", "files", "message"),
    [
        ([BODY, ("CNN", "1_CNN")], {}, "has 'CNN', which is not read"),
        ([BODY, POOL, LAST, ("Dense", "3_Dense")], {"3_Dense__config": {}}, "has 'Dense'"),
        ([BODY], {}, "has no Pooling"),
        ([("Transformer", "../elsewhere"), POOL], {}, "no folder of its own"),
        ([BODY, ("Pooling", "..")], {}, "no folder of its own"),
        ([BODY, POOL], {"1_Pooling__config": {"pooling_mode": "magic"}}, "pooling 'magic'"),
        (
            [BODY, POOL, ("Dense", "2_Dense")],
            {"2_Dense__config": {"activation_function": "os.system"}},
            "'system' is not read",
        ),
        (
            [BODY, POOL],
            {
                "1_Pooling__config": {"include_prompt": False},
                "config_sentence_transformers": {
                    "prompts": {"q": "to "},
                    "default_prompt_name": "q",
                },
            },
            "left out of the pooling",
        ),
    ],
)
def test_a_layout_that_is_not_understood_is_refused_before_weights_are_loaded(
    folder, modules, files, message
):
    describe(folder, *modules, **files)
    model = SentenceEncoder(folder)
    with pytest.raises(ModelError, match=message):
        _ = model.identity
    assert not model._made


@pytest.mark.parametrize("content", ["{}", "[1]", "[{}]", "nonsense"])
def test_a_broken_modules_file_is_one_line(folder, content):
    (folder / "modules.json").write_text(content)
    with pytest.raises(ModelError, match=r"modules\.json"):
        _ = SentenceEncoder(folder).identity


def test_a_dense_layer_without_safetensors_is_refused(folder):
    modules = BODY, POOL, ("Dense", "2_Dense")
    describe(folder, *modules, **{"1_Pooling__config": {}, "2_Dense__config": {}})
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no readable model\.safetensors"):
        SentenceEncoder(folder).observe(prompts("x"), WORDS)


@pytest.mark.parametrize("spec", ["encoder:", "encoder:x?space=logit", "encoder:x?max_tokens=no"])
def test_a_malformed_spec_is_refused(spec):
    with pytest.raises(InputError, match="model: "):
        load_model(spec)


def test_a_limit_without_room_for_a_text_is_refused(tmp_path):
    folder = save(tmp_path)
    for limit in (1, 2):
        with pytest.raises(InputError, match=f"max_tokens={limit} leaves no room for a text"):
            SentenceEncoder(folder, max_tokens=limit).observe(prompts("a"), WORDS)
    few = SentenceEncoder(folder, max_tokens=3).observe(prompts("a", "a a a"), WORDS)
    assert few.status.tolist() == [Status.OK, Status.TRUNCATED]
