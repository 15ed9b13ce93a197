"""The queue: rows that never swap, prompts that are asked once, what is refused and given up."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from fewfit import FewShotClassifier
from fewfit.errors import ModelError
from fewfit.models import FakeModel
from fewfit.serve.batching import BusyError, LateError, Limits, Queue
from fewfit.serve.tasks import Tasks
from fewfit.serve.together import Answered, Asked, answer
from tests.serve.helpers import fitted, slow

N_TASKS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tasks on one model, which ask in three ways and with two spellings of the words."""
    root = tmp_path_factory.mktemp("tasks")
    for i in range(N_TASKS):
        template = ("{text} It was {mask}.", "{mask}: {text}")[i % 2]
        words = {"no": "bad", "yes": "good"} if i < 4 else {"a": "x", "b": "y", "c": "z"}
        if i < 4:
            fitted(root, f"t{i}", shift=i, template=template, labels=words)
        else:
            FewShotClassifier("fake", labels=words, template=template, store=None).fit(
                [f"{word} {i}" for word in words.values()], list(words)
            ).save(root / f"t{i}")
    return root


@pytest.fixture
def tasks(folder):
    return Tasks([folder])


def run(tasks, work, limits=None, **options):
    """Run a coroutine of a queue, and end the queue."""

    async def main():
        queue = Queue(tasks, limits, **options)
        try:
            return await work(queue)
        finally:
            await queue.close()

    return asyncio.run(main())


@given(
    plan=st.lists(
        st.tuples(
            st.lists(st.integers(0, N_TASKS - 1), min_size=1, max_size=4, unique=True),
            st.lists(st.integers(0, 30), min_size=1, max_size=9),
        ),
        min_size=1,
        max_size=12,
    ),
    batch=st.integers(1, 20),
)
@settings(max_examples=20, deadline=None)
def test_rows_never_swap_between_tasks_texts_and_requests(folder, plan, batch):
    """Each text is a tag of its own, and so has probabilities of its own in each task."""
    tasks = _once(folder)
    expected = _expected(folder)

    async def all_at_once(queue):
        return await asyncio.gather(
            *(
                queue.answer([tasks.get(f"t{i}") for i in own], [f"tag {k}" for k in tags])
                for own, tags in plan
            )
        )

    for (own, tags), found in zip(plan, run(tasks, all_at_once, Limits(batch=batch)), strict=True):
        assert list(found) == [f"t{i}" for i in own]
        for i in own:
            np.testing.assert_allclose(found[f"t{i}"].probabilities, expected[i][tags], atol=1e-6)
            assert found[f"t{i}"].reasons == [""] * len(tags)


_KEPT: dict[Path, tuple[Tasks, list[np.ndarray]]] = {}


def _once(folder: Path) -> Tasks:
    if folder not in _KEPT:
        texts = [f"tag {k}" for k in range(31)]
        known = [FewShotClassifier.load(folder / f"t{i}", store=None) for i in range(N_TASKS)]
        _KEPT[folder] = Tasks([folder]), [one.predict_proba(texts) for one in known]
        rows = np.concatenate([p[:, :2] for p in _KEPT[folder][1]])
        assert np.diff(np.sort(rows[:, 0])).min() > 4e-6, "a swap would be seen"
    return _KEPT[folder][0]


def _expected(folder: Path) -> list[np.ndarray]:
    _once(folder)
    return _KEPT[folder][1]


def test_a_text_for_many_tasks_that_ask_alike_is_one_query_however_small_a_batch(tmp_path):
    for i in range(12):
        fitted(tmp_path, f"t{i}", shift=i)
    tasks = Tasks([tmp_path])
    model = slow(tasks, 0)
    assert tasks.n_models() == 1

    async def ask(queue):
        found = await queue.answer(tasks.all(), ["a text", "another"])
        return sum(one.queries for one in found.values())

    assert run(tasks, ask, Limits(batch=4)) == model.queries == 2


def test_tasks_that_ask_otherwise_are_asked_for_apart(tasks):
    model = slow(tasks, 0)

    async def ask(queue):
        await queue.answer(tasks.all(), ["a text"])

    run(tasks, ask)
    assert model.queries == 4, "two templates with each of two sets of words"


