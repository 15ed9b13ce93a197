"""DSEE: a change of low rank with a few scalars, and a network that is sparse with it."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning import Data, Recipe, Run, make_method
from fewfit.tuning.measure import forward_flops
from fewfit.tuning.sparse.dsee import farthest
from fewfit.tuning.sparse.slim import slim
from fewfit.tuning.sparse.weights import weights_of
from tests.tuning_models import EXAMPLES, example, trunk

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]
SHORT = Recipe(steps=4, batch_size=2, dropout=False, learning_rate=0.02, optimizer="adamw")


def words(name: str = "bert"):
    return trunk(name, dropout=0.0).reads("words")


def said(base) -> torch.Tensor:
    with torch.no_grad():
        return base.read(base.pack([base.encoder.encode(item) for item in EXAMPLES]))[0].log_probs


def test_of_low_rank_and_ten_spikes_the_spikes_are_found():
    g = torch.Generator().manual_seed(0)
    W = torch.randn(40, 3, generator=g) @ torch.randn(3, 30, generator=g)
    spikes = torch.randperm(1200, generator=g)[:10].sort().values
    W.view(-1)[spikes] += 8 * torch.randn(10, generator=g).sign()
    found = farthest(W, torch.randn(3, 30, generator=g), 10)
    assert torch.equal(found, spikes)
    largest = W.flatten().abs().topk(10).indices.sort().values
    assert not torch.equal(largest, spikes), "magnitude alone does not find them"


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "t5-gated"])
def test_n_scalars_of_each_matrix_change_and_the_rest_is_of_rank_r(name):
    base = words(name)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("dsee", {"rank": 2, "n": 5, "alpha": 4})
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    keys = 8 if name == "llama" else 12 if name == "t5-gated" else 16
    attentions = 6 if name == "t5-gated" else 2
    q = 12 if name == "t5-gated" else 16
    assert adapter.count == attentions * (2 * (q + 16) + 2 * (keys + 16) + 2 * 5)
    for site in adapter.sites:
        S, at = adapter.S[site.replace(".", "/")].detach(), adapter.index[site]
        assert int(S.count_nonzero()) == 5
        dense = (adapter.change(site).detach() / 2.0).flatten()
        dense[at] -= S
        low = torch.linalg.svdvals(dense.view(len(adapter.U[site.replace(".", "/")]), -1))
        assert float(low[2:].max()) < 1e-6 < float(low[0])
    adapter.merge(base.network)
    changed = {n for n, p in base.network.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {f"{site.module}.weight" for site in adapter.sites.values()}


def test_without_scalars_it_is_lora_to_rounding():
    base = words("llama")
    dual = make_method("dsee", {"rank": 2, "n": 0, "alpha": 4}).build(base, 0)
    lora = make_method("lora", {"rank": 2, "alpha": 4}).build(base, 0)
    own = {n.replace("/", "."): p for n, p in lora.held.items()}
    for site in dual.sites.values():
        key = site.name.replace(".", "/")
        for name, p in own.items():
            if name.startswith(f"{site.module}.lora_A"):
                dual.V[key].data = p.detach().clone()
            elif name.startswith(f"{site.module}.lora_B"):
                p.data = torch.randn_like(p)
                dual.U[key].data = p.detach().clone()
    with lora.on(base.network):
        wanted = said(base)
    with dual.on(base.network):
        assert torch.allclose(said(base), wanted, atol=1e-5)


def test_the_share_is_over_all_matrices_and_what_is_pruned_stays_zero():
    base = words()
    weights = weights_of(base)
    total = sum(w.numel() for w in weights.values())
    method = make_method("dsee", {"rank": 2, "n": 5, "prune": 0.4})
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    count = {name: int(mask.sum()) for name, mask in adapter.pruned.items()}
    assert sum(count.values()) == round(0.4 * total)
    shares = [count.get(n, 0) / w.numel() for n, w in weights.items()]
    assert max(shares) - min(shares) > 0.01, "not the same in each"
    adapter.merge(base.network)
    zeros = {n: int((base.network.get_parameter(n) == 0).sum()) for n in weights}
    assert zeros == {n: count.get(n, 0) for n in weights}


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_heads_and_features_that_are_pruned_can_be_taken_out(name):
    base = words(name)
    method = make_method("dsee", {"rank": 2, "n": 3, "prune": 0.5, "structured": True})
    adapter = method.fit(base, Data(ROWS), Run(SHORT))
    adapter.merge(base.network)
    wanted, batch = said(base), base.pack([base.encoder.encode(EXAMPLES[0])])
    before = forward_flops(lambda: base.read(batch))
    lost = slim(base.network, base.sites)
    ffn = [n for n in lost.values() if n == (32 if name == "gpt2" else 12)]
    heads = [n for n in lost.values() if n == 8]
    assert len(ffn) == 2
    assert len(heads) == (2 if name == "bert" else 0)
    assert torch.allclose(said(base), wanted, atol=1e-5)
    assert forward_flops(lambda: base.read(batch)) < 0.9 * before
    assert not slim(base.network, base.sites), "nothing is left to take"


def test_what_cannot_be_is_refused():
    base, steps = words(), []
    for options, message in (
        ({"prune": 1e-5}, "is not one"),
        ({"prune": 0.01, "structured": True}, "is not one"),
    ):
        with pytest.raises(InputError, match=message):
            make_method("dsee", options).fit(base, Data(ROWS), Run(SHORT, progress=steps.append))
    assert not steps, "found out before any training"
    method = make_method("dsee", {"rank": 2, "n": 5, "prune": 0.4})
    tensors = method.fit(base, Data(ROWS), Run(SHORT)).tensors()
    fresh = method.build(base, 0)
    some = {n: t for n, t in tensors.items() if not n.startswith("pruned.")}
    with pytest.raises(ArtifactError, match="these options prune"):
        fresh.restore(some)
    with pytest.raises(ArtifactError, match="of another model"):
        fresh.restore(
            {**tensors, "pruned.no.such": tensors[next(n for n in tensors if n[0] == "p")]}
        )
    far = {n: t.clone() for n, t in tensors.items()}
    first = next(n for n in far if n.startswith("gaps."))
    far[first][0] = 5000
    with pytest.raises(ArtifactError, match="beyond"):
        fresh.restore(far)
