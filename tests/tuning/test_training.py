from __future__ import annotations

import copy
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from safetensors.torch import save_file

from fewfit.errors import ArtifactError, InputError, InputWarning, ModelError
from fewfit.models.costs import (
    in_context_bytes,
    in_context_flops,
    inference_flops,
    training_flops,
    vector_bytes,
)
from fewfit.tuning import (
    IA3,
    Data,
    Group,
    Objective,
    RandomSelector,
    Recipe,
    Run,
    SparseDelta,
    TokenLogProbs,
    Trunk,
    add_lora,
    learn,
    make_method,
    ranked,
    site_map,
    t_few,
    top_k,
    train,
    tune,
    unlikelihood_loss,
)
from fewfit.tuning.sparse.delta import MaskedUpdate
from tests.tuning_models import EXAMPLES, checkpoint, example, inputs, network, trunk

ROWS = [[item] for item in EXAMPLES]
SHORT = Recipe(steps=8, batch_size=2)


def values(vectors: IA3) -> torch.Tensor:
    return torch.cat([v.detach() for v in vectors.of().values()])


def test_the_schedule_of_the_paper():
    recipe = Recipe()
    rates = [recipe.rate(step) for step in (0, 30, 60, 530, 1000)]
    assert rates == pytest.approx([0, 1.5e-3, 3e-3, 1.5e-3, 0])
    assert Recipe(steps=4, warmup=0).rate(0) == 3e-3


def test_each_epoch_has_every_row_once_and_drops_the_partial_batch():
    recipe = Recipe(batch_size=3)
    epochs = [
        [row for step in range(e * 3, e * 3 + 3) for row in recipe.rows(step, 10, 5)]
        for e in (0, 1)
    ]
    assert all(len(set(rows)) == 9 for rows in epochs)
    assert epochs[0] != epochs[1]
    assert sorted(recipe.rows(7, 2, 0)) == [0, 1]  # fewer rows than a batch


@pytest.mark.parametrize("name", ["t5-gated", "t5-ungated", "gpt2", "bert"])
def test_only_the_vectors_change_and_the_examples_are_learnt(name):
    trunk_ = trunk(name)
    before = {n: p.clone() for n, p in trunk_.network.state_dict().items()}
    random = torch.get_rng_state()
    recipe = Recipe(steps=60, batch_size=4, learning_rate=0.1, dropout=False)
    vectors = t_few(trunk_, ROWS, recipe=recipe)
    assert all(torch.equal(p, before[n]) for n, p in trunk_.network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in trunk_.network.modules())
    assert (values(vectors) != 1).float().mean() > 0.8
    vectors.attach(trunk_.network)
    assert ranked(trunk_, EXAMPLES) == [item.answer for item in EXAMPLES]


def test_a_step_of_gradient_descent_makes_wrong_tokens_less_likely():
    trunk_ = trunk(dropout=0.0)
    vectors = IA3(site_map(trunk_.network)).attach(trunk_.network)
    batch = trunk_.pack([trunk_.encoder.encode(item) for item in EXAMPLES])
    wrong = ~batch.correct[batch.choice]

    def read() -> TokenLogProbs:
        return trunk_.read(batch)[0]

    before = read()
    gradients = torch.autograd.grad(unlikelihood_loss(before), list(vectors.vectors))
    with torch.no_grad():
        for vector, gradient in zip(vectors.vectors, gradients, strict=True):
            vector -= 0.01 * gradient
        after = read()
    assert after.log_probs[wrong].exp().mean() < before.log_probs[wrong].exp().mean()
    assert unlikelihood_loss(after) < unlikelihood_loss(before)


@pytest.mark.parametrize("optimizer", ["adafactor", "adamw"])
def test_a_resumed_training_ends_where_an_uninterrupted_one_does(tmp_path, optimizer):
    recipe = Recipe(steps=8, batch_size=2, optimizer=optimizer)  # with dropout
    whole = t_few(trunk(), ROWS, recipe=recipe, seed=1)
    file = tmp_path / "training.pt"

    def stop_at_five(n: int) -> None:
        stop_at_five.made += n
        if stop_at_five.made == 5:
            raise KeyboardInterrupt

    stop_at_five.made = 0
    options = {"recipe": recipe, "seed": 1, "checkpoint": file}
    with pytest.raises(KeyboardInterrupt):
        _every(2, trunk(), progress=stop_at_five, **options)
    assert len(torch.load(file, weights_only=True)["history"]) == 4
    made: list[int] = []
    resumed = _every(2, trunk(), progress=made.append, **options)
    assert made == [4, 1, 1, 1, 1]
    assert torch.equal(values(resumed), values(whole))
    again = t_few(trunk(), ROWS, **options)
    assert torch.equal(values(again), values(whole))
    with pytest.raises(InputError, match="another training \\(seed differ"):
        t_few(trunk(), ROWS, recipe=recipe, seed=2, checkpoint=file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="cannot be read"):
        t_few(trunk(), ROWS, **options)