def test_a_model_that_scores_each_word_for_itself_is_asked_once_for_all_words():
    model: Any = FakeModel(space="similarity")
    made = []
    for words in ({"no": "bad", "yes": "good"}, {"x": "red", "y": "good", "z": "green"}):
        texts = [f"{word} thing" for word in words.values()]
        made.append(FewShotClassifier(model, labels=words, store=None).fit(texts, list(words)))
    texts = ["a good red thing", "a bad one"]
    rows = [{"text": text} for text in texts]
    expected = [one.predict_proba(texts) for one in made]
    for apart, queries in ((False, 4), (True, 2)):
        model.scores_apart, model.queries = apart, 0
        found = answer([Asked(one, one.task_.queries(rows)) for one in made])
        assert model.queries == queries
        for one, p in zip(found, expected, strict=True):
            assert isinstance(one, Answered)
            np.testing.assert_allclose(one.probabilities, p, atol=1e-6)
        assert [one.queries for one in found] == ([2, 0] if apart else [2, 2])


def test_a_full_queue_refuses_at_once_and_answers_what_it_took(tasks):
    model = slow(tasks, 0.05)

    async def ask(queue):
        own = [tasks.get("t0")]
        return await asyncio.gather(
            *(queue.answer(own, [f"text {k}"]) for k in range(20)), return_exceptions=True
        )

    found = run(tasks, ask, Limits(batch=1, waiting=3))
    refused = [one for one in found if isinstance(one, BusyError)]
    assert len(refused) == 17
    assert all(one.after >= 1 for one in refused)
    assert model.queries == 3
    assert all(isinstance(one, dict | BusyError) for one in found)


def test_what_was_cancelled_before_it_began_is_never_asked(tasks):
    model = slow(tasks, 0.3)

    async def ask(queue):
        own = [tasks.get("t0")]
        first = asyncio.ensure_future(queue.answer(own, ["first"]))
        await asyncio.sleep(0.01)
        others = [asyncio.ensure_future(queue.answer(own, [f"text {k}"])) for k in range(5)]
        await asyncio.sleep(0.01)
        for one in others[:4]:
            one.cancel()
        await asyncio.gather(first, *others, return_exceptions=True)
        assert queue.engine(own[0]).waiting == 0
        return [one.cancelled() for one in others]

    assert run(tasks, ask) == [True] * 4 + [False]
    assert model.queries == 2


def test_what_comes_too_late_is_given_up_and_never_asked(tasks):
    model = slow(tasks, 0.4)

    async def ask(queue):
        own = [tasks.get("t0")]
        first = asyncio.ensure_future(queue.answer(own, ["first"]))
        await asyncio.sleep(0.01)
        with pytest.raises(LateError, match=r"0\.02 s"):
            await queue.answer(own, ["late"], deadline=0.02)
        await first
        return await queue.answer(own, ["in time"], deadline=99)

    assert run(tasks, ask, Limits(deadline=5))["t0"].queries == 1
    assert model.queries == 2


def test_a_request_that_breaks_the_model_breaks_no_other(tasks, monkeypatch):
    slow(tasks, 0.02)
    answers = FakeModel.stream

    def stream(self, prompts, words):
        if any("poison" in prompt.user_text for prompt in prompts):
            raise RuntimeError("poison")
        yield from answers(self, prompts, words)

    monkeypatch.setattr(FakeModel, "stream", stream)

    async def ask(queue):
        own = [tasks.get("t0")]
        texts = ["first", "one", "poison", "two"]
        asking = [asyncio.ensure_future(queue.answer(own, [text])) for text in texts]
        return await asyncio.gather(*asking, return_exceptions=True)

    found = run(tasks, ask)
    assert [isinstance(one, RuntimeError) for one in found] == [False, False, True, False]


def test_what_cannot_be_decoded_is_asked_once_and_takes_no_other_along(monkeypatch):
    model = FakeModel()
    good, bad = (
        FewShotClassifier(model, store=None).fit(["so good", "very bad"], ["yes", "no"])
        for _ in range(2)
    )
    monkeypatch.setattr(bad, "decode", lambda seen: 1 / 0)
    texts = [[{"text": f"{name} {i}"} for i in range(10)] for name in "abc"]
    before = model.queries
    parts = [
        Asked(one, one.task_.queries(rows))
        for one, rows in zip((good, bad, good), texts, strict=True)
    ]
    found = answer(parts)
    assert [type(one) for one in found] == [Answered, ZeroDivisionError, Answered]
    assert model.queries - before == 30
    np.testing.assert_array_equal(found[0].probabilities, good.predict_proba(texts[0]))


