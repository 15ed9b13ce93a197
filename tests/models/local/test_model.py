"""Local language models: what is read at the slot is what the model says there, and no less."""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewfit import DecT, FewShotClassifier, Template, load_model
from fewfit.decoders import KNNPrompting
from fewfit.errors import (
    CapabilityError,
    InputError,
    ModelMismatchError,
    ModelWarning,
    TruncationWarning,
)
from fewfit.models import TransformersModel
from fewfit.models.local import network
from fewfit.models.probe import TEXTS as PROBED
from fewfit.models.probe import probe
from fewfit.observations import Status
from fewfit.prompts import expand_words
from tests.hf_checkpoints import KINDS, build

TEMPLATE = "{text} In summary, it was {mask}."


WORDS = ["great", "bad"]


TEXTS = [
    "the movie was fun",
    "",
    "a",
    "I hated it. I loved it. (really)",
    "New York, New Delhi: the film , the world ; and more of it",
    "naïve café 漢字 🙂 \r\n x",
]


WORD_TOKEN = {  # how the word stands in the vocabulary, where a space comes before it
    "bert": "{}",
    "distilbert": "{}",
    "roberta": "Ġ{}",
    "gpt2": "Ġ{}",
    "llama": "▁{}",
    "t5": "▁{}",
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in KINDS}


def prompts(texts, template=TEMPLATE):
    template = Template(template)
    return [template.render({"text": text}) for text in texts]


@functools.cache
def loaded(folder, kind):
    loader = {
        "tokenizer": transformers.AutoTokenizer,
        "masked": transformers.AutoModelForMaskedLM,
        "causal": transformers.AutoModelForCausalLM,
        "seq2seq": transformers.AutoModelForSeq2SeqLM,
    }[kind].from_pretrained(folder)
    return loader if kind == "tokenizer" else loader.eval()


def direct(folder, name, text, *, continuation=(), masks=1):
    """The slot's states (S, H) and logits (S, V) by transformers alone."""
    tokenizer = loaded(folder, "tokenizer")
    kind = KINDS[name]
    if kind == "masked":
        network = loaded(folder, kind)
        ids = tokenizer(text.replace("{mask}", tokenizer.mask_token), return_tensors="pt").input_ids
        slot = int((ids[0] == tokenizer.mask_token_id).nonzero())
        mask = torch.full((1, masks), tokenizer.mask_token_id)
        ids = torch.cat([ids[:, :slot], mask, ids[:, slot + 1 :]], dim=1)
        out = network(ids, output_hidden_states=True)
        at = slice(slot, slot + masks)
        return out.hidden_states[-1][0, at].detach(), out.logits[0, at].detach()
    if kind == "causal":
        network = loaded(folder, kind)
        ids = tokenizer(text.split("{mask}")[0].removesuffix(" "), return_tensors="pt").input_ids
        if name == "llama":
            ids = ids[:, :-1]  # its tokenizer closes the text
        n = ids.shape[1]
        ids = torch.cat([ids, torch.tensor([continuation], dtype=torch.long)], dim=1)
        out = network(ids, output_hidden_states=True)
        return out.hidden_states[-1][0, n - 1 :].detach(), out.logits[0, n - 1 :].detach()
    network = loaded(folder, kind)
    ids = tokenizer(text.replace("{mask}", "<extra_id_0>"), return_tensors="pt").input_ids
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    said = torch.tensor([[0, sentinel, *continuation]])
    out = network(input_ids=ids, decoder_input_ids=said, output_hidden_states=True)
    return out.decoder_hidden_states[-1][0, 1:].detach(), out.logits[0, 1:].detach()


def token_ids(folder, name, words=WORDS):
    tokenizer = loaded(folder, "tokenizer")
    tokens = [WORD_TOKEN[name].format(word) for word in words]
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert all(i is not None and i != tokenizer.unk_token_id for i in ids), tokens
    return ids


