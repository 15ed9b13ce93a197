"""``fewfit suggest``: a file to fill in."""

from __future__ import annotations

import csv
import json

import pytest

from fewfit import FewShotClassifier
from tests.cli.helpers import WORDS, csv_bytes, run

POOL = [[str(i), f"{w} day {i}", ""] for i in range(12) for w in ("good", "bad")]
HEADER = ["id", "text", "label"]


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.csv"
    path.write_bytes(csv_bytes(rows=[HEADER, *POOL, ["99", " ", ""], POOL[0]]))
    return path


def read(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_from_a_model_and_words_to_an_artifact(tmp_path, pool):
    todo = tmp_path / "todo.csv"
    said = run("suggest", "fake", pool, "-n", 4, "-o", todo, *WORDS)
    assert f"4 texts to label in {todo}, 25 queries asked; fill in 'label'" in said.stderr
    rows = read(todo)
    assert list(rows[0]) == [*HEADER, "reason"]
    assert [row["label"] for row in rows] == [""] * 4
    assert {row["reason"] for row in rows} <= {"typical", "uncertain", "new class suspected"}
    assert all([row["id"], row["text"], ""] in POOL for row in rows)
    again = run("suggest", "fake", pool, "-n", 4, *WORDS)
    assert again.stdout == todo.read_text()

    done = [[r["id"], r["text"], "pos" if "good" in r["text"] else "neg"] for r in rows]
    (tmp_path / "done.csv").write_bytes(csv_bytes(rows=[HEADER, *done]))
    run("fit", tmp_path / "done.csv", "-o", tmp_path / "task", "--model", "fake", *WORDS)
    rest = [row for row in POOL if row[1] not in {d[1] for d in done}]
    pool.write_bytes(csv_bytes(rows=[HEADER, *rest, *done]))
    more = run("suggest", tmp_path / "task", pool, "-n", 50, "-o", tmp_path / "more.csv")
    assert "20 texts to label" in more.stderr
    assert ", 0 queries asked" in more.stderr
    assert {row["text"] for row in read(tmp_path / "more.csv")} == {row[1] for row in rest}
    model = run("suggest", "fake", pool, "-n", 50, *WORDS)
    assert len(model.stdout.splitlines()) == 21


def test_a_file_without_a_label_column_gets_one_and_lines_of_json_say_null(tmp_path):
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=[["text"], *([row[1]] for row in POOL)]))
    run("suggest", "fake", tmp_path / "pool.csv", "-n", 2, "-o", tmp_path / "a.csv", *WORDS)
    assert list(read(tmp_path / "a.csv")[0]) == ["text", "label", "reason"]
    said = run("suggest", "fake", tmp_path / "pool.csv", "-n", 2, "--json", *WORDS)
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert [line["label"] for line in lines] == [None, None]
    assert set(lines[0]) == {"text", "label", "reason"}


def test_what_it_wrote_can_be_filled_in_and_given_back(tmp_path, pool):
    run("suggest", "fake", pool, "-n", 4, "-o", tmp_path / "todo.csv", *WORDS)
    done = [
        {**row, "label": ("pos", "neg")[i % 2]} for i, row in enumerate(read(tmp_path / "todo.csv"))
    ]
    rest = [row for row in POOL if row[1] not in {d["text"] for d in done}]
    rows = [list(d.values()) for d in done] + [[*row, ""] for row in rest]
    (tmp_path / "both.csv").write_bytes(csv_bytes(rows=[[*HEADER, "reason"], *rows]))
    run("fit", tmp_path / "both.csv", "-o", tmp_path / "task", "--model", "fake", *WORDS)
    said = run("suggest", tmp_path / "task", tmp_path / "both.csv", "-n", 50, "--json")
    lines = [json.loads(line) for line in said.stdout.splitlines()]
    assert {line["text"] for line in lines} == {row[1] for row in rest}
    assert [*lines[0]] == [*HEADER, "reason"], "all columns of the file"
    (tmp_path / "both.csv").write_bytes(csv_bytes(rows=[[*HEADER, "Reason"], *rows]))
    run("suggest", tmp_path / "task", tmp_path / "both.csv", "-n", 3, "-o", tmp_path / "c.csv")
    assert all(row["Reason"] for row in read(tmp_path / "c.csv")), "by the name that it has"
    assert "a file that holds them too" in said.stderr


