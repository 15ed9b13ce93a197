"""What every method on a network's own weights takes: starts, rates by depth, new beginnings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
import transformers

from fewfit.errors import InputError, ModelError
from fewfit.tuning import (
    Data,
    Meter,
    OwnScalars,
    Recipe,
    Run,
    Trunk,
    fit_at_best_rate,
    make_method,
    save_adapter,
)
from fewfit.tuning.artifact import load_adapter, restore
from fewfit.tuning.sparse.delta import gaps_of, index_of
from fewfit.tuning.sparse.locft import BreadthFirst
from fewfit.tuning.sparse.weights import depths
from tests.tuning_models import EXAMPLES, example, tokenizer, trunk

ROWS = [[e] for e in EXAMPLES]
OTHERS = [[example("so so", 0)], [example("really new york", 2)], [example("a dull sport", 1)]]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.02, optimizer="adamw")
SIZE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def causal(network) -> Trunk:
    return Trunk(network.eval(), tokenizer("causal"), identity={"name": "x"}, max_tokens=32)


# ---- starts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fish", "gradient-mask", "lt-sft", "diff-pruning"])
def test_a_start_has_chosen_its_scalars_already(name):
    base = trunk("bert", dropout=0.0)
    method, meter = make_method(name, {"budget": 60}), Meter()
    first = method.fit(base, Data(OTHERS), Run(SHORT))
    start = first.tensors()
    run = Run(SHORT, start=start, meter=meter)
    again = method.fit(base, Data(ROWS), run)
    assert meter.steps == [SHORT.steps], "nothing is trained to choose"
    assert again.index.keys() == first.index.keys()
    assert all(torch.equal(again.index[n], at) for n, at in first.index.items())
    assert any(not torch.equal(again.value[n], first.value[n]) for n in first.value)
    still = method.fit(base, Data(ROWS), replace(run, until=0))
    assert all(torch.equal(still.tensors()[n], tensor) for n, tensor in start.items())


def test_the_distance_of_a_ticket_is_to_the_network_from_wherever_it_starts():
    base = trunk("bert", dropout=0.0)
    method = make_method("lt-sft", {"budget": 60, "l1": 1e3})
    start = method.fit(base, Data(OTHERS), Run(SHORT)).tensors()
    far = {n: t + 0.5 if n.startswith("value.") else t for n, t in start.items()}
    adapter = method.fit(base, Data(ROWS), Run(SHORT, start=far))
    theta_0 = adapter.found_in(base.network)
    before = sum(float((far[f"value.{n}"] - w).abs().sum()) for n, w in theta_0.items())
    after = sum(float((adapter.value[n].detach() - w).abs().sum()) for n, w in theta_0.items())
    assert after < before


@pytest.mark.parametrize(("name", "options"), [("swr", {"share": 0.5}), ("hft", {"rounds": 2})])
def test_a_start_that_would_do_nothing_is_refused(name, options):
    base, method = trunk("bert", dropout=0.0), make_method(name, options)
    start = method.fit(base, Data(OTHERS), Run(SHORT)).tensors()
    with pytest.raises(InputError, match=r"^start: "):
        method.fit(base, Data(ROWS), Run(SHORT, start=start))


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ({"where": "all"}, {"where": "blocks"}),
        ({"where": "all"}, {"where": "all", "freeze": 1}),
        ({}, {"freeze": 2}),
    ],
)
@pytest.mark.parametrize("name", ["random-mask", "fish", "lt-sft"])
def test_a_start_of_what_is_to_stay_is_refused(name, made, options):
    base = trunk("bert", dropout=0.0)
    budget = {"budget": 2000}
    start = make_method("random-mask", {**budget, **made}).build(base, 0).tensors()
    with pytest.raises(InputError, match=r"^(start: it changes|freeze=2 leaves nothing)"):
        make_method(name, {**budget, **options}).fit(base, Data(ROWS), Run(SHORT, start=start))


def test_green_trainer_refuses_a_start_below_its_frozen_blocks():
    base = trunk("bert", dropout=0.0)
    start = make_method("greentrainer", {"rho": 1.0}).fit(base, Data(OTHERS), Run(SHORT)).tensors()
    method = make_method("greentrainer", {"freeze": 1})
    with pytest.raises(InputError, match=r"^start: it changes"):
        method.fit(base, Data(ROWS), Run(SHORT, start=start))


def test_rates_by_depth_are_those_of_what_a_start_has_chosen():
    base = trunk("bert", dropout=0.0)
    start = make_method("random-mask", {"budget": 3000, "where": "all"}).build(base, 0).tensors()
    method = make_method("fish", {"budget": 3000, "where": "all", "layer_decay": 0.5})
    adapter = method.fresh(base, Run(SHORT, start=start))
    factor = {name: group.factor for group in adapter.groups() for name in group.names}
    deep, L = depths(base), len(base.sites.blocks)
    assert {n: factor.get(n, 1.0) for n in adapter.value} == {
        n: 0.5 ** (L - deep[n]) for n in adapter.value
    }


# ---- what is chosen -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_a_ticket_has_no_row_of_a_token_that_no_text_has_and_no_choice_names(kind):
    base = trunk(kind, dropout=0.0)
    method = make_method("lt-sft", {"budget": 2000, "where": "all"})
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    encoded = [base.encoder.encode(row[0]) for row in ROWS]
    met = {t for e in encoded for part in (e.before, e.after, *e.choices) for t in part}
    met |= {t for t in (base.pack.mask_id, base.pack.start_id) if t is not None}
    vocabulary = base.network.get_input_embeddings().weight.shape[0]
    checked = 0
    for name, index in adapter.index.items():
        shape = base.network.get_parameter(name).shape
        if shape[0] == vocabulary:
            width = shape.numel() // vocabulary
            assert set((index // width).tolist()) <= met, name
            checked += len(index)
    assert checked, "some scalars of the vocabulary were chosen"


@pytest.mark.parametrize("level", ["tensor", "block"])
def test_tensors_and_blocks_are_drawn_alike_whatever_their_size(level):
    base = trunk("bert", dropout=0.0)
    method = make_method("random-mask", {"share": 0.9, "where": "all", "level": level})
    drawn = [method.scores(base, seed) for seed in range(200)]
    for name in drawn[0]:
        own = torch.stack([scores[name].flatten() for scores in drawn])
        assert torch.equal(own.amin(1), own.amax(1)), "one draw for all of it"
        # of 200 uniform draws: mean .5 +- .02, sd .289 +- .01
        assert abs(float(own[:, 0].mean()) - 0.5) < 0.1
        assert abs(float(own[:, 0].std()) - 0.289) < 0.05


def test_both_ends_have_the_heads_bias_whatever_its_name():
    base = trunk("bert", dropout=0.0)
    adapter: Any = make_method("embeddings-head").build(base, 0)
    found = {id(base.network.get_parameter(name)) for name in adapter.value}
    ends = (base.network.get_input_embeddings(), base.network.get_output_embeddings())
    assert found == {id(p) for end in ends for p in end.parameters()}


# ---- depth --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [("greentrainer", {"rho": 1.0}), ("swr", {"share": 1.0}), ("diff-pruning", {"share": 0.5})],
)
def test_lower_layers_move_less_whatever_chooses(name, options):
    base = trunk("bert", dropout=0.0)
    plain, slower = (
        make_method(name, {**options, "layer_decay": decay}).fit(base, Data(ROWS), Run(SHORT))
        for decay in (1.0, 1e-6)
    )

    def moved(adapter, block):
        was = adapter.found_in(base.network)
        own = [n for n in was if f".layer.{block}." in n]
        return max(float((adapter.value[n].detach() - was[n]).abs().max()) for n in own)

    assert moved(plain, 0) > 1e-3
    assert moved(slower, 0) < 1e-4 < moved(slower, 1)


def test_depth_is_a_place_and_not_an_order_of_registration():
    opt = causal(
        transformers.OPTForCausalLM(
            transformers.OPTConfig(**SIZE, ffn_dim=24, word_embed_proj_dim=16)
        )
    )
    found = depths(opt)
    assert found["model.decoder.final_layer_norm.weight"] == 2
    assert {found[n] for n in found if "embed" in n} == {0}
    both = trunk("bert2bert")
    found, L = depths(both), len(both.sites.blocks)
    assert {found[n] for n in found if ".embeddings." in n} == {0}
    assert {found[n] for n in found if n.startswith("decoder.cls.")} == {L}
    adapter = make_method("full", {"freeze": 1}).build(both, 0)
    assert not any(".embeddings." in n for n in adapter.value)


def test_a_norm_that_starts_anew_scales_nothing_in_gemma_too():
    gemma = causal(
        transformers.GemmaForCausalLM(
            transformers.GemmaConfig(
                **SIZE, intermediate_size=24, num_key_value_heads=2, head_dim=4
            )
        )
    )
    llama = trunk("llama")
    for base, plain in ((gemma, 0.0), (llama, 1.0)):
        adapter = make_method("full", {"reinitialise": 1}).build(base, 0)
        last = [n for n in adapter.value if ".layers.1." in n and "norm" in n]
        assert last
        assert {float(v) for n in last for v in adapter.value[n].detach()} == {plain}


# ---- what it took, and where it goes ------------------------------------------------------------


def test_looking_at_rows_to_choose_is_counted():
    base, taken = trunk("bert", dropout=0.0), {}
    for name in ("random-mask", "fish"):
        meter = Meter()
        make_method(name, {"budget": 60}).fit(base, Data(ROWS), Run(SHORT, meter=meter))
        taken[name] = meter.flops
    # A pass over each of these rows beside three steps of two.
    assert 1.2 < taken["fish"] / taken["random-mask"] < 3


def test_scalars_far_apart_are_saved_and_come_back(tmp_path):
    config = transformers.BertConfig(**{**SIZE, "intermediate_size": 5000})
    network = transformers.BertForMaskedLM(config).eval()
    base = Trunk(network, tokenizer("masked"), identity={"name": "x"}, max_tokens=32)
    name = "bert.encoder.layer.0.output.dense.weight"
    mask = torch.zeros(80_000, dtype=torch.bool)
    mask[[1, 79_999]] = True
    adapter = OwnScalars(network, {name: mask.view(16, 5000)})
    adapter.value[name].data += 0.5
    save_adapter(
        tmp_path / "far",
        adapter,
        method=make_method("random-mask", {"budget": 2}),
        base_spec="x",
        base_identity=base.identity,
        recipe=SHORT,
        n_examples=1,
    )
    again: Any = restore(*load_adapter(tmp_path / "far"), base)
    assert again.index[name].tolist() == [1, 79_999]
    assert torch.equal(again.value[name], adapter.value[name])


def test_positions_far_apart_take_four_bytes():
    index = torch.tensor([3, 5, 70_000, 70_001])
    gaps = gaps_of(index)
    assert gaps.dtype == torch.int32
    assert torch.equal(index_of(gaps), index)
    assert gaps_of(index[:2]).dtype == torch.uint16
    assert gaps_of(torch.tensor([2**31])).dtype == torch.int64


def test_a_rate_that_diverges_is_out_and_no_more():
    base = trunk("bert", dropout=0.0)
    rows = [[example(t, k)] for t in ("so fun", "so dull", "a movie") for k in (0, 1, 2)]
    method = make_method("lora")
    found = fit_at_best_rate(method, base, Data(rows), Run(SHORT), factors=(1.0, 1e35))
    assert [one.rate for one in found.tries] == [SHORT.learning_rate]
    with pytest.raises(ModelError, match=r"^rate: none of 2e\+33 led to finite"):
        fit_at_best_rate(method, base, Data(rows), Run(SHORT), factors=(1e35,))


def test_an_epoch_of_facts_is_all_of_them():
    recipe = BreadthFirst(batch_size=4)
    assert recipe.epoch(10) == 3
    for epoch in range(2):
        seen = [i for step in range(3) for i in recipe.rows(3 * epoch + step, 10, 0)]
        assert sorted(seen) == list(range(10))
        assert {len(recipe.rows(3 * epoch + step, 10, 0)) for step in range(3)} == {3, 4}
    assert recipe.rows(0, 10, 0) != recipe.rows(3, 10, 0)
    assert sorted(recipe.rows(5, 3, 0)) == [0, 1, 2]
