"""Fits in the background: none that was wished is lost, and none says a text in the log."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("fastapi", exc_type=ImportError)

from fewfit.serve.page.jobs import Jobs

TEXT = "a secret text"


class Work:
    """Notes what is done; the job ``first`` waits until it may go on."""

    def __init__(self):
        self.done: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, name, job):
        if name == "first":
            self.begun.set()
            assert self.go.wait(20)
        self.done.append(name)


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def jobs(work):
    jobs = Jobs(work)
    jobs.start("first")
    assert work.begun.wait(20)
    yield jobs
    work.go.set()
    jobs.close()


def _after_all(jobs, work):
    """Return what was done once everything that waits has ended."""
    work.go.set()
    jobs.end("last", lambda: None)  # behind what waits
    jobs.end("last", lambda: None)  # and behind what that is followed by
    return work.done


def test_a_job_that_is_wished_again_after_its_cancellation_is_done(jobs, work):
    jobs.start("second")
    jobs.cancel("second")
    jobs.start("second")
    assert _after_all(jobs, work) == ["first", "second"]
    assert jobs.get("second").state == "done"


def test_a_job_that_waits_is_cancelled_for_good_and_done_once_however_often_wished(jobs, work):
    for _ in range(3):
        jobs.start("second")
    jobs.start("third")
    jobs.cancel("third")
    jobs.start("third")
    jobs.cancel("third")
    assert _after_all(jobs, work) == ["first", "second"]
    assert jobs.get("third").state == "cancelled"


def test_the_log_says_where_a_job_failed_and_not_what_was_said(caplog):
    def work(name, job):
        raise ValueError(f"cannot read {TEXT}")

    jobs = Jobs(work)
    jobs.start("mood")
    jobs.end("last", lambda: None)
    jobs.close()
    assert "'mood'" in caplog.text
    assert "ValueError" in caplog.text
    assert "test_jobs.py" in caplog.text
    assert TEXT not in caplog.text
