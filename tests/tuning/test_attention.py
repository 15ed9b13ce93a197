"""The one attention function: prefixes, observers and branches, exact in every architecture."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import peft
import pytest
import torch

from fewfit.errors import CapabilityError
from fewfit.tuning import site_map
from fewfit.tuning.attention import (
    Attention,
    AttentionPart,
    AttentionSite,
    attach,
    attention_sites,
)
from tests.tuning.architectures import ARCHITECTURES, inputs, network
from tests.tuning_models import EXAMPLES, trunk

REFUSED = ("deberta-v2", "mpnet", "bloom", "falcon", "falcon-7b-as-many-keys", "falcon-40b")
NAMES = [name for name in ARCHITECTURES if name not in REFUSED]
TOKENS = torch.randint(5, 40, (2, 7), generator=torch.Generator().manual_seed(3))


class Record(AttentionPart):
    """Keeps what every attention computed."""

    def __init__(self) -> None:
        self.seen: dict[str, Attention] = {}
        self.output: dict[str, torch.Tensor] = {}

    def observe(self, attention: Attention) -> None:
        self.seen[attention.site.name] = attention

    def branch(self, attention: Attention, output: torch.Tensor) -> None:
        self.output[attention.site.name] = output


class Prefix(AttentionPart):
    def __init__(self, pairs: dict[str, Any]) -> None:
        self.pairs = pairs

    def keys_values(self, site: AttentionSite, queries: torch.Tensor) -> Any:
        return self.pairs.get(site.name)


@torch.no_grad()
def run(model: Any, given: dict[str, Any], *parts: AttentionPart) -> torch.Tensor:
    sites = attention_sites(model, site_map(model)).values()
    handles = [attach(model, sites, part) for part in parts]
    try:
        return model(**given)[0]
    finally:
        for handle in reversed(handles):
            handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_a_part_that_does_nothing_leaves_the_network_as_it_is_bit_for_bit(name: str):
    model = network(name)
    for given in (inputs(name), {k: v for k, v in inputs(name).items() if k != "attention_mask"}):
        with torch.no_grad():
            before = model(**given)[0]
        implementation = model.config._attn_implementation
        assert torch.equal(run(model, given, AttentionPart()), before)
        assert model.config._attn_implementation == implementation
        record = Record()
        assert torch.allclose(run(model, given, record), before, rtol=1e-9, atol=1e-10)
        for site, seen in record.seen.items():
            weights = seen.scores().softmax(-1)
            times = seen.site.heads // seen.site.key_heads
            own = weights.double() @ seen.values.repeat_interleave(times, 1)
            output = record.output[site]
            # Gemma 2's own function takes the softmax in float32
            assert torch.allclose(own.transpose(1, 2), output, rtol=1e-5, atol=1e-6), site
            assert seen.queries.shape[1:] == (seen.site.heads, own.shape[2], seen.site.size)


def test_it_is_called_for_every_attention_with_its_name():
    model, record = network("t5"), Record()
    run(model, inputs("t5"), record)
    kinds = [f"decoder.{i}.{which}" for i in range(2) for which in ("self", "cross")]
    assert list(record.seen) == ["encoder.0.self", "encoder.1.self", *kinds]
    assert record.seen["decoder.0.self"].bias is not None


@pytest.mark.parametrize("name", REFUSED)
def test_networks_with_an_attention_of_their_own_are_refused(name: str):
    model = network(name)
    with pytest.raises(CapabilityError, match=r"attention: .* computes it in a way of its own"):
        attention_sites(model, site_map(model))
    with pytest.raises(CapabilityError, match=r"attention: .* computes it in a way of its own"):
        attach(model, (), AttentionPart())


POSITIONS = {"bert": 0, "roberta": 1, "gpt2": 0, "llama": 0, "qwen3": 0}
POSITIONS |= {"gemma2": 0, "gemma3_text": 0, "phi3": 0, "gpt_neox": 0}


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_prefix_of_tokens_keys_and_values_is_these_tokens(name: str, padded: bool):
    model, front = network(name), 3
    positions = torch.arange(TOKENS.shape[1])[None].expand(2, -1) + POSITIONS[name]
    mask = torch.ones_like(TOKENS)
    mask[1, 5:] = 1 - padded
    record = Record()
    whole = {"input_ids": TOKENS, "position_ids": positions, "attention_mask": mask}
    if not padded:
        del whole["attention_mask"]
    want = run(model, whole, record)[:, front:]
    pairs = {s: (a.keys[:, :, :front], a.values[:, :, :front]) for s, a in record.seen.items()}
    short = {key: value[:, front:] for key, value in whole.items()}
    got = run(model, short, Prefix(pairs))
    visible = mask[:, front:].bool()
    # the angles of rotated positions are float32
    assert torch.allclose(got[visible], want[visible], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(run(model, short)[visible], want[visible], rtol=1e-2, atol=1e-2)


def test_a_prefix_in_a_cross_attention_is_the_encoder_states_that_it_was_made_of():
    model, front, record = network("t5"), 3, Record()
    states = torch.randn(2, 7, 16, dtype=torch.float64)
    given = {"decoder_input_ids": TOKENS}
    want = run(model, {"encoder_outputs": (states,), **given}, record)
    pairs = {
        s: (a.keys[:, :, :front], a.values[:, :, :front])
        for s, a in record.seen.items()
        if s.endswith("cross")
    }
    got = run(model, {"encoder_outputs": (states[:, front:],), **given}, Prefix(pairs))
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-10)


def test_prefixes_of_two_parts_stand_one_behind_the_other_and_one_goes_alone():
    model, generator = network("llama"), torch.Generator().manual_seed(5)
    sites = attention_sites(model, site_map(model))
    assert {(s.heads, s.key_heads, s.size) for s in sites.values()} == {(4, 2, 4)}

    def pairs(n: int) -> dict[str, Any]:
        shape = (1, 2, n, 4)
        return {s: tuple(torch.randn(2, *shape, generator=generator).double()) for s in sites}

    one, two = pairs(2), pairs(3)
    joint = {s: tuple(torch.cat(p, 2) for p in zip(one[s], two[s], strict=True)) for s in sites}
    given = {"input_ids": TOKENS}
    both = run(model, given, Prefix(one), Prefix(two))
    assert torch.allclose(both, run(model, given, Prefix(joint)), rtol=1e-9, atol=1e-10)
    alone = run(model, given, Prefix(two))
    first, second = (attach(model, sites.values(), Prefix(p)) for p in (one, two))
    first.remove()
    with torch.no_grad():
        assert torch.equal(model(**given)[0], alone)
    second.remove()
    first.remove()  # twice is once
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@torch.no_grad()
def test_a_prefix_is_seen_by_tokens_that_are_generated_with_a_cache(name: str):
    model, generator = network(name), torch.Generator().manual_seed(5)
    sites = attention_sites(model, site_map(model))
    one = next(iter(sites.values()))
    shape = (2, 1, one.key_heads, 3, one.size)
    pairs = {s: torch.randn(shape, generator=generator).double() for s in sites}
    handle = attach(model, sites.values(), Prefix(pairs))
    first = model(input_ids=TOKENS[:, :4], use_cache=True)
    cache, parts = first.past_key_values, [first.logits]
    for i in range(4, TOKENS.shape[1]):
        step = model(input_ids=TOKENS[:, i : i + 1], past_key_values=cache, use_cache=True)
        parts.append(step.logits)
    whole = model(input_ids=TOKENS).logits
    handle.remove()
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(model(input_ids=TOKENS).logits, whole, atol=1e-2)


@torch.no_grad()
def test_two_berts_have_all_three_kinds_of_attention():
    model = trunk("bert2bert").network
    sites = attention_sites(model, site_map(model))
    assert list(sites)[:2] == ["encoder.0.self", "encoder.1.self"]
    assert {s.rsplit(".", 1)[1] for s in sites} == {"self", "cross"}
    assert {(s.heads, s.key_heads, s.size) for s in sites.values()} == {(4, 4, 4)}
    ids, record = TOKENS % 30, Record()
    given = {"input_ids": ids, "decoder_input_ids": ids}
    before = model(**given)[0]
    assert torch.equal(run(model, given, AttentionPart()), before)
    run(model, given, record)
    assert record.seen.keys() == sites.keys()


def test_a_branch_takes_the_place_of_the_heads_output():
    """Mixed by the softmax's denominators, two halves of the keys are the whole."""
    model, generator = network("llama"), torch.Generator().manual_seed(5)
    sites = attention_sites(model, site_map(model))
    pairs = {s: tuple(torch.randn(2, 1, 2, 3, 4, generator=generator).double()) for s in sites}

    class Branch(AttentionPart):
        def branch(self, attention: Attention, output: torch.Tensor) -> torch.Tensor:
            keys, values = (x.repeat_interleave(2, 1) for x in pairs[attention.site.name])
            scores = attention.queries @ keys.transpose(-1, -2) * attention.scale
            here, there = scores.logsumexp(-1), attention.scores().logsumexp(-1)
            share = torch.sigmoid(here - there).unsqueeze(-1)
            mixed = share * (scores.softmax(-1) @ values) + (1 - share) * output.transpose(1, 2)
            return mixed.transpose(1, 2)

    given = {"input_ids": TOKENS}
    want = run(model, given, Prefix(pairs))
    assert torch.allclose(run(model, given, Branch()), want, rtol=1e-9, atol=1e-10)


