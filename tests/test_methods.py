from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fewfit.cli import app
from fewfit.compare.searchers import SearcherMethod
from fewfit.decoders import DECODERS
from fewfit.errors import InputError
from fewfit.methods import (
    ALIASES,
    FIRST,
    NOT_HELD,
    TABLES,
    _folded,
    find_methods,
    list_methods,
    meanings_of,
    methods_table,
    options_of,
    options_table,
    summary_of,
    use_of,
)
from fewfit.searchers import SEARCHERS
from fewfit.tuning import METHODS as TUNED

PROMPTS = ("prompt-tuning", "prefix-tuning", "apt", "cpt", "dept", "ept", "iapt", "mam", "panda")
DOCUMENTS = {
    "methods.md": ("",),
    "contrast.md": ("contrastive",),
    "tuning/prompts.md": (*PROMPTS, "promot", "ptec"),
    "tuning/weights.md": ("dsee",),
}
FOLDER = Path(__file__).parents[1] / "docs"


def written(document, names):
    """The page as it is, and as it is with the tables of today."""
    text = today = (FOLDER / document).read_text(encoding="utf-8")
    for name in names:
        mark = f"<!-- fewfit methods {name} -->\n".replace("  ", " ")
        head, tail = today.split(mark)
        found = [m for m in find_methods(name) if m.name == name] if name else []
        table = options_table(found[0]) if found else methods_table()
        today = f"{head}{mark}{table}\n{tail[tail.index('<!-- end -->') :]}"
    return text, today


@pytest.mark.parametrize(("document", "names"), DOCUMENTS.items())
def test_a_document_holds_the_table_of_today(document, names):
    if any(names):
        pytest.importorskip("torch")
    found, today = written(document, names)
    assert found == today, "run: python -m tests.test_methods"


def test_an_option_says_what_it_means():
    pytest.importorskip("torch")
    out = CliRunner().invoke(app, ["methods", "contrastive"]).output
    assert "  option    temperature=0.1\n              tau of the loss" in out
    assert "  option    adapter='ia3'\n              The tuning method" in out  # of the base class
    (dect,) = (m for m in list_methods() if m.name == "dect" and m.kind == "decoder")
    assert meanings_of(dect)["lr"] == "Step size of Adam."
    (lora,) = find_methods("lora")
    assert meanings_of(lora)["rank"] == "", "what says nothing"


@pytest.mark.parametrize(
    "method",
    [method for method in list_methods() if method.kind in TABLES],
    ids=lambda method: f"{method.kind}-{method.name}",
)
def test_a_sentence_says_what_a_method_does(method):
    assert re.fullmatch(r"[A-Z].{20,}\.", summary_of(method)), summary_of(method)


def test_the_command_prints_the_same():
    runner = CliRunner()
    shown = runner.invoke(app, ["methods"]).output
    assert shown.startswith("What most people need:\n\n| method ")
    assert shown.endswith(f"\n\n{methods_table()}\n")
    decoders = runner.invoke(app, ["methods", "--for", "decoder"]).output
    assert decoders.startswith("| method ")
    assert "| lora " not in decoders
    rows = json.loads(runner.invoke(app, ["methods", "--json"]).output)
    assert [row["name"] for row in rows] == [method.name for method in list_methods()]
    assert set(rows[0]) == {
        "name",
        "kind",
        "room",
        "requires",
        "queries",
        "labels",
        "source",
        "note",
    }


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("SciPrompt", {"retrieved-words", "soft-verbalizer"}),
        ("ptec", {"ptec", "multi-label", "trie"}),
        ("RIFF", {"paraphrase", "paraphrase-mean"}),
        ("RLPrompt", {"policy-network"}),
        ("BDPL", {"prompt-search"}),
        ("PET", {"pet"}),
        ("T_Few", {"t-few"}),
        ("k n n prompting", {"knn-prompting"}),
        ("Hou", {"prompt-boosting"}),
        ("2212.08408", {"dect", "ratio"}),
        ("Ladder Side-Tuning", {"ladder"}),
        ("LST", {"ladder"}),
        ("LiST", {"list"}),
        ("Composable Sparse Fine-Tuning", {"lt-sft"}),
        ("conjugate prompting", {"conjugate"}),
        ("Pattern-Exploiting Training", {"pet"}),
        ("(IA)^3", {"ia3"}),
        ("mask", {"gradient-mask", "magnitude-mask", "random-mask"}),
        ("MPD", {"mpd"}),
        ("UPL", {"unsupervised-prompts"}),
        ("URIAL", {"urial-prefix", "token-shift"}),
        ("CC", {"contextual"}),
        ("DCPMI", {"pmi"}),
        ("MAM adapter", {"mam"}),
        ("ptuning", {"prefix-tuning"}),
        ("P-Tuning v2", {"prefix-tuning"}),
        ("2405.18203", {"iapt"}),
        ("decomposed prompt tuning", {"dept"}),
        ("default", {"offset-regression"}),
    ],
)
def test_a_method_is_found_by_the_name_of_its_paper(name, methods):
    assert {method.name for method in find_methods(name)} == methods
    out = CliRunner().invoke(app, ["methods", name]).output
    assert all(f"{found}:" in out or f"{found}\n" in out for found in methods)


