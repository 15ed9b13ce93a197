"""PANDA: a prompt taught by one that came from another task."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from fewfit.tuning import Recipe, TokenLogProbs, make_method
from fewfit.tuning.prompts.panda import likeness, scores
from tests.tuning_models import example, trunk

ROWS = [[example(text, k)] for k, text in enumerate(("the movie was fun", "not good", "so dull"))]
SHORT = Recipe(steps=3, batch_size=2, dropout=False, learning_rate=0.3)
M = {"m": 2}


def base(name: str = "bert"):
    return trunk(name, dropout=0.0).reads("words")


def test_the_distance_to_the_teacher_is_the_mean_square_over_the_batch():
    method, zero = make_method("panda", {**M, "weight": 3.0}), torch.zeros(())
    beta = torch.tensor([-1.0, -2.0, -0.5, -3.0, -1.5, -1.0], requires_grad=True)
    which, example_of = torch.arange(6), torch.tensor([0, 0, 0, 1, 1, 1])
    right = torch.tensor([True, False, False, False, True, False])
    tokens = TokenLogProbs(beta, which, example_of, right, False)
    teacher = [[torch.tensor([-1.0, -2.0, -0.5])], [torch.tensor([-3.0, -2.5, -1.0])]]
    loss = method._taught(lambda *_: zero, teacher, 3.0 / 2, 0)
    assert loss(tokens, [0, 1], 0).item() == pytest.approx(3.0 * (1.0 / 6) / 2)
    same = [[beta.detach()[:3]], [beta.detach()[3:]]]
    alike = method._taught(lambda *_: zero, same, 3.0, 0)(tokens, [0, 1], 0)
    alike.backward()
    assert (alike.item(), beta.grad.abs().max().item()) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["bert", "t5-gated"])
def test_a_prompt_is_like_itself_and_the_order_of_the_texts_does_not_matter(name):
    trunk_ = base(name)
    one, other = (make_method("prompt-tuning", M).build(trunk_, seed) for seed in (0, 1))
    rows = [trunk_.encoder.encode(row[0]) for row in ROWS]
    assert likeness(trunk_, one, one, rows) == pytest.approx(1.0, abs=1e-6)
    apart = likeness(trunk_, one, other, rows)
    assert -1 <= apart < 0.9999
    assert likeness(trunk_, one, other, rows[::-1]) == pytest.approx(apart, abs=1e-5)
    assert likeness(trunk_, other, one, rows) == pytest.approx(apart, abs=1e-5)
    assert scores(trunk_, one, rows[0]).shape == (3,)
