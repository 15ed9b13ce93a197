"""Networks whose states grow along the blocks, scaled embeddings, networks that are shared."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
import transformers

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning import METHODS, Data, Recipe, Run, Trunk, TunedModel, make_method
from fewfit.tuning.artifact import adapter_files
from fewfit.tuning.prompts.prompt_tuning import SoftPrompt, Words
from fewfit.tuning.reading import scored
from tests.tuning_models import EXAMPLES, example, tokenizer, trunk

ROWS = [[e] for e in EXAMPLES]
SHORT = Recipe(steps=2, batch_size=4, dropout=False, learning_rate=0.02, optimizer="adamw")


def gemma(kind: str) -> Trunk:
    size: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
    }
    config, model = {
        "gemma": (transformers.GemmaConfig, transformers.GemmaForCausalLM),
        "gemma3": (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM),
    }[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model(config(**size)).eval()
    return Trunk(network, tokenizer("causal"), identity={"name": kind}, max_tokens=32)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gemma", "gemma3"])
def test_vectors_of_real_words_are_these_words_where_embeddings_are_scaled(kind):
    base = gemma(kind)
    item = base.encoder.encode(example("so dull", 0))
    ids = base.tokenizer("the movie was", add_special_tokens=False)["input_ids"]
    words = Words.of(base)
    prompt = SoftPrompt(words.E[ids], base.pack, words.path)
    with prompt.on(base.network):
        told = base.read(prompt.rewrite(base.pack([item]), base))[0].beta
    plain = base.read(base.pack([item._replace(before=[*ids, *item.before])]))[0].beta
    assert torch.allclose(told, plain, atol=1e-5)
    bare = base.network.get_submodule(words.path).weight
    assert not torch.allclose(words.E, bare, atol=1e-3)


@torch.no_grad()
def test_what_a_ladder_adds_does_not_grow_with_what_runs_along_the_blocks():
    base = trunk("llama", dropout=0.0)
    adapter: Any = make_method("ladder").build(base, 0)
    adapter.out.data = torch.randn(adapter.out.shape, generator=torch.Generator().manual_seed(0))
    batch = base.pack([base.encoder.encode(example("so dull", 0))])

    def added():
        without = base.network.model(**batch.inputs).last_hidden_state
        with adapter.on(base.network):
            adapter.rewrite(batch, base)
            return float((base.network.model(**batch.inputs).last_hidden_state - without).norm())

    before = added()
    base.network.get_input_embeddings().weight.mul_(1e4)
    assert 0 < added() < 10 * before
    before_it_had_a_norm = {n.replace("out", "up"): t for n, t in adapter.tensors().items()}
    with pytest.raises(ArtifactError):
        adapter.restore(before_it_had_a_norm)


@torch.no_grad()
def test_nothing_of_a_pass_is_kept_behind_it():
    base = trunk("llama", dropout=0.0)
    adapter: Any = make_method("iapt", {"m": 2, "r": 4}).build(base, 0)
    with adapter.on(base.network):
        base.read(adapter.rewrite(base.pack([base.encoder.encode(EXAMPLES[0])]), base))
        assert adapter._now.kept
    assert not adapter._now.kept


def test_a_teacher_weighs_the_same_in_parts_of_a_batch():
    base, losses = trunk("llama", dropout=0.0), []
    method = make_method("panda", {"weight": 5.0})
    start = make_method("prompt-tuning").fit(base, Data(ROWS), Run(SHORT)).tensors()
    for part in (None, 1):
        run = Run(replace(SHORT, steps=1, micro_batch=part), start=start)
        losses.append(method.fit(base, Data(ROWS), run).tensors())
    for name, tensor in losses[0].items():
        assert torch.allclose(tensor, losses[1][name], atol=1e-5)


BY_SHARE = ("contrastive", "cpt", "diff-pruning", "focal", "list", "swr")
"""Methods for which it matters how a batch is shared out; docs/tuning.md names them."""


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {*BY_SHARE, "peft", "ptec"}))
def test_a_batch_in_parts_trains_as_one_piece_does(name):
    base, found, method = trunk("gpt2", dropout=0.0), [], make_method(name)
    rows = [
        [example(text, k)] for text, k in (("so dull", 0), ("very fun", 1), ("bad", 0), ("a", 1))
    ]
    encoded = [base.encoder.encode(row[0]) for row in rows]
    pool = rows if method.unlabelled else ()
    for part in (None, 1):
        recipe = replace(method.usual(), steps=1, batch_size=4, warmup=0.0, dropout=False)
        run = Run(replace(recipe, micro_batch=part, learning_rate=1e-3))
        adapter = method.fit(base, Data(rows, pool), run)
        with adapter.on(base.network):  # Adam moves what has no gradient by its rounding's sign
            found.append(scored(base, encoded, adapter=adapter))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_the_docs_name_the_methods_that_depend_on_how_a_batch_is_shared_out():
    page = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text("utf-8")
    said = page.partition("Not so with ")[2].partition(".")[0]
    assert sorted(METHODS.keys() & set(said.replace("`", " ").replace(",", " ").split())) == [
        *BY_SHARE
    ]


def shared(base: Trunk, method: str) -> TunedModel:
    made = make_method(method)
    files = adapter_files(
        made.fit(base, Data(ROWS), Run(SHORT)),
        method=made,
        base_spec="x",
        base_identity=base.identity,
        recipe=SHORT,
        n_examples=len(ROWS),
    )
    return TunedModel.of(files, trunk=base)


def test_a_model_is_made_on_a_shared_network_while_no_other_is_asked():
    model = shared(trunk("llama", dropout=0.0), "lora")
    assert model._network is not None
    with model._network.lock:
        asked = threading.Thread(target=lambda: model._loaded, daemon=True)
        asked.start()
        asked.join(0.5)
        assert asked.is_alive()
    asked.join(20)
    assert not asked.is_alive()
    assert "_loaded" in vars(model)


def test_a_model_that_shares_its_network_is_not_written_without_its_adapter(tmp_path):
    model = shared(trunk("llama", dropout=0.0), "lora")
    with pytest.raises(InputError, match="shares its network"):
        model.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