def test_columns_without_a_name_keep_their_cells(tmp_path):
    rows = [["", "text", "label", ""], ["3", "new one", "", "baz"], ["4", "bad", "neg", "bar"]]
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=rows))
    args = ["suggest", "fake", tmp_path / "pool.csv", "-n", 1, *WORDS]
    lines = run(*args).stdout.splitlines()
    assert lines[0] == ",text,label,,reason"
    assert lines[1].startswith("3,new one,,baz,")
    told = json.loads(run(*args, "--json").stdout)
    assert [*told.values()][:4] == ["3", "new one", None, "baz"]
    assert [*told] == ["column 1", "text", "label", "column 4", "reason"]


def test_classes_that_are_no_text_and_classes_that_are_new(tmp_path, pool):
    clf = FewShotClassifier("fake", labels={0: "bad", 1: "good"}, store=None)
    clf.fit(["so good", "so bad"], [1, 0]).save(tmp_path / "task")
    rows = [["1", POOL[0][1], "1"], *POOL[1:]]
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=[HEADER, *rows]))
    assert ",bad day" in run("suggest", tmp_path / "task", tmp_path / "pool.csv", "-n", 1).stdout
    rows[0][2] = "billing"
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=[HEADER, *rows]))
    wrong = run("suggest", tmp_path / "task", tmp_path / "pool.csv", code=2).stderr
    assert "pool.csv: line 2: class 'billing' is not one of ['0', '1']" in wrong


def test_one_label_of_one_class_is_known_too(tmp_path):
    rows = [["1", POOL[0][1], "pos"], *POOL[1:]]
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=[HEADER, *rows]))
    said = run("suggest", "fake", tmp_path / "pool.csv", "-n", 1, *WORDS)
    assert ",bad day" in said.stdout


@pytest.mark.parametrize(
    ("rows", "args", "said"),
    [
        ([HEADER, *POOL], [], "the classes have to be named"),
        ([HEADER, *POOL], [*WORDS, "--label-column", "class"], "--label-column: no column 'class'"),
        ([[*HEADER, "reason"], *([*r, "late"] for r in POOL)], WORDS, "'reason' of its own"),
        ([HEADER, ["1", "good", "pos"]], WORDS, "every row has a label already"),
        ([HEADER, *POOL], [*WORDS, "--errors", "no"], "--errors"),
        ([HEADER, *POOL, ["9", "so", "meh"]], WORDS, "class 'meh' (line 26) has no label words"),
    ],
)
def test_what_cannot_be_suggested_from_is_refused(tmp_path, rows, args, said):
    (tmp_path / "pool.csv").write_bytes(csv_bytes(rows=rows))
    assert said in run("suggest", "fake", tmp_path / "pool.csv", *args, code=2).stderr


def test_artifacts_have_their_own_words_and_one_label_a_row(tmp_path, pool):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "one", "--model", "fake", *WORDS)
    assert (
        "an artifact has its own" in run("suggest", tmp_path / "one", pool, *WORDS, code=2).stderr
    )
    args = ["-o", tmp_path / "many", "--model", "fake", "--multi-label"]
    run("fit", tmp_path / "train.csv", *args)
    assert "several labels" in run("suggest", tmp_path / "many", pool, code=2).stderr


def test_a_second_model_gives_the_hidden_states(tmp_path, pool):
    """Beside a model that is named, or the one of an artifact."""
    model = ("--hidden", "embedded", *WORDS)
    alone = run("suggest", "fake", pool, "-n", 6, *WORDS).stdout
    both = run("suggest", "fake", pool, "-n", 6, "-o", tmp_path / "both.csv", *model).stderr
    assert "25 queries asked" in both  # a text, of whichever of the two
    assert (tmp_path / "both.csv").read_text() != alone
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "one", "--model", "fake", *model)
    told = run("suggest", tmp_path / "one", pool, "-o", tmp_path / "more.csv").stderr
    assert ", 0 queries asked" in told
    again = ("--model", "fake", "--hidden", "embedded", "-o", tmp_path / "same.csv")
    run("suggest", tmp_path / "one", pool, *again)
    assert (tmp_path / "same.csv").read_text() == (tmp_path / "more.csv").read_text()
