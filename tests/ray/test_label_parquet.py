"""The script of docs/scale.md on a local Ray of two workers; see run.sh."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fewfit import FewShotClassifier
from tests.fake_server import FakeServer, Reply

pytestmark = pytest.mark.skipif(not os.environ.get("FEWFIT_RAY"), reason="Ray: make test-ray")

SCRIPT = Path(__file__).parents[2] / "docs" / "scale" / "label_parquet.py"
FILES, ROWS, CONNECTIONS = 4, 200, 4


@pytest.fixture
def mails(tmp_path):
    """Some files with an id, a text, and what must stay as it is."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "mails").mkdir()
    for i in range(FILES):
        numbers = list(range(i * ROWS, (i + 1) * ROWS))
        texts = [f"mail {n} on money" if n % 7 else None for n in numbers]
        stars = pa.array([n if n % 3 else None for n in numbers], pa.int64())
        table = pa.table({"id": numbers, "text": texts, "stars": stars})
        pq.write_table(table, tmp_path / "mails" / f"{i}.parquet")
    return tmp_path / "mails"


def command(folder, artifact, mails):
    return [
        *(sys.executable, str(SCRIPT), str(artifact), str(mails), str(folder / "out")),
        *("--id", "id", "--workers", "2", "--batch", "20", "--block-mb", "0.001"),
        *("--store", str(folder / "store.sqlite")),
    ]


def environment():
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "NO_PROXY": "127.0.0.1,localhost"}


def rows_of(folder):
    """Rows by id; no id twice."""
    import pyarrow.parquet as pq

    rows = [row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def test_a_killed_run_goes_on_and_pays_for_nothing_twice(tmp_path, mails):
    with FakeServer(lambda request, before: Reply(request.honest.body, delay=0.05)) as server:
        spec = f"embeddings:{server.url}?model=toy&connections={CONNECTIONS}"
        texts = ["money back", "a refund", "it crashed", "an error"]
        classifier = FewShotClassifier(spec, store=None)
        classifier.fit(texts, ["billing", "billing", "support", "support"])
        classifier.save(tmp_path / "topics")
        server.requests.clear()
        line = command(tmp_path, tmp_path / "topics", mails)
        with (tmp_path / "log").open("wb") as log:
            run = subprocess.Popen(
                line, stdout=log, stderr=log, env=environment(), start_new_session=True
            )
            out = tmp_path / "out"
            while len(list(out.glob("*.parquet"))) < 3 and run.poll() is None:
                time.sleep(0.02)
            os.killpg(run.pid, signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
        time.sleep(5)  # Ray's own processes notice, and end
        before, asked = rows_of(out), len(server.requests)
        assert 0 < len(before) < FILES * ROWS
        written = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
        subprocess.run(line, check=True, env=environment(), timeout=120)
        rows = rows_of(out)
        assert rows.keys() == set(range(FILES * ROWS))
        assert all(path.stat().st_mtime_ns == at for path, at in written.items())
        assert all(rows[n] == row for n, row in before.items())
        # Label sentences are asked for in each run of each worker; texts, but for those under way
        # when the run was killed, once.
        said = [r.text for r in server.requests if r.text.startswith("mail ")]
        distinct = {f"mail {n} on money" for n in range(FILES * ROWS) if n % 7}
        assert set(said) == distinct
        assert len(said) - len(distinct) <= 2 * CONNECTIONS
        assert asked < len(server.requests)
        expected = classifier.predict_proba([f"mail {n} on money" for n in rows if n % 7])
        answered = [row for n, row in rows.items() if n % 7]
        shown = [row["probability"] for row in answered]
        np.testing.assert_allclose(shown, expected.max(axis=1), atol=1e-6)
        assert all(rows[n]["stars"] == (n if n % 3 else None) for n in rows)
        assert {rows[n]["prediction_status"] for n in rows if n % 7 == 0} == {"failed: no text"}
        asked = len(server.requests)
        subprocess.run(line, check=True, env=environment(), timeout=120)
        assert len(server.requests) == asked
        assert rows_of(out) == rows


def test_the_embedded_model_labels_as_one_process_does(tmp_path, mails):
    classifier = FewShotClassifier(store=None)
    classifier.fit(["money back", "it crashed"], ["billing", "support"])
    classifier.save(tmp_path / "topics")
    line = command(tmp_path, tmp_path / "topics", mails)
    subprocess.run(line, check=True, env=environment(), timeout=120)
    rows = rows_of(tmp_path / "out")
    answered = [row for n, row in rows.items() if n % 7]
    expected = classifier.predict_proba([row["text"] for row in answered])
    np.testing.assert_allclose(
        [row["probability"] for row in answered], expected.max(axis=1), atol=1e-5
    )
