"""APT's exact form: a prefix that makes no row longer."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from torch import Tensor

from fewfit.errors import CapabilityError
from fewfit.testing.tuning import (
    TuningCase,
    check_half_precision,
    check_network,
    check_neutral,
    check_resumed,
    check_rows,
    check_saved,
)
from fewfit.tuning import make_method, site_map
from fewfit.tuning.attention import attention_sites
from fewfit.tuning.prompts.prefix_tuning import Prefix
from tests.tuning.architectures import inputs, network
from tests.tuning_models import EXAMPLES, trunk

N, D = 3, 16
EXACT = {"n": N, "r": 2, "std": 0.7, "form": "exact"}


def answers(base, adapter=None) -> Tensor:
    batch = base.pack([base.encoder.encode(item) for item in EXAMPLES])
    with torch.no_grad():
        if adapter is None:
            return base.read(batch)[0].log_probs
        with adapter.on(base.network):
            return base.read(adapter.rewrite(batch, base))[0].log_probs


def moved(adapter):
    """The same adapter with a change of the keys, in float64."""
    g = torch.Generator().manual_seed(1)
    for tokens in adapter.at:
        tokens.W_2.data = torch.randn(tokens.W_2.shape, generator=g)
    return adapter.double()


def projected(name: str, model, site: str, x: Tensor, part: str) -> Tensor:
    """x W + b of keys or values, (key_heads, N, 4), from the weights as each network has them."""
    stack, block, which = site.split(".")
    i, at = int(block), "kv".index(part)
    if name == "gpt2":
        layer = model.transformer.h[i].attn.c_attn
        own = slice(D * (1 + at), D * (2 + at))
        made = x @ layer.weight[:, own] + layer.bias[own]
    elif name == "gpt_neox":  # query, key and value of one head, then of the next
        layer = model.gpt_neox.layers[i].attention.query_key_value
        weight, bias = layer.weight.view(4, 3, 4, D)[:, 1 + at], layer.bias.view(4, 3, 4)[:, 1 + at]
        return torch.stack([x @ w.T + b for w, b in zip(weight, bias, strict=True)])
    elif name == "phi3":
        own = slice(D + 8 * at, D + 8 * (at + 1))
        made = x @ model.model.layers[i].self_attn.qkv_proj.weight[own].T
    elif name == "bert":
        layers = model.bert.encoder.layer[i].attention.self
        layer = (layers.key, layers.value)[at]
        made = x @ layer.weight.T + layer.bias
    elif name == "t5":
        inner = getattr(model, stack).block[i].layer[int(which == "cross")]
        layers = inner.EncDecAttention if which == "cross" else inner.SelfAttention
        made = x @ (layers.k, layers.v)[at].weight.T
    else:
        layers = model.model.layers[i].self_attn
        made = x @ (layers.k_proj, layers.v_proj)[at].weight.T
    return torch.stack(made.split(4, dim=1))


@pytest.mark.parametrize(
    "name", ["bert", "gpt2", "llama", "gpt_neox", "phi3", "gemma2", "qwen3", "t5"]
)
@torch.no_grad()
def test_it_is_a_prefix_of_projected_tokens_in_front_of_which_no_position_moves(name):
    model, given = network(name), inputs(name)
    base = SimpleNamespace(network=model, sites=site_map(model))
    sites = attention_sites(model, base.sites)
    adapter = moved(make_method("apt", EXACT).build(base, 0))
    pairs = {}
    for site, tokens in zip(sites, adapter.at, strict=True):
        T = tokens.T.detach()
        keys = T + T @ tokens.W_1 @ tokens.W_2
        pairs[site] = (
            projected(name, model, site, keys, "k").contiguous(),
            projected(name, model, site, T, "v").contiguous(),
        )
    plain = model(**given)[0]
    with Prefix(sites, pairs).on(model):
        wanted = model(**given)[0]
    with adapter.on(model):
        found = model(**given)[0]
    # Gemma 2's own function takes the softmax in float32
    within = 1e-5 if name == "gemma2" else 1e-10
    assert torch.allclose(found, wanted, rtol=within, atol=within)
    assert not torch.allclose(found, plain, rtol=1e-2, atol=1e-2)
    assert torch.equal(model(**given)[0], plain)


def test_its_values_and_its_gradients():
    base = trunk("t5-gated", dropout=0.0)
    adapter = make_method("apt", EXACT).build(base, 0)
    assert adapter.count == 6 * (N * D + 2 * 2 * D)
    with adapter.on(base.network):
        batch = base.pack([base.encoder.encode(item) for item in EXAMPLES])
        base.read(batch)[0].log_probs.sum().backward()
    for tokens in adapter.at:
        assert float(tokens.T.grad.abs().max()) > 0
        assert float(tokens.W_2.grad.abs().max()) > 0
    assert all(p.grad is None for p in base.network.parameters())


def test_it_keeps_the_contract():
    case = TuningCase(make_method("apt", EXACT), lambda: trunk("llama", dropout=0.0))
    for check in (
        *(check_neutral, check_network, check_saved, check_rows),
        *(check_resumed, check_half_precision),
    ):
        check(case)


@pytest.mark.parametrize("name", ["bert", "llama", "t5-gated"])
def test_tokens_of_zeros_are_nothing_where_they_are_approximated(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("apt", {"n": N, "std": 0.0}).build(base, 0)
    assert torch.equal(answers(base, adapter), answers(base))
    exact = make_method("apt", {**EXACT, "std": 0.0}).build(base, 0)
    # of no direction, they have a share all the same
    assert not torch.allclose(answers(base, exact), answers(base), atol=1e-3)


@pytest.mark.parametrize("name", ["deberta-v2", "bloom"])
def test_an_attention_of_its_own_is_refused(name):
    model = network(name)
    base = SimpleNamespace(network=model, sites=site_map(model))
    with pytest.raises(CapabilityError, match=r"attention: .* computes it in a way of its own"):
        make_method("apt", EXACT).build(base, 0)
    assert len(make_method("apt", {"n": N}).build(base, 0).places) == 2
