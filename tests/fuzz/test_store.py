"""Bits of the store flip, and processes that write to it are killed."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from fewfit.errors import FewfitWarning, StoreError
from fewfit.models import FakeModel
from fewfit.store import StoredModel, prune, statistics
from tests import warm
from tests.conftest import prompts
from tests.fuzz import CASES
from tests.warm import Program

WORDS = ("bad", "great")
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.mark.parametrize("schema", ["first", "second"])
def test_a_flipped_bit_is_a_miss_or_a_store_error(tmp_path, monkeypatch, schema):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where answers are spilled
    path, texts = tmp_path / "store.sqlite", prompts(*(f"text number {i}" for i in range(8)))
    if schema == "first":
        shutil.copy(FIXTURES / "store_v1.sqlite", path)
    else:
        StoredModel(FakeModel(), path).observe(texts, WORDS)
    whole = path.read_bytes()
    right = FakeModel().observe(texts, WORDS)
    rng = np.random.default_rng(CASES)
    used = [i for i, byte in enumerate(whole) if byte]
    for _ in range(1 + CASES // 2):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            where = int(rng.choice(used) if rng.random() < 0.8 else rng.integers(len(data)))
            data[where] ^= 1 << int(rng.integers(8))
        if rng.random() < 0.1:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewfitWarning)
            for look in (statistics, lambda path: prune(path, 10**6)):
                with suppress(StoreError):
                    look(path)
            try:
                answers = StoredModel(FakeModel(), path).observe(texts, WORDS)
            except StoreError:
                continue
        np.testing.assert_array_equal(answers.scores, right.scores, err_msg=f"byte {where}")
        np.testing.assert_array_equal(answers.hidden, right.hidden, err_msg=f"byte {where}")


WRITER = """
import sys
from fewfit.models import FakeModel
from fewfit.prompts import Template
from fewfit.store import StoredModel
template = Template("{text} {mask}")
texts = [str((int(sys.argv[2]) * 37 + i) % 150) for i in range(150)]
prompts = [template.render({"text": text}) for text in texts]
model = FakeModel(batch_size=5, seconds=0.004, log=sys.argv[3])
StoredModel(model, sys.argv[1]).observe(prompts, ["x", "y"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
def test_writers_that_are_killed_leave_whole_answers(tmp_path):
    path = tmp_path / "store.sqlite"
    rng = np.random.default_rng(CASES)
    for round_ in range(1 + CASES // 1000):
        log = tmp_path / f"log{round_}"
        log.touch()
        writers = [Program(WRITER, path, i, log) for i in range(2)]
        wanted = int(rng.integers(10, 200))
        deadline = time.monotonic() + 30
        while len(log.read_bytes().splitlines()) < wanted and time.monotonic() < deadline:
            if all(writer.poll() is not None for writer in writers):
                break
            time.sleep(0.001)
        for writer in writers:
            writer.kill()
    before = statistics(path)["rows"]
    last = tmp_path / "last"
    warm.run(WRITER, path, 0, last)
    asked = last.read_text().splitlines() if last.exists() else []
    assert len(asked) == 150 - before
    assert statistics(path)["rows"] == 150
