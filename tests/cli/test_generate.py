"""``fewfit generate`` and ``fewfit analyse``, as a user runs them."""

from __future__ import annotations

import csv
import json

import pytest
from typer.testing import CliRunner

from fewfit.cli.app import app
from tests.fake_server import FakeServer, Reply, continued


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "q.csv"
    path.write_text('n,text\n1,Why?\n2," "\n3,How?\n4,Why?\n')
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_text_for_each_row_paid_for_once(table, tmp_path):
    out = tmp_path / "out.csv"
    with FakeServer() as server:
        command = ("generate", table, "--model", f"openai:{server.url}?model=toy", "-o", out)
        stopped = run(*command, "--max-queries", 1)
        assert stopped.exit_code == 6, stopped.output
        assert len(server.requests) == 1
        done = run(*command)
        assert done.exit_code == 0, done.output
        assert len(server.requests) == 2
        assert run(*command).exit_code == 0
        assert len(server.requests) == 2
        [sent] = [r.text for r in server.requests if "\nWhy?\n" in r.text]
    found = rows(out)
    assert [row["n"] for row in found] == ["1", "2", "3", "4"]
    assert sent.rstrip("`\n").endswith("# Answer:")
    assert sent.count("# Query:\n") == 4, "a base model is shown answered questions"
    assert found[0]["generated"] == found[3]["generated"]
    assert found[0]["generated"] == continued(sent, 99, ("# Query",))[0].strip()
    assert found[1]["generated"] == ""


def test_a_chat_is_asked_plainly_and_a_failure_is_said(table, tmp_path):
    def script(request, before):
        return Reply({"error": {"message": "no"}}, status=400) if "How" in request.text else None

    with FakeServer(script) as server:
        command = ("generate", table, "--model", f"openai-chat:{server.url}?model=toy&retries=0")
        failed = run(*command)
        assert failed.exit_code == 3, failed.output
        assert "line 4" in failed.output
        done = run(*command, "--errors", "nan", "--json", "--column", "said", "--max-tokens", 2)
        assert {request.text for request in server.requests} == {"Why?", "How?"}
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["said_status"][:6] for row in told] == ["ok", "failed", "failed", "ok"]
    assert told[1]["said_status"] == "failed: no text"
    assert "2 texts cut at 2 tokens" in done.stderr


@pytest.mark.parametrize(
    ("address", "options", "sent"),
    [
        ("", (), 256),
        ("&max_tokens=512", (), 512),
        ("&max_completion_tokens=600", (), 600),
        ("&max_tokens=512", ("--max-tokens", 40), 40),
    ],
)
def test_a_text_is_as_long_as_the_command_or_else_the_address_says(table, address, options, sent):
    with FakeServer() as server:
        model = f"openai-chat:{server.url}?model=toy{address}"
        done = run("generate", table, "--model", model, "--store", "none", *options)
        assert done.exit_code == 0, done.output
        bodies = [request.body for request in server.requests]
    lengths = {b.get("max_tokens", b.get("max_completion_tokens")) for b in bodies}
    assert lengths == {sent}


def test_prompts_of_ones_own(table, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"instruction": "Be brief.", "examples": [["Hi?", "Hello."]]}))
    command = ("generate", table, "--model", "openai:http://127.0.0.1:1?model=toy", "--show-prompt")
    shown = run(*command, "--prompt", own, "--template", "About {text}:")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("Be brief.\n")
    assert "About Why?:" in shown.stdout
    assert run(*command, "--prompt", "plain").stdout.strip() == "Why?"
    for wrong, said in (
        (("--prompt", "magic"), "is none of them"),
        (("--template", "{text} {mask}"), "no {mask}"),
        (("--template", "Summarise"), "for example 'Summarise this: {text}'"),
        (("--column", "n"), "another with --column"),
    ):
        refused = run(*command, *wrong)
        assert refused.exit_code == 2, refused.output
        assert said in " ".join(refused.output.split())
    for broken in ("{", "[]", '{"instruction": "x"}', '{"instruction": "x", "examples": [["a"]]}'):
        own.write_text(broken)
        assert run(*command, "--prompt", own).exit_code == 2
    refused = run("generate", table, "--model", "embedded")
    assert refused.exit_code != 0
    assert "writes no texts" in refused.output


def test_token_shift(tmp_path):
    pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    base, aligned = (build("llama", tmp_path / str(s), positions=96, seed=s) for s in (0, 1))
    (tmp_path / "p.txt").write_text("the movie was\n\nin summary , it was\n")
    command = ("analyse", "token-shift", f"hf:{base}", f"hf:{aligned}", tmp_path / "p.txt")
    done = run(*command, "--max-tokens", 6, "-o", tmp_path / "t.csv")
    assert done.exit_code == 0, done.output
    assert "unshifted, %" in done.stdout
    assert "Shifted most often" in done.stdout
    told = json.loads(run(*command, "--max-tokens", 6, "--json").stdout)
    ranked = rows(tmp_path / "t.csv")
    assert told["all"]["tokens"] == len(ranked) == sum(p["tokens"] for p in told["prompts"])
    first = sum(row["rank"] == "1" for row in ranked)
    assert told["all"]["unshifted"] == pytest.approx(first / len(ranked))
    for wrong in (("-o", tmp_path / "t.txt"),):
        assert run(*command, *wrong).exit_code == 2
    missing, own = tmp_path / "no" / "t.csv", tmp_path / "p.csv"
    own.write_text("the movie was\n")
    for asked, output, said in ((command[-1], missing, "be written"), (own, own, "also read")):
        refused = run(*command[:2], "hf:no", "hf:no", asked, "-o", output)  # before they are opened
        assert refused.exit_code == 2
        assert said in " ".join(refused.output.split())
    assert own.read_text() == "the movie was\n"
    (tmp_path / "p.txt").write_text("\n")
    assert run(*command).exit_code == 2
    (tmp_path / "p.txt").unlink()
    assert run(*command).exit_code == 2
