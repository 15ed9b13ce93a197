"""What is trained when, at which rate, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import torch
from torch import nn

from fewfit import ZeroShot
from fewfit.compare import TuningRow, compare
from fewfit.errors import InputError, TruncationWarning
from fewfit.models import FakeModel
from fewfit.tuning import (
    Data,
    Meter,
    Recipe,
    Run,
    Together,
    TuningMethod,
    fit_at_best_rate,
    make_method,
    train,
)
from fewfit.tuning.measure import flops_of, saved_bytes
from fewfit.tuning.rates import held_out
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.training import Watch
from tests.tuning_models import example, trunk

ROWS = [[example(text, k % 2)] for k, text in enumerate(("so fun", "so dull", "a film", "bad"))]
PLAIN: dict[str, Any] = {
    "warmup": 0.0,
    "dropout": False,
    "optimizer": "adamw",
    "batch_size": 4,
    "clip": 100.0,
}


class Two(nn.Module):
    """Two numbers, each drawn to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def loss(self, rows, step) -> torch.Tensor:
        return ((self.a - 1) ** 2 + (self.b - 1) ** 2).sum()


def trained(plan=None, steps=6, **options: Any) -> tuple[float, float, list[float]]:
    model = Two()
    recipe = Recipe(steps=steps, learning_rate=0.1, **PLAIN)
    named = dict(model.named_parameters())
    losses = train(model, named, model.loss, 4, recipe, replan=plan, **options)
    return model.a.item(), model.b.item(), losses


def stop_at(step: int) -> Callable[[int], None]:
    made: list[int] = []

    def stop(n: int) -> None:
        made.append(n)
        if sum(made) == step:
            raise KeyboardInterrupt

    return stop


def test_what_leaves_stands_still_and_what_stays_keeps_the_optimisers_state():
    a, b, _ = trained()
    assert a == b
    asked = []

    def only_a_from_three(step: int, active: Collection[str]) -> Collection[str] | None:
        asked.append((step, tuple(active)))
        return ("a",) if step == 3 else None

    kept, left, _ = trained(only_a_from_three)
    assert kept == a  # momentum and all, though the optimiser was made anew
    early, _, _ = trained(until=3)
    assert left == early
    assert asked == [(s, ("a", "b") if s <= 3 else ("a",)) for s in range(6)]


def test_a_plan_survives_an_interruption(tmp_path):
    def b_late(step: int, active: Collection[str]) -> Collection[str] | None:
        return {0: ("a",), 4: ("a", "b")}.get(step)

    whole = trained(b_late)

    stop = stop_at(3)
    file = {"checkpoint": tmp_path / "run", "every": 1}
    with pytest.raises(KeyboardInterrupt):
        trained(b_late, progress=stop, **file)
    assert trained(b_late, **file) == whole


@pytest.mark.parametrize(("plan", "message"), [((), "nothing would be"), (("c",), "'c' is no")])
def test_a_plan_for_nothing_or_for_what_is_not_there_is_refused(plan, message):
    with pytest.raises(InputError, match=message):
        trained(lambda step, active: plan)


def test_a_training_ends_when_what_is_held_out_gets_worse_and_takes_the_best(tmp_path):
    model, recipe = Two(), Recipe(steps=40, learning_rate=0.1, **PLAIN)
    seen: list[float] = []

    def run(**options) -> list[float]:
        def away() -> float:  # lowest at 0.35, which training passes
            return float((model.a.detach() - 0.35).abs())

        watch = Watch(away, every=1, patience=3, looks=seen)
        named = dict(model.named_parameters())
        return train(model, named, model.loss, 4, recipe, watch=watch, **options)

    losses = run()
    best = int(np.argmin(seen))
    assert len(losses) == len(seen) == best + 1 + 3 < 40
    ended, at, _ = (model.a.item(), *trained(steps=40, until=best + 1)[:2])
    assert ended == pytest.approx(at)

    # a finished one is finished when it is taken up, and an interrupted one goes on
    stop = stop_at(best + 2)
    model, file = Two(), {"checkpoint": tmp_path / "run", "every": 1}
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop, **file)
    for _ in range(2):
        model = Two()
        assert run(**file) == losses
        assert model.a.item() == ended


