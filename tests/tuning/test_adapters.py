"""Golden numbers of each tuning method; what they all promise is in the matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import peft
import torch

from fewfit.cli.options import read_options
from fewfit.errors import ArtifactError, InputError
from fewfit.testing.tuning import (
    TuningCase,
    check_half_precision,
    check_merged,
    check_network,
    check_neutral,
    check_saved,
)
from fewfit.tuning import (
    Data,
    OwnScalars,
    PeftAdapter,
    Recipe,
    Run,
    SparseDelta,
    Together,
    distillation_loss,
    learn,
    make_method,
)
from fewfit.tuning.adapters.bottleneck import Bottleneck
from fewfit.tuning.adapters.peft import Tuner, targets_of
from fewfit.tuning.reading import scored
from fewfit.tuning.rounds.self_training import gains
from fewfit.tuning.sparse.weights import weights_of
from tests.tuning_models import EXAMPLES, example, network, trunk

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]
POOL = [[example(text, 0)] for text in ("a dull film", "so fun", "really great", "not bad")]
SHORT = Recipe(steps=4, batch_size=2, dropout=False, learning_rate=0.02, optimizer="adamw")


def said(base, adapter=None, items=None) -> torch.Tensor:
    items = items or [base.encoder.encode(item) for item in EXAMPLES]
    with torch.no_grad():
        if adapter is None:
            return base.read(base.pack(items))[0].log_probs
        with adapter.on(base.network):
            return base.read(adapter.rewrite(base.pack(items), base))[0].log_probs


def count(name: str, architecture: str, **options) -> int:
    return make_method(name, options).build(trunk(architecture), 0).count


def test_counts_in_closed_form():
    # bert: 2 blocks, width 16, inner 24, 35 words; t5: 2 + 2 blocks, inner 12, feed-forward 24
    assert count("lora", "bert", rank=2) == 2 * 2 * 2 * (16 + 16)
    assert count("series-adapter", "bert", r=3) == 2 * 2 * (2 * 3 * 16 + 3 + 16)
    assert count("parallel-adapter", "t5-gated", r=3) == 4 * (2 * 3 * 16 + 3 + 16)
    assert count("prompt-tuning", "gpt2", m=5) == 5 * 16
    assert count("random-mask", "llama", budget=77) == count("lt-sft", "llama", budget=77) == 77
    biases = sum(p.numel() for n, p in network("bert").named_parameters() if n.endswith("bias"))
    assert count("bitfit", "bert") == biases
    assert count("t-few", "t5-gated") == 2 * (2 * 12 + 24) + 2 * (4 * 12 + 24)
    r = 4
    block = r * 16 + 1 + 3 * r * r + r * r + 2 * 4 * r * r
    assert count("ladder", "t5-gated", reduction=4) == 2 * block + 16 * r


def test_a_bottleneck_is_its_formula():
    g = torch.Generator().manual_seed(0)
    module, h, x = Bottleneck(6, 4, 3, 2.0, g), torch.randn(5, 4), torch.randn(5, 6)
    assert torch.equal(module(h, x), h)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=g)
    inner = torch.relu(torch.einsum("ij,nj->ni", module.W_d, x) + module.b_d)
    expected = h + 2 * (torch.einsum("ij,nj->ni", module.W_u, inner) + module.b_u)
    assert torch.allclose(module(h, x), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "gpt-neox", "t5-gated"])
def test_a_bottleneck_beside_the_attention_reads_what_the_attention_reads(name):
    base = trunk(name, dropout=0.0)
    plain = base.network
    adapter = make_method("parallel-adapter", {"r": 3, "s": 2.0, "where": "attention"})
    adapter = adapter.build(base, 0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    assert {key.split(".")[2] for key in adapter.places} <= {"self", "cross"}
    key = next(iter(adapter.places))  # the first block's: nothing before it is adapted
    read, acts = adapter.places[key].reads, adapter.places[key].acts
    seen: dict[str, torch.Tensor] = {}

    def keep(label: str, module: str, *, inside: bool) -> None:
        def hook(_, given, out):
            seen.setdefault(label, (given[0] if inside else out).detach())

        handles.append(plain.get_submodule(module).register_forward_hook(hook, prepend=True))

    handles: list = []
    keep("x", read.module, inside=True)
    keep("own", acts.module, inside=False)
    behind = []
    with adapter.on(plain), torch.no_grad():
        last = plain.get_submodule(acts.module)
        handles.append(last.register_forward_hook(lambda _, __, out: behind.append(out)))
        base.read(base.pack([base.encoder.encode(EXAMPLES[0])]))
    for handle in handles:
        handle.remove()
    expected = adapter.module(key)(seen["own"], seen["x"])
    assert torch.allclose(behind[0], expected, atol=1e-6)
    assert not torch.allclose(behind[0], seen["own"], atol=1e-3)


def test_a_bottleneck_stands_where_it_is_told():
    for name, where, n in (
        ("series-adapter", "attention", 2),
        ("series-adapter", "ffn", 2),
        ("parallel-adapter", "both", 4),
        ("parallel-adapter", "attention", 2),
    ):
        assert count(name, "bert", r=3, where=where) == n * (2 * 3 * 16 + 3 + 16)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5-gated", "bert2bert", "bert", "roberta"])
def test_vectors_of_real_words_in_front_are_these_words(name):
    base = trunk(name, dropout=0.0)
    words = [7, 11, 20]
    adapter = make_method("prompt-tuning", {"m": 3}).build(base, 0)
    with torch.no_grad():
        adapter.P.copy_(base.network.get_submodule(adapter.embeddings).weight[words])
    items = [base.encoder.encode(item) for item in EXAMPLES]
    n = base.pack.first_slot
    told = [i._replace(before=[*i.before[:n], *words, *i.before[n:]]) for i in items]
    assert torch.allclose(said(base, adapter, items), said(base, None, told), atol=1e-5)


def test_lora_is_peft_s_with_the_same_tensors():
    from peft import LoraConfig, inject_adapter_in_model

    base = trunk("llama", dropout=0.0)
    adapter = make_method("lora", {"rank": 2, "alpha": 6}).build(base, 0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    found = said(base, adapter)
    other = trunk("llama", dropout=0.0)
    targets = targets_of(other.sites, ("q", "v"))
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=6, target_modules=targets), other.network)
    named = dict(other.network.named_parameters())
    with torch.no_grad():
        for name, tensor in adapter.tensors().items():
            named[name.removeprefix("held.").replace("/", ".")].copy_(tensor)
    other.network.eval()
    assert torch.allclose(said(other), found, atol=1e-6)
    assert not torch.allclose(said(base), found, atol=1e-2)


@pytest.mark.parametrize("tuner", get_args(Tuner))
def test_every_tuner_of_peft_that_is_named_keeps_the_contract(tuner):
    small = {"miss": {"r": 4}, "oft": {"oft_block_size": 4}}
    options = {"tuner": tuner, "tuner_options": small.get(tuner, {})}
    case = TuningCase(make_method("peft", options), lambda: trunk("t5-gated", dropout=0.0))
    for check in (check_neutral, check_network, check_saved, check_merged, check_half_precision):
        check(case)


def test_what_peft_refuses_is_said_and_leaves_nothing_behind():
    base = trunk("gpt2")
    for options, message in (
        ({"tuner": "oft"}, "peft's OFT refuses it: Target module Conv1D"),
        ({"tuner": "loha", "tuner_options": {"rr": 1}}, "unexpected keyword argument 'rr'"),
    ):
        with pytest.raises(InputError, match=message):
            make_method("peft", options).build(base, 0)
    assert not any("peft" in type(module).__module__ for module in base.network.modules())
    with pytest.raises(InputError, match="option: tuner: Input should be '"):
        make_method("peft", {"tuner": "prefix_tuning"})
    with pytest.raises(InputError, match=r"option: roles.1: Input should be 'q'"):
        make_method("lora", {"roles": ["q", "queries"]})
    with pytest.raises(InputError, match="no layer plays 'a role'"):
        make_method("lora", {"roles": []}).build(base, 0)


def test_two_adapters_at_once_act_one_after_the_other():
    base = trunk("bert", dropout=0.0)
    members = [make_method(n).build(base, 1) for n in ("prompt-tuning", "parallel-adapter")]
    both = Together(*members)
    learn(base, both, ROWS, make_method("lora").loss(base, ROWS), Run(SHORT), SHORT)
    with members[1].on(base.network):
        expected = said(base, members[0])
    assert torch.equal(said(base, both), expected)
    again = Together(
        *(make_method(n).build(base, 2) for n in ("prompt-tuning", "parallel-adapter"))
    )
    assert torch.equal(said(base, again.restore(both.tensors())), expected)
    assert set(both.parts(base.network)) == set(dict(both.named_parameters()))


# ---- the network's own scalars -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_the_chosen_scalars_move_and_small_steps_add_up(dtype):
    base = trunk("bert", dropout=0.0)
    base.network.to(dtype)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("random-mask", {"budget": 40})
    tiny = Recipe(
        steps=30, batch_size=3, dropout=False, learning_rate=2e-4, optimizer="adamw", warmup=0
    )
    adapter = method.fit(base, Data(ROWS), Run(tiny))
    assert isinstance(adapter, OwnScalars)
    moved = {
        n: (v.detach() - before[n].flatten()[adapter.index[n]].float()).abs()
        for n, v in adapter.value.items()
    }
    assert all(float(m.min()) > 1e-3 for m in moved.values()), "30 steps of 2e-4, half of them late"
    adapter.merge(base.network)
    changed = SparseDelta.between(before, dict(base.network.named_parameters()))
    assert changed.count <= 40
    for name, where in changed.index.items():
        assert set(where.tolist()) <= set(adapter.index[name].tolist())


def test_masks_by_magnitude_are_the_largest_or_the_smallest():
    base = trunk("llama")
    every = torch.cat([w.abs().flatten() for _, w in sorted(weights_of(base).items())])
    for largest, kept in (
        (True, every.topk(30).values),
        (False, every.topk(30, largest=False).values),
    ):
        adapter = make_method("magnitude-mask", {"budget": 30, "largest": largest}).build(base, 0)
        found = torch.cat([v.detach().abs() for v in adapter.parts(base.network).values()])
        assert torch.equal(found.sort().values, kept.sort().values)
    block = make_method("magnitude-mask", {"budget": 10**4, "level": "block"}).build(base, 0)
    sizes = {n.split(".")[2] for n in block.parts(base.network)}
    assert sizes == {"0", "1"}
    one, same, other = (
        make_method("random-mask", {"budget": 30}).build(base, seed).tensors() for seed in (0, 0, 1)
    )
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(name not in other or not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_ticket_is_what_moved_most_in_a_dense_training(share):
    base = trunk("gpt2", dropout=0.0)
    method, weights = make_method("lt-sft", {"budget": 25, "dense": share}), weights_of(base)
    dense = OwnScalars(base.network, dict.fromkeys(weights))
    slower = replace(SHORT, learning_rate=share * SHORT.learning_rate)
    learn(base, dense, ROWS, method.loss(base, ROWS), Run(slower), slower)
    change = {n: (v.detach() - weights[n].flatten()).abs() for n, v in dense.value.items()}
    least = torch.cat([change[n] for n in sorted(change)]).topk(25).values.min()
    ticket = method.fit(base, Data(ROWS), Run(SHORT))
    chosen = torch.cat([change[n][at] for n, at in ticket.index.items()])
    assert len(chosen) == 25
    assert float(chosen.min()) >= float(least)


def test_scalars_of_another_network_or_budget_are_refused():
    base = trunk("bert")
    adapter = make_method("random-mask", {"budget": 40}).build(base, 0)
    tensors = adapter.tensors()
    name = next(iter(adapter.index))
    gaps, index, value = f"gaps.{name}", f"index.{name}", f"value.{name}"
    assert tensors[gaps].dtype == torch.uint16, "two bytes an index"
    tensors = {index if k == gaps else k: t for k, t in tensors.items()}
    tensors[index] = adapter.index[name]  # as version 0.1.0 had it
    adapter.restore(tensors)
    for wrong, message in (
        ({**tensors, index: tensors[index].flip(0) - 1}, "ascending|chosen"),
        ({**tensors, value: tensors[value] * float("nan")}, "not a finite"),
        ({**tensors, index: tensors[index] + 10**6}, "is beyond its"),
        ({k: v for k, v in tensors.items() if k not in (index, value)}, "scalars are chosen"),
        ({**tensors, "value.odd": tensors[value]}, "have no place"),
    ):
        with pytest.raises(ArtifactError, match=message):
            adapter.restore(wrong)
    with pytest.raises(InputError, match="has no parameter 'odd'"):
        OwnScalars(base.network, {"odd": None})
    with pytest.raises(InputError, match="has no bias"):
        make_method("bitfit").build(trunk("llama"), 0)


# ---- beside the network, on tokens, in rounds ---------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "t5-gated", "llama"])
def test_no_gradient_runs_through_the_network_beside_a_ladder(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("ladder", {"reduction": 4}).build(base, 0)
    batch = base.pack([base.encoder.encode(item) for item in EXAMPLES])
    kept: list[bool] = []

    def keep(_, __, output):
        kept.append((output if torch.is_tensor(output) else output[0]).requires_grad)

    blocks = [base.network.get_submodule(path) for path in base.sites.blocks]
    with adapter.on(base.network):
        for block in blocks:
            block.register_forward_hook(keep)
        tokens, _ = base.read(adapter.rewrite(batch, base))
        tokens.beta.sum().backward()
    assert kept == [False] * len(blocks)
    assert adapter.out.grad is not None
    assert adapter.out.grad.abs().max() > 0


def test_focal_weights_are_one_less_the_probability_held_fixed():
    base = trunk("gpt2", dropout=0.0)
    tokens, _ = base.read(base.pack([base.encoder.encode(item) for item in EXAMPLES]))
    log_p = tokens.log_probs.detach()[tokens.correct[tokens.choice]].double().numpy()
    for gamma in (0.0, 2.0):
        found = make_method("focal", {"gamma": gamma}).loss(base, ROWS)(tokens, [], 0)
        weight = (1 - np.exp(log_p)) ** gamma
        assert float(found) == pytest.approx(-(weight * log_p).sum() / weight.sum(), rel=1e-5)
    with pytest.raises(InputError, match="gamma: Input should be greater than or equal to 0"):
        make_method("focal", {"gamma": -1})


def test_a_session_is_a_teacher_its_labels_and_a_fresh_student():
    base = trunk("bert", dropout=0.0)
    method = make_method("list", {"sessions": 1, "r": 4, "temperature": 2.0, "weighed": 0.0})
    found = method.fit(base, Data(ROWS, POOL), Run(SHORT, seed=3))
    loss = method.loss(base, ROWS)
    teacher, student = method.build(base, 3), method.build(base, 4)
    learn(base, teacher, ROWS, loss, Run(SHORT, seed=3), SHORT)
    pool = [base.encoder.encode(row[0]) for row in POOL]
    with teacher.on(base.network):
        soft = torch.from_numpy(scored(base, pool, adapter=teacher))

    def from_teacher(tokens, rows, step):
        return distillation_loss(tokens, soft[list(rows)], temperature=2.0)

    learn(base, student, POOL, from_teacher, Run(SHORT, seed=3), SHORT)
    learn(base, student, ROWS, loss, Run(SHORT, seed=3), SHORT)
    assert all(torch.equal(t, student.tensors()[n]) for n, t in found.tensors().items())
    with pytest.raises(InputError, match="texts without labels too"):
        method.fit(base, Data(ROWS), Run(SHORT))


def test_texts_weigh_what_a_step_along_them_gains_the_labelled_rows():
    g = torch.Generator().manual_seed(0)
    X, A = torch.randn(5, 3, generator=g).double(), torch.randn(4, 3, generator=g).double()
    theta = torch.randn(3, generator=g).double().requires_grad_()

    def losses(t):
        return (X @ t).tanh() ** 2

    def goal(t):
        return ((A @ t) ** 3).sin().sum()

    # through a step of gradient descent, at weights of 0
    w = torch.zeros(5, dtype=torch.double, requires_grad=True)
    (step,) = torch.autograd.grad((w * losses(theta)).sum(), theta, create_graph=True)
    (by_weight,) = torch.autograd.grad(goal(theta - 0.01 * step), w)
    expected = (-by_weight).clamp(min=0)
    assert 0 < (expected > 0).sum() < 5
    found = gains(goal(theta), list(losses(theta)), [theta])
    assert torch.allclose(found, expected / expected.sum(), atol=1e-5)
    assert gains(-(theta**2).sum(), [(theta**2).sum()], [theta]).tolist() == [0]


def test_the_last_steps_of_a_session_are_weighed():
    base = trunk("bert", dropout=0.0)
    plain, weighed, late = (
        make_method("list", {"sessions": 1, "r": 4, "weighed": share}).fit(
            base, Data(ROWS, POOL), Run(SHORT, seed=3)
        )
        for share in (0.0, 1.0, 0.25)
    )
    names = list(plain.tensors())
    differ = [
        any(not torch.equal(a.tensors()[n], b.tensors()[n]) for n in names)
        for a, b in ((plain, weighed), (plain, late), (weighed, late))
    ]
    assert differ == [True, True, True]


def test_an_injected_adapter_needs_its_own_network():
    base = trunk("bert")
    with pytest.raises(InputError, match="refuses it"):
        PeftAdapter(base.network, "lora", {"target_modules": ["nowhere"]})
    assert not any(p.requires_grad for p in base.network.parameters())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_prefix_is_peft_s_with_the_same_keys_and_values(name):
    base, m = trunk(name, dropout=0.0), 3
    adapter = make_method("prefix-tuning", {"m": m}).build(base, 0)
    items = [base.encoder.encode(item) for item in EXAMPLES]
    ours = said(base, adapter, items)
    other = trunk(name, dropout=0.0)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=m)
    theirs = peft.get_peft_model(other.network, config).eval()
    tensors = adapter.tensors()
    pairs = [tensors[f"{letter}.decoder/{i}/self"] for i in range(2) for letter in "KV"]
    # a row of peft's table is one token's keys and values, layer by layer, head by head
    table = torch.stack(pairs).permute(2, 0, 1, 3).reshape(m, -1)
    with torch.no_grad():
        theirs.prompt_encoder["default"].embedding.weight.copy_(table)
        found = []
        for item in items:
            for choice in item.choices:
                ids = torch.tensor([item.before + choice])
                rows = theirs(input_ids=ids).logits[0].log_softmax(-1)
                at = range(len(item.before) - 1, len(ids[0]) - 1)
                found += [rows[i, token] for i, token in zip(at, choice, strict=True)]
    assert torch.allclose(ours, torch.stack(found), atol=1e-5)
    assert not torch.allclose(ours, said(base, None, items), atol=1e-2)


@pytest.mark.parametrize("name", ["bert", "t5-gated", "bert2bert"])
def test_a_prefix_starts_as_the_keys_and_values_of_words(name):
    base = trunk(name)
    adapter = make_method("prefix-tuning", {"m": 5}).build(base, 1)
    tensors = adapter.tensors()
    kinds = {"bert": 1, "t5-gated": 3, "bert2bert": 3}[name]  # self, or both and cross
    assert len(tensors) == 2 * 2 * kinds
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(len(base.tokenizer), (1, 5), generator=g)
    first = "encoder.0.self"
    site = base.sites.sites[f"{first}.k"].module
    kept = []
    handle = base.network.get_submodule(site).register_forward_hook(lambda *a: kept.append(a[2]))
    given = {"input_ids": ids} | ({} if name == "bert" else {"decoder_input_ids": ids})
    with torch.no_grad():
        base.network(**given)
    handle.remove()
    K = tensors[f"K.{first.replace('.', '/')}"]
    assert torch.allclose(K, kept[0].view(5, *K.shape[::2]).transpose(0, 1), atol=1e-6)


def test_what_stands_in_front_needs_positions():
    base = trunk("gpt2")
    base.positions = 12
    for method in ("prefix-tuning", "prompt-tuning"):
        adapter = make_method(method, {"m": 11}).build(base, 0)
        with pytest.raises(InputError, match=r"takes \d+ positions.* has 12; lower max_tokens"):
            said(base, adapter)
        with pytest.raises(InputError, match="leave no position for it"):
            make_method(method, {"m": 12}).build(base, 0)


@pytest.mark.parametrize("name", ["prompt-tuning", "iapt"])
def test_options_that_leave_nothing_to_train_are_refused(name):
    base = trunk("gpt2")
    with pytest.raises(InputError, match="leave nothing to train"):
        make_method(name, {"m": 0}).fit(base, Data(ROWS), Run(Recipe(steps=1)))


def test_a_list_may_have_one_element_on_the_command_line():
    given = read_options(["roles=ffn.out"])
    assert make_method("lora", given) == make_method("lora", {"roles": ("ffn.out",)})
    with pytest.raises(InputError, match=r"roles.0: Input should be 'q', .* not 'x'"):
        make_method("lora", {"roles": "x"})
