"""The MAM adapter: a prefix in every attention, a parallel adapter beside every feed-forward."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from fewfit.errors import InputError
from fewfit.testing.tuning import TuningCase, check_half_precision, check_network, check_saved
from fewfit.tuning import Data, Recipe, Run, make_method
from fewfit.tuning.adapters.bottleneck import Bottleneck
from tests.tuning_models import EXAMPLES, example, trunk

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]


def said(base, *adapters) -> torch.Tensor:
    batch = base.pack([base.encoder.encode(item) for item in EXAMPLES])
    for adapter in adapters:
        adapter.attach(base.network)
        batch = adapter.rewrite(batch, base)
    with torch.no_grad():
        found = base.read(batch)[0].log_probs
    for adapter in adapters[::-1]:
        adapter.detach()
    return found


def test_a_prefix_is_a_gate_between_the_text_and_itself():
    # softmax over both together = (1 - lambda) A(text) + lambda A(prefix), lambda its mass.
    g = torch.Generator().manual_seed(0)
    q, K, V, P_k, P_v = (torch.randn(1, 5, 8, dtype=torch.float64, generator=g) for _ in range(5))
    both = scaled_dot_product_attention(q, torch.cat([P_k, K], 1), torch.cat([P_v, V], 1))
    mass = [(q @ keys.mT / 8**0.5).logsumexp(-1, keepdim=True) for keys in (P_k, K)]
    share = torch.sigmoid(mass[0] - mass[1])
    text, own = (scaled_dot_product_attention(q, *pair) for pair in ((K, V), (P_k, P_v)))
    assert torch.allclose(both, (1 - share) * text + share * own, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "attentions", "forwards", "keys"),
    [("bert", 2, 2, 16), ("gpt2", 2, 2, 16), ("llama", 2, 2, 8), ("t5-gated", 6, 4, 12)],
)
def test_counts_in_closed_form(name, attentions, forwards, keys):
    # 2 l d for each attention, d that of its keys; 2 r d + r + d for each feed-forward, d = 16
    adapter = make_method("mam", {"l": 3, "r": 5}).build(trunk(name), 0)
    assert adapter.count == 2 * 3 * keys * attentions + (2 * 5 * 16 + 5 + 16) * forwards


def test_it_is_its_two_halves_and_each_has_its_rate():
    base = trunk("bert", dropout=0.0)
    adapter = make_method("mam", {"l": 3, "r": 4, "s": 3.0}).build(base, 0)
    for bottleneck in adapter.members[1].at.values():
        bottleneck.W_u.data = 0.3 * torch.randn_like(bottleneck.W_u)
    assert torch.equal(said(base, adapter), said(base, *adapter.members))
    factors = {name: group.factor for group in adapter.groups() for name in group.names}
    prefix = {name for name in adapter.parts(base.network) if name.startswith("adapters.0.")}
    assert prefix
    assert factors == dict.fromkeys(prefix, 5.0)


def test_without_a_prefix_it_is_the_parallel_adapter_bit_for_bit():
    base, run = (
        trunk("llama", dropout=0.0).reads("words"),
        Run(Recipe(3, 2, 0.02, optimizer="adamw", dropout=False)),
    )
    mam = make_method("mam", {"l": 0, "r": 4, "s": 3.0}).fit(base, Data(ROWS), run).tensors()
    alone = make_method("parallel-adapter", {"r": 4, "s": 3.0}).fit(base, Data(ROWS), run).tensors()
    assert alone
    assert all(torch.equal(mam[f"adapters.1.{name}"], tensor) for name, tensor in alone.items())


def test_the_bottleneck_of_a_post_norm_block_stands_before_the_norm():
    base = trunk("bert", dropout=0.0)
    adapter = make_method("mam", {"l": 0, "r": 4, "s": 2.0}).build(base, 0)
    block, kept = base.network.bert.encoder.layer[0], {}
    name = next(n for n in adapter.members[1].places if ".0." in n or "0" in n)
    module = adapter.members[1].module(name)
    module.W_u.data = 0.3 * torch.randn_like(module.W_u)
    hooks = [
        block.intermediate.register_forward_pre_hook(lambda _, args: kept.update(x=args[0])),
        block.output.register_forward_hook(lambda _, __, out: kept.update(out=out)),
    ]
    said(base, adapter)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        x, norm = kept["x"], block.output.LayerNorm
        f = block.output.dense(block.intermediate(x))
        inner = torch.relu(x @ module.W_d.T + module.b_d) @ module.W_u.T + module.b_u
        own = layer_norm(f + 2.0 * inner + x, (16,), norm.weight, norm.bias, norm.eps)
    assert torch.allclose(kept["out"], own, atol=1e-5)


def test_the_bottleneck_of_a_pre_norm_block_reads_what_is_normed():
    base = trunk("llama", dropout=0.0)
    adapter = make_method("mam", {"l": 0, "r": 4, "s": 2.0}).build(base, 0)
    block, kept = base.network.model.layers[0], {}
    module = adapter.members[1].module(next(iter(adapter.members[1].places)))
    module.W_u.data = 0.3 * torch.randn_like(module.W_u)
    hooks = [
        block.post_attention_layernorm.register_forward_hook(
            lambda _, args, out: kept.update(u=args[0], x=out)
        ),
        block.register_forward_hook(
            lambda _, __, out: kept.update(out=out[0] if isinstance(out, tuple) else out)
        ),
    ]
    said(base, adapter)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        x = kept["x"]
        inner = torch.relu(x @ module.W_d.T + module.b_d) @ module.W_u.T + module.b_u
        assert torch.allclose(kept["out"], kept["u"] + block.mlp(x) + 2.0 * inner, atol=1e-5)


def test_in_series_behind_what_gives_back_its_input_it_is_the_parallel_one():
    base = trunk("bert", dropout=0.0)
    options = {"r": 4, "s": 2.0, "where": "ffn"}
    series, parallel = (
        make_method(name, options).build(base, 0) for name in ("series-adapter", "parallel-adapter")
    )
    for bottleneck in series.at.values():
        bottleneck.W_u.data = 0.3 * torch.randn_like(bottleneck.W_u)
    parallel.restore(series.tensors())
    assert not torch.allclose(said(base, series), said(base, parallel), atol=1e-3)
    kept, hooks = {}, []
    for i, block in enumerate(base.network.bert.encoder.layer):
        hooks += [
            block.intermediate.register_forward_pre_hook(
                lambda _, args, i=i: kept.update({i: args[0]})
            ),
            block.output.dense.register_forward_hook(lambda _, __, out, i=i: kept[i].clone()),
        ]
    found = said(base, series), said(base, parallel)
    for hook in hooks:
        hook.remove()
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["series-adapter", "parallel-adapter", "mam"])
def test_a_scale_that_is_learnt_begins_as_the_one_that_is_not(name):
    base = trunk("bert", dropout=0.0)
    fixed, learnt = (
        make_method(name, {"r": 4, "s": 3.0, "learn_s": own}).build(base, 0)
        for own in (False, True)
    )
    own = {n: p for n, p in learnt.named_parameters() if n.endswith(".s")}
    assert learnt.count == fixed.count + len(own)
    assert len(own) == (4 if name == "series-adapter" else 2)
    assert {p.item() for p in own.values()} == {3.0}
    g = torch.Generator().manual_seed(0)
    for n, p in fixed.named_parameters():
        p.data += 0.3 * torch.randn(p.shape, generator=g)
        dict(learnt.named_parameters())[n].data.copy_(p)
    assert torch.equal(said(base, learnt), said(base, fixed))
    modules = [m for m in learnt.modules() if isinstance(m, Bottleneck)]
    h, x = torch.zeros(5, 16), torch.randn(5, 16, generator=g)
    once = modules[0](h, x)
    once.sum().backward()
    assert torch.allclose(modules[0].s.grad, once.detach().sum() / 3)
    modules[0].s.data *= 2
    assert torch.equal(modules[0](h, x), 2 * once)
    run = Run(Recipe(3, 2, 0.02, optimizer="adamw", dropout=False))
    case = TuningCase(make_method(name, {"r": 4, "learn_s": True}), lambda: base)
    trained = case.method.fit(base, Data(ROWS), run).tensors()
    moved = {float(t) for n, t in trained.items() if n.endswith(".s")}
    assert len(moved) == len(own), "each has its own"


@pytest.mark.parametrize(("name", "heads"), [("bert", 4), ("gpt2", 2), ("t5-gated", 3)])
def test_beside_heads_each_head_has_its_own(name, heads):
    base = trunk(name, dropout=0.0)
    size = 12 if name == "t5-gated" else 16
    method = make_method("parallel-adapter", {"r": 3, "s": 2.0, "where": "heads"})
    adapter = method.build(base, 0)
    assert len(adapter.places) == (6 if name == "t5-gated" else 2)
    assert adapter.count == len(adapter.places) * (heads * 3 * (16 + 1) + size * (3 + 1))
    assert torch.equal(said(base, adapter), said(base))
    g = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    key, place = next(iter(adapter.places.items()))
    module, kept = adapter.module(key), []
    o = base.network.get_submodule(place.acts.module)
    read = base.network.get_submodule(place.reads.module)
    hooks = [
        o.register_forward_pre_hook(lambda _, args: kept.append(args[0])),
        read.register_forward_pre_hook(lambda _, args: kept.append(args[0])),
    ]
    adapter.attach(base.network)
    hooks.append(o.register_forward_pre_hook(lambda _, args: kept.append(args[0])))
    with torch.no_grad():
        base.read(base.pack([base.encoder.encode(EXAMPLES[0])]))
    adapter.detach()
    for hook in hooks:
        hook.remove()
    x, before, after = kept[:3]
    each = size // heads
    for i in range(heads):
        own, rows = slice(i * each, (i + 1) * each), slice(3 * i, 3 * i + 3)
        inner = torch.relu(x @ module.W_d[rows].T + module.b_d[rows])
        wanted = before[..., own] + 2 * (inner @ module.W_u[own].T + module.b_u[own])
        assert torch.allclose(after[..., own], wanted, atol=1e-4)
    if name == "gpt2":
        case = TuningCase(method, lambda: trunk(name, dropout=0.0))
        for check in (check_network, check_saved, check_half_precision):
            check(case)
    with pytest.raises(InputError, match="where: Input should be 'both', 'attention' or 'ffn'"):
        make_method("series-adapter", {"where": "heads"})
