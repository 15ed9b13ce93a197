from __future__ import annotations

import os
import sqlite3
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fewfit import Template
from fewfit.errors import ModelError, StoreError, StoreWarning
from fewfit.models import FakeModel
from fewfit.observations import Status
from fewfit.store import StoredModel, default_path, statistics
from tests import warm
from tests.conftest import prompts
from tests.warm import Program

WORDS = ("bad", "great")
TEXTS = [f"text number {i}" for i in range(30)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "observations.sqlite"


def assert_same(one, two):
    for name in ("scores", "hidden", "label_mass", "n_tokens", "status"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.columns == two.columns
    assert one.space == two.space


@pytest.mark.parametrize(
    "options",
    [{}, {"space": "similarity"}, {"hidden_size": 0}, {"space": None}, {"max_words": 2}],
)
def test_nothing_is_asked_twice(path, options):
    model = FakeModel(**options)
    first = StoredModel(model, path).observe(prompts(*TEXTS[:20]), WORDS)
    assert (model.queries, first.queries) == (20, 20)
    again = StoredModel(model, path).observe(prompts(*TEXTS[10:]), WORDS)
    assert (model.queries, again.queries) == (30, 10)
    direct = FakeModel(**options).observe(prompts(*TEXTS[10:]), WORDS)
    if options.get("space", "") is None:
        direct_scores = again.scores
        assert direct_scores is None
        np.testing.assert_array_equal(again.hidden, direct.hidden)
    else:
        np.testing.assert_array_equal(again.scores, direct.scores)
        np.testing.assert_array_equal(again.status, direct.status)
        np.testing.assert_array_equal(again.label_mass, direct.label_mass)
    assert statistics(path)["rows"] == 30


def test_everything_that_decides_an_answer_is_in_the_key(path):
    base = FakeModel()
    StoredModel(base, path).observe(prompts("a b"), WORDS)
    other = Template("{text} In summary, it was {mask}!")
    for model, asked, words in [
        (FakeModel(seed=1), prompts("a b"), WORDS),
        (FakeModel(hidden_size=8), prompts("a b"), WORDS),
        (base, prompts("a  b"), WORDS),
        (base, prompts("a b", template=other), WORDS),
        (base, prompts("a b"), WORDS[::-1]),
        (base, prompts("a b"), ("bad", "great", "fine")),
        # the same characters, cut differently between template and user
        (base, [Template("{text} b In summary, it was {mask}.").render({"text": "a"})], WORDS),
        (base, prompts("e\u0301"), WORDS),
        (base, prompts("\u00e9"), WORDS),
    ]:
        before = model.queries
        StoredModel(model, path).observe(asked, words)
        assert model.queries == before + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: blob[:-1],
        lambda blob: blob + b"\0",
        lambda blob: b"",
        lambda blob: "text",
        lambda blob: bytes([blob[0] ^ 1]) + blob[1:],
        lambda blob: blob[:30] + bytes([blob[30] ^ 128]) + blob[31:],
        lambda blob: blob[:-1] + bytes([blob[-1] ^ 1]),
    ],
)
def test_a_damaged_row_is_a_miss_and_is_reported(path, damage):
    model = FakeModel()
    first = StoredModel(model, path).observe(prompts(*TEXTS[:3]), WORDS)
    with sqlite3.connect(path) as connection:
        number, blob = connection.execute("SELECT id, data FROM pieces").fetchone()
        connection.execute("UPDATE pieces SET data=? WHERE id=?", (damage(blob), number))
    connection.close()
    with pytest.warns(StoreWarning, match="1 damaged rows"):
        again = StoredModel(model, path).observe(prompts(*TEXTS[:3]), WORDS)
    assert model.queries == 4
    assert_same(first, again)
    StoredModel(model, path).observe(prompts(*TEXTS[:3]), WORDS)
    assert model.queries == 4  # and it is repaired


def test_a_failing_model_loses_nothing_that_it_answered(path):
    broken = FakeModel(faults={17: ModelError("server gone")}, batch_size=4)
    with pytest.raises(ModelError, match="server gone"):
        StoredModel(broken, path).observe(prompts(*TEXTS), WORDS)
    healthy = FakeModel()
    StoredModel(healthy, path).observe(prompts(*TEXTS), WORDS)
    assert healthy.queries == 30 - 16


def test_failed_answers_are_not_stored(path, monkeypatch):
    from dataclasses import replace

    class Flaky(FakeModel):
        def stream(self, prompts, words):
            for positions, answers in super().stream(prompts, words):
                status = np.where(positions % 2, Status.FAILED, Status.OK)
                yield positions, replace(answers, status=status)

    StoredModel(Flaky(), path).observe(prompts(*TEXTS[:8]), WORDS)
    assert statistics(path)["rows"] == 4


def test_only_the_owner_can_read_it(path):
    StoredModel(FakeModel(), path).observe(prompts("secret words"), WORDS)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"secret" not in path.read_bytes()


def refused(path: Path, match: str) -> None:
    model = FakeModel()
    with pytest.raises(StoreError, match=match):
        StoredModel(model, path).observe(prompts("a"), WORDS)
    assert model.queries == 0


