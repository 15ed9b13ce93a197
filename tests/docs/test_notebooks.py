"""The notebooks run as they stand, offline, and are committed without what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"


def run(name: str) -> dict:
    """Run the cells of a notebook in their order; return what they have defined."""
    notebook = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))
    said: dict = {"__name__": "__main__"}
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}, cell {i}", "exec"), said)
    return said


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch, embedded):
    monkeypatch.chdir(tmp_path)


def test_first_steps(tmp_path, capsys):
    said = run("first-steps.ipynb")
    assert said["clf"].n_queries_ == 40 + 1
    low, high = said["expected"].interval
    assert low < said["accuracy"] < high
    assert said["accuracy"] > said["zero_shot"] > 0.3
    assert said["again"].classes_.tolist() == said["clf"].classes_.tolist()
    assert f"{said['expected'].accuracy:.2f}" in (tmp_path / "support-desk/README.md").read_text()
    assert "asking: 100%" in capsys.readouterr().err


def test_from_labels_to_a_served_classifier(tmp_path, capsys):
    pytest.importorskip("fastapi")
    said = run("from-labels-to-a-served-classifier.ipynb")
    assert [answer["label"] for answer in said["answers"]] == ["billing", "delivery"]
    for answer in said["answers"]:
        assert 0.2 < answer["probabilities"][answer["label"]] <= 1
    assert said["server"].returncode is not None
    out = capsys.readouterr().out
    assert "40 examples, 10 classes" in out
    assert (tmp_path / "desk" / "README.md").is_file()


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_outputs_are_not_committed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