def test_a_model_that_is_down_is_asked_once_for_all_that_wait(tasks, monkeypatch):
    calls = []

    def stream(self, prompts, words):
        calls.append(len(prompts))
        raise ModelError("connection refused")
        yield

    monkeypatch.setattr(FakeModel, "stream", stream)

    async def ask(queue):
        own = [tasks.get("t0")]
        asking = [queue.answer(own, [f"{k}"]) for k in range(9)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert list(queue.failing().values()) == ["ModelError"]
        return found

    assert all(isinstance(one, ModelError) for one in run(tasks, ask))
    assert calls == [9]


def test_a_row_without_an_answer_says_why_and_the_others_have_theirs(tasks, monkeypatch):
    answers = FakeModel.stream

    def stream(self, prompts, words):
        for where, seen in answers(self, prompts, words):
            lost = np.array(["lost" in prompts[i].user_text for i in where])
            yield where, seen.failing(lost, "no usable answer")

    monkeypatch.setattr(FakeModel, "stream", stream)

    async def ask(queue):
        return await queue.answer([tasks.get("t0")], ["a", "lost", "b"])

    found = run(tasks, ask)["t0"]
    assert found.reasons == ["", "no usable answer", ""]
    assert np.isnan(found.probabilities).all(axis=1).tolist() == [False, True, False]


def test_ends_with_all_that_it_took_answered(tasks):
    model = slow(tasks, 0.02)
    found = []

    async def main():
        queue = Queue(tasks, Limits(batch=1))
        asking = [
            asyncio.ensure_future(queue.answer([tasks.get("t0")], [f"{k}"])) for k in range(5)
        ]
        await asyncio.sleep(0)
        await queue.close()
        found.extend(await asyncio.gather(*asking))

    asyncio.run(main())
    assert len(found) == model.queries == 5
    for thread in threading.enumerate():
        if thread.name.startswith("fewfit-model"):
            thread.join(5)
            assert not thread.is_alive()


def test_a_hundred_tasks_take_one_thread(tmp_path):
    fitted(tmp_path, "t")
    tasks = Tasks([tmp_path])
    for i in range(100):
        tasks.add(f"t{i}", tmp_path / "t")
    before = threading.active_count()

    async def ask(queue):
        await queue.answer(tasks.all(), ["a"])
        return threading.active_count() - before

    assert run(tasks, ask) == 1


def test_nobody_is_queued_behind_more_work_than_may_wait(tasks):
    model = slow(tasks, 0.0)

    async def ask(queue):
        own = [tasks.get("t0")]
        engine = queue.engine(own[0])
        model.seconds = 0.3  # loading, which says nothing of the next
        await queue.answer(own, ["loading"])
        assert engine._seconds == 0
        model.seconds = 0.02
        for k in range(3):
            await queue.answer(own, [f"alone {k}"])
        assert 0.02 <= engine._seconds < 0.3  # a machine may stall
        each = engine._seconds
        asking = [queue.answer(own, [f"text {k}"]) for k in range(100)]
        found = await asyncio.gather(*asking, return_exceptions=True)
        accepted = sum(isinstance(one, dict) for one in found)
        assert abs(accepted - 0.5 / each) <= 2, "half a second of work, and no more"
        assert {one.after for one in found if isinstance(one, BusyError)} == {1}
        await queue.answer(own, ["the queue is empty again"])

    run(tasks, ask, Limits(batch=1, wait=0.5))


def test_a_slow_model_learns_to_be_asked_together_though_nothing_may_wait(tasks):
    """A batch takes as long as one prompt: with a queue of one none would ever form."""
    model = slow(tasks, 0.01)
    model.batch_size = 64
    batches = []

    async def user(queue, k):
        answered = 0
        while answered < 10:
            try:
                await queue.answer([tasks.get("t0")], [f"user {k} text {answered}"])
                answered += 1
            except BusyError:
                await asyncio.sleep(0.01)

    async def ask(queue):
        for k in range(3):
            await queue.answer([tasks.get("t0")], [f"alone {k}"])
        await asyncio.gather(*(user(queue, k) for k in range(30)))

    run(tasks, ask, Limits(wait=0), note=lambda size, *_: batches.append(size))
    assert batches[:3] == [1, 1, 1]
    assert batches[3] <= 6
    assert max(batches) > 6  # on a busy machine not all users are back in time


def test_a_request_for_several_tasks_is_not_in_its_own_way(tasks):
    model = slow(tasks, 0.01)

    async def ask(queue):
        for k in range(3):
            await queue.answer([tasks.get("t0")], [f"alone {k}"])
        found = await queue.answer(tasks.all(), [f"text {k}" for k in range(4)])
        assert all(len(one.probabilities) == 4 for one in found.values())
        both = [queue.answer(tasks.all(), ["x"]), queue.answer(tasks.all(), ["y"])]
        first, second = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(first, dict)
        assert isinstance(second, BusyError)
        assert queue.engine(tasks.get("t0")).waiting == 0
        return model.queries

    assert run(tasks, ask, Limits(waiting=6, wait=0)) == 3 + 16 + 4
