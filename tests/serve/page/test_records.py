"""What is kept survives: threads, a process that is killed, an older and a later file."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi", exc_type=ImportError)

from fewfit.errors import InputError, StoreError
from fewfit.serve.page.records import NewRow, Records
from fewfit.serve.tasks import PAGE_FILE

ROWS = [NewRow([str(i), f"text {i}"], f"text {i}", "ab"[i] if i < 2 else None) for i in range(200)]

LABELLER = """
import sys
from pathlib import Path
from fewfit.serve.page.records import Records
records = Records(Path(sys.argv[1]))
for place in range(2, 200):
    records.set_label("t", place, "ab"[place % 2])
    print(place, flush=True)
"""


def made(folder):
    records = Records(folder)
    records.create(
        "t", ROWS, model="fake", columns=["id", "text"], text_columns=["text"], label_column="label"
    )
    return records


def test_only_the_owner_can_read_the_texts(tmp_path):
    with sqlite3.connect(made(tmp_path).path) as db:
        db.execute("BEGIN IMMEDIATE")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    db.close()
    assert modes == {PAGE_FILE + end: 0o600 for end in ("", "-wal", "-shm")}


def test_no_label_that_was_confirmed_is_lost_by_a_kill(tmp_path):
    made(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", LABELLER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(25):
        last = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    confirmed = [last, *map(int, rest)][-1]
    records = Records(tmp_path)
    task = records.get("t")
    labelled = {place: label for place, _, label in records.labelled(task)}
    assert all(labelled[i] == "ab"[i % 2] for i in range(2, confirmed + 1))
    # At most the one that was being written when it was killed was not yet confirmed.
    assert len(labelled) - (confirmed + 1) in (0, 1)
    assert task.revision == len(labelled) - 2


def test_threads_lose_no_label(tmp_path):
    records = made(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: records.set_label("t", i, "ab"[i % 2]), range(2, 60)))
    task = records.get("t")
    assert task.revision == 58
    assert [label for *_, label in records.labelled(task)] == ["ab"[i % 2] for i in range(60)]


def test_undo_goes_back_to_the_beginning(tmp_path):
    records = made(tmp_path)
    for label in ("b", None, "a"):
        records.set_label("t", 0, label)
    records.set_label("t", 5, "b")
    told = [records.undo("t") for _ in range(4)]
    assert [place for _, place in told] == [5, 0, 0, 0]
    task = records.get("t")
    assert records.rows(task, places=[0, 5])[1] == [
        {"place": 0, "text": "text 0", "label": "a", "sure": 0},
        {"place": 5, "text": "text 5", "label": None, "sure": 0},
    ]
    records.set_words("t", {"a": ["a"], "b": ["b"], "c": []})
    records.set_label("t", 5, "c")
    records.set_label("t", 5, None)
    records.set_words("t", {"a": ["a"], "b": ["b"]})
    with pytest.raises(InputError, match="'c' is no more"):
        records.undo("t")


def test_the_pool_stays_the_same_as_labels_come(tmp_path):
    records = made(tmp_path)
    before = [place for place, _ in records.pool(records.get("t"), 50)]
    assert before != sorted(before)
    records.set_label("t", before[7], "a")
    after = [place for place, _ in records.pool(records.get("t"), 50)]
    assert after[:49] == before[:7] + before[8:]


def test_a_file_of_a_later_version_is_left_alone(tmp_path):
    made(tmp_path)
    with sqlite3.connect(tmp_path / PAGE_FILE) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="later fewfit"):
        Records(tmp_path)


def test_a_file_that_is_none_is_said(tmp_path):
    (tmp_path / PAGE_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(StoreError, match="cannot be used"):
        Records(tmp_path)


def test_names_of_classes_are_no_keys_of_a_script(tmp_path):
    records = Records(tmp_path)
    rows = [NewRow([], "x", "__proto__"), NewRow([], "y", "constructor")]
    records.create("t", rows, model="fake", columns=[], text_columns=[], label_column="label")
    assert json.loads(json.dumps(records.get("t").words)) == {
        "__proto__": ["  proto  "],
        "constructor": ["constructor"],
    }
