"""Golden numbers of the prompts that are learnt, and of what mixes them with adapters."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning import Data, Recipe, Run, make_method
from fewfit.tuning.adapters.apt import Approximated
from fewfit.tuning.prompts.cpt import context_losses
from fewfit.tuning.prompts.dept import numbered
from fewfit.tuning.prompts.iapt import Rational
from fewfit.tuning.prompts.panda import PANDA, likeness, scores
from fewfit.tuning.prompts.prefix_tuning import Prefix
from tests.tuning_models import example, trunk

TEXTS = ("the movie was fun", "not good", "so dull", "really awful film")
ROWS = [[example(text, k % 3)] for k, text in enumerate(TEXTS)]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.05, optimizer="adamw")


def beta(base, adapter=None, texts=TEXTS) -> torch.Tensor:
    batch = base.pack([base.encoder.encode(example(text, 0)) for text in texts])
    with torch.no_grad():
        if adapter is None:
            return base.read(batch)[0].beta
        with adapter.on(base.network):
            return base.read(adapter.rewrite(batch, base))[0].beta


def same(one, other) -> bool:
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# ---- DePT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "bert", "t5-gated"])
def test_without_its_offset_dept_is_prompt_tuning(name):
    base = trunk(name, dropout=0.0)
    prompt = make_method("prompt-tuning", {"m": 4}).build(base, 3)
    dept = make_method("dept", {"m": 4, "r": 2}).build(base, 3)
    assert torch.equal(beta(base, dept), beta(base, prompt))
    S, H = base.max_tokens, dept.P.shape[1]
    assert dept.count == 4 * H + 2 * (S + H)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "roberta", "t5-gated", "bert2bert"])
def test_the_offset_belongs_to_positions_of_the_prompt_alone(name):
    base = trunk(name, dropout=0.0)
    dept = make_method("dept", {"m": 2, "r": 3}).build(base, 0)
    g = torch.Generator().manual_seed(1)
    dept.B.data = torch.randn(dept.B.shape, generator=g)
    D = (8 / math.sqrt(3) * dept.A @ dept.B).detach()
    batch = base.pack([base.encoder.encode(example(text, 0)) for text in TEXTS])
    seen = []
    embeddings = base.network.get_submodule(dept.embeddings)
    with torch.no_grad(), dept.on(base.network):
        handle = embeddings.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
        base.read(dept.rewrite(batch, base))
        handle.remove()
    ids, embedded = seen[0]
    plain = embeddings.weight.detach()[ids]
    first = base.pack.first_slot
    numbers = numbered(batch, base.kind)
    for row in range(len(ids)):
        for place in range(ids.shape[1]):
            if first <= place < first + 2:
                assert torch.equal(embedded[row, place], dept.P[place - first])
                continue
            number = int(numbers[row, place - 2 * (place >= first)])
            wanted = plain[row, place] + (D[number] if number >= 0 else 0)
            assert torch.allclose(embedded[row, place], wanted, atol=1e-6)
    texts = [base.encoder.encode(example(text, 0)) for text in TEXTS]
    own = [len(item.before) + len(item.after) for item in texts]
    rows = batch.example if base.kind != "masked" else None
    assert (numbers >= 0).sum(1).tolist()[: len(own)] == own or rows is None
    swapped = beta(base, dept, ["dull so"])
    assert not torch.allclose(swapped, beta(base, dept, ["so dull"]), atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "t5-gated"])
@torch.no_grad()
def test_of_full_rank_and_without_a_prompt_it_is_an_embedding_of_positions(name):
    base = trunk(name, dropout=0.0)
    S = base.max_tokens
    dept = make_method("dept", {"m": 0, "r": S}).build(base, 0)
    dept.A.copy_(torch.eye(S))
    dept.B.copy_(torch.randn(dept.B.shape, generator=torch.Generator().manual_seed(1)))
    items = [base.encoder.encode(example(text, 0)) for text in TEXTS]
    batch = base.pack(items)
    with dept.on(base.network):
        found = base.network(**dept.rewrite(batch, base).inputs).logits
    given = dict(batch.inputs)
    given["inputs_embeds"] = base.network.get_submodule(dept.embeddings)(given.pop("input_ids"))
    for row, item in enumerate(items):
        n = len(item.before)
        given["inputs_embeds"][row, :n] += 8 / math.sqrt(S) * dept.B[:n]
    assert torch.allclose(found, base.network(**given).logits, atol=1e-5)


def test_rows_that_were_not_numbered_are_refused():
    base = trunk("bert", dropout=0.0)
    dept = make_method("dept", {"m": 0, "r": 2}).build(base, 0)
    batch = base.pack([base.encoder.encode(example("so dull", 0))])
    with dept.on(base.network), pytest.raises(InputError, match="not numbered"):
        base.read(batch)


# ---- EPT ----------------------------------------------------------------------------------------


def test_at_first_ept_is_dept_and_folded_it_stays_what_it_was():
    base = trunk("llama", dropout=0.0)
    options = {"m": 3, "r": 2}
    ept = make_method("ept", {**options, "spaces": 2}).build(base, 5)
    dept = make_method("dept", options).build(base, 5)
    assert torch.equal(beta(base, ept), beta(base, dept))
    g = torch.Generator().manual_seed(0)
    for parameter in ept.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=g)
    assert torch.allclose(beta(base, ept.folded()), beta(base, ept), atol=1e-6)
    gate = ept.gate(ept.P).detach()
    assert (gate >= 0).all()
    assert float(gate.sum()) == pytest.approx(1)


def test_a_single_space_has_no_choice_to_learn():
    base = trunk("llama", dropout=0.0)
    ept = make_method("ept", {"m": 3, "r": 2, "spaces": 1}).build(base, 0)
    torch.nn.init.normal_(ept.U, generator=torch.Generator().manual_seed(0))
    ept.prompt().square().sum().backward()
    assert float(ept.W_g.grad.abs().max()) == 0
    assert float(ept.U.grad.abs().max()) > 0


# ---- MAM and APT --------------------------------------------------------------------------------


def test_mam_has_the_values_that_the_paper_counts():
    base = trunk("bert2bert", dropout=0.0)
    d, attentions, blocks = 16, 6, 4  # self in all blocks, cross in the decoder's
    adapter = make_method("mam", {"l": 5, "r": 3}).build(base, 0)
    assert adapter.count == 2 * 5 * d * attentions + (2 * 3 * d + 3 + d) * blocks
    rates = {name: group.factor for group in adapter.groups() for name in group.names}
    assert set(rates.values()) == {5.0}
    assert all(name.startswith("adapters.0.") for name in rates)
    assert len(rates) == 2 * attentions


def test_twice_the_scale_adds_twice_as_much():
    x, g = torch.randn(3, 16), torch.Generator().manual_seed(0)
    base = trunk("bert", dropout=0.0)
    added = []
    for s in (2.0, 4.0):
        adapter = make_method("mam", {"l": 0, "r": 3, "s": s}).build(base, 0)
        module = next(iter(adapter.members[1].at.values()))
        module.W_u.data = torch.randn(module.W_u.shape, generator=g.manual_seed(1))
        added.append(module(torch.zeros(3, 16), x).detach())
    assert torch.equal(added[1], 2 * added[0])


def test_apt_is_its_formula_and_its_weight_is_a_constant():
    g = torch.Generator().manual_seed(0)
    n, d, r = 5, 4, 2
    apt = Approximated(
        torch.randn(n, d, generator=g).double(), torch.randn(d, r, generator=g).double()
    )
    assert sum(p.numel() for p in apt.parameters()) == n * d + 2 * r * d + 1
    apt.double()
    apt.W_2.data = torch.randn(r, d, generator=g).double()
    apt.s.data += 0.3
    x, u = torch.randn(2, d, generator=g).double(), torch.randn(2, d, generator=g).double()

    def by_hand(T, w=None):
        keys = T + T @ apt.W_1 @ apt.W_2
        a = (u.float() @ keys.float().T).relu()
        w = a.max(1, keepdim=True).values if w is None else w
        return (x.float() + w * (a @ T.float())) * apt.s.float().exp()

    assert torch.allclose(apt.float()(x.float(), u.float()), by_hand(apt.T.data.float()), atol=1e-5)
    T = apt.T.data.clone().requires_grad_(True)
    keys = T + T @ apt.W_1 @ apt.W_2
    w = (u.float() @ keys.T).relu().max(1, keepdim=True).values.detach()
    by_hand(T, w).sum().backward()
    apt(x.float(), u.float()).sum().backward()
    assert torch.allclose(apt.T.grad, T.grad, atol=1e-4)


# ---- PANDA and ProMoT ---------------------------------------------------------------------------


def test_without_a_weight_panda_is_prompt_tuning():
    base = trunk("gpt2", dropout=0.0)
    run = Run(SHORT, 4)
    plain = make_method("prompt-tuning", {"m": 3}).fit(base, Data(ROWS), run)
    assert same(make_method("panda", {"m": 3, "weight": 0}).fit(base, Data(ROWS), run), plain)
    taught = make_method("panda", {"m": 3, "weight": 5.0}).fit(base, Data(ROWS), run)
    assert not same(taught, plain)


def test_a_teacher_that_agrees_teaches_nothing_and_is_like_itself():
    base = trunk("bert", dropout=0.0)
    prompt = make_method("prompt-tuning", {"m": 3}).build(base, 0)
    items = [base.encoder.encode(row[0]) for row in ROWS]
    said = [[scores(base, prompt, item)] for item in items]
    loss = PANDA(m=3)._taught(lambda tokens, rows, step: tokens.beta.sum() * 0, said, 2.0, 0)
    with prompt.on(base.network):
        tokens, _ = base.read(prompt.rewrite(base.pack(items[1:3]), base))
        value = loss(tokens, [1, 2], 0)
        value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-10)
    assert float(prompt.P.grad.abs().max()) < 1e-5
    assert likeness(base, prompt, prompt, items) == pytest.approx(1)


def test_a_teacher_stays_what_it_is_while_it_teaches(monkeypatch):
    base = trunk("bert", dropout=0.0)
    source = make_method("prompt-tuning", {"m": 3}).build(base, 9).tensors()
    before, made, seen = {n: t.clone() for n, t in source.items()}, [], []
    fresh, taught = PANDA.fresh, PANDA._taught

    def building(self, *args):
        made.append(fresh(self, *args))
        return made[-1]

    def teaching(self, *args):
        seen.append(made[0].tensors())
        return taught(self, *args)

    monkeypatch.setattr(PANDA, "fresh", building)
    monkeypatch.setattr(PANDA, "_taught", teaching)
    method = make_method("panda", {"m": 3, "weight": 5.0})
    student = method.fit(base, Data(ROWS), Run(SHORT, 4, start=source))
    assert all(torch.equal(source[name], before[name]) for name in before)
    (teacher,) = seen
    assert torch.equal(made[0].P, teacher["P"])
    assert not torch.equal(teacher["P"], before["P"]), "it was tuned on the target first"
    assert student is made[-1]
    assert not torch.equal(student.P, teacher["P"])


@pytest.mark.parametrize("options", [{}, {"by_likeness": True}])
def test_panda_starts_from_a_source(options):
    base = trunk("bert", dropout=0.0)
    source = make_method("prompt-tuning", {"m": 3}).build(base, 9)
    run = Run(SHORT, 4, start=source.tensors())
    made = make_method("panda", {"m": 3, "weight": 5.0, **options}).fit(base, Data(ROWS), run)
    alone = make_method("panda", {"m": 3, "weight": 5.0}).fit(base, Data(ROWS), Run(SHORT, 4))
    assert not same(made, alone)
    longer = make_method("prompt-tuning", {"m": 4}).build(base, 9)
    with pytest.raises(ArtifactError, match="shape"):
        make_method("panda", {"m": 3}).fit(base, Data(ROWS), Run(SHORT, start=longer.tensors()))


def test_promot_freezes_its_prompt_and_lets_go_of_it():
    base = trunk("llama", dropout=0.0)
    method = make_method("promot", {"m": 3, "adapter_options": {"rank": 2}})
    run = Run(SHORT, 4)
    both = method.fit(base, Data(ROWS), run)
    first = Recipe(**{**vars(SHORT), "learning_rate": 0.3, "optimizer": "adafactor"})
    alone = make_method("prompt-tuning", {"m": 3}).fit(base, Data(ROWS), Run(first, 4))
    assert torch.equal(both.members[0].P, alone.P)
    assert all(name.startswith("adapters.1.") for name in both.parts(base.network))
    fresh = method.build(base, 0)
    fresh.enabled = False
    assert torch.equal(beta(base, fresh), beta(base))
    both.enabled = False
    assert torch.equal(beta(base, both), beta(base, both.members[1]))
    assert not torch.equal(beta(base, both), beta(base))


# ---- IAPT ---------------------------------------------------------------------------------------


def test_rational_functions_begin_as_gelu():
    x = torch.linspace(-3, 3, 1001)
    g = Rational()
    assert (g(x) - torch.nn.functional.gelu(x)).abs().max() < 1e-2
    g.double()
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    inputs = (g.a.detach().requires_grad_(True), (g.b.detach() + 0.05).requires_grad_(True))

    def value(a, b):
        g.a.data, g.b.data = a, b
        return torch.func.functional_call(g, {"a": a, "b": b}, (x,))

    assert torch.autograd.gradcheck(value, inputs)


@pytest.mark.parametrize("name", ["llama", "bert", "t5-gated"])
def test_what_is_made_of_an_instruction_does_not_see_the_answers(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("iapt", {"m": 2, "r": 4}).build(base, 0)

    def prompts(answers):
        batch = base.pack([base.encoder.encode(example("so dull", 0, answers))])
        found = []
        keep = type(adapter).keys_values

        def noted(site, queries):
            found.append(adapter.prompt(site.name).detach())
            return keep(adapter, site, queries)

        adapter.keys_values = noted
        try:
            with torch.no_grad(), adapter.on(base.network):
                base.read(adapter.rewrite(batch, base))
        finally:
            del adapter.keys_values
        return torch.stack([p[0] for p in found])

    # A masked model reads as many masks as an answer has tokens.
    other = ("fun", "awful") if name == "bert" else ("really very great", "new york")
    assert torch.allclose(prompts(("good", "bad")), prompts(other), atol=1e-6)


@torch.no_grad()
def test_an_instruction_does_not_see_answers_or_padding():
    base = trunk("llama", dropout=0.0)
    adapter = make_method("iapt", {"m": 2, "r": 4}).build(base, 0)

    def read(texts, answers):
        batch = base.pack([base.encoder.encode(example(text, 0, answers)) for text in texts])
        with adapter.on(base.network):
            logits = base.network(**adapter.rewrite(batch, base).inputs).logits[0]
            made = [adapter.prompt(site.name)[0] for site in adapter._sites]
        return torch.stack(made), logits[: len(base.encoder.encode(example(texts[0], 0)).before)]

    P, logits = read(["so dull"], ("good", "bad"))
    for other in (
        read(["so dull"], ("really very great", "new york")),
        read(["so dull", "the film is about sport in new york city"], ("good", "bad")),
    ):
        assert torch.allclose(other[0], P, atol=1e-6)
        assert torch.allclose(other[1], logits, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox", "t5-gated"])
def test_what_is_made_does_not_grow_with_what_runs_along_the_blocks(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("iapt", {"m": 2, "r": 4}).build(base, 0)
    batch = base.pack([base.encoder.encode(example("so dull", 0))])

    def largest():
        with adapter.on(base.network):
            base.read(adapter.rewrite(batch, base))
            return max(float(adapter.prompt(site.name).abs().max()) for site in adapter._sites)

    before = largest()
    base.network.get_input_embeddings().weight.mul_(1e6)  # as in some models, by their depth
    assert 0 < largest() < 10 * before


def test_a_pooling_without_weights_is_the_mean_over_the_text():
    base = trunk("bert", dropout=0.0)
    generator = make_method("iapt", {"m": 3, "r": 4}).build(base, 0).generators[0]
    torch.nn.init.zeros_(generator.W_sa)
    H = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    own = torch.tensor([[True] * 5, [True, True, False, False, False]])
    P = generator(H, own, lambda x: x)
    Z = H @ generator.W_down
    for row, n in ((0, 5), (1, 2)):
        wanted = Z[row, :n].mean(0) @ generator.W_up
        assert torch.allclose(P[row], wanted.expand(3, -1), atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_of_a_constant_it_is_a_prefix(name):
    base = trunk(name, dropout=0.0)
    adapter = make_method("iapt", {"m": 3, "r": 4, "shared": 1}).build(base, 0)
    pairs = {}
    g = torch.Generator().manual_seed(1)
    for generator, site in zip(adapter.generators, adapter._sites, strict=True):
        torch.nn.init.zeros_(generator.W_up)
        generator.b_up.data = torch.randn(16, generator=g)
        made = []
        for part in "kv":
            layer = base.sites.sites[f"{site.name}.{part}"]
            whole = base.network.get_submodule(layer.module)(generator.b_up.data[None])
            own = whole[..., layer.where].view(site.key_heads, 1, site.size)
            made.append(own.expand(-1, 3, -1).contiguous().detach())
        pairs[site.name] = tuple(made)
    prefix = Prefix({site.name: site for site in adapter._sites}, pairs)
    assert torch.allclose(beta(base, adapter), beta(base, prefix), atol=1e-5)


# ---- CPT ----------------------------------------------------------------------------------------


def fitted_context(base, **options):
    method = make_method("cpt", {"k": 1, **options})
    return method.fit(base, Data(ROWS), Run(SHORT, 2))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_without_a_radius_it_is_in_context_learning(name):
    base = trunk(name, dropout=0.0)
    adapter = fitted_context(base, eps=0.0)
    shown = adapter.ids.tolist()
    items = [base.encoder.encode(example(text, 0)) for text in TEXTS]
    longer = [item._replace(before=[*shown, *item.before]) for item in items]
    with torch.no_grad():
        wanted = base.read(base.pack(longer))[0].beta
    assert torch.allclose(beta(base, adapter), wanted, atol=1e-5)
    assert len(shown) == len(adapter.label)
    own = {label for label in adapter.label.tolist() if label > 0}
    assert own == {1, 2, 3}  # one of each of three classes


def test_what_is_learnt_stays_in_its_ball_and_labels_stay():
    base = trunk("llama", dropout=0.0)
    adapter = fitted_context(base, eps=0.1)
    radius = 0.1 * math.sqrt(16 / 2048)
    norms = adapter.delta.detach().norm(dim=1)
    assert float(norms.max()) <= radius * (1 + 1e-6)
    assert float(norms.max()) > 0.9 * radius  # the rate is large enough to meet it
    kept = adapter.delta.detach().clone()
    adapter.after_step()
    assert torch.allclose(adapter.delta, kept, atol=1e-8)
    E = base.network.get_input_embeddings().weight
    fixed = ~adapter.free
    assert torch.equal(adapter.vectors()[fixed], E[adapter.ids[fixed]])
    assert int(fixed.sum()) + len(adapter.delta) == len(adapter.ids)


def test_labels_weigh_less_the_further_back_they_stand():
    base = trunk("llama", dropout=0.0)
    adapter = fitted_context(base, eps=0.1)
    with adapter.on(base.network):
        each, weights = context_losses(base, adapter, 0.5)
    at = [i for i, label in enumerate(adapter.label.tolist()) if label > 0]
    behind = [3 + 1 - adapter.label.tolist()[i] for i in at]
    assert weights.tolist() == [0.5**n for n in behind]
    assert set(behind) == {1, 2, 3}  # the text's own label has the weight 1
    with torch.no_grad():
        logits = base.network(inputs_embeds=adapter.vectors()[None]).logits[0]
    log_p = logits.log_softmax(1)
    wanted = [-log_p[i - 1, adapter.ids[i]] for i in at]
    assert torch.allclose(each.detach(), torch.stack(wanted), atol=1e-5)


def test_a_context_of_another_network_is_refused():
    base = trunk("llama", dropout=0.0)
    tensors = fitted_context(base).tensors()
    fresh = make_method("cpt").build(base, 0)
    for name, wrong in (("ids", tensors["ids"] + 10**6), ("delta", tensors["delta"][:, :3])):
        with pytest.raises(ArtifactError, match="does not fit"):
            fresh.restore({**tensors, name: wrong})
    again = fresh.restore(tensors)
    assert torch.equal(again.vectors(), fitted_context(base).vectors())
    base.positions = 64
    with pytest.raises(InputError, match="leave no position"):
        make_method("cpt", {"k": 64}).fit(base, Data(ROWS * 20), Run(SHORT))