def test_what_a_training_puts_right_is_put_right_once_where_it_is_taken_up(tmp_path):
    def made(until: int | None, file) -> torch.Tensor:
        vector = torch.nn.Parameter(torch.ones(3))

        def halve() -> None:  # as a rounding, it does more when it is done again
            vector.data.mul_(0.5)

        options = {"checkpoint": file, "after_step": halve, "until": until}
        recipe = Recipe(steps=4, optimizer="adamw", learning_rate=0.1)
        train(network("bert"), {"v": vector}, lambda *_: vector.sum(), 1, recipe, **options)
        return vector.detach()

    made(2, tmp_path / "training.pt")
    assert torch.equal(made(None, tmp_path / "training.pt"), made(None, None))


def test_a_checkpoint_that_cannot_be_written_costs_no_training(tmp_path, monkeypatch):
    base, recipe, steps = trunk(), Recipe(steps=3, batch_size=2), []
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file" / "training.pt", tmp_path / "file" / "new" / "training.pt"):
        with pytest.raises(InputError, match=r"training\.pt cannot be written .* another file"):
            t_few(base, ROWS, recipe=recipe, checkpoint=place, progress=steps.append)
    assert not steps

    def full(content, file) -> None:
        Path(file).write_bytes(b"half of it")
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(InputWarning, match="the training goes on without"):
        found = t_few(base, ROWS, recipe=recipe, checkpoint=tmp_path / "new" / "training.pt")
    assert torch.equal(values(found), values(t_few(base, ROWS, recipe=recipe)))
    assert not list((tmp_path / "new").iterdir())


def _every(n: int, trunk_, *, recipe, seed, checkpoint, progress) -> IA3:
    vectors = IA3(site_map(trunk_.network)).attach(trunk_.network)
    tune(
        trunk_,
        ROWS,
        vectors.of(),
        recipe=recipe,
        objective=Objective(),
        seed=seed,
        checkpoint=checkpoint,
        every=n,
        progress=progress,
    )
    return vectors


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    whole = Recipe(steps=4, batch_size=4, dropout=False, optimizer="adamw", learning_rate=0.02)
    parts = Recipe(**{**vars(whole), "micro_batch": 1})
    a, b = (t_few(trunk(), ROWS, recipe=recipe) for recipe in (whole, parts))
    assert torch.allclose(values(a), values(b), atol=1e-4)
    assert (values(a) - 1).abs().max() > 0.02


def test_a_loss_that_is_not_a_number_stops_the_training_with_the_last_good_state():
    network = torch.nn.Linear(2, 1)
    parameters = dict(network.named_parameters())
    seen: list[torch.Tensor] = []

    def loss_of(rows, step):
        seen.append(network.weight.detach().clone())
        return network(torch.ones(2)).sum() * (float("nan") if step == 3 else 1.0)

    recipe = Recipe(steps=9, batch_size=1, optimizer="adamw", warmup=0)
    with pytest.raises(ModelError, match=r"loss is nan.*step 3.*lower learning_rate"):
        train(network, parameters, loss_of, 2, recipe)
    assert torch.equal(network.weight, seen[3])
    assert not torch.equal(seen[3], seen[2])


def test_wordings_are_drawn_anew_and_can_be_drawn_again():
    drawn: list[list[int]] = []
    wordings = [[example("movie " * n, 0) for n in (1, 2, 3)] for _ in range(2)]

    def run() -> torch.Tensor:
        trunk_ = trunk()
        pack = trunk_.pack
        lengths: list[int] = []

        def noted(items):
            lengths.extend(len(item.before) for item in items)
            return pack(items)

        trunk_.pack = noted
        vectors = t_few(trunk_, wordings, recipe=Recipe(steps=12, batch_size=2))
        drawn.append(lengths)
        return values(vectors)

    assert torch.equal(run(), run())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    with pytest.raises(InputError, match="row 0 is not a sequence"):
        t_few(trunk(), EXAMPLES)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.2), ("float16", 0.02)])
