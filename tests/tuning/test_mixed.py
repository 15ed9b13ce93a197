"""Tuned models on one base model: one network under all of them, and mixed batches of (IA)^3."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import numpy as np
import torch

import fewfit
from fewfit.tuning import Recipe, Trunk, TunedModel, make_method
from fewfit.tuning.artifact import TaskEntry, save_adapter
from tests.models.local.test_sentences import save
from tests.tuning.test_loading import build
from tests.tuning_models import TEMPLATE

TEXTS = ["the film was great", "a dull movie", "so really very bad", "fun", "in new york ?"]
WORDS = (("great", "bad"), ("yes", "no", "maybe"), ("new york", "bad"))
METHODS = ("ia3", "ia3", "t-few", "lora")


@pytest.fixture(scope="module", params=["t5", "gpt2", "bert"])
def folders(request, tmp_path_factory):
    """Four tasks on one network, the last of which is no (IA)^3."""
    root = tmp_path_factory.mktemp("tuned")
    base = build(request.param, root / "base")
    trunk = Trunk.load(f"hf:{base}")
    made = []
    for i, name in enumerate(METHODS):
        method = make_method(name)
        adapter = method.build(trunk, 0)
        generator = torch.Generator().manual_seed(i)
        with torch.no_grad():
            for part in adapter.parameters():
                part.add_(torch.randn(part.shape, generator=generator), alpha=0.5)
        made.append(root / "tasks" / f"task{i}")
        save_adapter(
            made[-1],
            adapter,
            method=method,
            base_spec=trunk.spec,
            base_identity=trunk.identity,
            recipe=Recipe(),
            n_examples=0,
            seed=0,
            task=TaskEntry(
                templates=["{text} it was {mask}"],
                labels=[(word, [word]) for word in [*WORDS, WORDS[0]][i]],
            ),
        )
    return made


def opened(folders):
    networks = {}
    models = [TunedModel(folder) for folder in folders]
    for model in models:
        model.share(networks)
    assert len(networks) == 1
    return models


def prompts(some=TEXTS):
    return [TEMPLATE.render({"text": text}) for text in some]


def test_models_that_share_a_network_say_what_each_says_alone(folders):
    models = opened(folders)
    for words, folder, model in zip([*WORDS, WORDS[0]], folders, models, strict=True):
        alone, shared = (one.observe(prompts(), words) for one in (TunedModel(folder), model))
        np.testing.assert_allclose(shared.scores, alone.scores, atol=3e-4)
        np.testing.assert_allclose(shared.hidden, alone.hidden, atol=3e-4)
    assert len({id(model._trunk.network) for model in models}) == 1


def test_rows_of_several_tasks_in_one_batch_are_those_of_each_task(folders, monkeypatch):
    models = opened(folders)
    assert models[0].mixture == models[1].mixture == models[2].mixture is not None
    assert models[3].mixture is None, "LoRA does not act row by row"
    assert TunedModel(folders[0]).mixture is None, "what is alone has nothing to mix with"
    groups = [
        (model, prompts(TEXTS[: 3 + i]), words)
        for i, (model, words) in enumerate(zip(models, WORDS, strict=False))
    ]
    alone = [model.observe(asked, words) for model, asked, words in groups]
    reads, read = [], Trunk.read

    def counted(self, batch):
        reads.append(len(set(batch.tasks.tolist())))
        return read(self, batch)

    monkeypatch.setattr(Trunk, "read", counted)
    mixed = models[0].mixed(groups)
    assert reads == [3], "all rows go in one pass"
    for one, other in zip(mixed, alone, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=3e-4)
        np.testing.assert_allclose(one.hidden, other.hidden, atol=3e-4)
        assert one.columns == other.columns


def test_threads_that_ask_two_tasks_on_one_network_do_not_mix_them_up(folders):
    models = opened(folders)
    expected = [model.observe(prompts(), WORDS[0]).scores for model in models]
    wrong = []

    def ask(i):
        for _ in range(5):
            found = models[i].observe(prompts(), WORDS[0]).scores
            if not np.array_equal(found, expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_server_asks_tuned_tasks_on_one_network_and_in_one_queue(folders, monkeypatch):
    pytest.importorskip("fastapi")
    from fewfit.serve.batching import Queue
    from fewfit.serve.tasks import Tasks

    alone = {path.name: fewfit.load(path, store=None).predict_proba(TEXTS) for path in folders}
    tasks = Tasks([folders[0].parent])
    assert (len(tasks.names()), tasks.n_models()) == (len(METHODS), 1)
    loads, passes = [], []
    load, read = Trunk.load, Trunk.read
    monkeypatch.setattr(Trunk, "load", lambda *a, **k: loads.append(a) or load(*a, **k))

    def counted(self, batch):
        passes.append(sorted(set(batch.tasks.tolist())))
        return read(self, batch)

    monkeypatch.setattr(Trunk, "read", counted)

    async def ask():
        queue = Queue(tasks)
        try:
            return await queue.answer(tasks.all(), TEXTS), len(queue.engines)
        finally:
            await queue.close()

    found, engines = asyncio.run(ask())
    assert (len(loads), engines) == (1, 1)
    assert sorted(passes) == [[0], [0, 1, 2]], "LoRA apart, (IA)^3 together"
    for name, p in alone.items():
        np.testing.assert_allclose(found[name].probabilities, p, atol=3e-4)
    assert len(tasks.reload().kept) == len(METHODS)


def test_tasks_on_one_sentence_encoder_have_no_batch_in_common(tmp_path):
    spec, networks, models = f"encoder:{save(tmp_path / 'base')}", {}, []
    trunk, method = Trunk.load(spec), make_method("contrastive")
    for number in range(2):
        folder, known = tmp_path / str(number), {"base_identity": trunk.identity, "n_examples": 0}
        vectors = method.build(trunk, number)
        save_adapter(folder, vectors, method=method, base_spec=spec, recipe=Recipe(), **known)
        models.append(TunedModel(folder))
        models[-1].share(networks)
    assert len(networks) == 1
    assert [model.mixture for model in models] == [None, None]  # asked apart, on one network
    one, other = (model.observe(prompts(), WORDS[0]) for model in models)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
