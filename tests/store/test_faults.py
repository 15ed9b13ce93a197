"""The disk is full, the folder goes away, other processes meet: what was paid for is not lost."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fewfit.errors import BudgetExceededError, InputError, ModelError, StoreError, StoreWarning
from fewfit.models import FakeModel
from fewfit.models.budget import BudgetedModel, unbilled
from fewfit.models.metered import MeteredModel
from fewfit.observations import Status
from fewfit.store import StoredModel, statistics, tables
from fewfit.store.spill import spill, spilled
from fewfit.store.tables import Kind
from tests.conftest import prompts
from tests.warm import Program

WORDS = ("bad", "great")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX's")


FULL = """
import resource, signal, sys, tempfile
from fewfit.errors import StoreError
from fewfit.models import FakeModel
from fewfit.prompts import Template
from fewfit.store import StoredModel
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
tempfile.tempdir = sys.argv[3]
template = Template("{text} {mask}")
prompts = [template.render({"text": str(i)}) for i in range(400)]
stored = StoredModel(FakeModel(hidden_size=256, log=sys.argv[2]), sys.argv[1])
stored.observe(prompts[:8], ["x", "y"])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    stored.observe(prompts, ["x", "y"])
except StoreError as error:
    print(error)
"""


@POSIX
def test_answers_that_the_disk_does_not_take_survive_the_process(tmp_path):
    path, log, spills = tmp_path / "store.sqlite", tmp_path / "log", tmp_path / "temporary"
    spills.mkdir()
    out, errors = Program(FULL, path, log, spills).communicate()
    [spilled] = spills.iterdir()
    assert f"is in {spilled} and goes into the store when it is asked again" in out, errors
    assert spilled.stat().st_mode & 0o777 == 0o600
    paid = len(log.read_text().splitlines())
    assert 8 < paid < 400
    again = Program(FULL.replace("100_000", "10**9"), path, log, spills)
    assert again.communicate()[1] == ""
    assert len(log.read_text().splitlines()) == 400, "none was paid for twice"
    assert list(spills.iterdir()) == []
    assert statistics(path)["rows"] == 400


@POSIX
def test_where_there_is_no_room_at_all_that_is_said(tmp_path):
    out, errors = Program(FULL, tmp_path / "s", tmp_path / "log", tmp_path / "no").communicate()
    assert "could be written nowhere" in out, errors
    assert "lost when it ends. All that was answered before is stored" in out


def test_a_spilled_file_of_junk_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "store.sqlite"
    for junk in ("", "{}", '["zz", "a", 1]\n', '["00", "a", 1]\nAAAA\n%%%\n', "[" * 100_000):
        place = spill(path, Kind(b"0" * 20, "model", 4), {b"k" * 20: b"row"})
        place.write_text(junk)
    os.symlink(tmp_path / "elsewhere", place.with_name(place.name.replace(".", "0.")))
    model = FakeModel()
    assert StoredModel(model, path).observe(prompts("a"), WORDS).queries == 1
    assert spilled(path) == []


def test_a_disk_without_room_for_the_answers_is_refused_first(tmp_path, monkeypatch):
    path, model = tmp_path / "store.sqlite", FakeModel(hidden_size=1000)
    StoredModel(model, path).observe(prompts("a"), WORDS)
    free = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    many = prompts(*map(str, range(500)))
    with pytest.raises(
        StoreError, match=r"needs about 2\.\d MB for 500 answers.* has 1\.0 MB left"
    ):
        StoredModel(model, path).observe(many, WORDS)
    assert model.queries == 1
    assert StoredModel(model, path, max_bytes=400_000).observe(many, WORDS).queries == 500


@pytest.mark.parametrize("what", ["folder", "directory"])
def test_what_becomes_of_the_file_meanwhile(tmp_path, monkeypatch, what):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "folder" / "store.sqlite"

    class Meddling(FakeModel):
        def stream(self, prompts, words):
            for batch in super().stream(prompts, words):
                yield batch
                shutil.rmtree(path.parent, ignore_errors=True)
                if what == "directory":
                    path.mkdir(parents=True)

    model = Meddling(batch_size=1)
    if what == "folder":
        assert StoredModel(model, path).observe(prompts("a", "b"), WORDS).queries == 2
    else:
        with pytest.raises(StoreError, match="not written, 1 answers, is in"):
            StoredModel(model, path).observe(prompts("a", "b"), WORDS)
        path.rmdir()
        again = StoredModel(FakeModel(), path).observe(prompts("b"), WORDS)
        assert again.queries == 0, "what was paid for came back"


def test_a_full_store_that_is_read_only_still_answers(tmp_path, monkeypatch):
    path = tmp_path / "store.sqlite"
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as for who is not root
    model = FakeModel()
    assert StoredModel(model, path).observe(prompts("a"), WORDS).queries == 0
    with pytest.raises(StoreError, match="read-only"):
        StoredModel(model, path).observe(prompts("b"), WORDS)
    assert model.queries == 0


def test_a_flipped_number_in_an_index_does_not_give_another_prompts_answer(tmp_path):
    path = tmp_path / "store.sqlite"
    texts = prompts("a", "b")
    right = StoredModel(FakeModel(), path).observe(texts, WORDS)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET first = 3 - first")
    connection.close()
    with pytest.warns(StoreWarning, match="2 damaged rows"):
        again = StoredModel(FakeModel(), path).observe(texts, WORDS)
    np.testing.assert_array_equal(again.scores, right.scores)


def test_a_flipped_length_on_record_makes_no_row_foreign(tmp_path):
    path = tmp_path / "store.sqlite"
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE models SET width = width + 1")
    connection.close()
    assert StoredModel(FakeModel(), path).observe(prompts("a", "b"), WORDS).queries == 1


def test_half_an_answer_is_none_with_a_store_and_without(tmp_path):
    class Half(FakeModel):
        def stream(self, prompts, words):
            for where, answers in super().stream(prompts, words):
                hidden = np.array(answers.hidden)
                hidden[0, 0] = np.inf
                yield where, replace(answers, hidden=hidden)

    for model in (Half(), StoredModel(Half(), tmp_path / "store.sqlite")):
        answers = model.observe(prompts("a", "b", "c"), WORDS)
        assert answers.status.tolist() == [Status.FAILED, Status.OK, Status.OK]
        assert answers.scores is not None
        assert answers.hidden is not None
        assert np.isnan(answers.scores[0]).all()
        assert np.isfinite(answers.hidden[1:]).all()
    assert statistics(tmp_path / "store.sqlite")["rows"] == 2


def test_a_caller_that_holds_a_stream_and_does_nothing_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("fewfit.store.desk._PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("fewfit.store.desk._LOOK_SECONDS", 0.02)
    stored = StoredModel(FakeModel(batch_size=1), tmp_path / "store.sqlite")
    half = stored.stream(prompts("a", "b", "c"), WORDS)
    next(half)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(stored.observe, prompts("c"), WORDS).result(10).queries == 1
    half.close()


def test_two_threads_on_one_job_share_it(tmp_path):
    """Slices are claimed, not jobs: the second thread takes what the first has not come to."""
    log = tmp_path / "log"
    texts = prompts(*map(str, range(600)))
    models = [FakeModel(log=log, seconds=0.001) for _ in range(2)]
    store, both = tmp_path / "store.sqlite", threading.Barrier(2)

    def observe(model):
        both.wait()
        return StoredModel(model, store).observe(texts, WORDS)

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(observe, model) for model in models]
        asked = [job.result().queries for job in jobs]
    assert sum(asked) == len(log.read_text().splitlines()) == 600
    assert min(asked) > 50


def test_a_link_to_a_store_is_the_store(tmp_path):
    started, store = threading.Event(), tmp_path / "store.sqlite"
    StoredModel(FakeModel(), store).observe(prompts("z"), WORDS)
    (tmp_path / "link").symlink_to(store)

    class Slow(FakeModel):
        def stream(self, prompts, words):
            started.set()
            time.sleep(0.1)
            yield from super().stream(prompts, words)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(StoredModel(Slow(), store).observe, prompts("a"), WORDS)
        started.wait()
        assert StoredModel(FakeModel(), tmp_path / "link").observe(prompts("a"), WORDS).queries == 0
        assert first.result().queries == 1


WORKER = """
import sys
import time
from pathlib import Path
from fewfit.models import FakeModel
from fewfit.prompts import Template
from fewfit.store import StoredModel
template = Template("{text} {mask}")
prompts = [template.render({"text": str(i)}) for i in range(int(sys.argv[3]))]
model = FakeModel(batch_size=8, seconds=0.01, log=sys.argv[2])
while not Path(sys.argv[4]).exists():
    time.sleep(0.001)