@pytest.mark.parametrize("name", KINDS)
def test_words_are_expanded_by_their_rows_of_the_output_matrix(checkpoints, name):
    """A row is what the head multiplies a state with; the words are found as they are asked."""
    model = TransformersModel(str(checkpoints[name]))
    words, vectors = model.output_vectors()
    assert {"great", "bad"} <= set(words)
    assert len(words) == len(set(words)) == len(vectors)
    plain, tokenizer = (
        loaded(checkpoints[name], KINDS[name]),
        loaded(checkpoints[name], "tokenizer"),
    )
    matrix = plain.get_output_embeddings().weight.detach().numpy()
    for word in ("great", "bad", "film"):
        row = tokenizer.convert_tokens_to_ids(WORD_TOKEN[name].format(word))
        np.testing.assert_array_equal(vectors[words.index(word)], matrix[row])
    names = {"good": "great", "poor": "bad"}
    found = expand_words(names, words, vectors, n=3)
    assert [next(iter(own)) for own in found.values()] == ["great", "bad"]
    own = matrix[tokenizer.convert_tokens_to_ids(WORD_TOKEN[name].format("great"))]
    cosine = vectors @ own / np.linalg.norm(vectors, axis=1)
    second = list(found["good"])[1]
    nearest = [words[i] for i in np.argsort(-cosine) if words[i] not in ("great", "bad", "Great")]
    assert second in nearest[:3]
    # What was found can be asked: one token each, and so one score each.
    labels = {label: list(own) for label, own in found.items()}
    clf = FewShotClassifier(model, labels=labels, template=TEMPLATE, store=None)
    assert clf.fit(["fun", "sad"], ["good", "poor"]).n_queries_ == 3


@pytest.mark.parametrize("name", KINDS)
def test_observations_equal_a_direct_computation(checkpoints, name):
    folder = checkpoints[name]
    ids = token_ids(folder, name)
    logit = TransformersModel(folder).observe(prompts(TEXTS), WORDS)
    logprob = TransformersModel(folder, space="logprob").observe(prompts(TEXTS), WORDS)
    for row, text in enumerate(TEXTS):
        states, logits = direct(folder, name, TEMPLATE.replace("{text}", text))
        log_probs = logits[0].log_softmax(-1)[ids]
        np.testing.assert_allclose(logit.hidden[row], states[0], atol=1e-5)
        np.testing.assert_allclose(logit.scores[row], logits[0, ids], atol=1e-5)
        np.testing.assert_allclose(logprob.scores[row], log_probs, atol=1e-5)
        np.testing.assert_allclose(logprob.label_mass[row], log_probs.exp().sum(), rtol=1e-4)
    assert np.isnan(logit.label_mass).all()
    assert logit.space == "logit"
    assert logprob.space == "logprob"
    assert (logit.status == Status.OK).all()


@pytest.mark.parametrize("name", KINDS)
def test_the_head_is_computed_for_the_label_words_at_the_slot_alone(checkpoints, name):
    model = TransformersModel(checkpoints[name])
    model.observe(prompts(["warm up"]), WORDS)
    network = model._network
    assert network._head is not None  # the narrow head was found equal to the whole one
    shapes = []
    for module in network.model.modules():
        module.register_forward_hook(lambda m, i, out: shapes.append(getattr(out, "shape", ())))
    model.observe(prompts(TEXTS[:3]), WORDS)
    vocabulary = network._head.weight.shape[0]
    assert (1, 3, 2) in shapes  # three slots of three prompts, two words
    assert not [shape for shape in shapes if shape and shape[-1] == vocabulary]


