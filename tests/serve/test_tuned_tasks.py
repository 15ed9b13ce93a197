"""Tuned tasks on one base model: one network, one queue, (IA)^3 in mixed batches."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import torch

import fewfit
from fewfit.serve.batching import Queue
from fewfit.serve.tasks import Tasks
from fewfit.tuning import Recipe, Trunk, make_method
from fewfit.tuning.artifact import TaskEntry, save_adapter
from tests.tuning.test_loading import build

WORDS = [("great", "bad"), ("yes", "no"), ("sport", "science")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tuned")
    base = build("t5", root / "base")
    trunk = Trunk.load(f"hf:{base}")
    for i, (name, words) in enumerate(zip(("t-few", "ia3", "lora"), WORDS, strict=True)):
        method = make_method(name)
        adapter = method.build(trunk, 0)
        generator = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for part in adapter.parameters():
                part.add_(torch.randn(part.shape, generator=generator), alpha=0.5)
        save_adapter(
            root / "tasks" / f"task{i}",
            adapter,
            method=method,
            base_spec=trunk.spec,
            base_identity=trunk.identity,
            recipe=Recipe(),
            n_examples=0,
            seed=0,
            task=TaskEntry(
                templates=["{text} it was {mask}"], labels=[(word, [word]) for word in words]
            ),
        )
    return root / "tasks"


def test_tasks_on_one_base_share_its_network_and_mix_where_they_can(folder, monkeypatch):
    texts = ["the film was great", "a dull movie"]
    alone = {
        path.name: fewfit.load(path, store=None).predict_proba(texts)  # pyright: ignore
        for path in folder.iterdir()
    }
    tasks = Tasks([folder])
    assert (len(tasks.names()), tasks.n_models()) == (3, 1)
    loads, passes = [], []
    load, read = Trunk.load, Trunk.read
    monkeypatch.setattr(Trunk, "load", lambda *a, **k: loads.append(a) or load(*a, **k))

    def counted(self, batch):
        passes.append(batch.tasks.tolist())
        return read(self, batch)

    monkeypatch.setattr(Trunk, "read", counted)

    async def ask():
        queue = Queue(tasks)
        try:
            return await queue.answer(tasks.all(), texts), len(queue.engines)
        finally:
            await queue.close()

    found, engines = asyncio.run(ask())
    assert (len(loads), engines) == (1, 1)
    assert sorted(map(sorted, passes)) == [[0, 0], [0, 0, 1, 1]], "LoRA apart, (IA)^3 together"
    for name, p in alone.items():
        np.testing.assert_allclose(found[name].probabilities, p, atol=1e-4)
    kept = tasks.reload()
    assert len(kept.kept) == 3
