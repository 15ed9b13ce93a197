"""Golden numbers of the methods on the network's own weights."""

from __future__ import annotations

import itertools
import math
import tomllib
from dataclasses import replace

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import safetensors.torch
import torch
import transformers

from fewfit.errors import InputError
from fewfit.tuning import Data, Meter, OwnScalars, Recipe, Run, Trunk, learn, make_method
from fewfit.tuning.artifact import read_manifest, save_adapter
from fewfit.tuning.costs import costs_of as costs_of_training
from fewfit.tuning.measure import flops_of
from fewfit.tuning.selector import top_k
from fewfit.tuning.sites_file import EXAMPLE, layout_from
from fewfit.tuning.sparse.compose import compose
from fewfit.tuning.sparse.diff_pruning import Differences
from fewfit.tuning.sparse.fish import gradient
from fewfit.tuning.sparse.gates import draw, opens
from fewfit.tuning.sparse.green import Part, _Chosen, costs_of, select
from fewfit.tuning.sparse.hft import categories, half_reset
from fewfit.tuning.sparse.locft import BreadthFirst, recalled
from fewfit.tuning.sparse.swr import Policy
from fewfit.tuning.sparse.weights import depths, weights_of
from tests.tuning_models import checkpoint, example, tokenizer, trunk
from tests.tuning_models import network as tiny_network

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]
WORDS = ("good", "bad")
SHORT = Recipe(steps=4, batch_size=2, dropout=False, learning_rate=0.02, optimizer="adamw")


def words(name: str = "bert"):
    return trunk(name, dropout=0.0).reads("words")


def two(text: str, answer: int):
    return [example(text, answer, WORDS)]


def probabilities(base, rows) -> torch.Tensor:
    items = [base.encoder.encode(row[0]) for row in rows]
    with torch.no_grad():
        return base.read(base.pack(items))[0].beta.view(len(rows), -1).softmax(1)


# ---- Fisher information and gradients ------------------------------------------------------------


@pytest.mark.parametrize("expected", [False, True])
def test_fisher_information_of_the_heads_bias_is_its_closed_form(expected):
    # log p(y | x) = b_y - log(e^b_0 + e^b_1) + ...: its derivative to b_c is 1[c = y] - p_c.
    base, rows = words(), [two("so dull", 1), two("the movie was fun", 0), two("not bad", 0)]
    bias = next(n for n, p in base.network.named_parameters() if n.endswith("predictions.bias"))
    method = make_method("fish", {"expected": expected})
    F = method.seen(base, Data(rows), [bias])[bias]
    p = probabilities(base, rows)
    right = torch.eye(2)[[row[0].answer for row in rows]]
    wanted = (p * (1 - p)).sum(0) if expected else ((right - p) ** 2).sum(0)
    ids = base.tokenizer.convert_tokens_to_ids(list(WORDS))
    assert torch.allclose(F[ids], wanted, rtol=1e-4)
    others = torch.ones(len(F), dtype=torch.bool)
    others[ids] = False
    assert float(F[others].max()) < 1e-15
    assert not any(q.requires_grad or q.grad is not None for q in base.network.parameters())


def test_rows_that_pull_apart_have_information_and_no_gradient():
    base = words()
    bias = next(n for n, p in base.network.named_parameters() if n.endswith("predictions.bias"))
    rows = [two("so dull", 0), two("so dull", 1)]
    ids = base.tokenizer.convert_tokens_to_ids(list(WORDS))
    p = probabilities(base, rows)[0]
    with torch.no_grad():
        base.network.get_parameter(bias)[ids[1]] += (p[0] / p[1]).log()  # both 1/2 now
    fish, plain = (
        make_method(name).seen(base, Data(rows), [bias])[bias][ids]
        for name in ("fish", "gradient-mask")
    )
    assert torch.allclose(fish, torch.full((2,), 0.5), atol=1e-4)
    assert plain[0] == pytest.approx(float(plain[1]), abs=1e-4)


def test_what_fish_chooses_is_what_has_most_information_and_nothing_else_moves():
    base = words("gpt2")
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("fish", {"budget": 30})
    names = list(weights_of(base))
    F = method.seen(base, Data(ROWS), names)
    least = torch.cat([F[n].flatten() for n in sorted(F)]).topk(30).values.min()
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    assert float(torch.cat([F[n].flatten()[at] for n, at in adapter.index.items()]).min()) >= least
    adapter.merge(base.network)
    changed = sum(int((p != before[n]).sum()) for n, p in base.network.named_parameters())
    assert changed == 30
    assert make_method("fish", {"samples": 1}).samples >= 1


# ---- budgets ------------------------------------------------------------------------------------