def test_half_precision_weights_train_float32_vectors(dtype, error, tmp_path):
    recipe = Recipe(steps=30, batch_size=4, dropout=False)
    folder = checkpoint(tmp_path, dropout=0.0)
    whole = t_few(Trunk.load(str(folder), max_tokens=32), ROWS, recipe=recipe)
    trunk_ = Trunk.load(str(folder), dtype=dtype, max_tokens=32)
    assert trunk_.network.dtype == getattr(torch, dtype)
    vectors = t_few(trunk_, ROWS, recipe=recipe)
    assert values(vectors).dtype == torch.float32
    way, gap = values(whole) - 1, values(vectors) - values(whole)
    assert gap.norm() < error * way.norm()
    assert vectors.attach(trunk_.network)
    assert ranked(trunk_, EXAMPLES) == ranked(trunk_, EXAMPLES, batch_size=1)


def test_low_rank_weights_are_float32_on_bfloat16_layers():
    pytest.importorskip("peft")
    trunk_ = trunk(dropout=0.0)
    trunk_.network.bfloat16()
    low_rank = add_lora(trunk_.network, site_map(trunk_.network), rank=2)
    assert {p.dtype for p in low_rank.values()} == {torch.float32}
    recipe = Recipe(steps=9, optimizer="adamw", learning_rate=0.02)
    losses = tune(trunk_, ROWS, low_rank, recipe=recipe, objective=Objective())
    assert losses[-1] < losses[0]


def test_gradients_too_small_for_float16_still_train():
    """Of 1e-9 and less, which float16 cannot hold: its smallest number is 6e-8."""
    network = torch.nn.Linear(1, 1, dtype=torch.float16)
    vector = torch.nn.Parameter(torch.ones(1))

    def loss_of(rows, step):
        hidden = torch.ones(1, dtype=torch.float16) * vector.to(torch.float16)
        return (hidden.float() * 2e-8).sum() + 0 * network(hidden).float().sum()

    train(network, {"vector": vector}, loss_of, 1, Recipe(steps=3, batch_size=1, warmup=0))
    assert vector.item() < 1