@pytest.mark.parametrize("name", KINDS)
def test_a_head_that_is_not_understood_is_computed_whole(checkpoints, name, monkeypatch):
    expected = TransformersModel(checkpoints[name]).observe(prompts(TEXTS), WORDS)
    monkeypatch.setattr(network, "_project", lambda states, head, columns: states[..., :2])
    model = TransformersModel(checkpoints[name])
    found = model.observe(prompts(TEXTS), WORDS)
    assert model._network._head is None
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_batched_equals_single_and_the_order_does_not_matter(checkpoints, name):
    model = TransformersModel(checkpoints[name], space="logprob")
    asked = prompts([*TEXTS, TEXTS[0]])
    whole = model.observe(asked, WORDS)
    assert whole.queries == len(TEXTS)
    for i, prompt in enumerate(asked):
        alone = model.observe([prompt], WORDS)
        np.testing.assert_allclose(alone.scores[0], whole.scores[i], atol=1e-5)
        np.testing.assert_allclose(alone.hidden[0], whole.hidden[i], atol=1e-5)
        assert alone.n_tokens[0] == whole.n_tokens[i]
    back = model.observe(asked[::-1], WORDS)
    np.testing.assert_allclose(back.scores[::-1], whole.scores, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_the_padding_side_does_not_matter(checkpoints, name, tmp_path):
    """A tokenizer that pads on the left, and a left-padded batch by hand, give the same."""
    folder = shutil.copytree(checkpoints[name], tmp_path / "left")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "padding_side": "left"}))
    left = TransformersModel(folder)
    right = TransformersModel(checkpoints[name]).observe(prompts(TEXTS), WORDS)
    np.testing.assert_array_equal(left.observe(prompts(TEXTS), WORDS).scores, right.scores)
    if KINDS[name] == "masked":
        return
    encoded = left._encoder.encode(prompts(TEXTS), 64)
    longest = max(len(item.ids) for item in encoded)
    ids = torch.tensor([[0] * (longest - len(i.ids)) + i.ids for i in encoded])
    mask = torch.tensor([[0] * (longest - len(i.ids)) + [1] * len(i.ids) for i in encoded])
    network = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        out = network(
            ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp(min=0)
        ).logits[:, -1]
    np.testing.assert_allclose(out[:, token_ids(folder, name)], right.scores, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_the_whole_vocabulary_on_request(checkpoints, name):
    model = TransformersModel(checkpoints[name])
    assert model.capabilities.full_vocabulary
    asked = prompts(TEXTS)
    seen = []
    for positions, log_probs in model.vocabulary_log_probs(asked):
        assert log_probs.dtype == np.float32
        for i, row in zip(positions, log_probs, strict=True):
            _, logits = direct(checkpoints[name], name, TEMPLATE.replace("{text}", TEXTS[i]))
            np.testing.assert_allclose(row, logits[0].log_softmax(-1), atol=1e-5)
            seen.append(i)
    assert sorted(seen) == list(range(len(TEXTS)))


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_distributions_over_the_vocabulary_reach_a_decoder_and_the_store(
    checkpoints, name, tmp_path
):
    model = TransformersModel(checkpoints[name])
    texts, y = ["a great movie", "a bad film", "it was great", "really bad"], ["p", "n", "p", "n"]
    clf = FewShotClassifier(
        model,
        template=TEMPLATE,
        labels={"n": "bad", "p": "great"},
        decoder=KNNPrompting(k=1),
        store=tmp_path / "s.sqlite",
        max_queries=5,
    ).fit(texts, y)
    assert clf.n_queries_ == 5, "none for a calibration, one to verify an artifact by"
    answers = clf.observe(texts)
    assert answers.queries == 0, "all from the store"
    _, logits = direct(checkpoints[name], name, TEMPLATE.replace("{text}", texts[0]))
    np.testing.assert_allclose(answers.hidden[0], logits[0].log_softmax(-1), atol=1e-5)
    assert list(clf.predict(texts)) == y, "the nearest example of an example is itself"
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=tmp_path / "s.sqlite")
    np.testing.assert_array_equal(again.predict_proba(texts), clf.predict_proba(texts))


@pytest.mark.parametrize("name", KINDS)
def test_doctor_says_how_much_probability_the_words_carry(checkpoints, name):
    template = Template(TEMPLATE)
    report = probe(TransformersModel(checkpoints[name]), template=template, words=WORDS)
    [found] = [check for check in report.checks if check.name == "label mass"]
    _, logits = direct(checkpoints[name], name, TEMPLATE.replace("{text}", PROBED[0]))
    mass = float(logits[0].softmax(-1)[token_ids(checkpoints[name], name)].sum())
    assert found.value == pytest.approx(mass, rel=1e-4)
    assert report.queries == 5