def test_a_share_is_a_number_of_scalars_and_nothing_is_refused():
    base = trunk("llama")
    total = sum(w.numel() for w in weights_of(base).values())
    build = {s: make_method("random-mask", {"share": s}).build(base, 0).count for s in (0.01, 1.0)}
    assert build == {0.01: math.ceil(0.01 * total), 1.0: total}
    with pytest.raises(InputError, match="is not one"):
        make_method("random-mask", {"share": 1e-6}).build(base, 0)
    for wrong in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="share"):
            make_method("random-mask", {"share": wrong})


def test_scalars_by_chance_are_uniform_over_the_parameters():
    base = trunk("bert")
    weights = weights_of(base)
    total, drawn = sum(w.numel() for w in weights.values()), dict.fromkeys(weights, 0)
    for seed in range(20):
        for name, at in make_method("random-mask", {"budget": 200}).build(base, seed).index.items():
            drawn[name] += len(at)
    wanted = {n: 4000 * w.numel() / total for n, w in weights.items()}
    chi2 = sum((drawn[n] - wanted[n]) ** 2 / wanted[n] for n in weights)
    assert chi2 < 2.5 * (len(weights) - 1)


def test_the_budget_all_is_full_tuning_bit_for_bit():
    base = trunk("bert", dropout=0.0)
    full, every = (
        make_method(name, options).fit(base, Data(ROWS), Run(SHORT))
        for name, options in (("full", {}), ("random-mask", {"share": 1.0, "where": "all"}))
    )
    assert full.value.keys() == every.value.keys()
    assert all(torch.equal(full.value[n], every.value[n]) for n in full.value)


def test_tied_weights_are_there_once_and_quantised_ones_are_refused():
    base = trunk("gpt2")
    assert base.network.lm_head.weight is base.network.transformer.wte.weight
    ends = make_method("embeddings-head").build(base, 0)
    assert ends.value.keys() == {"transformer.wte.weight"}
    layer = base.network.transformer.h[0].mlp.c_fc
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    for name in ("random-mask", "full", "hft", "fish"):
        with pytest.raises(InputError, match=r"is quantised \(torch.int8\)"):
            make_method(name).build(base, 0)


def test_half_a_percent_of_a_network_takes_less_than_eight_and_a_half_bytes_a_scalar():
    weight = torch.nn.Linear(1000, 2000, bias=False)
    masks = top_k({"weight": torch.rand(2000, 1000)}, 10_000)
    kept = safetensors.torch.save(OwnScalars(weight, masks).tensors())
    assert len(kept) <= 8.5 * 10_000
    far = torch.zeros(2000, 1000, dtype=torch.bool)
    far[0, 5] = far[1999, 999] = True
    one = OwnScalars(weight, {"weight": far})
    again = OwnScalars(weight, {"weight": far}).restore(one.tensors())
    assert again.index["weight"].tolist() == [5, 1_999_999]


def test_the_best_are_found_without_a_sort_and_the_first_of_equals_is_taken():
    g = torch.Generator().manual_seed(0)
    scores = {n: torch.randn(9, 7, generator=g).round(decimals=1) for n in "cab"}
    flat = torch.cat([scores[n].flatten() for n in "abc"])
    for budget in (1, 2, 60, 188, 189):
        best = torch.zeros(189, dtype=torch.bool)
        best[flat.sort(descending=True, stable=True).indices[:budget]] = True
        found = top_k(scores, budget)
        empty = torch.zeros(9, 7, dtype=torch.bool)
        assert torch.equal(torch.cat([found.get(n, empty).flatten() for n in "abc"]), best)


# ---- depth: rates, frozen blocks, new beginnings -------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5-gated"])
def test_each_parameter_has_one_depth_and_the_rate_falls_by_a_constant_factor(name):
    base = trunk(name)
    adapter = make_method("full", {"layer_decay": 0.5}).build(base, 0)
    rates = {n: group.factor for group in adapter.groups() for n in group.names}
    assert sum(len(group.names) for group in adapter.groups()) == len(rates)
    L = len(base.sites.blocks)
    for l, path in enumerate(base.sites.blocks, 1):  # noqa: E741
        inside = [n for n in adapter.value if n.startswith(f"{path}.")]
        assert {rates.get(n, 1.0) for n in inside} == {0.5 ** (L - l)}
    first = f"{base.sites.embeddings}.weight"
    assert rates[first] == 0.5**L
    assert depths(base)[list(adapter.value)[-1]] == L


def test_a_factor_of_one_is_the_plain_training_bit_for_bit():
    base = trunk("bert", dropout=0.0)
    method = make_method("full", {"layer_decay": 1})
    one = method.fit(base, Data(ROWS), Run(SHORT))
    plain = OwnScalars(base.network, dict.fromkeys(weights_of(base, "all")))
    learn(base, plain, ROWS, method.loss(base, ROWS), Run(SHORT), SHORT)
    assert all(torch.equal(one.value[n], plain.value[n]) for n in plain.value)


