"""``fewfit words``: label words out of a list, as --labels reads them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from fewfit.cli import app
from tests.hf_checkpoints import build

TERMS = "quantum mechanics\nelectron\n\nphoton\ncell membrane\nprotein\nDNA\nstock market\nDNA\n"
CLASSES = ["--label", "phys=physics", "--label", "bio=biology"]


def run(*arguments):
    return CliRunner().invoke(app, ["words", *map(str, arguments), "--store", "none"])


def test_terms_go_to_the_class_that_they_are_like(tmp_path):
    (tmp_path / "terms.txt").write_text(TERMS)
    found = run(tmp_path / "terms.txt", *CLASSES, "--threshold", 0.87)
    assert found.exit_code == 0, found.output
    chosen = json.loads(found.output)
    assert list(chosen["phys"]) == ["physics", "quantum mechanics", "photon", "electron"]
    assert list(chosen["bio"]) == ["biology", "DNA", "protein", "cell membrane"]
    assert chosen["bio"]["biology"] == 1
    assert 0.87 < chosen["bio"]["DNA"] < 1
    again = run(tmp_path / "terms.txt", *CLASSES, "-n", 2, "-o", tmp_path / "words.json")
    assert "4 words of 2 classes" in again.output
    (tmp_path / "train.csv").write_text("text,label\nan electron,phys\na cell,bio\n")
    told = ["--store", "none", "--labels", str(tmp_path / "words.json")]
    fitted = CliRunner().invoke(
        app,
        ["fit", str(tmp_path / "train.csv"), "-o", str(tmp_path / "task"), *told],
    )
    assert fitted.exit_code == 0, fitted.output


def test_the_words_of_a_vocabulary(tmp_path):
    path = build("gpt2", tmp_path / "gpt2")
    found = run("--vocabulary", f"hf:{path}", "--label", "a=movie", "--label", "b=sports")
    assert found.exit_code == 0, found.output
    chosen = json.loads(found.output)
    assert list(chosen) == ["a", "b"]
    assert "film" in chosen["a"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of the two"),
        (["terms.txt", "--label", "a=b"], "two classes"),
        (["terms.txt", "--label", "a=b,c", "--label", "d=e"], "2 names"),
        (["nothere.txt", *CLASSES], "cannot be read"),
        (["empty.txt", *CLASSES], "no terms"),
        (["--vocabulary", "fake", *CLASSES], "no language model"),
    ],
)
def test_what_is_missing_is_said(tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.txt").write_text(TERMS)
    (tmp_path / "empty.txt").write_text("\n")
    if not any(a in ("--label", "terms.txt") for a in arguments):
        arguments = [*CLASSES, *arguments]
    found = run(*arguments)
    assert found.exit_code == 2, found.output
    assert says in " ".join(found.output.split())


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["--label", "a=", "--label", "b=y"], "give a word"),
        (["--label", "a=x", "--label", "b=X"], "belongs to one class"),
    ],
)
def test_names_that_labels_would_refuse_are_refused_here(tmp_path, names, says):
    """They were asked about, and written to a file that no command reads."""
    (tmp_path / "terms.txt").write_text(TERMS)
    found = run(tmp_path / "terms.txt", *names)
    assert found.exit_code == 2
    assert says in found.output


@pytest.mark.parametrize("output", ["nowhere/words.json", "terms.txt"])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_asked(
    tmp_path, monkeypatch, output
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.txt").write_text(TERMS)
    monkeypatch.setattr("fewfit.cli.words._cosines", lambda *_: pytest.fail("asked"))
    found = run("terms.txt", *CLASSES, "-o", output)
    assert found.exit_code == 2
    assert "--output" in found.output
    assert (tmp_path / "terms.txt").read_text() == TERMS