def test_doctor_cannot_sum_the_probabilities_of_several_masks(checkpoints):
    [found] = TransformersModel(checkpoints["bert"]).check_fields(
        prompts(TEXTS)[0], ["New York", "bad"]
    )
    assert (found.outcome, found.value) == ("note", None)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_half_precision_is_close_and_is_another_identity(checkpoints, name):
    full = TransformersModel(checkpoints[name], space="logprob", dtype="float32")
    half = TransformersModel(checkpoints[name], space="logprob", dtype="bfloat16")
    a, b = full.observe(prompts(TEXTS), WORDS), half.observe(prompts(TEXTS), WORDS)
    np.testing.assert_allclose(a.scores, b.scores, atol=0.5)
    assert half._network._head.weight.dtype == torch.bfloat16
    # the head's product is in float32: bfloat16 would leave at most 8 significant bits
    bits = np.float32(b.scores).view(np.uint32) & 0xFFFF
    assert bits.any()
    assert {k for k in full.identity if full.identity[k] != half.identity[k]} == {"dtype"}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "template",
    [TEMPLATE, "{text}\nit was ({mask})", "{text} it was\n{mask}", "news: {text}. It was {mask} !"],
)
def test_prompts_are_tokenised_as_the_tokenizer_would(checkpoints, name, template):
    tokenizer = loaded(checkpoints[name], "tokenizer")
    encoder = TransformersModel(checkpoints[name])._encoder
    for text, item in zip(TEXTS, encoder.encode(prompts(TEXTS, template), 64), strict=True):
        whole = template.replace("{text}", text)
        if KINDS[name] == "causal":
            expected = tokenizer(whole.split("{mask}")[0].removesuffix(" ")).input_ids
            expected = expected[:-1] if name == "llama" else expected
            assert item.slot == len(expected)
        else:
            mask = tokenizer.mask_token or "<extra_id_0>"
            expected = tokenizer(whole.replace("{mask}", mask)).input_ids
            assert item.slot == expected.index(tokenizer.convert_tokens_to_ids(mask))
        assert item.ids == expected


@pytest.mark.parametrize("name", KINDS)
def test_special_tokens_in_a_text_are_just_text(checkpoints, name):
    tokenizer = loaded(checkpoints[name], "tokenizer")
    model = TransformersModel(checkpoints[name])
    text = " ".join(
        [*tokenizer.all_special_tokens, "<extra_id_0>", "[MASK]", "<mask>", "{mask}", "x"]
    )
    [plain], [hostile] = (model._encoder.encode(prompts([t]), 400) for t in ("x", text))
    special = set(tokenizer.all_special_ids) | {model._encoder.slot_id}
    special -= {tokenizer.unk_token_id}  # a character that the vocabulary lacks
    assert [i for i in hostile.ids if i in special] == [i for i in plain.ids if i in special]
    assert len(hostile.ids) > len(plain.ids) + 10
    assert hostile.ids[hostile.slot :] == plain.ids[plain.slot :]


