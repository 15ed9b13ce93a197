"""Batches that hold their budget and survive running out of memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewfit.errors import (
    ModelError,
)
from fewfit.models import TransformersModel
from fewfit.models.local import Budget, in_batches
from tests.hf_checkpoints import KINDS, build
from tests.models.local.test_model import WORDS, prompts


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in KINDS}


def test_running_out_of_memory_halves_the_batch_and_goes_on(checkpoints, monkeypatch):
    model = TransformersModel(checkpoints["bert"])
    texts = [f"great {'fun ' * (i % 7)}{i}" for i in range(40)]
    expected = model.observe(prompts(texts), WORDS)
    run, sizes = model._network.run, []

    def small(batch, steps, columns, vectors):
        size = len(batch) * max(len(item.ids) for item in batch)
        sizes.append(size)
        if size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(batch, steps, columns, vectors)

    monkeypatch.setattr(model._network, "run", small)
    found = model.observe(prompts(texts), WORDS)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert found.queries == len(texts)
    longest = max(len(item.ids) for item in model._encoder.encode(prompts(texts), 64))
    failed = [size for size in sizes if size > 100]
    # learned once, not paid for with every batch
    assert failed == [longest * n for n in (40, 20, 10, 5) if longest * n > 100]
    monkeypatch.setattr(model._network, "run", lambda *a: small(list(a[0]) * 20, *a[1:]))
    with pytest.raises(ModelError, match=r"a single prompt of .* does not fit into memory"):
        model.observe(prompts(texts), WORDS)


def test_other_errors_are_not_taken_for_missing_memory():
    def broken(rows):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(in_batches(np.array([3, 2]), broken, Budget()))


def test_batches_hold_the_budget_and_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 90, size=300)
    budget = Budget(tokens=256, rows=16)
    seen = []
    for rows, size in in_batches(lengths, lambda rows: len(rows) * lengths[rows].max(), budget):
        assert len(rows) <= 16
        assert size <= 256
        seen += rows.tolist()
    assert sorted(seen) == list(range(300))