def test_blocks_thaw_from_the_last_one_down_each_slower_than_the_one_above():
    base = trunk("gpt2", dropout=0.0)
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    method = make_method("gradual-unfreezing", {"every": 2, "decay": 0.25})
    recipe = Recipe(steps=3, learning_rate=1e-3, **PLAIN)
    for until, moved in ((1, ["transformer.h.1"]), (3, ["transformer.h.0", "transformer.h.1"])):
        adapter = method.fit(base, Data(ROWS), Run(recipe, until=until))
        far = {n: float((p.detach() - before[n].flatten()).abs().max()) for n, p in
               adapter.parts(base.network).items()}  # fmt: skip
        assert {".".join(n.split(".")[:3]) for n, d in far.items() if d > 0} == set(moved)
        # the first step of AdamW is the rate, whatever the gradient
        last = max(d for n, d in far.items() if n.startswith("transformer.h.1"))
        if until == 1:
            assert last == pytest.approx(1e-3, rel=1e-3)
        else:
            first = max(d for n, d in far.items() if n.startswith("transformer.h.0"))
            assert first == pytest.approx(0.25 * 1e-3 / 3, rel=1e-2)  # at a third of the rate
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    assert not any(p.requires_grad for p in base.network.parameters())


def test_blocks_that_wait_get_no_gradient():
    base = trunk("bert", dropout=0.0)
    build = lambda every: make_method("gradual-unfreezing", {"every": every}).build(base, 0)  # noqa: E731
    batch = base.pack([row[0] for row in encode_rows(base, ROWS)])
    kept = []
    for adapter in (build(100), build(1)):
        with adapter.on(base.network):
            adapter.only(adapter.replan(5, ()) or ())
            loss = lambda: base.read(batch)[0].log_probs.mean()  # noqa: E731
            kept.append((flops_of(loss).backward, saved_bytes(loss, base.network)))
    assert kept[0][0] < kept[1][0]
    assert kept[0][1] < kept[1][1]


def test_adapters_together_plan_each_for_itself():
    base = trunk("gpt2", dropout=0.0)
    layers = make_method("gradual-unfreezing", {"every": 2}).build(base, 0)
    vectors = make_method("ia3").build(base, 0)
    both = Together(vectors, layers)
    parts = both.parts(base.network)
    planned = both.replan(0, list(parts)) or ()
    own = [name for name in parts if name.startswith("adapters.0.")]
    assert set(own) < set(planned) < set(parts)
    assert all(".h.1." in name for name in set(planned) - set(own))
    with both.on(base.network):
        both.only([])
        assert not any(p.requires_grad for p in base.network.parameters())
        assert not any(p.requires_grad for p in vectors.parameters())


# ---- a rate by trial ------------------------------------------------------------------------


def test_a_quarter_of_each_class_is_held_out_and_nothing_of_a_single_row():
    y = [0] * 8 + [1] * 2 + [2]
    chosen = held_out(y, 3)
    assert [y[i] for i in chosen] == [0, 0, 1]
    assert chosen == held_out(y, 3)
    assert held_out([0, 1, 2], 0) == []


LEARNT = [
    [example(text, k, ("yes", "no"))]
    for k, text in enumerate(("so fun", "so dull"))
    for _ in "123456"
]


def test_the_rate_with_the_lowest_loss_is_taken_and_all_trials_are_counted():
    base = trunk("t5-gated", dropout=0.0)
    recipe = Recipe(steps=12, learning_rate=0.05, **PLAIN)
    method, meter = make_method("series-adapter", {"r": 4}), Meter()
    factors = (1e-6, 1.0)  # stands still, learns
    found = fit_at_best_rate(method, base, Data(LEARNT), Run(recipe, meter=meter), factors=factors)
    assert [one.rate for one in found.tries] == pytest.approx([0.05 * f for f in factors])
    assert found.best is found.tries[1]
    assert found.best.loss == min(one.loss for one in found.tries)
    assert found.n_held_out == 4
    assert found.best.accuracy == 1
    assert len(meter.steps) == 3
    assert found.best.steps <= meter.steps[-1] == 12
    # the adapter is that of a training on all rows, at this rate
    final = Run(replace(recipe, learning_rate=found.best.rate))
    for name, tensor in method.fit(base, Data(LEARNT), final).tensors().items():
        assert torch.equal(found.adapter.tensors()[name], tensor)


def test_rates_of_a_method_of_several_trainings_are_tried_with_all_their_steps():
    base, meter = trunk("gpt2", dropout=0.0), Meter()
    method = make_method("lt-sft", {"budget": 50})
    assert type(method).fit is not TuningMethod.fit
    run = Run(Recipe(steps=3, learning_rate=0.01, **PLAIN), meter=meter)
    found = fit_at_best_rate(method, base, Data(LEARNT[::3]), run, factors=(1.0, 2.0))
    assert meter.steps == [3] * 6
    assert found.best.steps == 3


