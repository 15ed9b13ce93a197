"""The threads that ask, where some of them do not live to say what became of them."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from fewfit.errors import ModelError
from fewfit.models.remote import pool
from fewfit.models.remote.verdict import RowError


def session(connections: int) -> Any:
    nothing = SimpleNamespace(limits=SimpleNamespace(connections=connections))
    return SimpleNamespace(transport=nothing, halt=lambda: None, abort=lambda: None)


def with_dead(monkeypatch: pytest.MonkeyPatch, dead: set[int]) -> None:
    """Let the threads of these numbers end before their first line, as one without memory does."""
    started: list[threading.Thread] = []

    class Thread(threading.Thread):
        def run(self) -> None:
            if self.number not in dead:
                super().run()

        def start(self) -> None:
            self.number = len(started)
            started.append(self)
            super().start()

    monkeypatch.setattr(pool.threading, "Thread", Thread)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("dead", [{0}, {1}, {0, 1}])
def test_what_a_dead_thread_would_have_asked_the_others_ask(monkeypatch, dead):
    with_dead(monkeypatch, dead)
    groups = pool.answer_all(lambda i: i * i, 20, session(3))
    assert sorted(pair for group in groups for pair in group) == [(i, i * i) for i in range(20)]


@pytest.mark.timeout(20)
def test_with_no_thread_alive_the_run_ends_and_says_how_much_is_left(monkeypatch):
    with_dead(monkeypatch, {0, 1, 2})
    with pytest.raises(ModelError, match="20 of 20 prompts were not asked"):
        list(pool.answer_all(lambda i: i, 20, session(3)))


def test_an_answer_that_is_missing_is_in_the_place_of_the_answer():
    def ask(i: int) -> int:
        if i == 2:
            raise RowError("no reply")
        return i

    got = dict(pair for group in pool.answer_all(ask, 4, session(2)) for pair in group)
    assert [got[i] for i in (0, 1, 3)] == [0, 1, 3]
    assert isinstance(got[2], RowError)
