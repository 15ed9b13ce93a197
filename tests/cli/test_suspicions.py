from __future__ import annotations

import json
import re

import pytest

from tests.cli.helpers import LABELS, TEXTS, WORDS, csv_bytes, run

ROWS = [[text, label] for text, label in zip(TEXTS, LABELS, strict=True)]


@pytest.fixture
def fit(tmp_path):
    def call(rows, *args, model="fake"):
        (tmp_path / "train.csv").write_bytes(csv_bytes(rows=[["text", "label"], *rows]))
        args = ["-o", tmp_path / "task", "--model", model, "--store", "none", *args]
        return run("fit", tmp_path / "train.csv", *args).stdout

    return call


def test_fit_says_what_to_expect(fit):
    found = json.loads(fit(ROWS, *WORDS, "--json"))["expected_accuracy"]
    assert (found["n"], sum(r["n"] for r in found["recall"])) == (6, 6)
    assert found["accuracy"] == sum(r["right"] for r in found["recall"]) / 6
    assert found["low"] <= found["accuracy"] <= found["high"]
    out = fit(ROWS, *WORDS)
    assert re.search(r"Accuracy to expect: \d+% \(95 % interval \d+% to \d+%, Wilson; 6 rows", out)
    assert "Accuracy to expect" not in fit(ROWS, *WORDS, "--no-expect")
    assert "cannot be estimated" in fit(ROWS[:2], *WORDS)


def test_fit_names_lines_of_clashing_texts_and_small_classes(fit):
    assert json.loads(fit(ROWS, *WORDS, "--json"))["warnings"] == []
    rows = [*ROWS, [TEXTS[0], "neg"], ["so so", "mid"], ["well", "mid"]]
    first, second = json.loads(fit(rows, "--json"))["warnings"]
    assert first == "1 text has more than one label (lines 2, 8)"
    assert second == "1 class has two examples or fewer (mid)"
    assert f"Look at this: {first}" in fit(rows)


def test_labels_of_one_text_in_another_order_do_not_clash(fit):
    rows = [["good", "pos;new"], ["good", "new;pos"], ["bad", "neg"], ["bad old", "neg"]]
    assert json.loads(fit(rows, "--multi-label", "--json"))["warnings"] == []
    rows.append(["good", "pos"])
    (said,) = json.loads(fit(rows, "--multi-label", "--json"))["warnings"]
    assert said == "1 text has more than one set of labels (lines 2, 3, 6)"


def test_other_scripts_are_said_of_the_english_encoders_only():
    from fewfit.cli.suspicions import _language
    from fewfit.tables.columns import Examples

    class Model:
        spec = "embedded-en"

    class Task:
        model = Model()

    class Fitted:
        task_ = Task()

    def said(*texts):
        return _language(Fitted(), Examples({"text": list(texts)}, None, [2]))

    assert "another script" in said("это хорошо", "плохо")
    assert not said("Das ist schön", "a note on λ and π")
    german = ("Das Paket ist nicht da", "Ich warte auf die Rechnung", "es ist der falsche Betrag")
    assert re.search(r"100% of the small words look German \(ist, .* reads English", said(*german))
    assert "look German" in said(*german, "it is the wrong amount", "I wait for the invoice")
    assert not said("123", "")
    Model.spec = "embedded-en-float32"
    assert "another script" in said("это хорошо", "плохо")
    Model.spec = "embedded"
    assert not said("это хорошо")
    assert not said(*german)


def test_an_accuracy_like_that_of_the_largest_class_is_said(tmp_path):
    rows = [["text", "label"], *([f"odd {i}", "ny"[i % 3 > 0]] for i in range(12))]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=rows))
    args = ["fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake"]
    out = run(*args, "--label", "n=bad", "--label", "y=good").stdout
    assert "may be no better than always saying y, which is right for 67%" in out
    clear = [["text", "label"], *([f"{w} {i}", w] for i in range(12) for w in ("good", "bad"))]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=clear))
    assert "always saying" not in run(*args, "--label", "bad=bad", "--label", "good=good").stdout


def test_several_labels_have_an_expectation_too(tmp_path):
    rows = [["text", "label"], *([f"{w} {i}", w] for i in range(6) for w in ("good", "bad"))]
    (tmp_path / "a.csv").write_bytes(csv_bytes(rows=[*rows, ["good bad", "good;bad"]]))
    args = ["fit", tmp_path / "a.csv", "-o", tmp_path / "t", "--model", "fake", "--multi-label"]
    assert re.search(r"Rows with all labels right, to expect: \d+% \(95 %", run(*args).stdout)
    assert json.loads(run(*args, "--json").stdout)["expected_accuracy"]["n"] == 13
