"""ProMoT: a prompt first, then weights with the prompt in place."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from fewfit.errors import InputError
from fewfit.tuning import Data, Recipe, Run, learn, make_method
from fewfit.tuning.prompts.prompt_tuning import PromptTuning
from tests.tuning_models import EXAMPLES, example, trunk

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.02, optimizer="adamw")
FULL = {"m": 2, "adapter": "full"}


def said(base, adapter=None) -> torch.Tensor:
    batch = base.pack([base.encoder.encode(item) for item in EXAMPLES])
    with torch.no_grad():
        if adapter is None:
            return base.read(batch)[0].log_probs
        with adapter.on(base.network):
            return base.read(adapter.rewrite(batch, base))[0].log_probs


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_the_first_stage_leaves_the_weights_and_the_second_the_prompt(name):
    base = trunk(name, dropout=0.0).reads("words")
    before = {n: p.detach().clone() for n, p in base.network.named_parameters()}
    seen = []

    def look(n: int) -> None:
        seen.append({k: p.detach().clone() for k, p in base.network.named_parameters()})

    run = Run(SHORT, progress=look)
    both = make_method("promot", FULL).fit(base, Data(ROWS), run)
    prompt, weights = both.members
    assert len(seen) == 6
    for step in seen[:3]:
        assert all(torch.equal(step[n], before[n]) for n in before)
    assert any(not torch.equal(seen[-1][n], before[n]) for n in before)
    # The prompt is that of the first stage alone, bit for bit.
    usual = PromptTuning.recipe
    first = Recipe(3, 2, usual.learning_rate, optimizer=usual.optimizer, dropout=False)
    alone = PromptTuning(m=2).build(base, 0)
    loss = make_method("promot", FULL).inner.loss(base, ROWS)
    learn(base, alone, ROWS, loss, Run(first), first)
    assert torch.equal(alone.P, prompt.P)
    assert all(torch.equal(p, before[n]) for n, p in base.network.named_parameters())
    assert not torch.equal(weights.value[next(iter(weights.value))], before[next(iter(before))])


def test_without_the_prompt_and_with_the_weights_as_they_were_it_is_the_base():
    base = trunk("bert", dropout=0.0).reads("words")
    plain = said(base)
    fresh = make_method("promot", FULL).build(base, 0)
    assert not torch.equal(said(base, fresh), plain)
    fresh.enabled = False
    assert torch.equal(said(base, fresh), plain)
    tuned = make_method("promot", FULL).fit(base, Data(ROWS), Run(SHORT))
    tuned.enabled = False
    off = said(base, tuned)
    with tuned.members[1].on(base.network):
        assert torch.equal(off, said(base))
    assert not torch.equal(off, plain)


def test_without_a_prompt_it_is_the_other_method_bit_for_bit():
    base = trunk("bert", dropout=0.0).reads("words")
    inner = make_method("lora", {"rank": 2})
    method = make_method("promot", {"m": 0, "adapter_options": {"rank": 2}})
    assert method.trainings(1) == 1
    assert method.usual() == inner.usual()
    a = inner.fit(base, Data(ROWS), Run(SHORT)).tensors()
    b = method.fit(base, Data(ROWS), Run(SHORT)).tensors()
    assert a
    assert all(torch.equal(b[f"adapters.1.{name}"], tensor) for name, tensor in a.items())


def test_another_method_of_several_trainings_is_refused():
    with pytest.raises(InputError, match="lt-sft has trainings of its own"):
        make_method("promot", {"adapter": "lt-sft"})
    base = trunk("roberta")
    base.positions = 64
    with pytest.raises(InputError, match="leave no position"):
        make_method("promot", {"m": 64}).build(base, 0)


@pytest.mark.parametrize("name", ["bert", "llama", "t5-gated"])
def test_two_that_stand_in_front_of_the_text_are_refused_before_any_training(name):
    base, steps = trunk(name), []
    run = Run(SHORT, progress=steps.append)
    for adapter in ("prompt-tuning", "dept"):
        method = make_method("promot", {"m": 2, "adapter": adapter})
        with pytest.raises(InputError, match=f"{adapter} puts vectors in front of the text"):
            method.fit(base, Data(ROWS), run)
    assert not steps
    alone = make_method("promot", {"m": 0, "adapter": "prompt-tuning"})
    assert alone.fit(base, Data(ROWS), run).count
