"""A task file is the options that it stands for, in every command."""

from __future__ import annotations

import json
import tomllib

import pytest

from fewfit.artifacts import schema
from tests.cli.helpers import csv_bytes, run

TASK = """
model = "fake"
store = "none"
template = "{text} It was {mask}."
train = "train.csv"
test = "train.csv"
artifact = "task"
json = true

[label]
neg = "bad"
pos = ["good", "fine"]

[fit]
decoder = "dect"
output = "task"
option = { lam = 0.5, normalize = true }
expect = false

[compare]
methods = ["zero-shot", "dect"]
shots = [1, 2]
seeds = 1
option = { dect = { n_steps = 3 } }
drop-overlap = true
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_bytes(csv_bytes())
    (tmp_path / "task.toml").write_text(TASK, encoding="utf-8")
    return tmp_path


def test_it_says_what_the_options_say_and_these_have_the_last_word(here):
    found = json.loads(run("fit", "--task", "task.toml").stdout)
    assert (found["decoder"], found["expected_accuracy"]) == ("dect", None)
    manifest, _ = schema.read(here / "task")
    assert manifest.decoder.parameters["lam"] == 0.5
    assert manifest.labels == [("neg", ["bad"]), ("pos", ["good", "fine"])]
    more = ["--decoder", "zero-shot", "--calibration", "batch", "--expect"]
    options = ["--option", "calibration.strength=2"]
    found = json.loads(run("fit", *more, "--task", "task.toml", *options).stdout)
    assert (found["decoder"], found["expected_accuracy"]["n"]) == ("zero-shot", 6)
    assert json.loads(run("evaluate", "--task", "task.toml").stdout)["n"] == 6
    out = run("predict", "task", "train.csv", "--task", "task.toml").stdout
    assert json.loads(out.splitlines()[0])["prediction"] == "pos"


def test_what_is_typed_stands_behind_what_the_file_gives(here):
    run("fit", "--task", "task.toml")
    (here / "new.csv").write_text("text,label\nvery good,pos\nvery bad,neg\n")
    out = run("predict", "--task", "task.toml", "new.csv").stdout
    assert len(out.splitlines()) == 2
    assert run("predict", "new.csv", "--task", "task.toml").stdout == out
    assert run("predict", "task", "new.csv", "--task=task.toml").stdout == out, "all are typed"
    assert json.loads(run("evaluate", "new.csv", "--task", "task.toml").stdout)["n"] == 2
    assert json.loads(run("evaluate", "--task", "task.toml").stdout)["n"] == 6
    assert json.loads(run("fit", "new.csv", "--task", "task.toml").stdout)["examples"] == 2
    args = ["compare", "new.csv", "--task", "task.toml", "--shots", "1"]
    assert json.loads(run(*args).stdout)["cells"], "what is typed is the test set"
    (here / "only.toml").write_text("test = 'new.csv'")
    assert json.loads(run("evaluate", "task", "--task", "only.toml", "--json").stdout)["n"] == 2


def test_what_is_shown_is_a_task_file_that_says_the_same(here):
    for command in ("fit", "compare"):
        shown = run(command, "--task", "task.toml", "--show-task").stdout
        (here / "shown.toml").write_text(shown, encoding="utf-8")
        assert run(command, "--task", "shown.toml", "--show-task").stdout == shown
    values = tomllib.loads(shown)
    assert values["methods"] == "zero-shot,dect"
    assert values["compare"] == {"shots": "1,2", "option": ["dect.n_steps=3"]}
    assert not (here / "task").exists(), "nothing is done but shown"


def test_a_comparison_takes_the_same_file(here):
    (here / "test.csv").write_text("text,label\nvery good,pos\nvery bad,neg\n")
    out = run("compare", "train.csv", "test.csv", "--task", "task.toml").stdout
    found = json.loads(out)
    assert {cell["method"] for cell in found["cells"]} == {"zero-shot", "dect"}
    assert {cell["shots"] for cell in found["cells"]} == {1, 2}


def test_tuning_takes_it_too(here):
    text = 'train = "train.csv"\nmodel = "hf:nowhere"\n[tune]\noutput = "tuned"\nmethod = "lora"\n'
    (here / "task.toml").write_text(text + "option = { rank = 2 }\n")
    values = tomllib.loads(run("tune", "--task", "task.toml", "--show-task").stdout)
    assert (values["method"], values["model"]) == ("lora", "hf:nowhere")
    assert values["tune"] == {"output": "tuned", "option": ["rank=2"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('modle = "fake"', "'modle' is no option; did you mean 'model'?"),
        ("[fitt]\nseed = 1", "'fitt' is no option; did you mean 'fit'?"),
        ("[fit]\nseeds = 1", "[fit] 'seeds' is no option; did you mean 'seed'?"),
        ("[compare]\ndecodr = 1", "[compare] 'decodr' is no option"),
        ("fit = 3", "'fit' is a table, [fit]"),
        ('output = "x"', "'output' is another thing to each command; put it into a table"),
        ("expect = 'yes'", "'expect' is true or false, not 'yes'"),
        ("[model]\na = 1", "'model' is a value, not a table"),
        ("[label]\nneg = 3", "class 'neg' has a word or a list of words"),
        ("[label]\nneg = ['a,b']", "without commas"),
        ("model = ", "is not TOML"),
        ("task = 'other.toml'", "'task' is no option"),
    ],
)
def test_what_it_cannot_say_is_refused_with_what_was_meant(here, text, message):
    (here / "task.toml").write_text(text)
    said = run("fit", "train.csv", "-o", "task", "--task", "task.toml", code=2).stderr
    assert message in said.replace("\n", " ")
    assert "task.toml" in said
    assert not (here / "task").exists()


def test_a_file_that_cannot_be_read_is_said(here):
    said = run("fit", "train.csv", "-o", "x", "--task", "none.toml", code=2).stderr
    assert "--task: none.toml cannot be read: No such file" in said
    (here / "task.toml").write_bytes(b"#" * (2**20 + 1))
    assert "no task file" in run("fit", "--task", "task.toml", code=2).stderr
    # a value of the wrong kind is refused as on the command line
    (here / "task.toml").write_text("seed = 'many'")
    assert "--seed" in run("fit", "train.csv", "-o", "x", "--task", "task.toml", code=2).stderr