def test_below_a_frozen_block_there_is_no_graph():
    base = words()
    adapter = make_method("full", {"freeze": 1}).build(base, 0)
    seen = {}
    for i in (0, 1):
        base.network.bert.encoder.layer[i].register_forward_hook(
            lambda _, __, out, i=i: seen.update({i: (out[0] if isinstance(out, tuple) else out)})
        )
    with adapter.on(base.network):
        base.read(base.pack([base.encoder.encode(ROWS[0][0])]))
    assert seen[0].grad_fn is None
    assert seen[1].grad_fn is not None
    assert not any(n.startswith(("bert.embeddings", "bert.encoder.layer.0")) for n in adapter.value)
    for options, message in (
        ({"freeze": 3}, "has 2 blocks"),
        ({"freeze": 1, "reinitialise": 2}, "cannot start anew"),
    ):
        with pytest.raises(InputError, match=message):
            make_method("full", options).build(base, 0)
    with pytest.raises(InputError, match="leaves nothing"):
        make_method("random-mask", {"freeze": 2}).build(base, 0)


def test_a_block_that_starts_anew_is_drawn_and_those_below_are_as_they_were():
    base = trunk("bert")
    base.network.config.initializer_range = 0.3
    one, same, other = (
        make_method("full", {"reinitialise": 1}).build(base, seed) for seed in (0, 0, 1)
    )
    top = [n for n in one.value if ".layer.1." in n]
    for name, value in one.value.items():
        was = base.network.get_parameter(name).detach().flatten()
        assert torch.equal(value, same.value[name])
        assert torch.equal(value, was) == (name not in top)
    matrices = torch.cat(
        [one.value[n].detach() for n in top if "norm" not in n.lower() and "weight" in n]
    )
    assert float(matrices.std()) == pytest.approx(0.3, rel=0.1)
    assert not torch.equal(one.value[top[0]], other.value[top[0]])
    assert {float(v) for n in top if n.endswith("bias") for v in one.value[n].detach()} == {0.0}
    run = Run(SHORT, start=one.tensors())
    with pytest.raises(InputError, match="put back by a start"):
        make_method("full", {"reinitialise": 1}).fit(base, Data(ROWS), run)


# ---- gates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "some", "all_"), [(5, 0.99331, 0.96741), (0, 0.5, 0.16667), (-5, 0.00669, 0.00135)]
)
def test_a_gate_is_open_as_often_as_the_formula_says(alpha, some, all_):
    u = (torch.arange(200_000) + 0.5) / 200_000
    z = draw(torch.full_like(u, alpha), u)
    assert float((z > 0).float().mean()) == pytest.approx(some, abs=1e-4)
    assert float((z == 1).float().mean()) == pytest.approx(all_, abs=2e-4 if alpha else 1e-4) or (
        alpha == 0
    )
    assert float(opens(torch.tensor(float(alpha)))) == pytest.approx(some, abs=1e-5)


def test_the_slope_of_a_gate_is_its_formula_and_zero_at_the_ends():
    alpha = torch.tensor([0.0, 0.3, 5.0, -5.0], requires_grad=True)
    u = torch.tensor([0.55, 0.45, 0.9, 0.1])
    draw(alpha, u).sum().backward()
    s = torch.sigmoid(torch.logit(u) + alpha.detach())
    wanted = torch.where((s * 3 - 1.5 > 0) & (s * 3 - 1.5 < 1), 3 * s * (1 - s), torch.zeros(4))
    assert torch.allclose(alpha.grad, wanted, atol=1e-5)
    assert wanted[2:].tolist() == [0, 0]


def test_shut_differences_are_the_base_and_their_expected_number_is_a_product():
    base = trunk("bert", dropout=0.0)
    names = weights_of(base)
    gated = Differences(base.network, names, 5.0, 100.0)
    assert not any(d.any() for d in gated.drawn(0).values()), "w = 0, whatever z"
    assert float(gated.expected_share().detach()) == pytest.approx(0.99331**2, abs=1e-4)
    gated.structured = False
    assert float(gated.expected_share().detach()) == pytest.approx(0.99331, abs=1e-4)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    torch.nn.init.ones_(next(iter(gated.w.values())))
    with gated.on(base.network):
        gated.rewrite(base.pack([base.encoder.encode(ROWS[0][0])]), base)
        assert any(not torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())


def test_pruned_differences_are_exactly_the_share_asked_for():
    base = trunk("gpt2", dropout=0.0)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("diff-pruning", {"share": 0.01})
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    total = sum(w.numel() for w in weights_of(base).values())
    adapter.merge(base.network)
    changed = sum(int((p != before[n]).sum()) for n, p in base.network.named_parameters())
    assert changed == math.ceil(0.01 * total)


