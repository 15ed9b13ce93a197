from __future__ import annotations

import gzip
import json
import math
import shlex

import pytest

from fewfit import FewShotClassifier
from fewfit.artifacts import schema
from tests.cli.helpers import LABELS, TEXTS, WORDS, csv_bytes, run, write_xlsx
from tests.fake_server import FakeServer

ROWS = [[text, label] for text, label in zip(TEXTS, LABELS, strict=True)]


@pytest.fixture
def fit(tmp_path):
    """Fit on rows under a header; return the report, what was said, and the artifact."""

    def call(rows, *args, name="train.csv", code=0):
        path = tmp_path / name
        if name.endswith(".csv"):
            path.write_bytes(csv_bytes(rows=rows))
        else:
            records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
            path.write_text("\n".join(map(json.dumps, records)))
        folder = tmp_path / "task"
        result = run("fit", path, "-o", folder, "--model", "fake", "--json", *args, code=code)
        return (json.loads(result.stdout) if not code else None), result.stderr, folder

    return call


def test_fit_prints_a_next_command_that_runs(tmp_path):
    (tmp_path / "a b.csv").write_bytes(csv_bytes())
    out = run("fit", tmp_path / "a b.csv", "-o", tmp_path / "my task", "--model", "fake").stdout
    line = next(line for line in out.splitlines() if line.startswith("Next: "))
    program, *args = shlex.split(line.removeprefix("Next: "))
    assert program == "fewfit"
    (tmp_path / "NEW.csv").write_bytes(csv_bytes())
    args = [str(tmp_path / a) if a in ("NEW.csv", "labelled.csv") else a for a in args]
    run(*args)
    assert (tmp_path / "labelled.csv").read_text().startswith("text,label,prediction")


@pytest.mark.parametrize("name", ["g.csv.gz", "my.mails.CSV.GZ", "my.mails.csv"])
def test_what_to_do_next_is_said_of_a_file_of_the_same_kind(tmp_path, name):
    data = csv_bytes()
    packed = name.lower().endswith(".gz")
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    out = run("fit", tmp_path / name, "-o", tmp_path / "task", "--model", "fake").stdout
    assert f" NEW{name[name.lower().index('.csv') :]} " in out


def test_the_artifact_remembers_the_columns(fit, tmp_path):
    rows = [["Subject", "Body", "Topic"], *([t, f"{t} body", y] for t, y in ROWS)]
    args = ["--text-column", "subject", "--text-column", "BODY", "--label-column", "topic"]
    _, _, folder = fit(rows, *args, "--keep-example")
    manifest, _ = schema.read(folder)
    assert manifest.columns is not None
    assert manifest.columns.fields == {"text": ["Subject", "Body"]}
    assert manifest.example.row["text"].endswith("\ngood fun body")
    (tmp_path / "new.csv").write_bytes(csv_bytes(";", "cp1252", rows))
    report = json.loads(run("evaluate", folder, tmp_path / "new.csv", "--json").stdout)
    assert (report["accuracy"], report["n"]) == (1.0, 6)
    run("predict", folder, tmp_path / "new.csv")


def test_an_artifact_without_columns_is_read(fit, tmp_path):
    """As those that were written before there was such an entry."""
    _, _, folder = fit([["text", "label"], *ROWS])
    from fewfit.artifacts.files import _canonical, sha256

    entries = json.loads((folder / schema.MANIFEST).read_text())
    del entries["columns"], entries["checksum"]
    entries["checksum"] = sha256(_canonical(entries))
    (folder / schema.MANIFEST).write_text(json.dumps(entries))
    (tmp_path / "new.csv").write_bytes(csv_bytes())
    report = json.loads(run("evaluate", folder, tmp_path / "new.csv", "--json").stdout)
    assert report["n"] == 6


def test_fields_of_a_template_are_named_by_their_columns(fit):
    rows = [["A", "B", "label"], *([t, t[::-1], y] for t, y in ROWS)]
    args = ["--template", "{one} or {two}: {mask}", "--text-column"]
    _, _, folder = fit(rows, *args, "one=a", "--text-column", "two=b", "--keep-example")
    assert schema.read(folder)[0].example.row == {"one": TEXTS[0], "two": TEXTS[0][::-1]}
    assert "say one=a" in fit(rows, *args, "a", code=2)[1]