@pytest.mark.parametrize("name", KINDS)
def test_the_form_of_a_word_is_that_in_its_context(checkpoints, name):
    folder = checkpoints[name]
    encoder = TransformersModel(folder)._encoder
    tokenizer = loaded(folder, "tokenizer")

    def form(template):
        [prompt] = prompts(["x"], template)
        [ids] = encoder.word_ids(tuple(prompt.parts), ["great"])
        return tokenizer.convert_ids_to_tokens(ids)

    spaced = WORD_TOKEN[name].format("great")
    assert form("{text} it was {mask}.") == [spaced]
    assert form("{text} {mask}") == [spaced]
    inside = form("{text} it was ({mask})")
    assert "".join(inside).replace("##", "") == "great"
    if name in ("roberta", "gpt2", "llama"):
        assert inside != [spaced]
        assert form("{text} it was\n{mask}") == inside


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("limit", [20, 33])
def test_truncation_keeps_the_template_and_cuts_the_longest_field(checkpoints, name, limit):
    model = TransformersModel(checkpoints[name], max_tokens=limit)
    template = Template("{first} and {second}. it was {mask}")
    long, short = "really great fun 🙂 " * 30, "bad movie"
    prompt = template.render({"first": long, "second": short})
    [item] = model._encoder.encode([prompt], limit)
    assert item.truncated
    assert limit - 3 <= len(item.ids) <= limit  # a character of several tokens goes as a whole
    tokenizer = loaded(checkpoints[name], "tokenizer")
    tail = tokenizer(f"{short}. it was", add_special_tokens=False).input_ids
    tail = tail[1:] if name == "llama" else tail  # there its first token would start the text
    text = ",".join(map(str, item.ids))
    assert ",".join(map(str, tail[1:])) in text
    assert ",".join(map(str, model._encoder.encode([prompt], 10**6)[0].ids[: limit // 4])) in text
    answers = model.observe([prompt, template.render({"first": "a", "second": "b"})], WORDS)
    assert answers.status.tolist() == [Status.TRUNCATED, Status.OK]
    assert answers.n_tokens[0] == len(item.ids)


def test_truncation_levels_two_long_fields(checkpoints):
    encoder = TransformersModel(checkpoints["bert"])._encoder
    template = Template("{a} . {b} . {mask}")
    [item] = encoder.encode([template.render({"a": "great " * 50, "b": "bad " * 40})], 25)
    great, bad = token_ids(checkpoints["bert"], "bert")
    assert len(item.ids) == 25
    assert item.ids.count(great) == item.ids.count(bad) == 10


def test_a_template_that_does_not_fit_is_refused_before_any_forward_pass(checkpoints):
    model = TransformersModel(checkpoints["bert"], max_tokens=5)
    with pytest.raises(InputError, match=r"template: \d+ tokens without any text.* reads 5"):
        model.observe(prompts(["x"], "{text} a great movie , really {mask}"), WORDS)
    assert "network" not in model._made


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_causal_model_refuses_what_it_would_not_read(checkpoints, name):
    model = TransformersModel(checkpoints[name])
    with pytest.raises(InputError, match="a field comes after it"):
        model.observe(prompts(["x"], "It was {mask}: {text}"), WORDS)
    with pytest.raises(InputError, match=r"would never read 'news\.'"):
        model.observe(prompts(["x"], "{text} This is {mask} news."), WORDS)
    with_end = model.observe(prompts(["x"], "{text} It was {mask}.)\n"), WORDS)
    without = model.observe(prompts(["x"], "{text} It was {mask}"), WORDS)
    np.testing.assert_array_equal(with_end.scores, without.scores)


def test_an_empty_prompt_begins_with_the_start_token(checkpoints):
    network = transformers.AutoModelForCausalLM.from_pretrained(checkpoints["gpt2"]).eval()
    expected = network(torch.tensor([[0]])).logits[0, -1, token_ids(checkpoints["gpt2"], "gpt2")]
    found = TransformersModel(checkpoints["gpt2"]).observe(prompts([""], "{text} {mask}"), WORDS)
    np.testing.assert_allclose(found.scores[0], expected.detach(), atol=1e-5)


def test_numbers_that_are_not_finite_are_a_failed_answer(checkpoints, monkeypatch):
    model = TransformersModel(checkpoints["bert"])
    run = model._network.run

    def overflowing(batch, steps, columns, vectors):
        for hidden, logits in run(batch, steps, columns):
            hidden = hidden.clone()
            hidden[0] = torch.inf
            yield hidden, logits

    monkeypatch.setattr(model._network, "run", overflowing)
    with pytest.warns(ModelWarning, match="not finite"):
        found = model.observe(prompts(TEXTS), WORDS)
    bad = found.status == Status.FAILED
    assert bad.sum() == 1
    assert np.isnan(found.hidden[bad]).all()
    assert np.isnan(found.scores[bad]).all()
    assert np.isfinite(found.scores[~bad]).all()


def data():
    texts = [f"{word} movie , really {word} {i}" for i in range(8) for word in ("great", "sad")]
    return texts, ["positive", "negative"] * 8


@pytest.mark.parametrize("name", KINDS)
def test_the_classifier_asks_once_and_an_artifact_is_bound_to_the_model(
    checkpoints, name, tmp_path
):
    X, y = data()
    labels = {"positive": "great", "negative": "bad"}
    spec = f"hf:{checkpoints[name]}"
    clf = FewShotClassifier(
        spec, template=TEMPLATE, labels=labels, decoder=DecT(), store=tmp_path / "store.sqlite"
    ).fit(X, y)
    assert clf.n_queries_ == len(X) + 1
    assert clf.score(X, y) == 1.0
    assert clf.observe(X).queries == 0
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True)
    np.testing.assert_allclose(again.predict_proba(X), clf.predict_proba(X), atol=1e-5)
    other = build(name, tmp_path / "other", seed=1)
    with pytest.raises(ModelMismatchError, match="weights_sha256 was"):
        FewShotClassifier.load(tmp_path / "task", model=f"hf:{other}")
    with pytest.warns(TruncationWarning, match="1 of 1 texts"):
        clf.predict(["fun " * 500])


def test_the_ratio_of_logits_is_for_the_logit_space(checkpoints):
    X, y = data()
    clf = FewShotClassifier(
        TransformersModel(checkpoints["bert"], space="logprob"),
        template=TEMPLATE,
        labels={"positive": "great", "negative": "bad"},
        calibration="ratio",
        store=None,
    )
    with pytest.raises(CapabilityError, match="ratio"):
        clf.fit(X, y)


def test_nothing_is_printed_or_warned(checkpoints, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransformersModel(checkpoints["t5"]).observe(prompts(TEXTS), WORDS)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_several_templates_in_one_call_keep_their_own_words_and_limits(checkpoints):
    model = TransformersModel(checkpoints["gpt2"])
    first, second = prompts(TEXTS), prompts(TEXTS, "{text}\nit was ({mask})")
    mixed = model.observe([p for pair in zip(first, second, strict=True) for p in pair], WORDS)
    expected = model.observe(first, WORDS)
    np.testing.assert_allclose(mixed.scores[::2], expected.scores, atol=1e-5)
    np.testing.assert_allclose(mixed.scores[1::2], model.observe(second, WORDS).scores, atol=1e-5)


def test_threads_may_share_a_model(checkpoints):
    model = TransformersModel(checkpoints["bert"])
    expected = model.observe(prompts(TEXTS), [*WORDS, "news", "sad"]).scores
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0)] * 4

    def ask(pair):
        words = [[*WORDS, "news", "sad"][i] for i in pair]
        return model.observe(prompts(TEXTS), words).scores

    with ThreadPoolExecutor(4) as pool:
        for pair, scores in zip(pairs, pool.map(ask, pairs), strict=True):
            np.testing.assert_allclose(scores, expected[:, list(pair)], atol=1e-5)


def shared(*parts):
    root = Path(os.environ.get("FEWFIT_SHARED", Path(__file__).parents[3].parent / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{'/'.join(parts)} is not under FEWFIT_SHARED ({root})")
    return path


def sst2(split, n):
    with gzip.open(shared("data", "sst2", f"{split}.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    chosen = np.random.default_rng(0).permutation(len(rows))[:n]
    return [rows[i]["text"] for i in chosen], [rows[i]["label"] for i in chosen]


SENTIMENT = {"negative": "bad", "positive": "great"}


def test_decoder_tuning_on_a_real_masked_model(tmp_path):
    model = load_model(f"hf:{shared('models', 'minilm-mlm')}")
    X, y = sst2("train", 64)
    clf = FewShotClassifier(
        model,
        template="{text} in summary , it was {mask} .",
        labels=SENTIMENT,
        decoder=DecT(),
        store=tmp_path / "store.sqlite",
    ).fit(X, y)
    texts, labels = sst2("test", 200)
    accuracy = clf.score(texts, labels)
    # 200 rows: three standard errors above a coin's 0.5 are 0.606
    assert accuracy > 0.606
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=None, verify=True)
    assert (again.predict(texts[:20]) == clf.predict(texts[:20])).all()


def test_the_masked_model_fills_the_slot_sensibly():
    model = load_model(f"hf:{shared('models', 'minilm-mlm')}?space=logprob")
    asked = prompts([""], "{text}the movie was really {mask} .")
    found = model.observe(asked, ["good", "of", "paris"])
    assert found.scores[0].argmax() == 0
    assert 0 < found.label_mass[0] < 1


def test_decoder_tuning_runs_on_a_real_causal_model(tmp_path):
    """The checkpoint knows children's stories only: that the path is right is all it can show."""
    folder = shared("models", "stories260K")
    model = load_model(f"hf:{folder}")
    X, y = sst2("train", 32)
    clf = FewShotClassifier(
        model,
        template="{text} She was very {mask}.",
        labels={"negative": "sad", "positive": "happy"},
        decoder=DecT(),
        store=None,
    ).fit(X, y)
    assert clf.n_queries_ == 33
    assert np.isfinite(clf.predict_proba(X)).all()
    tokenizer, network = loaded(folder, "tokenizer"), loaded(folder, "causal").float()
    ids = tokenizer(f"{X[0]} She was very", return_tensors="pt").input_ids
    sad, happy = (tokenizer.convert_tokens_to_ids(t) for t in (["▁sa", "d"], ["▁happy"]))
    log_probs = network(torch.cat([ids, torch.tensor([sad[:1]])], dim=1)).logits[0]
    first = log_probs[-2].detach()
    after = log_probs[-1].detach().log_softmax(-1)[sad[1]]
    observed = clf.observe(X[:1])
    expected = [first[sad[0]] + after, first[happy[0]]]
    np.testing.assert_allclose(observed.scores[0], expected, atol=1e-4)
    assert observed.n_tokens[0] == ids.shape[1]


def test_a_method_that_needs_the_vocabulary_or_gradients_says_so(checkpoints):
    given = TransformersModel(checkpoints["bert"]).capabilities
    given.check(frozenset({"full_vocabulary", "hidden", "scores"}), who="kNN", n_words=2)
    with pytest.raises(CapabilityError, match="tuning needs 'gradients'"):
        given.check(frozenset({"gradients"}), who="tuning", n_words=2)
    with pytest.raises(CapabilityError, match="kNN needs 'full_vocabulary'"):
        load_model("fake").capabilities.check(frozenset({"full_vocabulary"}), who="kNN", n_words=2)


@functools.cache
def encoder_of(folder):
    return TransformersModel(folder)._encoder


UGLY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.lists(
    st.sampled_from(
        ["[MASK]", "</s>", "<extra_id_0>", "<|endoftext|>", "<pad>", " ", "é🙂", "x", "{"]
    )
).map("".join)


@given(first=UGLY, second=UGLY, limit=st.integers(14, 40), name=st.sampled_from(sorted(KINDS)))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_text_moves_the_slot_or_overruns_the_limit(checkpoints, first, second, limit, name):
    encoder = encoder_of(checkpoints[name])
    template = Template("{a} and {b} it was {mask}.")
    empty = encoder.encode([template.render({"a": "", "b": ""})], 64)[0]
    [item] = encoder.encode([template.render({"a": first, "b": second})], limit)
    assert len(item.ids) <= limit
    # " it was" and what the tokenizer puts at the end stand where they stood
    keep = 2 if KINDS[name] == "causal" else len(empty.ids) - empty.slot + 2
    assert item.ids[-keep:] == empty.ids[-keep:]
    assert len(item.ids) - item.slot == len(empty.ids) - empty.slot
    if encoder.slot_id is not None:
        assert item.ids.count(encoder.slot_id) == 1