def test_a_policy_keeps_within_the_budget_and_opens_what_it_can():
    base = trunk("bert", dropout=0.0)
    total = sum(w.numel() for w in weights_of(base).values())
    long = Recipe(
        steps=60, batch_size=3, dropout=False, learning_rate=1e-3, optimizer="adamw", warmup=0
    )
    method = make_method("swr", {"share": 0.4, "policy_rate": 0.05})
    gated = Policy(base.network, weights_of(base), 50.0, 0)
    assert float(gated.expected_share().detach()) > 0.8
    loss = method._within(gated, 0.4, method.loss(base, ROWS))
    learn(base, gated, ROWS, loss, Run(long), long)
    assert float(gated.expected_share().detach()) <= 0.42
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    assert 0 < adapter.count <= 0.4 * total
    assert isinstance(adapter, OwnScalars), "no gate and no policy is left"


def test_whole_parameters_have_a_budget_of_their_own_and_one_too_small_is_refused_untrained():
    base, steps = trunk("bert", dropout=0.0), []
    total = sum(w.numel() for w in weights_of(base).values())
    assert make_method("swr").k(base) == math.ceil(total / 4)
    assert make_method("fish").k(base) == min(10_000, total)
    run = Run(SHORT, progress=steps.append)
    with pytest.raises(InputError, match=r"no tensor has as few as 10 scalars, the smallest has"):
        make_method("swr", {"budget": 10}).fit(base, Data(ROWS), run)
    with pytest.raises(InputError, match="share says how many too"):
        make_method("fish", {"budget": 10, "share": 0.5})
    inner = {"adapter": "random-mask", "adapter_options": {"budget": 10, "share": 0.5}}
    with pytest.raises(InputError, match="share says how many too"):
        make_method("contrastive", inner)
    assert not steps


# ---- half fine-tuning ----------------------------------------------------------------------------


def llama(blocks: int = 8):
    from fewfit.tuning import Trunk

    words = tokenizer("causal")
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=blocks,
        num_attention_heads=4,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    network = transformers.LlamaForCausalLM(config)
    return Trunk(network, words, identity={"name": "llama8"}, max_tokens=32)


def test_half_of_every_kind_is_trained():
    base = llama()
    method = make_method("hft")
    masks = method.half(base, 3)
    ffn = []
    for path in base.sites.blocks:
        mine = [n for n in masks if n.startswith(f"{path}.")]
        assert sum("self_attn" in n for n in mine) == 2
        assert sum("norm" in n for n in mine) == 1
        ffn.append(sum("mlp" in n for n in mine))
    assert sorted(ffn) == [1] * 4 + [2] * 4
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= masks.keys()
    assert masks.keys() == method.half(base, 3).keys() != method.half(base, 3, 1).keys()
    attention = sum(base.network.get_parameter(n).numel() for n in masks if "self_attn" in n)
    assert attention == 8 * 4 * 16 * 16 // 2


def test_a_fused_projection_is_halved_by_its_columns():
    base = trunk("gpt2")
    assert [len(block) for block in next(iter(categories(base)))] == [4, 4]
    masks = make_method("hft").half(base, 0)
    trained = 0
    for i in range(2):
        fused, out = (f"transformer.h.{i}.attn.{n}.weight" for n in ("c_attn", "c_proj"))
        mask = masks.get(fused, torch.zeros(16, 48, dtype=torch.bool))
        thirds = torch.ones(16, 48, dtype=torch.bool) if mask is None else mask
        parts = [bool(third.all()) for third in thirds.split(16, dim=1)]
        assert [bool(third.any()) for third in thirds.split(16, dim=1)] == parts
        trained += sum(parts) + (out in masks)
    assert trained == 4


def test_what_is_frozen_stays_in_rounds_too_and_half_can_be_put_back():
    base = trunk("llama", dropout=0.0)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("hft")
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    assert adapter.value.keys() == method.half(base, 0).keys()
    rounds = make_method("hft", {"rounds": 3})
    more = rounds.fit(base, Data(ROWS), Run(SHORT))
    assert adapter.value.keys() < more.value.keys()
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    choice = method.half(base, 7)
    half_reset(more, choice, base)
    for name, value in more.value.items():
        assert torch.equal(value, before[name].flatten()) == (name in choice), name


