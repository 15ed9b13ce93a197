from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pytest

from benchmarks import report, searchers, searchers_report
from benchmarks.experiment_report import _samples
from benchmarks.peers import Peer
from benchmarks.run import run_experiment, write_results
from benchmarks.spec import FOLDER, read_experiment
from fewfit.compare import Experiment
from fewfit.errors import InputError, MissingExtraError, ModelError
from tests.compare.test_experiment import TEST, TRAIN

TOY = """
title = "A toy"
sets = ["toy", "absent"]
shots = [1, 4, 99]
seeds = [0, 1]
models = [{ spec = "fake", test_rows = 30 }, { spec = "gpt-9" }]
methods = { zero-shot = {}, "DecT, lambda = 1" = { decoder = "dect", parameters = { lam = 1.0 } } }

[prompts.toy]
template = "{text} It was {mask}."
labels = { neg = "bad", pos = "good" }
[prompts.absent]
template = "{text} It was {mask}."
labels = { neg = "bad", pos = "good" }
"""


@pytest.fixture
def toy(tmp_path):
    (tmp_path / "toy").mkdir()
    for split, (texts, y) in (("train", TRAIN), ("test", TEST)):
        with gzip.open(tmp_path / "toy" / f"{split}.jsonl.gz", "wt") as stream:
            for text, name in zip(texts, y, strict=True):
                stream.write(json.dumps({"text": text, "label": name}) + "\n")
    (tmp_path / "toy.toml").write_text(TOY)
    return tmp_path


