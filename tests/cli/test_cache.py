from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from fewfit.cli import app
from fewfit.models import FakeModel
from fewfit.store import StoredModel, default_path
from tests.conftest import prompts


def run(*arguments: str):
    return CliRunner().invoke(app, ["cache", *arguments])


def test_it_says_what_is_kept_and_forgets_it():
    assert "0 answers" in run().output
    path = default_path()
    StoredModel(FakeModel(), path).observe(prompts("a", "b"), ("x", "y"))
    StoredModel(FakeModel(seed=7), path).observe(prompts("a", "b", "c"), ("x", "y"))
    shown = json.loads(run("--json").output)
    assert (shown["path"], shown["rows"]) == (str(path), 5)
    assert sorted(shown["models"].values()) == [2, 3]
    assert "5 answers" in run().output
    [name] = [name for name, rows in shown["models"].items() if rows == 3]
    assert "3 answers forgotten" in run("drop", name).output
    assert "0 answers forgotten" in run("prune", "1GB").output
    assert json.loads(run("prune", "--keep-bytes", "1GB", "--json").output)["forgotten"] == 0
    assert "0 answers forgotten" in run("drop", "--model", "no such model").output
    assert "2 answers forgotten" in run("clear").output
    assert json.loads(run("--json").output)["rows"] == 0


def test_what_is_no_store_and_no_size_is_one_line(tmp_path):
    other = tmp_path / "other"
    other.write_text("not a store at all" * 100)
    for arguments, code in [
        (("--store", str(other)), 5),
        (("prune", "much"), 2),
        (("prune",), 2),
        (("drop",), 2),
    ]:
        out = run(*arguments)
        assert out.exit_code == code
        assert out.output.startswith("fewfit: error: ")
        assert out.output.count("\n") == 1


@pytest.mark.parametrize("command", [("clear",), ("drop", "fake"), ("prune", "1KB")])
def test_a_store_named_before_the_command_is_not_passed_over(tmp_path, command):
    """The user's own store was made smaller, and the one that was named stayed as it was."""
    mine = tmp_path / "mine.sqlite"
    for path in (mine, default_path()):
        StoredModel(FakeModel(), path).observe(prompts("a", "b"), ("x", "y"))
    out = run("--store", str(mine), *command)
    assert out.exit_code == 2
    assert f"fewfit cache {command[0]} --store {mine}" in out.output
    assert run("--json", *command).exit_code == 2
    assert json.loads(run("--json").output)["rows"] == 2


@pytest.mark.parametrize("command", [(), ("clear",), ("drop", "fake"), ("prune", "1KB")])
def test_a_store_that_is_not_there_is_not_said_to_be_empty(tmp_path, command):
    out = run(*command, "--store", str(tmp_path / "typo.sqlite"))
    assert out.exit_code == 2
    assert "typo.sqlite" in out.output