@pytest.mark.parametrize("name", [*NOT_HELD, "One-Token Rollout", "2402.02887", "losa"])
def test_of_what_is_not_here_that_is_said(name):
    with pytest.raises(InputError, match=r"\(.*\) is not among the methods of fewfit"):
        find_methods(name)


def test_what_is_said_not_to_be_here_is_not():
    held = {method.name for method in list_methods()} | set(ALIASES)
    alike = {_folded(name) for name in held} & {_folded(name) for name in NOT_HELD}
    assert not alike, "a method has come: take it out of NOT_HELD"


def test_every_alias_names_methods_that_there_are():
    listed = {method.name for method in list_methods()}
    assert set(FIRST) <= listed
    assert {name for names in ALIASES.values() for name in names} <= listed


def test_a_method_shows_its_options():
    out = CliRunner().invoke(app, ["methods", "dect"]).output
    assert "option    proto_dim=128" in out
    assert "source    Cui et al. 2023, arXiv 2212.08408" in out
    rows = json.loads(CliRunner().invoke(app, ["methods", "dect", "--json"]).output)
    assert rows[0]["options"]["n_steps"] == 30


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_the_options_of_a_searcher_are_those_that_its_command_takes(name):
    [method] = [m for m in list_methods() if m.kind == "searcher" and m.name == name]
    shown = options_of(method)
    with pytest.raises(InputError) as refused:
        SearcherMethod(name, options={"nothing": 1})
    assert str(sorted(shown)) in str(refused.value)
    SearcherMethod(name, options={n: v for n, v in shown.items() if v is not None})
    assert all(meanings_of(method).values())


@pytest.mark.parametrize(
    "method", list_methods(), ids=lambda method: f"{method.kind}-{method.name}"
)
def test_what_a_method_is_used_by_is_there(method):
    use = use_of(method)
    if use.startswith("from"):
        exec(use, {})
        return
    said = [part for part in use.split()[1:] if not part.isupper()]  # FILE is the user's
    options = [part for part in said if part.startswith("--")]
    names = said[: said.index(options[0])] if options else said
    commands = names[: 1 + (names[0] == "analyse")]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*commands, "--help"])
    assert done.exit_code == 0
    assert all(option in done.output for option in options)
    assert said[len(names) + len(options) :] in ([method.name], [], ["urial"])


def test_methods_are_filtered():
    rows = json.loads(
        CliRunner()
        .invoke(app, ["methods", "--for", "decoder", "--needs", "scores", "--json"])
        .output
    )
    found = {row["name"] for row in rows}
    assert "zero-shot" in found
    assert "linear-probe" not in found
    assert {row["kind"] for row in rows} == {"decoder"}


@pytest.mark.parametrize(
    "method", list_methods(), ids=lambda method: f"{method.kind}-{method.name}"
)
def test_what_is_declared_is_there(method):
    assert (Path(__file__).parents[1] / "src" / "fewfit" / method.room).is_file()
    assert re.fullmatch(
        r"[\w, .&üé\u0027-]+ \d{4}, arXiv \d{4}\.\d{4,5}",
        method.source or "x 2000, arXiv 0000.0000",
    )
    assert method.queries
    assert method.labels


def test_a_tuning_method_shows_the_fields_of_its_dataclass():
    pytest.importorskip("torch")
    out = CliRunner().invoke(app, ["methods", "peft"]).output
    assert "option    tuner_options={}" in out
    assert "option    roles=('q', 'v')" in out
    for name in TUNED:
        said = CliRunner().invoke(app, ["methods", name, "--json"])
        rows = json.loads(said.output)
        assert [row["summary"] != "" for row in rows] == [True] * len(rows)


def test_every_method_of_the_command_tune_is_in_the_table():
    listed = {method.name for method in list_methods() if method.kind == "tuning"}
    assert set(TUNED) == listed


def test_every_decoder_is_in_the_table():
    listed = {method.name for method in list_methods() if method.kind == "decoder"}
    assert listed == set(DECODERS)


def test_what_dect_takes_is_said_where_it_is_listed():
    (dect,) = (m for m in list_methods() if m.name == "dect" and m.kind == "decoder")
    assert "dect+ratio" in dect.note
    shown = CliRunner().invoke(app, ["methods", "dect"]).output
    assert "dect+ratio" in shown
    assert "lam='1/n'" in shown


if __name__ == "__main__":
    for document, names in DOCUMENTS.items():
        (FOLDER / document).write_text(written(document, names)[1], encoding="utf-8")