def test_rows_without_text_or_label_are_left_out_with_their_lines(fit):
    rows = [
        ["text", "label"],
        ["", "pos"],
        *ROWS,
        ["no label", ""],
        ["two\nlines", " "],
        ["  ", ""],
    ]
    report, said, _ = fit(rows)
    assert report["examples"] == 6
    assert "2 rows without a text, left out (lines 2, 12)" in said
    assert "2 rows without a label, left out (lines 9, 10)" in said


def test_rows_without_a_label_are_learnt_from_where_the_decoder_needs_them(fit, tmp_path):
    rows = [["text", "label"], *ROWS]
    said = fit(rows, "--decoder", "ipet", code=2)[1]
    assert "--unlabelled" in said
    assert not (tmp_path / "task").exists()
    report, said, _ = fit([*rows, ["fine", ""]], "--decoder", "ipet", "--store", "none")
    assert report["unlabelled"] == 1
    assert "used as unlabelled texts (line 8)" in said
    (tmp_path / "more.csv").write_text("text\nquite fine\nso so\n")
    more = ["--unlabelled", tmp_path / "more.csv"]
    report, _, _ = fit(rows, "--decoder", "ipet", *more, "--store", "none")
    assert (report["unlabelled"], report["queries"]) == (2, 6 + 2 + 1)
    assert "does not learn from" in fit(rows, "--decoder", "dect", *more, code=2)[1]
    assert "but does in predict" in fit(rows, "--decoder", "zero-shot", *more, code=2)[1]
    report, said, _ = fit(rows, *more, "--store", "none")
    assert (report["unlabelled"], report["queries"]) == (2, 6 + 2 + 1)
    assert "the 2 texts without labels change nothing" in said


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ([1, 0] * 3, ["0", "1"]),
        ([1.0, 0.0] * 3, ["0", "1"]),
        ([True, False] * 3, ["False", "True"]),
        (["1", "0"] * 3, ["0", "1"]),
        ([10**30, 5] * 3, [str(10**30), "5"]),
    ],
)
def test_classes_of_any_type_are_text_and_numbers_are_said(fit, labels, classes):
    rows = [["text", "label"], *([t, y] for t, y in zip(TEXTS, labels, strict=True))]
    report, said, _ = fit(rows, name="train.jsonl")
    assert report["classes"] == classes
    assert "tell it nothing of what the classes mean" in said
    assert "(--label CLASS=word)" in said
    words = ["--label", f"{classes[0]}=bad", "--label", f"{classes[1]}=good"]
    assert "warning" not in fit(rows, *words, name="train.jsonl")[1]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1", "1.0", 2, 2.0, "2.00", " 2"], {"1": 2, "2": 4}),
        (["1.0", "1.5", "1.0"] * 2, {"1.0": 4, "1.5": 2}),
        ([True, "true", "TRUE", False, "False", "no"], {"False": 2, "True": 3, "no": 1}),
        (["true", "false"] * 3, {"false": 3, "true": 3}),
        (["pos", 7, " pos", "7.0", "pos ", "007"], {"007": 1, "7": 2, "pos": 3}),
    ],
)
@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_spellings_of_one_class_are_one_class(fit, labels, classes, name):
    rows = [["text", "label"], *([t, y] for t, y in zip(TEXTS, labels, strict=True))]
    report, _, folder = fit(rows, name=name)
    assert report["classes"] == [*classes]
    found = json.loads(run("evaluate", folder, folder.parent / name, "--json").stdout)
    assert {c: own["rows"] for c, own in found["classes"].items()} == classes


