"""Every fault that can reach the command line: one plain line, an exit code, and what to do.

The table names what a user typed and what the message has to say; `check_plain` looks for
tracebacks and for what only a programmer understands.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib

import pytest

from tests.cli.helpers import LABELS, TEXTS, WORDS, check_plain, csv_bytes, run
from tests.fake_server import FakeServer, Reply
from tests.warm import Program

GOOD = csv_bytes()
LINES = "\n".join(
    json.dumps({"text": text, "label": label}) for text, label in zip(TEXTS, LABELS, strict=True)
)
DEEP = b"[" * 200_000
PACKED = gzip.compress(GOOD, mtime=0)  # the same in every process, as names of tests are


def with_label(value):
    return LINES + "\n" + json.dumps({"text": "one more", "label": value})


FILES = [
    # labels
    ("a.jsonl", with_label(["pos"]), 2, "line 7 is a list"),
    ("a.jsonl", with_label(None), 0, "1 row without a label, left out (line 7)"),
    ("a.jsonl", with_label(float("nan")), 0, "1 row without a label, left out (line 7)"),
    ("a.jsonl", with_label(10**30), 0, ""),
    ("a.jsonl", with_label("Pos "), 2, "'pos' (line 1) and 'Pos' (line 7) differ only in case"),
    ("a.jsonl", with_label("pos;neg"), 0, "--multi-label --label-separator"),
    ("a.jsonl", with_label("\0"), 2, "not valid text"),
    ("a.jsonl", with_label("\ud800"), 2, "not valid text"),
    ("a.jsonl", LINES.replace('"pos"', "1").replace('"neg"', "0"), 0, "tell it nothing"),
    ("a.jsonl", LINES.replace('"pos"', "true").replace('"neg"', "false"), 0, ""),
    ("a.csv", csv_bytes(rows=[["text", "label"], *([t, t] for t in TEXTS)]), 0, ""),
    # files that are cut short or damaged
    ("a.csv.gz", PACKED[:-9], 2, "cut short or damaged"),
    ("a.csv.gz", PACKED[:30] + b"\xff\xff\xff" + PACKED[33:], 2, "cut short or damaged"),
    ("a.csv.gz", b"text,label\na,b\n", 2, "does not begin as a .gz file"),
    ("a.csv.bz2", b"BZh9", 2, "cut short or damaged"),
    ("a.csv.xz", b"\xfd7zXZ\x00", 2, "cut short or damaged"),
    ("a.parquet", b"PAR1PAR1", 2, "not a Parquet file, or cut short"),
    ("a.xlsx", b"PK\x03\x04", 2, "not an Excel workbook, or cut short"),
    ("a.jsonl", LINES[:-4], 2, "line 6 is not JSON"),
    ("a.json", f"[{LINES}", 2, "is not JSON"),
    ("a.jsonl", DEEP, 2, "nested too deeply"),
    ("a.json", DEEP, 2, "nested too deeply"),
    ("a.jsonl", b'{"text": ' + b"1" * 10_000 + b"}", 2, "a number of thousands of digits"),
    ("a.csv", zlib.compress(GOOD), 2, ""),
    # delimiters and encodings
    ("a.csv", csv_bytes(";"), 0, "delimiter ';'"),
    ("a.csv", csv_bytes("\t"), 0, "delimiter '\\t'"),
    ("a.csv", csv_bytes("|"), 0, "delimiter '|'"),
    ("a.csv", csv_bytes(encoding="utf-16"), 0, "read as utf-16"),
    ("a.csv", csv_bytes(encoding="utf-8-sig"), 0, ""),
    ("a.csv", GOOD.replace(b"good", "gööd".encode("cp1252")), 0, "read as cp1252"),
    ("a.tsv", b'text\tlabel\n" it starts\tpos\nand ends "\tneg\nplain\tpos\n', 0, ""),
    ("a.csv", GOOD.replace(b"text", b" Text "), 0, ""),
    # columns and rows
    ("a.csv", GOOD.replace(b"text", b"message"), 2, "needs column 'text'"),
    ("a.csv", GOOD.replace(b"label", b"labels"), 2, "did you mean 'labels'"),
    ("a.csv", GOOD + b",pos\n", 0, "1 row without a text, left out (line 8)"),
    ("a.csv", GOOD + b'"two\nlines",\n', 0, "1 row without a label, left out (line 8)"),
    ("a.csv", GOOD + b"one,two,three\n", 2, "line 8 has 3 values for 2 columns"),
    ("a.csv", b"text,label\n", 2, "no rows"),
    ("a.csv", b"text,label\na,b\n", 2, "every label is 'b'"),
    ("a.pickle", b"\x80", 2, "add --format"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "code", "message"), FILES)
def test_files(tmp_path, name, content, code, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    args = ["-o", tmp_path / "t", "--model", "fake", "--store", "none"]
    if name.endswith((".parquet", ".xlsx")):
        pytest.importorskip("pyarrow" if name.endswith("t") else "python_calamine")
    result = run("fit", path, *args, code=code)
    check_plain(result)
    assert message in result.stderr
    assert code == 0 or str(path) in result.stderr or "classes" in message


WORD_FILES = [
    (b'{"pos": null, "neg": "bad"}', "class 'pos' has no label words"),
    (b'["no", "ok"]', "is not a JSON object"),
    (b'{"pos": 1, "neg": 2}', "class 'pos' has no label words"),
    (b'{"pos": {"a": {"b": 1}}, "neg": "bad"}', "class 'pos' has no label words"),
    (b'{"pos": "a", "pos": "b"}', "twice"),
    (DEEP, "nested too deeply"),
    (b"", "is not JSON"),
]


@pytest.mark.parametrize(("content", "message"), WORD_FILES)
def test_label_words(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "words.json").write_bytes(content)
    args = ["-o", tmp_path / "t", "--model", "fake", "--labels", tmp_path / "words.json"]
    result = run("fit", tmp_path / "a.csv", *args, code=2)
    check_plain(result)
    assert message in result.stderr


ARGUMENTS = [
    (["--format", "xml"], 2, "'xml' is not one of"),
    (["--format", "exel"], 2, "did you mean 'excel'"),
    (["--seed", "-1"], 2, "--seed"),
    (["--seed", "9" * 40], 2, "--seed"),
    (["--shots", "9" * 40], 2, "fewer than"),
    (["--shots", "9" * 5000], 2, "--shots"),
    (["--max-queries", "-1"], 2, "--max-queries"),
    (["--max-queries", "3"], 6, "needed"),
    (["--template", "{text}\0{mask}"], 2, "holds a NUL character"),
    (["--template", "{text} \ud800 {mask}"], 2, "is not valid Unicode"),
    (["--template", "{text.__class__} {mask}"], 2, "template"),
    (["--template", "{text:>99999999} {mask}"], 2, "template"),
    (["--label", "pos=\ud800"], 2, "is not valid Unicode"),
    (["--text-column", "\0"], 2, "holds a NUL character"),
    (["--text-column", "label"], 2, "is named for the text and for the label"),
    (["--label-column", "text"], 2, "is named for the text and for the label"),
    (["--encoding", "base64"], 2, "no encoding of text"),
    (["--encoding", "utf-9"], 2, "'utf-9' is not known"),
    (["--delimiter", ";;"], 2, "expected one character"),
    (["--delimiter", "\n"], 2, "expected one character"),
    (["--label", "pos"], 2, "expected CLASS=word"),
    (["--label", "pos=", "--label", "neg=bad"], 2, "class 'pos' has the label word ''"),
    (["--label", "pos=good", "--label", "negg=bad"], 2, "did you mean 'negg'"),
    (["--shots", "4"], 2, "up to 3 per class are possible"),
    (["--multi-label", "--decoder", "dect"], 2, "--decoder"),
    (["--decoder", "dect:proto_dim=0"], 2, "is not one of"),
    (["--text-column", "txet"], 2, "did you mean 'text'"),
    (["--decoder", "ipet"], 2, "--unlabelled"),
    (["--decoder", "Dect"], 2, "did you mean 'dect'"),
    (["--errors", "nan "], 2, "did you mean 'nan'"),
    (["--calibration", "ratio"], 2, "logit"),
    (["--labels", "/nowhere.json"], 2, "No such file"),
    (["--labels", "/"], 2, "is a folder"),
    (["--unlabelled", "/nowhere.csv"], 2, "cannot be read"),
    (["--store", "/dev/null/x"], 5, "the store /dev/null/x"),
    (["--store", "x" * 5000], 5, "the store"),
    (["--store", "/proc/nothing/store"], 5, "the store"),
    (["--model", "roberta-large"], 2, "'roberta-large' is not known"),
    (["--model", "http://localhost:1"], 2, "is not known"),
    (["--model", "hf:/nowhere/at/all"], 3, "/nowhere/at/all"),
    (["--model", ""], 2, "is not known"),
    (["--model", "openai:"], 2, "the address must be"),
    (["--model", "openai:http://["], 2, "the address must be"),
    (["--model", "openai:http://127.0.0.1:99999?model=x"], 2, "the address must be"),
    (["--model", "vllm:http://127.0.0.1:1"], 2, "which model?"),
    (["--model", "openai:http://127.0.0.1:1?model=x&wat=1"], 2, "there is no option 'wat'"),
    (["--model", "openai:http://127.0.0.1:1?model=x&top_k=many"], 2, "is a whole number"),
    (["--model", "openai:http://127.0.0.1:1?model=x&timeout=nan"], 2, "'timeout' is at least"),
    (["--model", "openai:http://127.0.0.1:1?model=x&extra={"], 2, "is a JSON object"),
    (["--model", "openai:http://u:pw@127.0.0.1:1?model=x"], 2, "does not belong in the address"),
    (["--model", "tuned:/nowhere"], 4, "no artifact at /nowhere"),
    (["--model", "openai:http://127.0.0.1:1?model=x&retries=0"], 3, "refused"),
    (["-o", "/dev/null"], 4, "not a folder"),
    (["-o", "/proc/nothing"], 4, "cannot be written"),
    (["-o", "x" * 5000], 4, "cannot be written"),
    (["-o", "a\0b"], 2, " null "),
]


@pytest.mark.parametrize(("args", "code", "message"), ARGUMENTS)
def test_arguments(tmp_path, monkeypatch, args, code, message):
    if "tuned:/nowhere" in args:
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(GOOD)
    fixed = ["-o", "t", "--model", "fake", "--store", "none"]
    result = run("fit", "a.csv", *fixed, *args, code=code)
    check_plain(result)
    assert message in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["tune", "a.csv", "-o", ".", "--model", "hf:x"], 4, "holds other files"),
        (["tune", "a.csv", "-o", "t", "--model", "hf:x", "--method", "lora-x"], 2, "--method"),
        (["tune", "a.csv", "-o", "t", "--model", "hf:x", "--dtype", "f16"], 2, "--dtype"),
        (["tune", "a.csv", "-o", "t", "--model", "hf:x", "--method", "pet"], 2, "--unlabelled"),
        (["pretrain", "a.csv", "-o", "t", "--model", "hf:x"], 2, "mixture: a.csv cannot be read"),
        (["pretrain", "none.toml", "-o", "t", "--model", "hf:x"], 2, "cannot be read"),
        (["merge", "none", "-o", "t"], 4, "none"),
        (["predict", "none", "a.csv"], 4, "none is not there"),
        (["evaluate", "a.csv", "a.csv"], 4, "a.csv is not a folder"),
        (["compare", "a.csv", "b.csv", "--price-per-token", "inf"], 2, "not a finite number"),
        (["compare", "a.csv", "b.csv", "--methods", "dct"], 2, "'dct' is not one of"),
        (["compare", "a.csv", "b.csv", "--shots", "0"], 2, "shots: at least 1 is needed"),
        (["compare", "a.csv", "b.csv", "--model", "fake", "--shots", "9"], 2, "fewer than 9 shots"),
        (["compare", "list.jsonl", "b.csv", "--model", "fake"], 2, "line 1 is a list"),
        (["tune", "list.jsonl", "-o", "t", "--model", "hf:x"], 2, "line 1 is a list"),
        (["doctor", "openai:http://["], 2, "the address must be"),
        (["methods", "SciPromt"], 2, "did you mean 'SciPrompt'"),
        (["methods", "--for", "decoders"], 2, "did you mean 'decoder'"),
        (["methods", "--needs", "hiden"], 2, "did you mean 'hidden'"),
        (["compare", "a.csv", "a.csv", "--model", "fake"], 2, "line 2 of a.csv has the text of"),
        (["doctor", "nobody"], 2, "'nobody' is not known"),
        (["fit"], 2, "Missing argument"),
        (["fitt"], 2, "No such command"),
    ],
)
def test_other_commands(tmp_path, monkeypatch, args, code, message):
    if args[0] in ("merge", "tune"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "b.csv").write_text("text,label\nwell done,pos\nbadly done,neg\n")
    (tmp_path / "list.jsonl").write_text('{"text": "one", "label": ["pos"]}\n' + LINES)
    result = run(*args, code=code)
    check_plain(result)
    assert message in result.stderr


PREDICT = [
    (b"text,prediction\na,kept\n", [], 2, "has a column 'prediction' already"),
    (b"text,probability\na,1\n", [], 2, "has a column 'probability' already"),
    (b"", [], 2, "no rows"),
    (b"\xff\xfe\x00", [], 2, "cut short"),
    (b"message\na\n", [], 2, "needs column 'text'"),
    (b"text\na\n", ["-o", "new.csv"], 2, "new.csv is also read"),
    (b"text\na\n", ["-o", "t"], 2, "t is a folder"),
    (b"text\na\n", ["-o", "o.parquet"], 2, "predictions are CSV, or JSON lines"),
    (b"text\na\n", ["-o", "x" * 5000], 2, "--output"),
    (b"text\na\n", ["--max-queries", "0"], 6, "needed"),
    (b"text\n \n", [], 0, ""),
    (b"text\na\x00b\n", [], 0, ""),
    (b"text\n" + b"long " * 50_000 + b"\n", [], 0, "longer than the model reads"),
]


@pytest.mark.parametrize(("content", "args", "code", "message"), PREDICT)
def test_predict(tmp_path, monkeypatch, content, args, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "new.csv").write_bytes(content)
    run("fit", "a.csv", "-o", "t", "--model", "fake", "--store", "none")
    result = run("predict", "t", "new.csv", "--store", "none", *args, code=code)
    check_plain(result)
    assert message in result.stderr
    assert (tmp_path / "new.csv").read_bytes() == content


CUT = b'{"choices": [{"text": "'
REPLIES = [
    Reply(raw=CUT),
    Reply(raw=b"[" * 100_000),
    Reply(raw=b"\xff\xfe\x00"),
    Reply(raw=b"<html>sign in</html>"),
    Reply(raw=b'{"choices": ' + b"9" * 5000 + b"}"),
    Reply(body={"choices": 3}),
    Reply(body={"choices": [{"text": [], "logprobs": {"top_logprobs": 5}}]}),
    Reply(body={"choices": [{"text": "a", "logprobs": {"top_logprobs": [{"a": "x"}]}}]}),
    Reply(raw=b'{"choices": [{"text": "a", "logprobs": {"top_logprobs": [{"a": NaN}]}}]}'),
    Reply(raw=b'{"choices": [{"logprobs": {"top_logprobs": [{"a": ' + b"9" * 400 + b"}]}}]}"),
    Reply(status=400, body={"error": {"message": "max_tokens is \ud800 not supported"}}),
    Reply(status=302, headers={"Location": "http://["}),
    Reply(status=500, body={"error": 5}),
    Reply(body={"error": {"message": ["not", "text"]}}),
]


@pytest.mark.parametrize("reply", REPLIES)
@pytest.mark.parametrize("command", ["fit", "doctor"])
def test_replies_of_a_server(tmp_path, monkeypatch, reply, command):
    """Whatever comes, it is the model's fault (3), said in one line, and no artifact is left.

    The report of 'doctor' is the message: its rows say it.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_bytes(GOOD)
    with FakeServer(lambda request, before: reply) as server:
        model = f"openai:{server.url}/v1?model=toy&retries=0&backoff=0.001"
        if command == "doctor":
            result = run("doctor", model, code=3)
            assert "| problem |" in result.stdout
            assert not re.search(r"Traceback|\bnp\.|\barray\(", result.output)
        else:
            args = ["-o", "t", "--model", model, "--store", "none"]
            check_plain(run("fit", "a.csv", *args, code=3))
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("modules", "args", "extra"),
    [
        (
            ["torch", "transformers", "huggingface_hub"],
            ["fit", "a.csv", "-o", "t", "--model", "hf:x"],
            "hf",
        ),
        (["torch", "accelerate"], ["tune", "a.csv", "-o", "t", "--model", "hf:x"], "tune"),
    ],
)
def test_without_an_extra_it_is_one_line(tmp_path, modules, args, extra):
    """In a process of its own, where the packages cannot be imported."""
    (tmp_path / "a.csv").write_bytes(GOOD)
    code = (
        "import sys\n"
        f"assert not sys.modules.keys() & {modules}\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.partition('.')[0] in {modules}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "from fewfit.cli import main\n"
        "main()\n"
    )
    program = Program(f"import os\nos.chdir({str(tmp_path)!r})\n{code}", *args)
    errors = program.communicate()[1]
    assert program.poll() == 3, errors
    assert f"fewfit[{extra}]" in errors
    assert errors.count("\n") == 1


