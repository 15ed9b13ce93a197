from __future__ import annotations

import json
import re

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

from fewfit.cli.measuring import by_class, several
from tests.cli.helpers import WORDS, csv_bytes, run

# What the fake model takes for good and bad by their words; the last three are wrong.
TEST = [
    ("good", "pos"),
    ("so good", "pos"),
    ("bad", "neg"),
    ("bad bad bad", "pos"),
    ("quite bad", "pos"),
    ("good | fine\nfun", "neg"),
]


@pytest.fixture
def evaluated(tmp_path):
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    args = ["-o", tmp_path / "task", "--model", "fake", *WORDS]
    run("fit", tmp_path / "train.csv", *args)
    rows = [["text", "label"], *TEST, ["", "pos"], ["good", ""]]
    (tmp_path / "test.csv").write_bytes(csv_bytes(rows=rows))
    args = ["evaluate", tmp_path / "task", tmp_path / "test.csv"]
    return lambda *more, code=0: run(*args, *more, code=code)


def test_classes_confusions_and_wrong_rows(evaluated):
    found = json.loads(evaluated("--json").stdout)
    true = [label for _, label in TEST]
    told = ["pos", "pos", "neg", "neg", "neg", "pos"]
    p, r, f, n = precision_recall_fscore_support(true, told, labels=["neg", "pos"])
    for k, name in enumerate(["neg", "pos"]):
        assert found["classes"][name] == pytest.approx(
            {"precision": p[k], "recall": r[k], "f1": f[k], "rows": n[k], "predicted": 3}
        )
    assert found["macro_f1"] == pytest.approx(f1_score(true, told, average="macro"))
    assert found["accuracy"] == 0.5
    assert found["n"] == 6
    assert found["confusions"] == [
        {"label": "pos", "predicted": "neg", "rows": 2},
        {"label": "neg", "predicted": "pos", "rows": 1},
    ]
    assert {item["row"] for item in found["wrong"]} == {5, 6, 7}
    sure = [item["probability"] for item in found["wrong"]]
    assert sure == sorted(sure, reverse=True)
    assert found["wrong"][0]["label"] != found["wrong"][0]["predicted"]


def test_what_is_printed(evaluated):
    result = evaluated()
    assert "1 row without a text, left out (line 9)" in result.stderr
    assert "1 row without a label, left out (line 10)" in result.stderr
    out = result.stdout
    assert "| class | precision | recall |    F1 | rows |" in out
    assert "Taken for each other most often" in out
    assert "good \\| fine fun" in out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") - line.count("\\|") for line in table[:7]}) == 1


def test_the_numbers_are_those_of_the_library(evaluated, tmp_path):
    from fewfit import FewShotClassifier
    from fewfit.compare import measure

    classifier = FewShotClassifier.load(tmp_path / "task")
    proba = classifier.predict_proba([text for text, _ in TEST])
    expected = measure(np.array([label for _, label in TEST]), proba, classifier.classes_)
    found = json.loads(evaluated("--json").stdout)
    for name, value in expected._asdict().items():
        assert found[name] == pytest.approx(value)


def test_a_label_that_was_never_learnt_is_refused_by_its_line(evaluated, tmp_path):
    rows = [["text", "label"], ["a\nb", "pos"], ["c", "odd"]]
    (tmp_path / "test.csv").write_bytes(csv_bytes(rows=rows))
    assert "line 4: class 'odd' is not one of ['neg', 'pos']" in evaluated(code=2).stderr