def test_labels_of_another_program_find_their_class(fit, tmp_path):
    """Whichever way an artifact spells it, also one of before spellings were one class."""
    for mine, others in (("1", ["1.0", "1", " 1 "]), ("1.0", ["1", "1.00"]), ("true", ["TRUE"])):
        rows = [["text", "label"], *([t, mine if y == "pos" else y] for t, y in ROWS)]
        _, _, folder = fit(rows)
        (tmp_path / "test.csv").write_bytes(csv_bytes(rows=[rows[0], *(["x", y] for y in others)]))
        found = json.loads(run("evaluate", folder, tmp_path / "test.csv", "--json").stdout)
        assert found["classes"][mine]["rows"] == len(others)
    FewShotClassifier("fake", store=None).fit(["a", "b"], ["1", "1.0"]).save(tmp_path / "old")
    (tmp_path / "test.jsonl").write_text('{"text": "a", "label": "1.0"}\n{"text": "b", "label": 1}')
    found = json.loads(run("evaluate", tmp_path / "old", tmp_path / "test.jsonl", "--json").stdout)
    assert {c: own["rows"] for c, own in found["classes"].items()} == {"1": 1, "1.0": 1}
    words = ["--label", "1.0=good", "--label", "neg=bad"]
    assert fit([["text", "label"], *([t, y.replace("pos", "1")] for t, y in ROWS)], *words)[0][
        "classes"
    ] == ["1.0", "neg"]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (["pos"], "the label of line 2 is a list; where rows have several labels"),
        ({"a": 1}, "the label of line 2 is an object"),
        (1.5, "the label of line 2 is neither text nor a whole number"),
        ("x" * 2000, "the label of line 2 has 2000 characters"),
        ("POS", "'pos' (line 1) and 'POS' (line 2) differ only in case"),
        ("POS", "one, or tell the model how they differ with --label CLASS=word"),
    ],
)
def test_labels_that_are_none_are_refused_by_line(fit, label, message):
    rows = [["text", "label"], *(row[:] for row in ROWS)]
    rows[2][1] = label
    assert message in fit(rows, name="train.jsonl", code=2)[1]


def test_joined_labels_are_said(fit):
    rows = [["text", "label"], *ROWS, ["good bad", "neg; pos"]]
    assert '--multi-label --label-separator ";"' in fit(rows)[1]
    assert "warning" not in fit([["text", "label"], *([t, f"{y}, or so"] for t, y in ROWS)])[1]


def test_labels_joined_by_another_separator_are_said(fit):
    labels = ["x", "y", "x|y", "y", "x", "y"]
    rows = [["text", "label"], *([t, y] for t, y in zip(TEXTS, labels, strict=True))]
    said = fit(rows, "--multi-label")[1]
    assert "'x|y' is taken as one class" in said
    assert 'add --label-separator "|"' in said
    assert "warning" not in fit(rows, "--multi-label", "--label-separator", "|")[1]


def test_a_label_that_holds_the_separator_is_refused_as_it_cannot_be_read_again(fit, tmp_path):
    rows = [["text", "label"], *([t, [y, "p;q"]] for t, y in ROWS), ["none", []]]
    said = fit(rows, "--multi-label", name="train.jsonl", code=2)[1]
    assert "the label 'p;q' of line 1 holds ';'" in said
    assert "name another with --label-separator" in said
    _, _, folder = fit(rows, "--multi-label", "--label-separator", "|", name="train.jsonl")
    args = ["predict", folder, tmp_path / "train.jsonl"]
    assert "neg|p;q" in run(*args).stdout
    assert "';' stands in the label 'p;q'" in run(*args, "--label-separator", ";", code=2).stderr
    run(*args, "--label-separator", ";", "--json")


def test_several_labels_that_cannot_be_told_apart_are_named_by_their_lines(fit):
    rows = [["text", "label"], *ROWS, ["a", "x;b"], ["c", "X"]]
    said = fit(rows, "--multi-label", code=2)[1]
    assert "'x' (line 8) and 'X' (line 9) differ only in case" in said
    assert "labels={" not in said


@pytest.mark.parametrize("separator", [None, "|"])
def test_several_labels_in_and_out(fit, tmp_path, separator):
    between = separator or ";"
    flags = ["--label-separator", separator] if separator else []
    labels = ["a", "b", f"a{between} b", "", "a", "b"]
    rows = [["text", "label"], *([t, y] for t, y in zip(TEXTS, labels, strict=True))]
    report, _, folder = fit(rows, "--multi-label", *flags)
    assert report["classes"] == ["a", "b"]
    path = tmp_path / "train.csv"
    found = json.loads(run("evaluate", folder, path, "--json").stdout)
    assert found["n"] == 6
    assert set(found["classes"]) == {"a", "b"}
    assert found["exact_match"] == 1.0
    out = run("predict", folder, path).stdout.splitlines()
    assert out[3] == f"quite good,a{between} b,a{between}b"
    lines = run("predict", folder, path, "--json", "--multi-label").stdout.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == [
        ["a"], ["b"], ["a", "b"], [], ["a"], ["b"],
    ]  # fmt: skip
    said = run("predict", folder, path, "-o", tmp_path / "labelled.csv").stderr
    rows = [json.loads(line) for line in lines]
    right = [
        math.prod(p if name in row["prediction"] else 1 - p for name, p in own.items())
        for row in rows
        for own in [row["probabilities"]]
    ]
    mean, least = sum(right) / 6, min(right)
    assert f"mean probability of all labels of a row {mean:.2f}, " in said
    assert f"the least sure line {right.index(least) + 2} ({least:.2f})" in said


