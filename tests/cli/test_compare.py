from __future__ import annotations

import json

import pytest

from fewfit.cli.compare import _with_options
from fewfit.compare.names import DEFAULT_METHODS
from tests.cli.helpers import WORDS, check_plain, csv_bytes, run

TRAIN = [
    ["text", "label"],
    *([f"good {i}", "pos"] for i in range(4)),
    *([f"bad {i}", "neg"] for i in range(4)),
]
TEST = [["Text ", "Label"], ["so good", "pos"], ["so bad", "neg"], ["so fine", "pos"]]


@pytest.fixture
def compare(tmp_path):
    def call(*args, train=TRAIN, test=TEST, code=0):
        (tmp_path / "train.csv").write_bytes(csv_bytes(";", "cp1252", train))
        (tmp_path / "test.csv").write_bytes(csv_bytes(rows=test))
        files = [tmp_path / "train.csv", tmp_path / "test.csv"]
        fixed = ["--model", "fake", "--shots", "1", "--seeds", "1", "--json", *WORDS]
        return run("compare", *files, *fixed, *args, code=code)

    return call


def test_the_default_methods_are_those_of_the_library(compare):
    found = json.loads(compare().stdout)
    assert {item["method"] for item in found["summaries"]} == set(DEFAULT_METHODS)


def test_a_comma_in_the_address_of_a_model_parts_no_models(compare):
    address = 'openai-chat:http://127.0.0.1:9?model=m&answers=text&extra={"a":{"b":1,"c":2},"d":3}'
    asked = ("--methods", "zero-shot", "--dry-run")
    costs = json.loads(
        compare("--model", f"{address}&system=Be kind%2C please, fake", *asked).stdout
    )
    assert [cost["model"].partition(":")[0] for cost in costs] == ["openai-chat", "fake"]
    assert "Be+kind%2C+please" in costs[0]["model"]


def test_no_model_at_all_is_an_error(compare, tmp_path):
    (tmp_path / "tax.txt").write_text("pos\nneg\n")
    for more in ((), ("--taxonomy", tmp_path / "tax.txt")):
        files = (tmp_path / "train.csv", tmp_path / "test.csv")
        compare()
        check_plain(run("compare", *files, "--model", ",", *more, code=2))


def test_a_row_without_an_answer_has_the_line_of_its_file(compare, tmp_path):
    test = [["Text", "Label"], ["", "pos"], ["so good", "pos"], ["so bad", "neg"]]
    broken = ("--model", "openai-chat:http://127.0.0.1:9?model=m&answers=text&retries=0")
    said = compare(*broken, "--methods", "zero-shot", "--store", "none", test=test, code=3).stderr
    assert f"first line 3 of {tmp_path / 'test.csv'} ('so good')" in said


@pytest.mark.parametrize("option", ["decoder=pet", "tuner=lora"])
def test_an_option_makes_no_other_method_of_one(compare, option):
    said = compare("--methods", "dect", "--option", f"dect.{option}", code=2).stderr
    assert f"'dect' has no '{option.partition('=')[0]}'" in said


def test_the_tuner_of_peft_is_an_option_of_it():
    pytest.importorskip("peft")
    made = _with_options(["peft"], ["peft.tuner=oft"])["peft"]
    assert (made.tuner, made.options) == ("peft", {"tuner": "oft"})


def test_the_old_spelling_of_model_is_read(compare):
    found = json.loads(compare("--models", "fake", "--methods", "zero-shot").stdout)
    assert {item["model"] for item in found["summaries"]} == {"fake"}
    assert "--models" not in run("compare", "--help").stdout


def test_rows_are_named_by_file_and_line(compare, tmp_path):
    test = [*TEST, ["two\nlines", "pos"], ["GOOD  2", "pos"]]
    said = compare(test=test, code=2).stderr
    where = f"line 4 of {tmp_path / 'train.csv'} has the text of line 7 of {tmp_path / 'test.csv'}"
    assert where in said
    assert json.loads(compare("--drop-overlap", "--methods", "zero-shot", test=test).stdout)
    assert "left out (line 5)" in compare(test=[*TEST, ["", "pos"]]).stderr
    test = [*TEST, *([text.upper(), label] for text, label in TRAIN[5:])]
    said = compare("--drop-overlap", test=test, code=2).stderr
    assert "train: every row of class 'neg' has the text of a test row, and is left out" in said