answers = StoredModel(model, sys.argv[1]).observe(prompts, ["x", "y"])
assert (answers.status == 0).all() and len(answers) == len(prompts)
"""


def test_processes_that_meet_on_one_job_share_it(tmp_path):
    n, log, go = 1500, tmp_path / "log", tmp_path / "go"
    workers = [Program(WORKER, tmp_path / "s", log, n, go) for _ in range(3)]
    go.touch()
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    paid = log.read_text().splitlines()
    assert len(set(paid)) == n
    assert len(paid) < 1.9 * n, "apart they would pay for 3 n"


def test_a_budget_says_what_is_left_of_the_whole_run(tmp_path):
    model = BudgetedModel(FakeModel(), 300, keeps=True)
    stored = StoredModel(model, tmp_path / "store.sqlite")
    with pytest.raises(
        BudgetExceededError, match=r"300 queries is used up: 300 prompts were .* 200 are"
    ):
        stored.observe(prompts(*map(str, range(500))), WORDS)
    assert statistics(tmp_path / "store.sqlite")["rows"] == 300


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_model_that_fails_has_not_used_up_the_budget(tmp_path, batch_size):
    class Down(FakeModel):
        works = 10

        def stream(self, prompts, words):
            assert len({p.parts for p in unbilled(prompts)}) == len(prompts)  # which asks nothing
            for batch in super().stream(prompts, words):
                if self.queries > self.works:
                    raise ModelError("the server is down")
                yield batch

    server = Down(batch_size=batch_size)
    model = BudgetedModel(server, 150, keeps=True)
    stored = StoredModel(model, tmp_path / "store.sqlite")
    some = prompts(*map(str, range(200)))
    with pytest.raises(ModelError, match="down"):
        stored.observe(some, WORDS)
    assert model.left == 150 - server.queries
    server.works = 1000
    with pytest.raises(BudgetExceededError, match="used up"):
        stored.observe(some, WORDS)
    assert (server.queries, model.left) == (150, 0)
    assert statistics(tmp_path / "store.sqlite")["rows"] >= 150 - batch_size


def test_a_model_that_takes_prompts_one_by_one_is_held_to_the_budget():
    class Own(FakeModel):
        def stream(self, prompts, words):
            for prompt in prompts:
                self._bill(prompt)
                if self.queries % 4 == 0:
                    raise ModelError("the server is down")
            yield from ()

    server = Own()
    model = BudgetedModel(server, 10, keeps=True)
    for left in (6, 2):
        with pytest.raises(ModelError):
            list(model.stream(prompts(*map(str, range(9))), WORDS))
        assert model.left == left
    assert server.queries == 8


def test_a_caller_that_stops_leaves_the_rest_of_the_budget(tmp_path):
    model = BudgetedModel(FakeModel(batch_size=2), 20, keeps=False)
    with closing(model.stream(prompts(*map(str, range(20))), WORDS)) as asking:
        next(asking)
    assert model.left == 18


def test_a_bill_is_exact_under_threads(tmp_path):
    meter = MeteredModel(FakeModel(batch_size=1))
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: meter.observe(prompts(*[f"{i} {j}" for j in range(50)]), WORDS), range(8)
            )
        )
    assert (meter.bill.queries, meter.bill.paid) == (400, 400)


@pytest.mark.parametrize(
    "make", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_what_stands_in_front_is_copied_without_lock_or_connection(tmp_path, make):
    stored = StoredModel(FakeModel(), tmp_path / "store.sqlite", max_bytes=10**6)
    model = make(MeteredModel(BudgetedModel(stored, 10, keeps=True)))
    assert model.observe(prompts("a", "b"), WORDS).queries == 2
    again = make(model)
    assert again.observe(prompts("a", "b"), WORDS).queries == 0
    assert again.model.model.max_bytes == 10**6
    assert again.model.left == 6


@pytest.mark.parametrize("limit", ["many", "0", "-3", "5XB"])
def test_a_limit_that_is_none_is_refused_first(tmp_path, monkeypatch, limit):
    monkeypatch.setenv("FEWFIT_CACHE_LIMIT", limit)
    model = FakeModel()
    with pytest.raises(InputError, match="FEWFIT_CACHE_LIMIT"):
        StoredModel(model, tmp_path / "store.sqlite").observe(prompts("a"), WORDS)
    assert model.queries == 0
    with pytest.raises(InputError, match="max_bytes"):
        StoredModel(model, tmp_path / "store.sqlite", max_bytes=0)


@pytest.mark.parametrize("room", ["elsewhere", "nowhere"])
def test_what_waits_takes_the_place_of_damaged_rows(tmp_path, monkeypatch, room):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path, model = tmp_path / "store.sqlite", FakeModel()
    StoredModel(model, path).observe(prompts(*"abcd"), WORDS)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE pieces SET data = zeroblob(length(data))")
    write = tables.write

    def full(connection, kind, rows, **options):
        if rows:
            raise sqlite3.OperationalError("database or disk is full")
        return write(connection, kind, rows, **options)

    monkeypatch.setattr(tables, "write", full)
    if room == "nowhere":
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no"))
    with pytest.raises(StoreError), pytest.warns(StoreWarning, match="4 damaged rows"):
        StoredModel(model, path).observe(prompts(*"abcd"), WORDS)
    monkeypatch.setattr(tables, "write", write)
    assert model.queries == 8
    for _ in range(2):
        StoredModel(model, path).observe(prompts(*"abcde"), WORDS)
        assert model.queries == 9, "what was paid for is not asked again"


def test_a_spilled_file_that_cannot_be_opened_now_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "store.sqlite"
    place = spill(path, Kind(b"0" * 20, "model", 4), {})
    opened = Path.open

    def busy(self, *args, **kwargs):
        if self == place:
            raise PermissionError(13, "busy", str(self))
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", busy)
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    assert spilled(path) == [place]
