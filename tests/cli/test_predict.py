from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fewfit import load
from fewfit.artifacts.schema import ColumnsEntry
from fewfit.cli.loading import Answering
from fewfit.cli.writing import Output
from fewfit.models import FakeModel
from fewfit.store import default_path
from fewfit.tables import open_table
from tests.cli.helpers import LABELS, TEXTS, WORDS, csv_bytes, run
from tests.warm import Program, lines_of

ROWS = [[text, label] for text, label in zip(TEXTS, LABELS, strict=True)]


@pytest.fixture
def artifact(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    args = ["-o", tmp_path / "task", "--model", "fake", *WORDS]
    run("fit", tmp_path / "train.csv", *args)
    return tmp_path / "task"


def many(path, n, *, every=7):
    """Write n rows of which every seventh is the same and one has no text."""
    texts = [f"good {i}" if i % every else "bad" for i in range(n)]
    texts[n // 2] = " "
    path.write_bytes(csv_bytes(rows=[["id", "text"], *([i, t] for i, t in enumerate(texts))]))
    return path


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("decoder", ["dect", "zero-shot"])
@pytest.mark.parametrize("calibration", ["contextual", "batch"])
def test_parts_are_one_and_the_same_as_all_at_once(tmp_path, monkeypatch, calibration, decoder):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    args = ["--model", "fake", *WORDS, "--calibration", calibration, "--decoder", decoder]
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "task", *args)
    new = many(tmp_path / "new.csv", 200)
    whole = run("predict", tmp_path / "task", new, "--proba", "--store", "none").stdout
    for first, largest in ((1, 1), (3, 50), (64, 64)):
        monkeypatch.setattr("fewfit.cli.loading.FIRST", first)
        monkeypatch.setattr("fewfit.cli.loading.LARGEST", largest)
        parts = run("predict", tmp_path / "task", new, "--proba", "--store", "none")
        for one, other in zip(rows_of(parts.stdout), rows_of(whole), strict=True):
            assert one.keys() == other.keys()
            for name in one:
                # A matrix product in single precision rounds otherwise with other rows beside it.
                close = one[name] and name.startswith("probability")
                expected = pytest.approx(float(other[name]), abs=2e-6) if close else other[name]
                assert (float(one[name]) if close else one[name]) == expected
        assert ("looks at all rows at once" in parts.stderr) == (calibration == "batch")
    rows = rows_of(whole)
    assert [row["id"] for row in rows] == [str(i) for i in range(200)]


def test_no_more_than_a_part_is_held(artifact, tmp_path, monkeypatch):
    from fewfit.estimators.classifier import FewShotClassifier

    monkeypatch.setattr("fewfit.cli.loading.FIRST", 5)
    monkeypatch.setattr("fewfit.cli.loading.LARGEST", 20)
    table = open_table(str(many(tmp_path / "new.csv", 100)))
    classifier = FewShotClassifier.load(artifact, store=None)
    sizes = [len(part.rows) for part in Answering(classifier, table, {"text": [1]})]
    assert sizes == [5, 10, 20, 20, 20, 20, 5]


def test_an_empty_text_has_no_label_and_is_not_asked(artifact, tmp_path):
    rows = [["text", "label"], ["good", "x"], ["", "x"], [" \n", "x"], ["bad", "x"]]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=rows))
    result = run("predict", artifact, tmp_path / "new.csv", "--proba")
    found = [(row["prediction"], row["probability_pos"] == "") for row in rows_of(result.stdout)]
    assert found == [("pos", False), ("", True), ("", True), ("neg", False)]
    assert "2 rows without a text, and so without a label (lines 3, 4)" in result.stderr
    lines = run("predict", artifact, tmp_path / "new.csv", "--json").stdout.splitlines()
    empty = json.loads(lines[1])
    assert empty == {"prediction": None, "probabilities": {"neg": None, "pos": None}}