def test_a_test_file_may_spell_the_classes_of_the_other_otherwise(tmp_path):
    (tmp_path / "a.csv").write_bytes(
        csv_bytes(rows=[[t, {"pos": "1.0", "neg": "2.0"}.get(y, y)] for t, y in TRAIN])
    )
    (tmp_path / "b.csv").write_bytes(csv_bytes(rows=[TEST[0], ["so good", 1], ["so bad", " 2"]]))
    args = ["--model", "fake", "--shots", "1", "--seeds", "1", "--methods", "zero-shot", "--json"]
    found = json.loads(run("compare", tmp_path / "a.csv", tmp_path / "b.csv", *args).stdout)
    assert found["cells"]


def test_a_test_file_has_of_the_classes_what_it_has(tmp_path):
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=TRAIN))
    args = ["compare", tmp_path / "a.csv", tmp_path / "b.csv", "--model", "fake", "--json"]
    args += ["--shots", "1", "--seeds", "1", "--methods", "tfidf"]
    (tmp_path / "b.csv").write_bytes(csv_bytes(rows=[TEST[0], ["so good", "pos"]]))
    assert json.loads(run(*args).stdout)["setup"]["test_rows"] == 1
    (tmp_path / "b.csv").write_bytes(csv_bytes(rows=[*TEST[:2], ["so bad", "ngg"]]))
    said = run(*args, code=2).stderr
    assert f"{tmp_path / 'b.csv'}: line 3: class 'ngg' is not one of ['neg', 'pos']" in said
    assert "did you mean 'neg'" in said


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--methods", "zero-shot,dectt"], "did you mean 'dect'"),
        (["--methods", ""], "methods"),
        (["--price-per-token", "inf"], "inf is not a finite number"),
        (["--price-per-token", "nan"], "--price-per-token"),
        (["--shots", "many"], "'many' is not a whole number"),
        (["--shots", "9" * 400], "fewer than 999"),
        (["--calibration", "batsh"], "batsh"),
        (["--label-column", "lable"], "did you mean 'label'"),
        (["--delimiter", "ab"], "one character"),
    ],
)
def test_bad_options_are_one_line(compare, args, message):
    result = compare(*args, code=2)
    assert message in result.stderr
    check_plain(result)


def test_a_label_that_is_a_list_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good", "label": ["pos"]}\n')
    args = [tmp_path / "a.jsonl", tmp_path / "a.jsonl", "--model", "fake"]
    assert "the label of line 1 is a list" in run("compare", *args, code=2).stderr
    pytest.importorskip("torch")
    args = [tmp_path / "a.jsonl", "-o", tmp_path / "t", "--model", "hf:nowhere"]
    assert "the label of line 1 is a list" in run("tune", *args, code=2).stderr


def test_options_of_methods_that_are_named_with_more_than_a_decoder(compare):
    methods = ["zero-shot+batch+unlabelled", "offset-regression+unlabelled", "in-context"]
    options = ["offset-regression+unlabelled.prior=frequencies", "in-context.demonstrations=1"]
    args = [arg for option in options for arg in ("--option", option)]
    found = json.loads(compare("--methods", ",".join(methods), *args).stdout)
    assert {item["method"] for item in found["summaries"]} == set(methods)
    said = compare("--methods", "tfidf", "--option", "tfidf.C=1", code=2).stderr
    assert "tfidf has no 'C'; it has none" in said


def test_labels_that_look_like_several_are_advised_a_command_that_takes_them(compare):
    train = [[text, "pos;neg" if text == "good 0" else label] for text, label in TRAIN]
    train += [["good and bad", "pos;neg"]]
    args = ("--label", "pos;neg=both", "--methods", "zero-shot")
    said = compare(*args, train=train).stderr
    assert "'fewfit fit --multi-label --label-separator \";\"' learns them" in said
    assert "add --" not in said