def test_saved_vectors_are_where_training_starts():
    first = t_few(trunk(), ROWS, recipe=Recipe(steps=3, batch_size=2))
    again = t_few(trunk(), ROWS, start=first.of(), recipe=Recipe(steps=1, warmup=1.0))
    assert torch.equal(values(again), values(first))  # the rate of step 0 is zero


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"steps": 0}, "steps is at least 1"),
        ({"batch_size": 0}, "batch_size is at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate is positive"),
        ({"warmup": 1.5}, "warmup is a share"),
        ({"clip": -1.0}, "clip is positive"),
        ({"clip": float("inf")}, "clip is positive"),
        ({"optimizer": "sgd"}, "adafactor or adamw"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(recipe, message):
    with pytest.raises(InputError, match=message):
        Recipe(**recipe)


# ---- the other tenants ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["t5-gated", "gpt2"])
def test_lora_starts_as_nothing_and_trains_in_the_same_loop(name):
    pytest.importorskip("peft")
    trunk_ = trunk(name)
    with torch.inference_mode():
        before = trunk_.network(**inputs(name)).logits
    frozen = {n: p.clone() for n, p in trunk_.network.named_parameters()}
    low_rank = add_lora(trunk_.network, site_map(trunk_.network), rank=2)
    with torch.inference_mode():
        assert torch.equal(trunk_.network(**inputs(name)).logits, before)
    expected = sum(
        2 * sum(trunk_.network.get_submodule(path).weight.shape)
        for paths in site_map(network(name)).layers.values()
        for path in paths
    )
    # a fused layer plays three roles and gets one module
    fused = 2 * 2 * 2 * (16 + 48) if name == "gpt2" else 0
    assert sum(p.numel() for p in low_rank.values()) == expected - fused
    recipe = Recipe(steps=5, batch_size=4, dropout=False)
    losses = tune(trunk_, ROWS, low_rank, recipe=recipe, objective=Objective())
    assert losses[-1] < losses[0]
    after = {n.replace("base_layer.", ""): p for n, p in trunk_.network.named_parameters()}
    assert all(torch.equal(after[n], p) for n, p in frozen.items())


def test_a_random_selector_and_the_sparse_delta_that_it_leaves(tmp_path):
    trunk_ = trunk(dropout=0.0)
    body = {n: p for n, p in trunk_.network.named_parameters() if "block" in n}
    masks = RandomSelector(seed=4).select(body, 50)
    assert sum(int(mask.sum()) for mask in masks.values()) == 50
    again = RandomSelector(seed=4).select(body, 50)
    assert all(torch.equal(masks[n], again[n]) for n in masks)
    before = {n: p.clone() for n, p in trunk_.network.state_dict().items()}
    for parameter in body.values():
        parameter.requires_grad_(True)
    keep = MaskedUpdate(body, masks)
    recipe = Recipe(steps=5, batch_size=4, optimizer="adamw", learning_rate=0.01)
    losses = tune(trunk_, ROWS, body, recipe=recipe, objective=Objective(), after_step=keep)
    assert losses[-1] < losses[0]
    delta = keep.delta()
    assert 0 < delta.count <= 50
    for n, where in delta.index.items():
        assert masks[n].flatten()[where].all()
    tuned = {n: p.clone() for n, p in trunk_.network.state_dict().items()}

    fresh = trunk(dropout=0.0).network
    delta.save(tmp_path / "delta.safetensors")
    revert = SparseDelta.load(tmp_path / "delta.safetensors").apply(fresh)
    assert all(torch.allclose(p, tuned[n], atol=1e-6) for n, p in fresh.state_dict().items())
    revert()
    assert all(torch.equal(p, before[n]) for n, p in fresh.state_dict().items())

    twice = delta + delta
    assert twice.count == delta.count
    twice.apply(fresh)
    for n, where in delta.index.items():
        moved = (fresh.state_dict()[n] - before[n]).flatten()[where]
        assert torch.allclose(moved, 2 * (delta.value[n] - delta.base[n]), atol=1e-5)
    with pytest.raises(InputError, match="is for another one"):
        delta.apply(network("bert"))
    with pytest.raises(InputError, match="the budget is 1 to"):
        RandomSelector().select(body, 10**9)


def test_deltas_add_up_where_they_meet_and_stand_side_by_side_elsewhere():
    base = {"w": torch.zeros(5), "u": torch.zeros(2)}
    one = SparseDelta.between(base, {"w": torch.tensor([0.0, 1, 0, 2, 0]), "u": base["u"]})
    two = SparseDelta.between(base, {"w": torch.tensor([0.0, 0, 5, 3, 0]), "u": torch.ones(2)})
    both = one + two
    assert both.index["w"].tolist() == [1, 2, 3]
    assert both.value["w"].tolist() == [1, 5, 5]
    assert both.value["u"].tolist() == [1, 1]
    assert one.index.keys() == {"w"}
    other = SparseDelta.between({"w": torch.ones(5)}, {"w": torch.full((5,), 2.0)})
    with pytest.raises(InputError, match="of two networks"):
        one + other


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        ([0, 2], [1.0, float("nan")], "not a finite number"),
        ([0, 2], [1.0, float("inf")], "not a finite number"),
        ([-1, 2], [1.0, 2.0], "ascending from 0"),
        ([2, 0], [1.0, 2.0], "ascending from 0"),
        ([2, 2], [1.0, 2.0], "ascending from 0"),
        ([2], [1.0, 2.0], "one int64 index for each value"),
        ([0.0, 2.0], [1.0, 2.0], "one int64 index for each value"),
    ],
)
def test_a_delta_that_makes_no_sense_is_refused_wherever_it_comes_from(
    index, value, message, tmp_path
):
    tensors = {"index.w": torch.tensor(index), "value.w": torch.tensor(value)}
    with pytest.raises(ArtifactError, match=message):
        SparseDelta({"w": tensors["index.w"]}, {"w": tensors["value.w"]})
    save_file(tensors, tmp_path / "delta.safetensors")
    with pytest.raises(ArtifactError, match=message):
        SparseDelta.load(tmp_path / "delta.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_delta_gives_the_changed_network_bit_for_bit(dtype, tmp_path):
    g = torch.Generator().manual_seed(0)
    before = torch.nn.Linear(64, 64).to(dtype)
    after = copy.deepcopy(before)
    with torch.no_grad():
        for p in after.parameters():
            p.mul_(1 + 0.3 * torch.randn(p.shape, generator=g).to(dtype))
    tables = [dict(m.named_parameters()) for m in (before, after)]
    SparseDelta.between(*tables).save(tmp_path / "d")
    start = {n: p.clone() for n, p in before.state_dict().items()}
    revert = SparseDelta.load(tmp_path / "d").apply(before)
    assert all(torch.equal(p, after.state_dict()[n]) for n, p in before.state_dict().items())
    revert()
    assert all(torch.equal(p, start[n]) for n, p in before.state_dict().items())


def test_the_best_scores_are_chosen_one_by_one_by_tensor_or_by_block():
    scores = {
        "b.0.w": torch.tensor([1.0, 5.0]),
        "b.0.v": torch.tensor([0.0]),
        "b.1.w": torch.tensor([2.0, 3.0]),
    }
    found = {n: m.tolist() for n, m in top_k(scores, 2).items()}
    assert found == {"b.0.w": [False, True], "b.1.w": [False, True]}
    assert list(top_k(scores, 2, level="tensor")) == ["b.0.w"]
    blocks = ("b.0", "b.1")
    assert list(top_k(scores, 4, level="block", blocks=blocks)) == ["b.1.w"]
    assert list(top_k(scores, 3, level="block", blocks=blocks)) == ["b.1.w"]
    same = {"w": torch.zeros(3), "v": torch.zeros(3)}
    assert {n: m.tolist() for n, m in top_k(same, 4).items()} == {
        "v": [True] * 3,
        "w": [True, False, False],
    }
    with pytest.raises(InputError, match="no block has as few as 1 scalars, the smallest has 2"):
        top_k(scores, 1, level="block", blocks=blocks)
    with pytest.raises(InputError, match="not a number"):
        top_k({"w": torch.tensor([float("nan")])}, 1)


def test_a_checkpoint_of_another_training_is_refused_whatever_differs(tmp_path):
    base, file = trunk(), tmp_path / "training.pt"
    recipe = Recipe(steps=2, batch_size=2)
    options = {"recipe": recipe, "checkpoint": file}
    t_few(base, ROWS, **options)
    other = Trunk(network("t5-gated"), base.tokenizer, identity={"name": "x"}, max_tokens=32)
    start = {name: v.detach() * 1.5 for name, v in IA3(base.sites).of().items()}
    for what, call in {
        "texts": lambda: t_few(base, ROWS[::-1], **options),
        "loss": lambda: t_few(base, ROWS, objective=Objective(unlikelihood=False), **options),
        "model": lambda: t_few(other, ROWS, **options),
        "recipe": lambda: t_few(base, ROWS, recipe=Recipe(steps=3), checkpoint=file),
        "seed": lambda: t_few(base, ROWS, seed=1, **options),
        "start": lambda: t_few(base, ROWS, start=start, **options),
        "method": lambda: make_method("ia3").fit(base, Data(ROWS), Run(recipe, checkpoint=file)),
    }.items():
        with pytest.raises(InputError, match=rf"another training \(.*{what}.* differ"):
            call()


def test_groups_train_at_rates_of_their_own():
    def trained(groups):
        base = trunk(dropout=0.0)
        vectors = IA3(base.sites)
        vectors.groups = lambda: groups
        recipe = Recipe(steps=3, batch_size=4, dropout=False, learning_rate=0.01)
        learn(base, vectors, ROWS, lambda t, rows, step: Objective()(t), Run(recipe), recipe)
        return vectors.of()

    names = tuple(trained(()))
    plain, alike = trained(()), trained([Group(names)])
    assert all(torch.equal(plain[n], alike[n]) for n in names)
    still = trained([Group(names[:2], factor=0.0)])
    assert all(bool((still[n] == 1).all()) == (n in names[:2]) for n in names)
    for wrong in ([Group(("odd",))], [Group(names[:1]), Group(names[:1])]):
        with pytest.raises(InputError, match="each parameter is in one group"):
            trained(wrong)


# ---- costs ------------------------------------------------------------------------------------


def test_the_costs_of_the_paper():
    eleven = {"n_parameters": 11e9, "tokens": 103}
    assert inference_flops(**eleven, encoder_decoder=True) == pytest.approx(1.1e12, rel=0.04)
    trained = training_flops(**eleven, steps=1000, batch_size=8, encoder_decoder=True)
    assert trained == pytest.approx(2.7e16, rel=0.02)
    context = {"tokens": 103, "shots": 41, "shot_tokens": 98}
    for n, flops in ((175e9, 1.4e15), (13e9, 1.07e14), (6.7e9, 5.5e13)):
        found = in_context_flops(n, **context, encoder_decoder=False)
        assert found == pytest.approx(flops, rel=0.05)
    found = in_context_flops(11e9, **context, encoder_decoder=True)
    assert found == pytest.approx(4.5e13, rel=0.02)
    assert vector_bytes(1_081_344) == 4_325_376
    assert in_context_bytes(41, 98) == pytest.approx(16e3, rel=0.01)