def test_gradients_reach_the_prefix_and_no_weight_changes():
    model = network("gpt2").requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    sites = attention_sites(model, site_map(model))
    prefix = {s: torch.nn.Parameter(torch.randn(2, 1, 4, 2, 4).double()) for s in sites}
    pairs = {s: (p[0], p[1]) for s, p in prefix.items()}
    handle = attach(model, sites.values(), Prefix(pairs))
    model(input_ids=TOKENS)[0].sum().backward()
    handle.remove()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prefix.values())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft 0.21
@pytest.mark.parametrize("name", ["llama", "gpt2"])
@torch.no_grad()
def test_the_numbers_of_pefts_prefix_tuning_choice_by_choice(name: str):
    """A packed batch with attached prefixes reads each choice as peft does, one at a time."""
    n = 3
    here, there = trunk(name), trunk(name)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=n)
    theirs: Any = peft.get_peft_model(there.network, config).eval()
    weight = theirs.prompt_encoder["default"].embedding.weight
    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    sites = attention_sites(here.network, site_map(here.network))
    groups = next(iter(sites.values()))
    layers = weight.view(n, 2 * len(sites), groups.key_heads, groups.size).permute(1, 2, 0, 3)
    pairs = {s: (layers[2 * i][None], layers[2 * i + 1][None]) for i, s in enumerate(sites)}
    encoded = [here.encoder.encode(example) for example in EXAMPLES]
    batch = here.pack(encoded)
    moved = {**batch.inputs, "position_ids": batch.inputs["position_ids"] + n}
    handle = attach(here.network, sites.values(), Prefix(pairs))
    got = here.read(replace(batch, inputs=moved))[0].log_probs
    handle.remove()
    want: list[float] = []
    for item in encoded:
        for choice in item.choices:
            ids = torch.tensor([[*item.before, *choice]])
            log_probs = theirs(input_ids=ids).logits[0].log_softmax(-1)
            start = len(item.before) - 1
            want += [float(log_probs[start + t, token]) for t, token in enumerate(choice)]
    assert torch.allclose(got, torch.tensor(want), atol=1e-5)