def test_rows_without_an_answer_are_named(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr("fewfit.cli.loading.FIRST", 2)
    monkeypatch.setattr("fewfit.cli.loading.LARGEST", 2)
    from fewfit.observations import unanswered

    ask = FakeModel._answer

    def fails(self, batch, words, directions):
        if any("lost" in prompt.user_text for prompt in batch):
            return unanswered(words, len(batch))
        return ask(self, batch, words, directions)

    monkeypatch.setattr(FakeModel, "_answer", fails)
    (tmp_path / "new.csv").write_text("text\ngood\nbad\nlost\nlost too\nfine\n")
    result = run("predict", artifact, tmp_path / "new.csv", "--errors", "nan")
    assert [row["prediction"] for row in rows_of(result.stdout)] == ["pos", "neg", "", "", "pos"]
    assert "2 rows without a usable answer, and so without a label (lines 4, 5)" in result.stderr
    status = [row["prediction_status"].partition(":")[0] for row in rows_of(result.stdout)]
    assert status == ["ok", "ok", "failed", "failed", "ok"]
    out = tmp_path / "out.csv"
    result = run("predict", artifact, tmp_path / "new.csv", "-o", out, code=3)
    assert f"2 rows of 5 are in {out}; run again to go on from there" in result.stderr
    assert [row["prediction"] for row in rows_of(out.read_text())] == ["pos", "neg"]


def test_what_it_did_is_said(artifact, tmp_path):
    new, out = many(tmp_path / "new.csv", 50), tmp_path / "out.csv"
    first = run("predict", artifact, new, "-o", out)
    assert first.stdout == ""
    assert f"50 rows in {out}: 42 queries asked, 0 answers from the store" in first.stderr
    assert "mean probability 0." in first.stderr
    assert "least sure line" in first.stderr
    again = run("predict", artifact, new, "-o", out)
    assert "0 queries asked, 42 answers from the store" in again.stderr


@pytest.mark.parametrize("column", ["prediction", "probability", "probability_pos"])
def test_a_column_of_the_input_is_never_replaced(artifact, tmp_path, column):
    rows = [["text", column], ["good", "mine"]]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=rows))
    args = ["predict", artifact, tmp_path / "new.csv", "--proba"]
    assert f"has a column {column!r} already" in run(*args, code=2).stderr
    assert json.loads(run(*args, "--json").stdout)["prediction"] == "pos"


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_asked(
    artifact, tmp_path, monkeypatch
):
    monkeypatch.setattr(FakeModel, "stream", lambda *_: pytest.fail("asked"))
    new = tmp_path / "new.csv"
    new.write_text("text\nnever asked before\n")
    (tmp_path / "link.csv").symlink_to(new)
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "out.csv", "cannot be written: No such file"),
        (new, "is also read"),
        (tmp_path / "link.csv", "is also read"),
        (artifact / "README.md", "is also read"),
        (default_path(), "is also read"),
        (tmp_path / "out.xlsx", "name a .csv or .jsonl file"),
        (tmp_path / "out.csv.gz", "name a .csv or .jsonl file"),
        (tmp_path / ("x" * 300), "cannot be written: File name too long"),
        ("a\0b", "holds a NUL character"),
    ):
        assert message in run("predict", artifact, new, "-o", path, code=2).stderr
    assert new.read_text() == "text\nnever asked before\n"


def test_what_was_there_stays_until_there_is_an_answer(artifact, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("of last week\n")
    (tmp_path / "new.csv").write_text("text\na text that is new\n")
    args = ["predict", artifact, tmp_path / "new.csv", "-o", out]
    run(*args, "--max-queries", "0", code=6)
    assert out.read_text() == "of last week\n"
    run(*args)
    assert out.read_text().startswith("text,prediction")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a disk that is full is needed")
@pytest.mark.parametrize("columns", [1, 3000])  # with a header of more than a buffer
def test_rows_that_a_full_disk_does_not_take_are_not_said_to_be_there(artifact, tmp_path, columns):
    names = [f"column {i}" for i in range(1, columns)]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=[["text", *names], ["good", *names]]))
    for said in (
        run("predict", artifact, tmp_path / "new.csv", "-o", "/dev/full", code=2).stderr,
        run("suggest", artifact, tmp_path / "new.csv", "-n", 1, "-o", "/dev/full", code=2).stderr,
    ):
        assert "--output: /dev/full: cannot be written after 0 rows: No space left" in said
        assert "1 row" not in said


def test_lists_and_missing_values_are_written_as_json_and_nothing(artifact, tmp_path):
    lines = '{"text": "good", "more": ["ä", 1]}\n{"text": "bad", "other": null}\n'
    (tmp_path / "new.jsonl").write_text(lines)
    out = run("predict", artifact, tmp_path / "new.jsonl").stdout
    assert [row["more"] for row in rows_of(out)] == ['["ä", 1]', ""]
    run("predict", artifact, tmp_path / "new.jsonl", "-o", tmp_path / "out.jsonl")
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [item["prediction"] for item in told] == ["pos", "neg"]


@pytest.fixture
def typed(tmp_path):
    """A Parquet file with what JSON does not have, plain and in lists."""
    pa = pytest.importorskip("pyarrow")
    day = datetime.datetime(2024, 5, 17, 8, 30)
    columns = {
        "text": ["good"],
        "label": [None],
        "when": [day],
        "took": [datetime.timedelta(hours=2)],
        "price": [decimal.Decimal("1.50")],
        "raw": [b"ab"],
        "share": [float("nan")],
        "days": [[day, None]],
        "nested": [{"a": [float("inf")]}],
    }
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "typed.parquet")
    return tmp_path / "typed.parquet"


def test_values_that_json_does_not_have_are_written_as_text(artifact, tmp_path, typed):
    (row,) = rows_of(run("predict", artifact, typed).stdout)
    assert row["days"] == '["2024-05-17 08:30:00", null]'
    assert row["nested"] == '{"a": [null]}'
    assert row["when"] == "2024-05-17 08:30:00"
    out = tmp_path / "todo.jsonl"
    run("suggest", artifact, typed, "-n", 1, "-o", out)
    told = json.loads(out.read_text())
    assert (told["when"], told["took"], told["price"]) == (row["when"], "2:00:00", "1.50")
    assert (told["share"], told["days"], told["nested"]) == (
        None,
        [row["when"], None],
        {"a": [None]},
    )


def test_what_cannot_be_written_does_not_empty_the_file_that_is_there(tmp_path):
    class Odd:
        def __str__(self):
            raise RuntimeError("no text")

    out = tmp_path / "out.csv"
    for as_json in (False, True):
        out.write_text("of last week\n")
        with (
            pytest.raises(RuntimeError),
            Output(str(out), ["a"], as_json=as_json, not_over=[]) as output,
        ):
            output.write([["fine"], [Odd()]], [{"a": "fine"}, {"a": Odd()}])
        assert out.read_text() == "of last week\n"


def test_what_is_not_unicode_is_written_with_escapes(artifact, tmp_path):
    lines = '{"text": "good", "m\\ud800": ["\\udfff"], "n": "é\\ud800"}\n'
    (tmp_path / "new.jsonl").write_text(lines)
    (row,) = rows_of(run("predict", artifact, tmp_path / "new.jsonl").stdout)
    assert row["m\\ud800"] == '["\\udfff"]'
    assert row["n"] == "é\\ud800"
    (tmp_path / "new.jsonl").write_text(lines.replace("good", "good day"))
    out = run("suggest", artifact, tmp_path / "new.jsonl", "-n", 1, "--json").stdout
    assert json.loads(out)["n"] == "é\ud800"


def test_a_text_that_is_none_is_refused_by_its_line(artifact, tmp_path):
    for value, message in (
        ('["a"]', "line 2, column 'text': expected text, got a list"),
        ('{"a": 1}', "line 2, column 'text': expected text, got a dict"),
        ('"\\ud800"', "line 2, column 'text': a lone surrogate"),
    ):
        (tmp_path / "new.jsonl").write_text(f'{{"text": "good"}}\n{{"text": {value}}}\n')
        assert message in run("predict", artifact, tmp_path / "new.jsonl", code=2).stderr
    (tmp_path / "new.jsonl").write_text('{"text": 42}\n{"text": 1.5}\n{"text": true}\n')
    assert len(run("predict", artifact, tmp_path / "new.jsonl").stdout.splitlines()) == 4


def test_a_killed_run_leaves_what_it_had_and_the_next_goes_on(artifact, tmp_path):
    """A process is killed while it asks; rows before are in the file, and are not paid again."""
    new, out = many(tmp_path / "new.csv", 400, every=10_000), tmp_path / "out.csv"
    log = tmp_path / "log"
    code = (
        "import sys\n"
        "import fewfit.cli.loading as loading\n"
        "from fewfit.models import KINDS, FakeModel\n"
        "import fewfit.estimators.opening as opening\n"
        "loading.FIRST = loading.LARGEST = 40\n"
        f"slow = FakeModel(log={str(log)!r}, seconds=float(sys.argv.pop(1)))\n"
        "slow.spec = 'fake'\n"
        "opening.load_model = lambda spec: slow\n"
        "from fewfit.cli import main\n"
        "main()\n"
    )
    args = ["predict", str(artifact), str(new), "-o", str(out)]
    child = Program(code, 0.02, *args)
    until = time.monotonic() + 60
    while lines_of(out) < 81 and time.monotonic() < until:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    rows = rows_of(out.read_text())
    assert 80 <= len(rows) < 400
    assert [row["id"] for row in rows] == [str(i) for i in range(len(rows))]
    said = Program(code, 0, *args).communicate()[1]
    asked = log.read_text().split()
    assert len(set(asked)) == 399
    assert len(asked) <= 399 + 8  # the batch that was in flight
    assert "answers from the store" in said
    assert len(rows_of(out.read_text())) == 400


def test_output_that_nobody_reads_ends_without_a_word(artifact, tmp_path):
    new = many(tmp_path / "new.csv", 6_000, every=2)
    command = f'"{sys.executable}" -m fewfit predict "{artifact}" "{new}" --store none | head -1'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
    )
    assert done.stdout == "id,text,prediction,probability\n"
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("redirect", "message"),
    [(">&-", "standard output is closed"), ("<&-", "standard input is closed")],
)
def test_closed_streams_are_refused_first(artifact, redirect, message):
    command = f'"{sys.executable}" -m fewfit predict "{artifact}" - {redirect}'
    piped = "text\nnever asked\n" if redirect == ">&-" else None
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, input=piped)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_terminal_that_is_not_utf_8_gets_escapes_and_a_pipe_gets_utf_8(tmp_path):
    pty = pytest.importorskip("pty")
    rows = [["text", "label"], ["gut 你好", "größer 你"], ["schlecht", "b"]]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=rows))
    run("fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake")
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command = [sys.executable, "-m", "fewfit", "predict", "t"]
    done = subprocess.run([*command, "a.csv"], capture_output=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "größer 你,größer 你,0.".encode() in done.stdout
    missing = subprocess.run([*command, "ö你.csv"], capture_output=True, env=env, cwd=tmp_path)
    assert "ö\\u4f60.csv".encode("latin-1") in missing.stderr
    ours, theirs = pty.openpty()
    done = subprocess.run([*command, "a.csv"], stdout=theirs, env=env, cwd=tmp_path)
    os.close(theirs)
    assert "größer \\u4f60,größer \\u4f60,0.".encode("latin-1") in os.read(ours, 10_000)
    os.close(ours)


def test_without_a_home_folder_it_is_said(artifact, tmp_path, monkeypatch):
    monkeypatch.delenv("FEWFIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home() -> None:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", home)
    new = many(tmp_path / "new.csv", 3)
    result = run("predict", artifact, new, code=5)
    assert "no home folder" in result.stderr
    assert result.stderr.count("\n") == 1
    run("predict", artifact, new, "--store", "none")


def test_columns_of_another_file(artifact, tmp_path):
    """Where the remembered columns are not there, the field's own name is; else it is said."""
    from fewfit.estimators.classifier import FewShotClassifier

    classifier = FewShotClassifier.load(artifact)
    classifier.columns_ = ColumnsEntry(fields={"text": ["message"]}, label="topic", separator=None)
    classifier.save(tmp_path / "other")
    (tmp_path / "a.csv").write_text("id;MESSAGE;text\n1;good;bad\n")
    (tmp_path / "b.csv").write_text("id,text\n1,bad\n")
    (tmp_path / "c.csv").write_text("id,body\n1,bad\n")
    assert (
        rows_of(run("predict", tmp_path / "other", tmp_path / "a.csv").stdout)[0]["prediction"]
        == "pos"
    )
    assert "neg" in run("predict", tmp_path / "other", tmp_path / "b.csv").stdout
    said = run("predict", tmp_path / "other", tmp_path / "c.csv", code=2).stderr
    assert "the artifact was fitted on ['message']" in said


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is not there; 'fewfit fit FILE -o"),
        (lambda folder: folder.write_text(""), "is not a folder"),
        (lambda folder: folder.mkdir(), "cannot be read"),
    ],
)
def test_a_missing_artifact_is_named(tmp_path, make, message):
    make(tmp_path / "task")
    (tmp_path / "a.csv").write_text("text\na\n")
    said = run("predict", tmp_path / "task", tmp_path / "a.csv", code=4).stderr
    assert message in said
    assert str(tmp_path / "task") in said


@pytest.mark.parametrize("flag", [["--multi-label"], ["--label-separator", ","]])
def test_one_label_is_not_several(artifact, tmp_path, flag):
    (tmp_path / "a.csv").write_text("text,label\na,pos\n")
    for command in ("predict", "evaluate"):
        assert (
            "fit it again with --multi-label"
            in run(command, artifact, tmp_path / "a.csv", *flag, code=2).stderr
        )


@pytest.mark.parametrize("decoder", ["offset-regression", "zero-shot"])
def test_the_rows_themselves_correct_the_classifier_at_no_further_query(
    tmp_path, monkeypatch, decoder
):
    rows = [["text", "label"], *([f"{w} day {i}", w] for i in range(8) for w in ("good", "bad"))]
    (tmp_path / "train.csv").write_bytes(csv_bytes(rows=rows))
    run(
        "fit", tmp_path / "train.csv", "-o", tmp_path / "t", "--model", "fake", "--decoder", decoder
    )
    files = {f.name: f.read_bytes() for f in (tmp_path / "t").iterdir()}
    texts = [[f"{w} thing {i}"] for i in range(51) for w in ("so good", "quite bad")]
    texts[3] = [" "]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=[["text"], *texts]))
    args = ("predict", tmp_path / "t", tmp_path / "new.csv")
    plain = rows_of(run(*args).stdout)
    monkeypatch.setattr("fewfit.cli.loading.FIRST", 3)
    done = run(*args, "--adapt", "-o", tmp_path / "out.csv")
    told = rows_of((tmp_path / "out.csv").read_text())
    assert "0 queries asked" in done.stderr
    assert told[3]["prediction"] == plain[3]["prediction"] == ""
    assert [r["probability"] for r in told] != [r["probability"] for r in plain]
    clf = load(tmp_path / "t")
    given = [t for (t,) in texts if t.strip()]
    want = clf.adapt(given).predict_proba(given).max(axis=1)
    got = [float(r["probability"]) for r in told if r["probability"]]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert {f.name: f.read_bytes() for f in (tmp_path / "t").iterdir()} == files


def test_what_cannot_adapt_says_so_before_anything_is_asked(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    args = ["--model", "fake", *WORDS, "--decoder", "dect"]
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", *args)
    done = run("predict", tmp_path / "t", tmp_path / "none.csv", "--adapt", code=2)
    assert "--adapt: the artifact's decoder, DecT" in done.stderr


def test_a_budget_speaks_of_the_whole_file_and_not_of_one_part(artifact, tmp_path):
    rows = [["text"], *([f"good {i}"] for i in range(500))]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=rows))
    args = ["predict", artifact, tmp_path / "new.csv", "--max-queries", 100]
    said = run(*args, "--store", tmp_path / "store", code=6).stderr
    assert "100 prompts were answered now and are stored, at most 400 are left" in said
    assert "at most 300 are left" in run(*args, "--store", tmp_path / "store", code=6).stderr
    args = ["--max-queries", 300, "--store", tmp_path / "store"]
    assert run("predict", artifact, tmp_path / "new.csv", *args).stdout.count("good ") == 500
    said = run("predict", artifact, tmp_path / "new.csv", *args[:2], "--store", "none", code=6)
    assert "192 prompts were answered, which are lost" in said.stderr
    assert "at most 308 are left" in said.stderr


def test_the_help_says_which_columns_several_labels_have(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", "--multi-label", "--model", "fake")
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=[["text"], ["good"]]))
    out = run("predict", tmp_path / "t", tmp_path / "new.csv", "--store", "none").stdout
    assert out.splitlines()[0] == "text,prediction"
    said = " ".join(run("predict", "--help").stdout.split())
    assert "several labels, 'prediction' holds those that are given" in said