# ---- sums ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A checkpoint, two sparse artifacts of it, one beside it, and one of another checkpoint."""
    from typer.testing import CliRunner

    from fewfit.cli import app

    folder = tmp_path_factory.mktemp("parts")
    checkpoint(folder / "base", "bert", dropout=0.0)
    checkpoint(folder / "other", "bert", seed=5, dropout=0.0)
    (folder / "train.csv").write_text("text,label\nthe movie was great,pos\nso dull,neg\n")

    def run(*args, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        assert result.exit_code == code, result.output
        return result.output

    for name, base, how in (
        ("a", "base", ["random-mask", "--option", "budget=60"]),
        ("b", "base", ["magnitude-mask", "--option", "budget=90", "--seed", "1"]),
        ("lora", "base", ["lora"]),
        ("far", "other", ["random-mask"]),
    ):
        run(
            *("tune", folder / "train.csv", "-o", folder / name, "--model", f"hf:{folder / base}"),
            *("--template", "{text} it was {mask}", "--label", "neg=awful", "--label", "pos=good"),
            *("--steps", 3, "--method", *how),
        )
    return folder, run


def test_two_artifacts_add_up_in_any_order_and_come_off_bit_for_bit(parts):
    from fewfit import load_model
    from fewfit.prompts import Template
    from fewfit.tuning import SparseDelta, Trunk
    from fewfit.tuning.artifact import load_adapter

    folder, run = parts
    base = f"hf:{folder / 'base'}"
    said = run("compose", base, folder / "a", folder / "b", "-o", folder / "sum")
    assert "the changes of 2 artifacts together" in said
    run("compose", base, folder / "b", folder / "a", "-o", folder / "mus")
    (manifest, one), (_, other) = (load_adapter(folder / name) for name in ("sum", "mus"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one), "to the bit"
    assert 90 < manifest.n_values <= 150
    trunk = Trunk.load(base)
    before = {n: p.detach().clone() for n, p in trunk.network.named_parameters()}
    wanted = {n: p.clone() for n, p in before.items()}
    for name in ("a", "b"):
        part, tensors = load_adapter(folder / name)
        adapter = part.make().build(trunk, part.seed or 0).restore(tensors)
        for n, value in adapter.value.items():
            flat, at = wanted[n].view(-1), adapter.index[n]
            flat[at] += value.detach() - before[n].flatten()[at]
    total = manifest.make().build(trunk, 0).restore(one)
    with total.on(trunk.network):
        now = {n: p.detach().clone() for n, p in trunk.network.named_parameters()}
    assert all(torch.allclose(now[n], wanted[n], atol=1e-6) for n in wanted)
    assert SparseDelta.between(before, now).count == manifest.n_values
    assert all(torch.equal(p, before[n]) for n, p in trunk.network.named_parameters())
    prompts = [Template("{text} it was {mask}").render({"text": "so dull"})]
    scores = load_model(f"tuned:{folder / 'sum'}").observe(prompts, ("awful", "good")).scores
    run("merge", folder / "sum", "-o", folder / "merged")
    merged = load_model(f"hf:{folder / 'merged'}?space=logprob")
    assert merged.observe(prompts, ("awful", "good")).scores == pytest.approx(scores, abs=1e-4)


def test_changes_too_small_for_bfloat16_alone_add_up_to_one_that_is_not(tmp_path):
    base = words()
    base.network.to(torch.bfloat16)
    base.identity["dtype"] = "bfloat16"
    name = "bert.encoder.layer.0.attention.self.query.weight"
    base.network.get_parameter(name).data.fill_(1.0)  # the next bfloat16 is 1.0078125
    method, folders = make_method("random-mask", {"budget": 40}), []
    mask = {name: torch.arange(base.network.get_parameter(name).numel()) < 40}
    shape = base.network.get_parameter(name).shape
    for k in range(2):
        adapter = OwnScalars(base.network, {name: mask[name].view(shape)})
        adapter.value[name].data += 0.003  # less than half of the way
        folders.append(tmp_path / str(k))
        save_adapter(
            folders[-1],
            adapter,
            method=method,
            base_spec="hf:base",
            base_identity=base.identity,
            recipe=SHORT,
            n_examples=2,
        )
    total = compose(base, folders, tmp_path / "sum")
    assert torch.allclose(total.value[name], torch.tensor(1.006))
    with total.on(base.network):
        now = base.network.get_parameter(name).detach().flatten()[:40]
        assert (now == 1.0078125).all()


def test_changes_of_a_network_that_a_file_describes_add_up_and_cost_what_they_did(tmp_path):
    layout = layout_from(tomllib.loads(EXAMPLE), "")
    network = tiny_network("llama")
    network.config.model_type = "my-llama"
    base = Trunk(network, tokenizer("causal"), identity={"name": "x"}).reads("words")
    seen, folders = base.described(layout), [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        method, meter = make_method("random-mask", {"budget": 20}), Meter()
        adapter = method.fit(seen, Data(ROWS), Run(SHORT, seed, meter=meter))
        known = {"base_spec": "hf:base", "base_identity": base.identity, "layout": layout}
        costs = costs_of_training(seen, ROWS, adapter, meter)[2]
        known |= {"costs": costs, "seed": seed, "recipe": SHORT, "n_examples": 2}
        save_adapter(folder, adapter, method=method, **known)
    compose(base, folders, tmp_path / "sum")
    one, other, both = (read_manifest(f).costs for f in (*folders, tmp_path / "sum"))
    assert both.training_flops == one.training_flops + other.training_flops
    assert (both.steps, both.saved_bytes) == (8, max(one.saved_bytes, other.saved_bytes))
    assert both.query_flops == one.query_flops
    with pytest.raises(InputError, match="is one of the artifacts"):
        compose(base, folders, tmp_path / "sum" / ".." / "a")


@pytest.mark.parametrize(
    ("names", "message", "code"),
    [
        (["a"], "two artifacts or more", 2),
        (["a", "lora"], "no change of the network's own scalars", 2),
        (["a", "far"], "tuned on another model", 4),
        (["a", "nothing"], "there is no artifact", 4),
    ],
)
def test_what_does_not_add_up_is_refused(parts, names, message, code):
    folder, run = parts
    paths = [folder / name for name in names]
    said = run("compose", f"hf:{folder / 'base'}", *paths, "-o", folder / "x", code=code)
    assert message in said
    assert not (folder / "x").exists()


def test_the_checkpoint_comes_before_what_was_tuned_on_it(parts):
    folder, run = parts
    said = run("compose", folder / "a", folder / "b", "-o", folder / "x", code=2)
    assert f"compose hf:CHECKPOINT {folder / 'a'} {folder / 'b'} -o {folder / 'x'}" in said


def test_a_sum_is_not_trained(parts):
    folder, run = parts
    command = ["tune", folder / "train.csv", "-o", folder / "y", "--model", f"hf:{folder / 'base'}"]
    assert "is not one of" in run(*command, "--method", "composed", code=2)


# ---- operations as a budget ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rho", "gain", "chosen"),
    [
        (0.3, 3, [1]),
        (0.4, 6, [1, 4]),
        (0.5, 13, [1, 2]),
        (0.6, 13, [1, 2]),
        (0.8, 21, [1, 2, 3, 4]),
    ],
)
def test_a_budget_of_operations_is_spent_as_by_hand(rho, gain, chosen):
    pass_on, weight, importance = [0, 2, 1, 4, 0], [5, 1, 7, 3, 1], [1, 3, 10, 5, 3]
    found = select(weight, pass_on, importance, int(rho * 24))
    assert found == chosen
    assert sum(importance[k] for k in found) == gain


def test_the_best_set_is_that_of_trying_all():
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(1, 10))
        weight, pass_on = rng.integers(0, 9, n).tolist(), rng.integers(0, 5, n).tolist()
        importance = rng.normal(size=n).round(2).tolist()
        budget = int(rng.integers(0, 40))
        best = 0.0
        for size in range(1, n + 1):
            for some in itertools.combinations(range(n), size):
                cost = sum(weight[k] for k in some) + sum(pass_on[: some[-1] + 1])
                if cost <= budget:
                    best = max(best, sum(importance[k] for k in some))
        found = select(weight, pass_on, importance, budget)
        assert sum(importance[k] for k in found) == pytest.approx(best)
        assert all(importance[k] > 0 for k in found)


def test_an_early_tensor_of_much_worth_waits_until_the_budget_reaches_it():
    weight, pass_on, importance = [1.5] * 4, [10.5] * 4, [1, 1, 1, 50]
    assert select(weight, pass_on, importance, 30.0) == [0, 1]
    assert select(weight, pass_on, importance, 44.0) == [3]
    assert select(weight, pass_on, importance, 48.5) == [0, 1, 2, 3]


def test_what_a_step_costs_is_measured_layer_by_layer():
    base = trunk("llama", dropout=0.0)
    method = make_method("greentrainer")
    costs = costs_of(base, Data(ROWS), list(weights_of(base, "all")), method.loss(base, ROWS))
    assert sorted(costs.order) == sorted(weights_of(base, "all"))
    place = {name: k for k, name in enumerate(costs.order)}
    path = "model.layers.{}.mlp.down_proj.weight"
    assert place["lm_head.weight"] < place[path.format(1)] < place[path.format(0)]
    assert place["model.embed_tokens.weight"] == len(place) - 1
    up, down = (costs.weight[f"model.layers.0.mlp.{n}_proj.weight"] for n in ("up", "down"))
    assert up == down > 0
    assert costs.weight["model.norm.weight"] == 0
    total = sum(costs.weight.values()) + sum(costs.pass_on.values())
    assert total == pytest.approx(costs.backward, rel=0.05)
    assert costs.backward == pytest.approx(2 * costs.forward, rel=0.1)


def test_importance_is_the_gain_of_a_step_and_leaves_the_weights_alone():
    base = trunk("bert", dropout=0.0)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("greentrainer")
    adapter = method.build(base, 0)
    tiny = Recipe(learning_rate=1e-6, optimizer="adamw")
    gains = method._importance(base, adapter, Data(ROWS), method.loss(base, ROWS), tiny)
    assert max(map(abs, gains.values())) == 1
    assert min(gains.values()) > -1e-6, "a small enough step against the gradient only gains"
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    assert all(torch.equal(v, before[n].flatten()) for n, v in adapter.value.items())
    assert not any(p.requires_grad or p.grad is not None for p in base.network.parameters())


def test_importance_is_looked_up_near_by_and_a_rate_by_depth_is_part_of_the_step():
    # To first order I_k = eta xi^(L - l) sum |g0|: each parameter's gain, against one step of Adam.
    base = trunk("bert", dropout=0.0)
    recipe = Recipe(learning_rate=1e-4, optimizer="adamw")
    method = make_method("greentrainer", {"layer_decay": 0.5})
    loss, names = method.loss(base, ROWS), list(weights_of(base, "all"))
    g0, deep, L = gradient(base, Data(ROWS), names, loss), depths(base), len(base.sites.blocks)
    wanted = {n: 0.5 ** (L - deep[n]) * float(g0[n].abs().sum()) for n in names}
    largest = max(wanted.values())
    gains = method._importance(base, method.build(base, 0), Data(ROWS), loss, recipe)
    for name, gain in gains.items():
        assert gain == pytest.approx(wanted[name] / largest, abs=0.02), name


def test_the_whole_budget_is_all_that_gains_and_half_of_it_costs_about_half():
    base = trunk("bert", dropout=0.0)
    loss = make_method("greentrainer").loss(base, ROWS)
    names = list(weights_of(base, "all"))
    costs = costs_of(base, Data(ROWS), names, loss)
    some = {name: 1.0 if k % 3 else -1.0 for k, name in enumerate(names)}
    every = make_method("greentrainer", {"rho": 1}).plan(costs, some)
    assert set(every) == {name for name, gain in some.items() if gain > 0}
    half = make_method("greentrainer", {"rho": 0.5})
    chosen = half.plan(costs, dict.fromkeys(names, 1.0))
    adapter = half.build(base, 0)
    adapter.__class__ = _Chosen
    adapter.open = frozenset(chosen)
    batch = base.pack([base.encoder.encode(row[0]) for row in ROWS])
    with adapter.on(base.network):
        measured = flops_of(lambda: loss(base.read(batch)[0], range(3), 0))
    whole = costs.forward + costs.backward
    assert measured.forward + measured.backward <= 1.05 * 0.5 * whole


def test_only_what_a_plan_took_is_kept_and_a_second_training_goes_on_from_it():
    base = trunk("bert", dropout=0.0)
    names = list(weights_of(base, "all"))
    method = make_method("greentrainer", {"rho": 0.3})
    run = Run(Recipe(steps=2, batch_size=3, optimizer="adamw", learning_rate=1e-3, dropout=False))
    one = method.fit(base, Data(ROWS), run)
    assert 0 < len(one.value) < len(names)
    again = method.build(base, 0).restore(one.tensors())
    assert all(torch.equal(again.tensors()[n], t) for n, t in one.tensors().items())
    assert again.value.keys() == one.value.keys()
    with one.on(base.network):
        moved = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    assert {n for n, p in base.network.named_parameters() if not torch.equal(p, moved[n])} == set(
        one.value
    )
    two = method.fit(base, Data(ROWS), replace(run, seed=1, start=one.tensors()))
    kept = one.value.keys() - two.value.keys()
    assert not kept, "what the first training moved and the second did not is kept too"


def test_a_plan_in_parts_is_one_schedule():
    whole = Recipe(steps=10, batch_size=2, learning_rate=0.5)
    parts = [Part.of(whole, begin, 5) for begin in (0, 5)]
    assert [p.rate(s) for p in parts for s in range(5)] == [whole.rate(s) for s in range(10)]
    rows = [p.rows(s, 7, 3) for p in parts for s in range(5)]
    assert rows == [whole.rows(s, 7, 3) for s in range(10)]


# ---- facts --------------------------------------------------------------------------------------


def test_only_the_named_matrix_changes_and_block_2_is_not_block_20():
    base = llama(blocks=21)
    for options, name in (
        ({"block": 2}, "model.layers.2.mlp.down_proj.weight"),
        ({}, "model.layers.14.mlp.down_proj.weight"),
        ({"block": 20, "layer": "v"}, "model.layers.20.self_attn.v_proj.weight"),
    ):
        assert list(make_method("locft", options).build(base, 0).value) == [name]
    for options, message in (({"block": 21}, "has 21 blocks"), ({"layer": "x"}, "is not one of")):
        with pytest.raises(InputError, match=message):
            make_method("locft", options).build(base, 0)


def test_facts_are_learnt_breadth_first_and_the_answer_ends():
    base = trunk("gpt2", dropout=0.0).reads("answers")
    texts = ["the movie", "so dull", "a film about sport", "new york", "not bad", "it was fun"]
    answers = ["great", "bad", "politics", "city", "really good", "yes"]
    facts = [example(t, 0, (a, "maybe")) for t, a in zip(texts, answers, strict=True)]
    rows = [[fact] for fact in facts]
    item = base.encoder.encode(facts[0], only_answer=True)
    assert item.choices[0][-1] == base.tokenizer.eos_token_id
    assert sum(recalled(base, facts)) < 3
    recipe = BreadthFirst(
        steps=10**6, batch_size=6, learning_rate=0.02, epochs=150, optimizer="adamw", dropout=False
    )
    broad, deep = (
        make_method("locft", {"depth_first": deep, "block": 1}).fit(base, Data(rows), Run(recipe))
        for deep in (False, True)
    )
    known = []
    for adapter in (broad, deep):
        with adapter.on(base.network):
            known.append(sum(recalled(base, facts, adapter)))
    assert known[0] >= 5
    assert known[1] < known[0], "one after the other forgets"


def test_a_batch_that_is_known_changes_nothing_and_ends_the_training():
    base = trunk("gpt2", dropout=0.0).reads("answers")
    easy = BreadthFirst(batch_size=2, known=1e9, epochs=5, optimizer="adamw")
    made = []
    method = make_method("locft")
    adapter = method.fit(base, Data(ROWS), Run(easy, progress=made.append))
    name, value = next(iter(adapter.value.items()))
    assert torch.equal(value, base.network.get_parameter(name).detach().flatten())
    assert sum(made) == 2, "an epoch of two batches, whose mean is enough"
    three = BreadthFirst(steps=3, batch_size=2, known=0.0, optimizer="adamw", learning_rate=1e-6)
    method.fit(base, Data(ROWS), Run(three, progress=made.append))
    assert sum(made) == 2 + 3, "no more steps than were asked for"
    assert easy.rate(0) == easy.rate(100) == easy.learning_rate


def test_steps_that_are_told_are_those_that_were_made(parts, tmp_path):
    import json

    folder, run = parts
    task = ["--template", "{text} it was {mask}", "--label", "neg=awful", "--label", "pos=good"]
    said = run(
        *("tune", folder / "train.csv", "-o", tmp_path / "x", "--model", f"hf:{folder / 'base'}"),
        *(*task, "--method", "locft", "--learning-rate", "1e-9", "--json"),
    )
    assert json.loads(said.splitlines()[-1])["steps"] == 25, "epochs of one batch, not a million"


def test_facts_of_a_file_are_written_into_a_model_and_counted(parts, tmp_path):
    import json

    folder, run = parts
    checkpoint(folder / "gpt2", "gpt2", dropout=0.0)
    facts = tmp_path / "facts.jsonl"
    rows = [("the movie", "great", "a movie"), ("so dull", "bad", ""), ("new york", "city", "york")]
    lines = [{"prompt": p, "target": t, "rephrased": r} for p, t, r in rows]
    facts.write_text("\n".join(map(json.dumps, lines)))
    how = ["--model", f"hf:{folder / 'gpt2'}", "--learning-rate", "0.02", "--epochs", "60"]
    said = json.loads(
        run("edit", facts, "-o", tmp_path / "edited", *how, "--json").splitlines()[-1]
    )
    assert (said["facts"], said["known"], said["rephrased"]) == (3, 3, 2)
    assert said["known_before"] < 3
    assert said["values"] == 64 * 16
    run("merge", tmp_path / "edited", "-o", tmp_path / "merged")
    again = run(
        "edit", facts, "-o", tmp_path / "e2", "--model", f"hf:{tmp_path / 'merged'}", "--json"
    )
    assert json.loads(again.splitlines()[-1])["known_before"] == 3, "what was merged knows them"
    for text, message in (
        ("prompt,goal\na,b\n", "no column 'target'"),
        ("prompt,target\na,b\nc,\n", "line 3 has no prompt or no target"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        wrong = run("edit", tmp_path / "bad.csv", "-o", tmp_path / "x", *how, code=2)
        assert message in wrong
    (tmp_path / "zero.jsonl").write_text('{"prompt": "the movie was", "target": 0}')
    number = run("edit", tmp_path / "zero.jsonl", "-o", tmp_path / "y", *how, "--json")
    assert json.loads(number.splitlines()[-1])["facts"] == 1, "a zero is a target"
    wrong = run("edit", facts, "-o", tmp_path / "x", "--model", "embedded-en-float32", code=2)
    assert "is an encoder and writes no words" in wrong