def test_the_committed_experiments_are_sound():
    files = {path.stem: read_experiment(path) for path in FOLDER.glob("*.toml")}
    dect = {name: file for name, file in files.items() if name.startswith("dect_")}
    assert len(dect) == 11
    means = {n: [] for n in ("1", "4", "16")}
    for file in dect.values():
        assert (file.shots, file.seeds) == ([1, 4, 16], [0, 1, 2, 3, 4])
        assert file.published is not None
        for n, values in file.published.accuracy["DecT"].items():
            means[n].append(values[0])
    # The averages over the eleven columns that the paper gives.
    averages = {n: sum(values) / 11 for n, values in means.items()}
    assert averages == pytest.approx({"1": 66.9, "4": 69.5, "16": 73.5}, abs=0.06)
    assert len(dect["dect_fewnerd"].prompts["fewnerd"].labels) == 66
    lam = {name: file.methods["DecT"].parameters["lam"] for name, file in dect.items()}
    assert {lam.pop(f"dect_mnli_{k}") for k in ("m", "mm")} == {1.0}
    assert lam.pop("dect_fewnerd") == 1 / 16
    assert set(lam.values()) == {"1/n"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = ", "seed = ", "seeds: Field required"),
        ("shots = ", "shotz = 1\nshots = ", "shotz: Extra inputs are not permitted"),
        ("test_rows", "rows", "models.0.rows: Extra inputs"),
        ("lam = 1.0", "lambda_ = 1.0", "has no 'lambda_'"),
        ('decoder = "dect"', 'decoder = "magic"', "'magic' is unknown"),
        ("{mask}", "", "exactly one {mask}"),
        ('"absent"]', '"nowhere"]', "'nowhere' has no prompt"),
        ("title = ", "title", "toml"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(toy, old, new, message):
    path = toy / "toy.toml"
    path.write_text(TOY.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_experiment(path)
    assert message in str(caught.value)


def test_an_experiment_runs_as_far_as_it_can_and_is_reported(toy, capsys, monkeypatch):
    results = toy / "results"
    monkeypatch.setattr("benchmarks.run.RESULTS", results)
    file = read_experiment(toy / "toy.toml")
    run_experiment("toy", file, toy, dry=True)
    assert not results.exists()
    assert "queries to ask" in capsys.readouterr().out
    run_experiment("toy", file, toy)
    out = capsys.readouterr().out
    assert "toy on gpt-9: skipped, model: 'gpt-9' is not known" in out
    assert f"absent on fake: skipped, no folder {toy / 'absent'}" in out
    content = json.loads((results / "toy.json").read_text())
    (run,) = content["runs"]
    assert run["setup"]["test_rows"] == 30
    assert run["setup"]["shots"] == [1, 4]
    assert not {"cells", "diagnoses"} & set(run)
    text = report.experiment(results / "toy.json", file)
    cell = next(s for s in run["summaries"] if s["method"] == "zero-shot" and s["shots"] == 4)
    assert f"{100 * cell['accuracy']:.1f}" in text
    assert "python -m benchmarks toy" in text


ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if "fit" in request:
        if "die" in request["fit"]["texts"]: sys.exit(3)
        print(json.dumps({"parameters": 7, "bytes": 1000}), flush=True)
    else:
        rows = [[0.9, 0.1] if "bad" in t else [0.2, 0.8] for t in request["predict"]["texts"]]
        print(json.dumps({"probabilities": rows}), flush=True)
"""


def test_a_peer_is_a_row_through_the_same_harness(tmp_path, monkeypatch):
    with pytest.raises(MissingExtraError, match="FEWFIT_ECHO_PYTHON"):
        Peer("echo")
    (tmp_path / "echo_peer.py").write_text(ECHO)
    monkeypatch.setattr("benchmarks.peers.HERE", Path(tmp_path))
    monkeypatch.setenv("FEWFIT_ECHO_PYTHON", sys.executable)
    labels = {"neg": "bad", "pos": "good"}
    options = {"labels": labels, "models": ["fake"], "shots": [1, 2], "seeds": 2, "store": None}
    found = Experiment(*TRAIN, *TEST, methods={"echo": (peer := Peer("echo"))}, **options).run()
    expected = [("neg" if "bad" in text else "pos") == y for text, y in zip(*TEST, strict=True)]
    assert {cell.accuracy for cell in found.cells} == {sum(expected) / len(expected)}
    ledger = found.cells[0].ledger
    assert (ledger.parameters, ledger.peak_memory, ledger.queries) == (7, None, 0)
    assert 1000 < ledger.artifact_bytes < 1200
    peer.close()
    with pytest.raises(ModelError, match="ended with code 3 on fit"):
        Experiment(["die", "b"], ["pos", "neg"], *TEST, methods={"echo": Peer("echo")},
                   **{**options, "shots": [1], "seeds": 1}).run()  # fmt: skip


def test_the_searchers_are_set_beside_dect(tmp_path):
    def cells(*triples):
        return [dict(zip(("queries", "seconds", "accuracy"), t, strict=True)) for t in triples]

    methods = {
        "zero-shot": cells((1, 0.0, 0.5), (1, 0.0, 0.5)),
        "DecT": cells((33, 2.0, 0.7), (33, 4.0, 0.8)),
        "BBT": cells((3200, 300.0, 0.6), (3200, 360.0, 0.64)),
    }
    path = tmp_path / "searchers.json"
    content = {"model": "toy", "shots": 16, "trials": 100, "threads": "1", "options": ""}
    sets = {"sst2": {"test_rows": 500, "methods": methods}}
    path.write_text(json.dumps({**content, "sets": sets}))
    text = searchers_report.searchers(path)
    row = next(line for line in text.splitlines() if "BBT" in line and line.startswith("|"))
    assert [cell.strip() for cell in row.split("|")][1:-1] == [
        "sst2: BBT",
        "62.0 ± 2.8",
        "3,200",
        "97",
        "330.0 s",
        "110",
    ]
    assert "seeds 0, 1, 500 test rows" in text


def test_the_words_of_the_searchers_are_the_most_frequent():
    texts = ["The cat, the dog", "a dog! the bee"]
    assert searchers.frequent_words(texts, 3) == ["the", "dog", "bee"]


def test_searchers_without_data_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEWFIT_SHARED", str(tmp_path))
    output = tmp_path / "found.json"
    searchers.main(["--output", str(output)])
    said = capsys.readouterr().out
    assert "sst2 skipped, no folder" in said
    assert "agnews skipped" in said
    assert not output.exists()


def test_what_a_part_of_an_experiment_gave_joins_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.run.RESULTS", tmp_path)

    def run(name, *cells):
        found = [{"shots": n, "seeds": s, "method": "dect"} for n, s in cells]
        return {"set": name, "model": "fake", "summaries": found}

    write_results("x", [run("trec", (16, 2)), run("sst2", (16, 5))])
    write_results("x", [run("trec", (64, 3))])
    write_results("x", [run("trec", (16, 5))])
    kept = json.loads((tmp_path / "x.json").read_text())["runs"]
    told = {r["set"]: {i["shots"]: i["seeds"] for i in r["summaries"]} for r in kept}
    assert told == {"trec": {64: 3, 16: 5}, "sst2": {16: 5}}
    assert _samples(kept[:1]) == "5 at 16 shots, 3 at 64 shots (samples)"
    assert _samples(kept[1:]) == "5 samples for each number of shots"