def test_what_is_not_a_store_is_refused_before_any_query(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to look at " * 50)
    refused(tmp_path / "text", "is not a database. It is no store")
    refused(tmp_path, "unable to open")
    refused(tmp_path / "text" / "below", "File exists|(?i:not a directory|path)")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE t (x)")
    other.commit()
    other.close()
    refused(tmp_path / "other", "database of another program")


def test_a_newer_store_is_refused(path):
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    refused(path, "has schema 99, this fewfit knows 2")


def test_a_locked_store_is_refused_before_any_query(path, monkeypatch):
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    monkeypatch.setattr("fewfit.store.file._TIMEOUT_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    refused(path, "locked")
    holder.close()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="file permissions are POSIX's")
def test_a_read_only_store_is_refused_before_any_query(tmp_path):
    path = tmp_path / "observations.sqlite"
    StoredModel(FakeModel(), path).observe(prompts("a"), WORDS)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    try:
        out = warm.run(
            f"""
            import os
            from fewfit.errors import StoreError
            from fewfit.models import FakeModel
            from fewfit.prompts import Template
            from fewfit.store import StoredModel
            if os.geteuid() == 0:
                os.setuid(65534)  # root may write anything
            model = FakeModel()
            prompt = Template("{{text}} {{mask}}").render({{"text": "a"}})
            try:
                StoredModel(model, {str(path)!r}).observe([prompt], ["x", "y"])
            except StoreError as error:
                print(model.queries, error)
            """
        )
    finally:
        tmp_path.chmod(0o755)
        path.chmod(0o600)
    assert out.startswith("0 the store")
    assert "readonly" in out or "read-only" in out


@pytest.mark.skipif(sys.platform == "win32", reason="limits on files are POSIX's")
def test_a_full_disk_loses_no_answer(tmp_path):
    path = tmp_path / "observations.sqlite"
    out = warm.run(
        f"""
        import resource, signal
        from fewfit.errors import StoreError
        from fewfit.models import FakeModel
        from fewfit.prompts import Template
        from fewfit.store import StoredModel, statistics
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        template = Template("{{text}} {{mask}}")
        prompts = [template.render({{"text": str(i)}}) for i in range(400)]
        model = FakeModel(hidden_size=64)
        stored = StoredModel(model, {str(path)!r})
        stored.observe(prompts[:8], ["x", "y"])
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))
        try:
            stored.observe(prompts, ["x", "y"])
        except StoreError as error:
            print("full", "answers, is in" in str(error), model.queries < 400)
        before = model.queries
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        stored.observe(prompts, ["x", "y"])
        print("asked in all", model.queries, statistics({str(path)!r})["rows"])
        """
    )
    assert out.splitlines() == ["full True True", "asked in all 400 400"]


FIT = """
import sys
from fewfit import FewShotClassifier
from fewfit.models import FakeModel
texts = [f"text number {i}" for i in range(60)]
labels = ["no" if i % 2 else "yes" for i in range(60)]
model = FakeModel(batch_size=4, seconds=float(sys.argv[3]), log=sys.argv[2])
clf = FewShotClassifier(model, labels={"no": "bad", "yes": "good"}, store=sys.argv[1])
clf.fit(texts, labels)
print(clf.predict_proba(texts[:3]).tolist())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("answered", [1, 9, 30, 57])
def test_a_killed_fit_goes_on_where_it_was(tmp_path, answered):
    store, log = tmp_path / "store.sqlite", tmp_path / "log"
    log.touch()

    process = Program(FIT, store, log, 0.03)
    deadline = time.monotonic() + 60
    while len(log.read_bytes().splitlines()) < answered and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    paid = log.read_text().splitlines()
    assert answered <= len(paid) < 61
    out = warm.run(FIT, store, log, 0)
    asked = log.read_text().splitlines()
    # What nobody has seen is asked again: what was in flight, or came in the last 50 ms.
    assert len(set(asked)) == 61
    assert len(asked) - 61 <= 4 * (2 + 0.05 / 0.03)
    assert out == warm.run(FIT, tmp_path / "new", tmp_path / "log2", 0)


def test_several_writers_share_one_store(tmp_path):
    code = """
    import sys
    from fewfit.models import FakeModel
    from fewfit.prompts import Template
    from fewfit.store import StoredModel
    template = Template("{text} {mask}")
    texts = [str((int(sys.argv[2]) * 37 + i) % 200) for i in range(200)]
    prompts = [template.render({"text": text}) for text in texts]
    StoredModel(FakeModel(batch_size=5), sys.argv[1]).observe(prompts, ["x", "y"])
    """
    path = tmp_path / "store.sqlite"
    processes = [Program(code, path, i) for i in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert statistics(path)["rows"] == 200


def test_the_environment_moves_the_default(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWFIT_CACHE", str(tmp_path / "here"))
    assert default_path() == tmp_path / "here" / "observations.sqlite"
    monkeypatch.delenv("FEWFIT_CACHE")
    assert default_path().name == "observations.sqlite"
    assert "fewfit" in default_path().parts
