"""A base model that is loaded for tuning: its positions hold, and its padding has a row."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fewfit import load_model
from fewfit.errors import ModelWarning
from fewfit.observations import Status
from fewfit.tuning import (
    IA3,
    ChoiceExample,
    Recipe,
    Trunk,
    TunedModel,
    make_method,
    save_adapter,
    save_vectors,
    site_map,
)
from fewfit.tuning.reading import scored
from tests.hf_checkpoints import build
from tests.tuning_models import EXAMPLES, TEMPLATE, example, trunk


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_a_prompt_is_cut_to_the_positions_that_there_are(name, tmp_path):
    trunk = Trunk.load(str(build(name, tmp_path, positions=32)))
    item = trunk.encoder.encode(example("great fun " * 200, 0, ("great", "very bad")))
    assert item.truncated
    with torch.inference_mode():
        tokens, _ = trunk.read(trunk.pack([item]))
    assert torch.isfinite(tokens.beta).all()
    assert trunk.identity["max_tokens"] == "256", "what was asked for names the artifact"


def test_a_model_of_relative_positions_reads_as_far_as_it_is_told(tmp_path):
    trunk = Trunk.load(str(build("t5", tmp_path, positions=32)), max_tokens=100)
    item = trunk.encoder.encode(example("great fun " * 200, 0, ("great", "bad")))
    assert len(item.before) > 90


@pytest.fixture
def tuned(tmp_path):
    """An adapter that changes nothing, on a causal model."""
    base = build("gpt2", tmp_path / "base")
    trunk = Trunk.load(str(base))
    vectors = IA3(site_map(trunk.network))
    save_vectors(
        tmp_path / "tuned",
        vectors,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(),
        n_examples=0,
    )
    return TunedModel(tmp_path / "tuned")


WORDS = ("great", "bad", "very bad")


def asked(n):
    return [TEMPLATE.render({"text": f"{'fun ' * (i % 7)}{i}"}) for i in range(n)]


def test_a_tuned_model_halves_its_batches_when_memory_runs_out(tuned, monkeypatch):
    prompts = asked(30)
    expected = tuned.observe(prompts, WORDS).scores
    read, failed = tuned._trunk.read, []

    def small(batch):
        if len(batch.tasks) > 8:
            failed.append(len(batch.tasks))
            raise torch.OutOfMemoryError("out of memory")
        return read(batch)

    monkeypatch.setattr(tuned._trunk, "read", small)
    np.testing.assert_allclose(tuned.observe(prompts, WORDS).scores, expected, atol=1e-5)
    assert failed == [30, 15]


def test_threads_may_share_a_tuned_model(tuned):
    prompts = asked(6)
    expected = tuned.observe(prompts, WORDS).scores
    pairs = [(0, 1), (1, 2), (2, 0)] * 4

    def ask(pair):
        return tuned.observe(prompts, [WORDS[i] for i in pair]).scores

    with ThreadPoolExecutor(4) as pool:
        for pair, scores in zip(pairs, pool.map(ask, pairs), strict=True):
            np.testing.assert_allclose(scores, expected[:, list(pair)], atol=1e-5)


def test_numbers_of_a_tuned_model_that_are_not_finite_are_a_failed_answer(tuned):
    tuned._trunk.network.transformer.wpe.weight.data[40] = torch.nan
    prompts = [TEMPLATE.render({"text": text}) for text in ("fun " * 45, "a film")]
    with pytest.warns(ModelWarning, match="not finite"):
        found = tuned.observe(prompts, ("great", "bad"))
    assert found.status.tolist() == [Status.FAILED, Status.OK]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("method", ["lora", "series-adapter", "ladder", "t-few"])
def test_an_untrained_adapter_scores_exactly_as_the_base_model(name, method, tmp_path):
    base = build(name, tmp_path / "base")
    chosen = make_method(method)
    trunk = Trunk.load(str(base)).reads("words")
    save_adapter(
        tmp_path / "tuned",
        chosen.build(trunk, 0),
        method=chosen,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(),
        n_examples=0,
    )
    prompts, words = [*asked(5), TEMPLATE.render({"text": ""})], ("great", "bad", "New York")
    tuned = TunedModel(tmp_path / "tuned").observe(prompts, words)
    frozen = load_model(f"hf:{base}?space=logprob").observe(prompts, words)
    np.testing.assert_allclose(tuned.scores, frozen.scores, atol=3e-5)
    np.testing.assert_allclose(tuned.hidden, frozen.hidden, atol=3e-5)


@pytest.mark.parametrize("name", ["t5", "bert", "gpt2"])
def test_an_untrained_adapter_answers_as_the_network_without_it(name, tmp_path):
    base = build(name, tmp_path / "base")
    trunk = Trunk.load(str(base))
    save_vectors(
        tmp_path / "tuned",
        IA3(trunk.sites),
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(),
        n_examples=0,
    )
    prompts = asked(3)
    tuned = TunedModel(tmp_path / "tuned").observe(prompts, WORDS)
    items = [trunk.encoder.encode(ChoiceExample(prompt, WORDS, 0)) for prompt in prompts]
    np.testing.assert_allclose(tuned.scores, scored(trunk, items), atol=3e-5)
    if name == "t5":
        assert trunk.reads("words") is trunk, "an encoder-decoder writes answers"


def test_two_may_read_one_network():
    first = trunk("bert", dropout=0.0)
    items = [first.encoder.encode(item) for item in EXAMPLES]
    expected = scored(first, items[:1])
    second = Trunk(first.network, first.tokenizer, identity={}, max_tokens=32)
    np.testing.assert_array_equal(scored(second, items[:1]), expected)


@pytest.mark.parametrize("method", ["ladder", "parallel-adapter", "prompt-tuning"])
def test_threads_share_a_model_with_an_adapter_beside_it(method, tmp_path):
    base = build("bert", tmp_path / "base")
    trunk = Trunk.load(str(base)).reads("words")
    chosen = make_method(method)
    adapter = chosen.build(trunk, 0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator()))
    save_adapter(
        tmp_path / "tuned",
        adapter,
        method=chosen,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(),
        n_examples=0,
    )
    model = TunedModel(tmp_path / "tuned")
    parts = [asked(n) for n in (3, 5, 2, 7, 4, 6)] * 3
    alone = [model.observe(part, WORDS).scores for part in parts]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda part: model.observe(part, WORDS).scores, parts))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_dtype_is_what_the_frozen_model_has_where_it_is_left_to_the_machine(tmp_path):
    folder = build("gpt2", tmp_path)
    trunk = Trunk.load(f"hf:{folder}?dtype=auto")
    expected = load_model(f"hf:{folder}?dtype=auto").identity["dtype"]
    assert trunk.identity["dtype"] == expected
    assert trunk.network.dtype == getattr(torch, expected)
