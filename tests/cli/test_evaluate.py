from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_recall_fscore_support

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
