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


def test_other_scripts_are_said_of_the_english_encoders_only():
    from fewfit.cli.columns import Examples
    from fewfit.cli.suspicions import _language

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
    assert not said("123", "")
    Model.spec = "embedded-en-float32"
    assert "another script" in said("это хорошо", "плохо")
    Model.spec = "embedded"
    assert not said("это хорошо")