def test_many_classes_are_cut_to_the_weakest(tmp_path):
    names = [f"c{i:02}" for i in range(40)]
    train = [["text", "label"], *([f"{n} {i}", n] for n in names for i in range(2))]
    (tmp_path / "train.csv").write_bytes(csv_bytes(rows=train))
    test = [["text", "label"], *([f"so {n}", n] for n in names[:-1])]
    (tmp_path / "test.csv").write_bytes(csv_bytes(rows=test))
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", "--model", "fake", "--no-expect")
    out = run("evaluate", tmp_path / "t", tmp_path / "test.csv").stdout
    table = out.partition("weakest first:")[2].partition("Taken")[0]
    assert len(re.findall(r"\| c\d\d ", table)) == 20
    assert "The other 20 classes have an F1 of " in table
    assert names[-1] not in table  # no row of the test has it
    found = json.loads(run("evaluate", tmp_path / "t", tmp_path / "test.csv", "--json").stdout)
    assert len(found["classes"]) == 40
    absent = found["classes"][names[-1]]
    assert (absent["recall"], absent["f1"], absent["rows"]) == (None, None, 0)
    for own in found["classes"].values():  # null where the table has a dash
        assert (own["precision"] is None) == (own["predicted"] == 0)
        assert (own["recall"] is None) == (own["f1"] is None) == (own["rows"] == 0)


def test_several_labels_say_what_was_given_and_missed(tmp_path):
    rows = [["text", "label"], *([f"good {i}", "pos"] for i in range(4))]
    rows += [*([f"bad {i}", "neg"] for i in range(4)), ["good bad", "neg;pos"], ["odd", "rare"]]
    (tmp_path / "train.csv").write_bytes(csv_bytes(rows=rows))
    test = [["text", "label"], ["good", "pos"], ["good 7", "neg"], ["bad", "neg;pos"]]
    (tmp_path / "test.csv").write_bytes(csv_bytes(rows=test))
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", "--multi-label", "--model", "fake")
    args = ["evaluate", tmp_path / "t", tmp_path / "test.csv"]
    found = json.loads(run(*args, "--json").stdout)
    true = np.array([[0, 1, 0], [1, 0, 0], [1, 1, 0]])
    said = {(w["row"], w["label"]): w["predicted"] for w in found["wrong"]}
    told = true.copy()
    for (line, name), given in said.items():
        told[line - 2, ["neg", "pos", "rare"].index(name)] = given
    assert (told != true).sum() == len(said) > 0
    assert found["exact_match"] == pytest.approx((told == true).all(axis=1).mean())
    assert 0 <= found["exact_match_low"] <= found["exact_match"] <= found["exact_match_high"] <= 1
    assert found["macro_f1"] == pytest.approx(f1_score(true[:, :2], told[:, :2], average="macro"))
    sure = [w["probability"] if w["predicted"] else 1 - w["probability"] for w in found["wrong"]]
    assert sure == sorted(sure, reverse=True)
    out = run(*args).stdout
    assert re.search(r"\| rare +\| +– \| +– \| +– \| +0 \|", out)
    assert re.search(r"\| (given|missed) +\| ", out)
    assert re.search(r"all labels right \| +\d\.\d+ \| \d\.\d+ to", out)


def test_macro_f1_of_several_labels_is_the_mean_of_those_that_the_table_has():
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=bool)
    told = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=bool)  # the third is given once
    found, own = several(true, told), by_class(true, told, ["a", "b", "c"])
    assert found["macro_f1"] == pytest.approx((own["a"]["f1"] + own["b"]["f1"]) / 2)
    assert own["c"]["f1"] is None
    only = true & [True, False, False]  # a table that has one of the classes
    found, own = several(only, told), by_class(only, told, ["a", "b", "c"])
    assert found["macro_f1"] == own["a"]["f1"] == 1
    told[2, 0] = True
    assert several(only, told)["macro_f1"] == pytest.approx(4 / 5)
    assert several(np.zeros_like(true), told)["macro_f1"] == 0


def test_a_class_that_is_none_of_many_is_said_in_a_line(tmp_path):
    names = [f"class number {i}" for i in range(300)]
    train = [["text", "label"], *([f"so {n}", n] for n in names)]
    (tmp_path / "train.csv").write_bytes(csv_bytes(rows=train))
    run("fit", tmp_path / "train.csv", "-o", tmp_path / "t", "--model", "fake", "--no-expect")
    test = [["text", "label"], ["so", "Class number 7"]]
    (tmp_path / "test.csv").write_bytes(csv_bytes(rows=test))
    said = run("evaluate", tmp_path / "t", tmp_path / "test.csv", code=2).stderr
    assert "'class number 0', " in said
    assert "more)]; did you mean 'class number 7'?" in said
    assert len(said) < 500