def test_lists_are_several_labels(fit):
    rows = [["text", "label"], *([t, [y, "all"]] for t, y in ROWS), ["none", []]]
    report, _, _ = fit(rows, "--multi-label", name="train.jsonl")
    assert report["classes"] == ["all", "neg", "pos"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--label-separator", ";"], "goes with --multi-label"),
        (["--multi-label", "--label-separator", ""], "got nothing"),
        (["--multi-label", "--decoder", "dect"], "--decoder: has no use with --multi-label"),
        (["--multi-label", "--label", "a=b"], "--label: has no use"),
        (["--decoder", "lin-probe"], "did you mean 'linear-probe'"),
        (["--decoder", "linear_probe"], "did you mean 'linear-probe'"),
        (["--calibration", "contextal"], "did you mean 'contextual'"),
        (["--errors", "NaN"], "did you mean 'nan'"),
        (["--label", "pos=good"], "class 'neg' (line 3) has no label words"),
        (["--label", "pos=good", "--label", "negg=bad"], "did you mean 'negg'"),
        (["--store", " "], "--store"),
    ],
)
def test_options_are_refused_before_anything_is_asked(fit, args, message):
    _, said, folder = fit([["text", "label"], *ROWS], *args, code=2)
    assert message in said
    assert not folder.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"null", "is not a JSON object"),
        (b'["no", "ok"]', "is not a JSON object"),
        (b"{}", "is not a JSON object"),
        (b"[" * 10_000, "nested too deeply"),
        (b'{"a": null}', "class 'a' has no label words"),
        (b'{"a": 1}', "class 'a' has no label words"),
        (b'{"a": [["b"]]}', "class 'a' has no label words"),
        (b'{"a": {"b": "c"}}', "class 'a' has no label words"),
        (b'{"a": {"b": true}}', "class 'a' has no label words"),
        (b'{"a": []}', "class 'a' has no label words"),
        (b'{"a": "x", "a": "y"}', "'a' stands twice"),
        (b'{"a": ', "is it cut short"),
        (b'{"a": {"w": ' + b"9" * 5000 + b"}}", "cannot be read"),
        (b'{"pos": "good", "neg": "Good "}', "the word"),
    ],
)
def test_label_words_of_a_file_are_checked(fit, tmp_path, content, message):
    (tmp_path / "words.json").write_bytes(content)
    args = ["--labels", tmp_path / "words.json"]
    assert message in fit([["text", "label"], *ROWS], *args, code=2)[1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_label_words_of_a_file_in_any_encoding(fit, tmp_path, encoding):
    words = {"neg": "schlecht, übel", "pos": {"größer": 1, "gut": 2.5}}
    (tmp_path / "words.json").write_bytes(json.dumps(words, ensure_ascii=False).encode(encoding))
    _, _, folder = fit([["text", "label"], *ROWS], "--labels", tmp_path / "words.json")
    assert schema.read(folder)[0].labels[0] == ("neg", [("schlecht, übel", 1.0)])


@pytest.mark.parametrize("command", ["fit", "tune", "pretrain", "compare", "demo"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_asked(
    tmp_path, command, monkeypatch
):
    if command == "tune":
        pytest.importorskip("torch")
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    (tmp_path / "mixture.toml").write_text("")
    (tmp_path / "file").write_text("")
    log = tmp_path / "asked"
    monkeypatch.setattr("fewfit.models.base.FrozenModel.observe", lambda *_, **__: log.touch())
    args = {
        "fit": ["fit", tmp_path / "train.csv", "--model", "fake"],
        "tune": ["tune", tmp_path / "train.csv", "--model", "hf:nowhere"],
        "pretrain": ["pretrain", tmp_path / "mixture.toml", "--model", "hf:nowhere"],
        "compare": ["compare", tmp_path / "train.csv", tmp_path / "train.csv", "--model", "fake"],
        "demo": ["demo", "--model", "fake"],
    }[command]
    bad = [tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 300), "/proc/nothing/x"]
    for folder in [*bad, tmp_path] if command in ("fit", "tune", "pretrain") else bad:
        assert str(folder) in run(*args, "-o", folder, code=4).stderr
    assert not log.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mixture.toml", "train.csv"]


def test_excel_goes_all_the_way(tmp_path):
    pytest.importorskip("python_calamine")
    write_xlsx(tmp_path / "a.xlsx", [["Text", "Label"], *ROWS, ["7", None], [None, "pos"]])
    result = run("fit", tmp_path / "a.xlsx", "-o", tmp_path / "t", "--model", "fake", *WORDS)
    assert "without a text, left out (row 9)" in result.stderr
    assert "without a label, left out (row 8)" in result.stderr
    rows = run("predict", tmp_path / "t", tmp_path / "a.xlsx").stdout.splitlines()
    assert rows[0] == "Text,Label,prediction,probability"
    assert rows[-1] == ",pos,,"


def test_an_extra_that_is_missing_is_one_line(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "python_calamine", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_xlsx(tmp_path / "a.xlsx", [["text"], ["a"]])
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name, extra in (("a.xlsx", "excel"), ("a.parquet", "parquet")):
        result = run("fit", tmp_path / name, "-o", tmp_path / "t", "--model", "fake", code=3)
        assert f'pip install "fewfit[{extra}]"' in result.stderr
        assert result.stderr.count("\n") == 1


def test_options_reach_the_decoder_and_the_calibration(fit):
    rows = [["text", "label"], *ROWS]
    args = ["--option", "proto_dim=7", "--option", 'calibration.content_free=["N/A", ""]']
    _, _, folder = fit(rows, *WORDS, "--decoder", "dect", *args)
    manifest, _ = schema.read(folder)
    assert manifest.decoder.parameters["proto_dim"] == 7
    assert manifest.calibration.parameters["content_free"] == ["N/A", ""]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("proto_dims=7", "did you mean 'proto_dim'"),
        ("proto_dim=0", "proto_dim"),
        ("calibration.content_fre=a", "did you mean 'content_free'"),
        ("other.lam=1", "is not NAME=VALUE"),
        ("proto_dim", "is not NAME=VALUE"),
        ("=1", "is not NAME=VALUE"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_asked(fit, option, said):
    _, err, folder = fit(
        [["text", "label"], *ROWS], "--decoder", "dect", "--option", option, code=2
    )
    assert said in err
    assert not folder.exists()


@pytest.mark.parametrize("as_file", [False, True])
def test_blanks_around_a_class_that_is_given_words_are_none_of_it(fit, tmp_path, as_file):
    path = tmp_path / "words.json"
    path.write_text(json.dumps({"neg ": "bad", " pos": ["good", "fine"]}))
    inline = ("--label", "neg = bad", "--label", " pos=good, fine")
    report, _, _ = fit([["text", "label"], *ROWS], *(("--labels", path) if as_file else inline))
    assert report["classes"] == ["neg", "pos"]
    path.write_text(json.dumps({"neg": "bad", "pos": "good", "neg ": "poor"}))
    twice = ("--labels", path) if as_file else (*inline, "--label", "neg=poor")
    _, said, _ = fit([["text", "label"], *ROWS], *twice, code=2)
    assert "once" in said


def test_the_queries_of_the_doctor_are_of_the_budget(tmp_path):
    """It asked five and more, whatever the budget was."""
    (tmp_path / "a.csv").write_bytes(csv_bytes())
    views = ["--template", "{text} It was {mask}", "--template", "{text} All in all {mask}"]
    with FakeServer() as server:
        args = ["-o", tmp_path / "t", "--model", f"openai-chat:{server.url}?model=toy", "--doctor"]
        fit = ["fit", tmp_path / "a.csv", *args, "--label", "pos=good", "--label", "neg=bad"]
        said = run(*fit, *views, "--max-queries", 6, code=6).stderr
        assert "up to 7 queries, and --max-queries is 6" in said
        assert not server.requests
        result = run(*fit, "--max-queries", 8, "--errors", "nan", code=6)
        assert len(server.queries()) == 8
        assert "5 queries, 3 of --max-queries 8 left" in result.stderr
        assert "the budget of 3 queries is used up" in result.stderr


@pytest.mark.parametrize("option", ["--label-column", "--decoder", "--calibration", "--tune"])
def test_an_option_with_nothing_in_it_is_not_left_out(fit, option):
    """As of a variable that the shell does not know; it was taken for the default."""
    assert option in fit([["text", "label"], *ROWS], option, "", code=2)[1]