def test_steps_are_those_that_were_made_and_not_all_that_a_recipe_allows():
    base, meter = trunk("gpt2", dropout=0.0), Meter()
    recipe = replace(make_method("locft").recipe, epochs=2, batch_size=4)
    assert recipe.steps == 10**6
    assert recipe.longest(len(LEARNT)) == 2 * -(-len(LEARNT) // 4), "what its bar counts to"
    assert Recipe(steps=7).longest(len(LEARNT)) == 7
    run = Run(recipe, meter=meter)
    found = fit_at_best_rate(make_method("locft"), base, Data(LEARNT), run, factors=(1.0,))
    assert [found.best.steps, found.steps] == meter.steps == [2 * 2, 2 * 3]


def test_no_rate_is_chosen_where_a_decoder_reads_what_is_learnt():
    method = make_method("contrastive")
    with pytest.raises(InputError, match="Contrastive learns is read by a decoder"):
        fit_at_best_rate(method, trunk("bert"), Data(LEARNT), Run(Recipe(steps=1)))
    with pytest.raises(InputError, match="Contrastive learns is read by a decoder"):
        TuningRow("contrastive", {"rate": "auto"})


def test_a_comparison_refuses_a_choice_of_rates_before_its_first_cell():
    texts, y = ["good", "fine", "bad", "sad"], ["pos", "pos", "neg", "neg"]
    rows = {"zero-shot": ZeroShot(), "lora": TuningRow("lora", {"rate": "auto"})}
    model, labels = FakeModel(), {"pos": "great", "neg": "bad"}
    options = {"labels": labels, "models": [model], "store": None, "seeds": 1}
    with pytest.raises(InputError, match="lora needs 2 examples of each class"):
        compare(texts, y, ["x"], ["pos"], methods=rows, shots=[2, 1], **options)
    assert model.queries == 0


def test_no_rate_is_chosen_where_nothing_can_be_held_out():
    base = trunk("gpt2")
    rows = [LEARNT[0], LEARNT[-1]]
    with pytest.raises(InputError, match="no class has two"):
        fit_at_best_rate(make_method("ia3"), base, Data(rows), Run(Recipe(steps=1)))


# ---- what it took -----------------------------------------------------------------------------


def test_a_training_costs_its_steps():
    base, meter = trunk("t5-gated", dropout=0.0), Meter()
    method = make_method("ia3")
    recipe = Recipe(steps=7, **{**PLAIN, "batch_size": 2})
    adapter = method.fit(base, Data(ROWS), Run(recipe, meter=meter))
    rows = recipe.rows(0, 4, 0)
    encoded = [encode_rows(base, ROWS)[i][0] for i in rows]
    loss = method.loss(base, ROWS)

    def step() -> torch.Tensor:
        return loss(base.read(base.pack(encoded))[0], rows, 0)

    with adapter.on(base.network):
        assert meter.flops == 7 * sum(flops_of(step))
        assert meter.saved_bytes == saved_bytes(step, base.network, adapter)
    assert meter.steps == [7]
    assert meter.seconds > 0
    assert all(
        p.grad is None
        for p in method.fit(base, Data(ROWS), Run(recipe, meter=Meter())).parameters()
    )


def test_what_an_optimiser_keeps_is_of_what_is_trained():
    base, kept = trunk("gpt2", dropout=0.0), {}
    adamw = Recipe(steps=4, **{**PLAIN, "optimizer": "adamw"})
    options = {"random-mask": {"budget": 50}, "greentrainer": {"interval": 2, "rho": 0.4}}
    for name in ("ia3", "random-mask", "full", "greentrainer"):
        meter = Meter()
        method = make_method(name, options.get(name, {}))
        adapter = method.fit(base, Data(ROWS), Run(adamw, meter=meter))
        kept[name] = meter.optimizer_bytes
        if name in ("ia3", "random-mask"):
            tensors = len(list(adapter.parts(base.network).values()))
            assert kept[name] == 2 * 4 * adapter.count + 4 * tensors, name  # moments, and a step
    assert kept["full"] > 100 * kept["random-mask"]
    assert kept["greentrainer"] < kept["full"]


def test_how_many_texts_are_cut_is_said():
    base = trunk("gpt2")
    long = [[example("so " * 100, 0)], *ROWS]
    with pytest.warns(TruncationWarning, match="1 of 5 texts are longer than the 32 tokens"):
        make_method("ia3").fit(base, Data(long), Run(Recipe(steps=1)))


@pytest.mark.parametrize(
    ("name", "options", "early"),
    [("ia3", {}, True), ("random-mask", {"budget": 50}, True), ("fish", {"budget": 50}, False)],
)
def test_a_trial_of_a_plain_training_ends_where_the_held_out_loss_was_lowest(name, options, early):
    base, method = trunk("bert", dropout=0.0), make_method(name, options)
    recipe = replace(method.usual(), steps=20, batch_size=2, learning_rate=1.0)  # it gets worse
    meter = Meter()
    run = Run(recipe, meter=meter)
    found = fit_at_best_rate(method, base, Data(LEARNT[::3]), run, factors=(1.0,))
    assert (found.best.steps < recipe.steps) == early
    assert meter.steps[-1] == recipe.steps, "the last training makes all of them"
