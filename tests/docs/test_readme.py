"""What the README shows runs, and its figures are those of the benchmarks."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import pytest

from fewfit import FewShotClassifier
from fewfit.demo import SHOTS, run_demo
from fewfit.progress import bar

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_ten_lines_run_as_they_stand(tmp_path, monkeypatch, embedded, capsys):
    monkeypatch.chdir(tmp_path)
    (source,) = re.findall(r"```python\n(.*?)```", section("Ten lines"), flags=re.DOTALL)
    said: dict = {}
    exec(source, said)
    assert isinstance(said["clf"], FewShotClassifier)
    assert said["clf"].predict(["A wonderful, great film", "a bad mess"]).tolist() == [
        "positive", "negative"
    ]  # fmt: skip
    assert "ExpectedAccuracy(accuracy=" in capsys.readouterr().out
    assert (tmp_path / "sentiment" / "README.md").is_file()


def test_figures_are_those_of_the_benchmarks():
    results = " ".join((ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8").split())
    text = section("Why not ...")
    figures = re.findall(r"\b\d+\.\d+|\b\d,\d{3}\b", text)
    assert len(figures) > 20
    assert [figure for figure in figures if not re.search(rf"\b{figure}\b", results)] == []
    commands = set(re.findall(r"`(python -m benchmarks \w+)", text))
    assert len(commands) == 5
    assert [command for command in commands if command not in results] == []


def test_the_table_of_the_demo_is_what_the_demo_prints(tmp_path):
    found = run_demo(
        tmp_path / "demo",
        seeds=5,
        model="embedded",
        store=None,
        say=lambda line: None,
        bar=functools.partial(bar, always=False),
    )
    said = {item.method + str(item.shots): item.accuracy for item in found.summaries}
    shown: dict[str, float] = {}
    for line in re.findall(r"^\| (.*±.*) \|$", section("What it gives"), flags=re.MULTILINE):
        method, *cells = line.split("|")
        for shots, cell in zip(SHOTS, cells, strict=True):
            shown[method.strip() + str(shots)] = float(cell.split("±")[0])
    # Another processor rounds in another order: a row of 400 in one of five samples is 0.0005.
    assert shown == pytest.approx(said, abs=0.003)


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []
