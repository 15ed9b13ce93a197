from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from fewfit.cli import app
from fewfit.cli.output import plain_errors
from tests.estimators.test_classifier import TEXTS, Y

runner = CliRunner()
WORDS = ["--label", "neg=bad", "--label", "pos=good,fine"]


def run(*args: str, code: int = 0, input: str | bytes | None = None):
    result = runner.invoke(app, [str(arg) for arg in args], input=input)
    assert result.exit_code == code, result.output + str(result.exception)
    return result


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("review", "label"), *zip(TEXTS, Y, strict=True)])
    return path


@pytest.fixture
def artifact(train, tmp_path):
    folder = tmp_path / "task"
    run("fit", train, "-o", folder, "--text-column", "review", "--model", "fake", *WORDS)
    return folder


def _commands(command, path=()):
    yield path, command
    for name, own in getattr(command, "commands", {}).items():
        yield from _commands(own, (*path, name))


def test_all_that_a_command_and_its_options_say_is_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "2000")
    for path, command in _commands(get_command(app)):
        shown = "".join(run(*path, "--help").output.split())
        options = [param for param in command.params if not getattr(param, "hidden", False)]
        for text in (command.help, *(getattr(param, "help", None) for param in options)):
            assert "".join((text or "").split()) in shown, (path, text)
    assert "[default: 1,4,16, as far as" in run("compare", "--help").output


def test_fit_reports_its_cost(train, tmp_path):
    args = ["fit", train, "-o", tmp_path / "t", "--text-column", "review", "--model", "fake"]
    report = json.loads(run(*args, *WORDS, "--json").stdout)
    assert report["queries"] == len(TEXTS) + 1
    assert report["classes"] == ["neg", "pos"]
    again = run(*args, *WORDS)
    assert "0 queries" in again.stdout


def test_predict_keeps_the_rows_and_adds_columns(artifact, tmp_path):
    new = tmp_path / "new.csv"
    new.write_text('id,review\n1,"good, ""very"" good"\n2,bad\n', encoding="utf-8-sig")
    out = run("predict", artifact, new, "--text-column", "review", "--proba").stdout
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["prediction"] for row in rows] == ["pos", "neg"]
    assert rows[0]["review"] == 'good, "very" good'
    for row in rows:
        p = [float(row["probability_neg"]), float(row["probability_pos"])]
        assert sum(p) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(p)


def test_predict_reads_pipes_and_writes_files(artifact, tmp_path):
    out = tmp_path / "out.jsonl"
    lines = b'{"text": "good"}\n\n{"text": "bad"}\n'
    run("predict", artifact, "-", "--format", "jsonl", "--json", "-o", out, input=lines)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["prediction"] for row in rows] == ["pos", "neg"]
    assert set(rows[0]["probabilities"]) == {"neg", "pos"}


def test_all_formats_hold_the_same(artifact, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"text": text, "label": name} for text, name in zip(TEXTS, Y, strict=True)]
    lines = "\n".join(json.dumps(row) for row in rows)
    tabs = "\n".join(["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in rows)])
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.tsv").write_text(tabs)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(tabs.replace("\t", ",").encode()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.tsv", "a.csv.gz", "a.jsonl.gz", "a.parquet"):
        report = json.loads(run("evaluate", artifact, tmp_path / name, "--json").stdout)
        assert (report["accuracy"], report["n"]) == (1.0, 6)


def test_evaluate_prints_a_table(artifact, train):
    out = run("evaluate", artifact, train, "--text-column", "review").stdout
    assert "| accuracy " in out
    assert "0.610 to 1.000" in out  # Wilson's interval for 6 of 6


def test_label_words_from_a_file(train, tmp_path):
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"neg": "bad", "pos": ["good", "fine"]}))
    args = ["fit", train, "--text-column", "review", "--model", "fake", "--labels", words]
    run(*args, "-o", tmp_path / "one")
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["labels"] == [["neg", ["bad"]], ["pos", ["good", "fine"]]]


def test_shots_draws_a_sample(train, tmp_path):
    args = ["fit", train, "--text-column", "review", "--model", "fake", *WORDS, "--json"]
    report = json.loads(run(*args, "-o", tmp_path / "t", "--shots", 2).stdout)
    assert report["examples"] == 4
    run(*args, "-o", tmp_path / "t", "--shots", 9, code=2)


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--text-column", "review"] * 2, 2, "--text-column: 'review' is named twice"),
        (["--text-column", "review", "--text-column", " Review"], 2, "' Review' is named twice"),
        (["--text-column", "nope"], 2, "no column 'nope'; there are ['label', 'review']"),
        ([], 2, "the template needs column 'text'"),
        (["--label-column", "nope", "--text-column", "review"], 2, "--label-column: no column"),
        (["--text-column", "review", "--decoder", "magic"], 2, "'magic' is not one of"),
        (["--text-column", "review", "--calibration", "ratio"], 2, "gives 'logprob' scores"),
        (["--text-column", "review", "--template", "{text}"], 2, "exactly one {mask}"),
        (["--text-column", "review", "--label", "neg"], 2, "expected CLASS=word"),
        (["--text-column", "review", "--label", "neg=a", "--label", "pos=a"], 2, "stands for"),
        (["--text-column", "review", "--model", "gpt-9"], 2, "'gpt-9' is not known"),
        (["--text-column", "review", "--store", "/dev/null/x"], 5, "the store /dev/null/x"),
        (["--text-column", "review", "--template", "{a} {b} {mask}"], 2, "one field"),
    ],
)
def test_bad_arguments_are_one_line_and_an_exit_code(train, tmp_path, args, code, message):
    fit = ["fit", train, "-o", tmp_path / "t", "--model", "fake", *args]
    result = run(*fit, code=code)
    assert message in result.stderr
    assert result.stderr.startswith("fewfit: error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.csv", b"text,label\nx\n", "line 2 has 1 values for 2 columns"),
        ("a.csv", b"text,text\nx,y\n", "there are ['text (column 1)', 'text (column 2)']"),
        ("a.csv", b'text,label\n"x,y\n', "unexpected end of data"),
        ("a.csv", "text,label\nПривет,y\n".encode("cp1251"), "not UTF-8 at byte 11"),
        ("a.csv", b"text,label\nx,\n", "no row has a label"),
        ("a.jsonl", b"{}\n{", "line 2 is not JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", b'{"text": "x", "label": "y"}\n{"label": "y"}\n', "without a text"),
        ("a.parquet", b"PAR1 not really", "not a Parquet file"),
        ("a.csv.gz", b"not gzip", "cannot be read"),
        ("a.xlsx", b"", "not an Excel workbook"),
        ("a.mails", b"text\n", "add --format"),
        ("missing.csv", None, "cannot be read: No such file"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    if name.endswith(".xlsx"):
        pytest.importorskip("python_calamine")
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    result = run("fit", path, "-o", tmp_path / "t", "--model", "fake", code=2)
    assert message in result.stderr


def test_a_damaged_artifact_has_its_exit_code(artifact, train):
    (artifact / "decoder.safetensors").write_bytes(b"")
    result = run("predict", artifact, train, "--text-column", "review", code=4)
    assert "differs from its checksum" in result.stderr


def test_a_label_that_was_never_learnt_is_refused(artifact, tmp_path):
    (tmp_path / "odd.csv").write_text("text,label\ngood,odd\n")
    assert "'odd' is not one of" in run("evaluate", artifact, tmp_path / "odd.csv", code=2).stderr


def test_a_real_process_is_silent_in_a_pipe(artifact, tmp_path):
    (tmp_path / "new.csv").write_text("text\ngood\nbad\n")
    out = subprocess.run(
        [sys.executable, "-m", "fewfit", "predict", str(artifact), str(tmp_path / "new.csv")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert out.stderr == ""
    assert out.stdout.splitlines()[0] == "text,prediction,probability"


@pytest.mark.parametrize("how", ["predict {} - -o {new} <{new}", "predict {} {new} >>{new}"])
def test_a_file_is_not_written_while_it_is_read_through_the_shell(artifact, tmp_path, how):
    new = tmp_path / "new.csv"
    new.write_text("text\ngood\n")
    program = shlex.join([sys.executable, "-m", "fewfit"])
    command = how.format(shlex.quote(str(artifact)), new=shlex.quote(str(new)))
    done = subprocess.run(f"{program} {command}", shell=True, capture_output=True, env=os.environ)
    assert done.returncode == 2
    assert b"is also read; name another file" in done.stderr
    assert new.read_text() == "text\ngood\n"


@pytest.mark.parametrize("to", ["closed", "full", "unread"])
def test_where_notes_cannot_be_read_the_work_is_done(artifact, tmp_path, to):
    if to == "full" and not os.path.exists("/dev/full"):
        pytest.skip("a disk that is full is needed")
    (tmp_path / "new.csv").write_bytes("text\ncaf\xe9\n".encode("cp1252"))  # which is said
    shell = {"closed": "2>&-", "full": "2>/dev/full", "unread": "2>&1 >&- | true"}[to]
    args = [sys.executable, "-m", "fewfit", "predict", artifact, tmp_path / "new.csv", "-o"]
    command = shlex.join(map(str, [*args, tmp_path / "out.csv"]))
    done = subprocess.run(f"{command} {shell}", shell=True, capture_output=True, env=os.environ)
    assert done.returncode == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_the_demo_tells_the_whole_story(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    out = run("demo", "--output", tmp_path / "demo", "--model", "fake", "--seeds", 2).stdout
    for line in (
        "10 classes",
        "| DecT ",
        "| offset regression",
        "| linear probe ",
        "| zero-shot ",
        "Reloaded, it says:",
    ):
        assert line in out
    assert (tmp_path / "demo" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "demo" / "classifier" / "manifest.json").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # what pip install fewfit brings
    (tmp_path / "demo" / "accuracy.png").unlink()
    again = run("demo", "--output", tmp_path / "demo", "--model", "fake", "--seeds", 1).stdout
    assert "Reloaded, it says:" in again
    assert 'No plot: plots need matplotlib: pip install "fewfit[plot]"' in again
    assert not (tmp_path / "demo" / "accuracy.png").exists()


def test_version_and_help():
    assert run("--version").stdout.strip().count(".") == 2
    for command in ("demo", "fit", "predict", "evaluate"):
        assert "Usage" in run(command, "--help").stdout


def test_nothing_is_looked_through_when_a_command_ends():
    """Half a second of a command that loaded weights; what is registered first is called last."""
    code = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 1000));"
        "sys.argv = ['fewfit', '--version'];"
        "from fewfit.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"store": "default"}, "interrupted; what was answered is in the store"),
        ({"store": "none"}, "interrupted; nothing is kept"),
        ({"checkpoint": None}, "interrupted; nothing is kept"),
        ({"checkpoint": "run.pt"}, "interrupted; the same command goes on from what its --checkp"),
        ({"model": "embedded"}, "interrupted\n"),
    ],
)
def test_an_interrupted_command_says_what_it_has_left(arguments, said, capsys):
    @plain_errors
    def command(**arguments) -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit):
        command(**arguments)
    assert f"fewfit: {said}" in capsys.readouterr().err
