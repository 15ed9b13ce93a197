"""Costs of a step, against closed forms."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from fewfit.errors import InputError
from fewfit.tuning import IA3, site_map
from fewfit.tuning.measure import Flops, flops_of, saved_bytes, seconds
from tests.tuning_models import inputs, network

ROWS, IN, OUT = 8, 16, 24


def layer() -> nn.Linear:
    return nn.Linear(IN, OUT)


def test_flops_of_a_linear_layer():
    x, one = torch.randn(ROWS, IN), layer()
    product = 2 * ROWS * IN * OUT
    assert flops_of(lambda: one(x).sum()) == Flops(product, product)  # the weight's gradient
    assert one.weight.grad is not None
    x.requires_grad_()
    assert flops_of(lambda: one(x).sum()) == Flops(product, 2 * product)  # and the input's
    one.requires_grad_(False)
    assert flops_of(lambda: one(x).sum()) == Flops(product, product)
    assert flops_of(lambda: one(x.detach()).sum()) == Flops(product, 0)


def test_flops_of_attention_are_counted():
    q = torch.randn(1, 2, 6, 4, requires_grad=True)
    attention = nn.functional.scaled_dot_product_attention
    products = 2 * 2 * (2 * 6 * 6 * 4)  # scores and sums of 2 heads
    counted = flops_of(lambda: attention(q, q, q).sum())
    assert counted == Flops(products, products * 5 // 2)  # the scores are computed once more


def test_what_is_kept_is_let_go_again():
    x, made = torch.randn(ROWS, requires_grad=True), []

    def step():
        y = x.exp()  # keeps its own output
        made.append(weakref.ref(y))
        return y.sum()

    assert saved_bytes(step) == 4 * ROWS
    gc.collect()
    assert made[0]() is None


def test_bytes_kept_for_a_linear_layer():
    x, one, two = torch.randn(ROWS, IN), layer(), nn.Linear(OUT, 1)
    assert saved_bytes(lambda: one(x).sum(), one) == 4 * ROWS * IN  # the input, not the weight
    assert saved_bytes(lambda: one(x).sum()) == 4 * ROWS * IN  # which is kept for inputs alone
    both = nn.Sequential(one, two)
    assert saved_bytes(lambda: both(x).sum(), both) == 4 * ROWS * (IN + OUT)
    one.requires_grad_(False)
    assert saved_bytes(lambda: both(x).sum(), both) == 4 * ROWS * OUT
    two.requires_grad_(False)
    assert saved_bytes(lambda: both(x).sum(), both) == 0


def test_what_is_kept_twice_or_seen_through_a_view_is_counted_once():
    x, one, other = torch.randn(ROWS, IN), layer(), layer()
    step = lambda: (one(x) + other(x) + one(x.view(2, -1, IN)).reshape(ROWS, OUT)).sum()  # noqa: E731
    assert saved_bytes(step, one, other) == 4 * ROWS * IN


def test_weights_that_a_gradient_goes_through_are_left_out_with_their_module():
    x, one = torch.randn(ROWS, IN, requires_grad=True), layer().requires_grad_(False)
    assert saved_bytes(lambda: one(x).sum(), one) == 0
    assert saved_bytes(lambda: one(x).sum()) == 4 * IN * OUT


def test_frozen_layers_keep_less_and_the_count_is_the_same_every_time():
    model = network("bert").requires_grad_(False)
    vectors = IA3(site_map(model)).attach(model)
    step = lambda: model(**inputs("bert"))[0].sum()  # noqa: E731
    tuned = saved_bytes(step, model, vectors)
    assert tuned == saved_bytes(step, model, vectors)
    few = flops_of(step)
    model.requires_grad_(True)
    assert tuned < saved_bytes(step, model, vectors)
    whole = flops_of(step)
    assert few.forward == whole.forward
    assert few.backward < whole.backward


def test_steps_are_timed_in_turns():
    order: list[str] = []
    work = torch.randn(300, 300)

    def long() -> None:
        order.append("long")
        for _ in range(20):
            torch.mm(work, work)

    def short() -> None:
        order.append("short")

    taken = seconds({"long": long, "short": short}, repeat=3)
    assert order == ["long", "short"] * 4
    assert taken["long"] > taken["short"] >= 0
    with pytest.raises(InputError, match="repeat: at least 1, not 0"):
        seconds({"short": short}, repeat=0)