def test_plain_fewfit_is_help_and_no_fault():
    assert "Usage" in run().stdout
    assert "--install-completion" in run("--help").stdout


def test_several_warnings_of_a_kind_are_counted(tmp_path):
    """A run in many parts does not repeat itself without end."""
    long = "good " * 300
    (tmp_path / "train.csv").write_bytes(GOOD)
    fixed = ["--model", "fake", "--store", "none", *WORDS]
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", *fixed)
    rows = [["text"], *[[f"{long} {i}"] for i in range(9)]]
    (tmp_path / "new.csv").write_bytes(csv_bytes(rows=rows))
    import fewfit.cli.loading as loading

    before = loading.FIRST, loading.LARGEST
    loading.FIRST = loading.LARGEST = 1
    try:
        said = run("predict", tmp_path / "t", tmp_path / "new.csv", "--store", "none").stderr
    finally:
        loading.FIRST, loading.LARGEST = before
    assert said.count("longer than the model reads") == 3
    assert "6 more of these kinds" in said


@pytest.mark.parametrize("words", ["", "good,,bad", " ,good", "good, good"])
def test_words_that_are_none_are_not_tried(words):
    assert "--words: expected word,word" in run("doctor", "fake", "--words", words, code=2).stderr


def test_words_to_try_are_read_without_the_blanks_around_them():
    """As those of --label are: ' great' was looked for among the tokens, and not found."""
    report = run("doctor", "fake", "--words", "good, great ,bad", "--json").stdout
    assert json.loads(report)["words"] == ["good", "great", "bad"]
