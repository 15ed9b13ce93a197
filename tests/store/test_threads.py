"""One store, any number of threads: nothing lost, nothing paid twice, no lock while asking."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fewfit.errors import ModelError
from fewfit.models import FakeModel
from fewfit.store import StoredModel, statistics
from tests.conftest import prompts

WORDS = ("bad", "great")


def asked(log) -> list[str]:
    return log.read_text().splitlines()


@pytest.mark.parametrize("one_object", [True, False])
def test_sixteen_threads_pay_once_for_each_prompt(tmp_path, one_object):
    store, log = tmp_path / "store.sqlite", tmp_path / "log"
    model = FakeModel(log=log, seconds=0.002, batch_size=5)
    shared = StoredModel(model, store)
    rng = np.random.default_rng(0)
    parts = [rng.permutation(120)[:60] for _ in range(16)]

    def ask(part):
        stored = shared if one_object else StoredModel(model, store)
        return stored.observe(prompts(*(f"text {i}" for i in part)), WORDS)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, parts))
    wanted = {int(i) for part in parts for i in part}
    assert len(asked(log)) == len(set(asked(log))) == len(wanted)
    assert statistics(store)["rows"] == len(wanted)
    assert sum(answer.queries for answer in answers) == len(wanted)
    for part, answer in zip(parts, answers, strict=True):
        direct = FakeModel().observe(prompts(*(f"text {i}" for i in part)), WORDS)
        np.testing.assert_array_equal(answer.scores, direct.scores)


def test_a_new_file_is_made_by_many_threads_at_once(tmp_path):
    for i in range(15):
        stored = StoredModel(FakeModel(), tmp_path / f"store{i}.sqlite")
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: stored.observe(prompts("a", "b"), WORDS), range(16)))  # noqa: B023
        assert sum(answer.queries for answer in answers) == 2


def test_tasks_of_asyncio_share_what_is_in_flight(tmp_path):
    log = tmp_path / "log"
    stored = StoredModel(FakeModel(log=log, seconds=0.02), tmp_path / "store.sqlite")
    texts = prompts(*map(str, range(20)))

    async def main():
        return await asyncio.gather(
            *(asyncio.to_thread(stored.observe, texts, WORDS) for _ in range(8))
        )

    answers = asyncio.run(main())
    assert len(asked(log)) == 20
    assert sorted(answer.queries for answer in answers)[-1] >= 1
    assert sum(answer.queries for answer in answers) == 20


def test_who_waited_asks_itself_if_the_other_fails(tmp_path):
    started = threading.Event()

    class Slow(FakeModel):
        def stream(self, prompts, words):
            started.set()
            time.sleep(0.1)
            yield from super().stream(prompts, words)

    broken = StoredModel(Slow(faults={0: ModelError("gone")}), tmp_path / "store.sqlite")
    healthy = StoredModel(FakeModel(), tmp_path / "store.sqlite")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(broken.observe, prompts("a"), WORDS)
        started.wait()
        second = pool.submit(healthy.observe, prompts("a"), WORDS)
        with pytest.raises(ModelError, match="gone"):
            first.result()
        assert second.result().queries == 1


def test_a_pass_that_is_given_up_lets_others_ask(tmp_path):
    stored = StoredModel(FakeModel(batch_size=1), tmp_path / "store.sqlite")
    half = stored.stream(prompts("a", "b", "c"), WORDS)
    next(half)
    half.close()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stored.observe, prompts("a", "b", "c"), WORDS).result(10).queries == 2


def test_a_thread_does_not_wait_for_itself(tmp_path):
    stored = StoredModel(FakeModel(batch_size=1), tmp_path / "store.sqlite")
    half = stored.stream(prompts("a", "b"), WORDS)
    next(half)
    assert stored.observe(prompts("b"), WORDS).queries == 1
    assert len(list(half)) == 1


def test_two_threads_ask_different_things_at_the_same_time(tmp_path):
    """A lock that is held while a model is asked would make the one wait for the other."""
    meet = threading.Barrier(2, timeout=10)

    class Meeting(FakeModel):
        def stream(self, prompts, words):
            meet.wait()
            yield from super().stream(prompts, words)

    stored = StoredModel(Meeting(), tmp_path / "store.sqlite")
    with ThreadPoolExecutor(2) as pool:
        for answer in pool.map(lambda text: stored.observe(prompts(text), WORDS), ["a", "b"]):
            assert answer.queries == 1


def test_it_pickles_as_a_model_and_a_path(tmp_path):
    stored = StoredModel(FakeModel(), tmp_path / "store.sqlite")
    stored.observe(prompts("a"), WORDS)
    again = pickle.loads(pickle.dumps(stored))
    assert again.observe(prompts("a"), WORDS).queries == 0
