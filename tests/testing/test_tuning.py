"""A tuning method is one file and one line: the page that says so, done."""

from __future__ import annotations

import csv
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch
from typer.testing import CliRunner

from fewfit.cli import app
from fewfit.compare.names import make_methods
from fewfit.errors import InputError
from fewfit.methods import list_methods
from fewfit.testing import check_tuning_method
from fewfit.testing.tuning import (
    TuningCase,
    check_merged,
    check_network,
    check_neutral,
    check_resumed,
    check_rows,
    check_saved,
    check_tensors,
)
from fewfit.tuning import METHODS, Adapter, Trunk, make_method
from fewfit.tuning.adapters.ia3 import ScaledActivations
from fewfit.tuning.artifact import read_manifest
from tests.tuning_models import checkpoint, trunk

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-tuning-method.md"
ENTRY_POINT = re.compile(r'\[project\.entry-points\."(.*)"\]\n(.*)\n')


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package that holds the page's file, installed as its line says."""
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)
    point = ENTRY_POINT.search(text)
    assert code is not None
    assert point is not None
    (tmp_path / "my_norms.py").write_text(code.group(1), encoding="utf-8")
    info = tmp_path / "my_norms-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-norms\nVersion: 1.0\n")
    line = point.group(2).replace('"', "")
    (info / "entry_points.txt").write_text(f"[{point.group(1)}]\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(vars(METHODS), "_installed", raising=False)
    yield tmp_path
    monkeypatch.delitem(vars(METHODS), "_installed", raising=False)
    monkeypatch.delitem(sys.modules, "my_norms", raising=False)


def test_the_page_s_file_is_a_method_like_those_of_the_house(installed):
    listed = {method.name: method for method in list_methods()}
    assert listed["norms"].source == "Zhao et al. 2023, arXiv 2312.11420"
    for kind in ("bert", "t5-gated", "gpt2"):
        check_tuning_method(make_method("norms"), lambda kind=kind: trunk(kind, dropout=0.0))
    assert list(make_methods(["tune:norms", "norms"])) == ["tune:norms", "norms"]
    rate = [make_method("norms").recipe.rate(step) for step in (0, 333, 334, 999)]
    assert rate[0] == pytest.approx(1e-3)
    assert rate[1] < 1e-6 < 9e-4 < rate[2]

    folder = installed / "data"
    checkpoint(folder / "base", "bert", dropout=0.0)
    with (folder / "train.csv").open("w", newline="") as stream:
        rows = [("text", "label"), ("really great", "pos"), ("so dull", "neg"), ("fun", "pos")]
        csv.writer(stream).writerows(rows)
    words = ["--label", "pos=good", "--label", "neg=bad", "--template", "{text} it was {mask}"]
    model = ["--model", f"hf:{folder / 'base'}", "--method", "norms", "--option", "shifts=no"]
    out = folder / "task"
    command = ["tune", str(folder / "train.csv"), "-o", str(out), *model, *words, "--steps", "3"]
    said = CliRunner().invoke(app, [*command, "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout.splitlines()[-1])["values"] == 6 * 16, "a scale for each norm"
    manifest = read_manifest(out)
    assert (manifest.method, manifest.options) == ("norms", {"shifts": False})
    assert manifest.recipe["cycles"] == 3
    told = CliRunner().invoke(app, ["predict", str(out), str(folder / "train.csv"), "--store=none"])
    assert told.exit_code == 0, told.output


# ---- what a check must see ---------------------------------------------------------------------


class Faulty(Adapter):
    """Scales the last hidden state, in a wrong way if wanted."""

    def __init__(self, fault: str, body: str) -> None:
        super().__init__()
        self.fault, self.body = fault, body
        self.scale = torch.nn.Parameter(torch.full((16,), 1.5 if fault == "neutral" else 1.0))
        self.idle = torch.nn.Parameter(torch.zeros(1))
        self.hidden = torch.zeros(16)

    def act(self, network):
        def hook(_, __, output):
            h = output.last_hidden_state
            if self.fault == "rows":
                h = h + 0.1 * (self.scale.mean() - 1) * h.sum(0, keepdim=True)
            if self.fault == "saved":
                self.hidden = self.hidden + 0.01
                h = h + self.hidden
            output.last_hidden_state = h * self.scale
            return output

        handle = network.get_submodule(self.body).register_forward_hook(hook, prepend=True)
        if self.fault == "network":
            with torch.no_grad():
                next(network.parameters()).add_(0.1)
        return [handle]

    def merge(self, network):
        if self.fault != "merged":
            super().merge(network)

    def tensors(self):
        found = super().tensors()
        return found if self.fault == "tensors" else {k: v for k, v in found.items() if k != "idle"}

    def restore(self, tensors):
        super().restore(tensors if self.fault == "tensors" else {"idle": self.idle, **tensors})
        if self.fault == "restored":
            self.scale.data = tensors["scale"]
        return self


@dataclass(frozen=True)
class FaultyTuning(ScaledActivations):
    fault: str = "none"

    def build(self, base: Trunk, seed: int) -> Adapter:
        name = next(n for n, m in base.network.named_modules() if m is base.body)
        adapter = Faulty(self.fault, name)
        if self.fault == "merged":
            adapter.mergeable = True
        return adapter

    def trainings(self, n_templates: int) -> int:
        return 2 if self.fault == "resumed" else 1


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("neutral", check_neutral),
        ("network", check_network),
        ("merged", check_merged),
        ("rows", check_rows),
        ("tensors", check_tensors),
        ("restored", check_tensors),
        ("resumed", check_resumed),
        ("saved", check_saved),
    ],
)
def test_a_broken_promise_is_seen(fault, check, monkeypatch):
    monkeypatch.setitem(METHODS.entries, "faulty", "x:y")
    monkeypatch.setattr("fewfit.tuning.artifact.name_of", lambda method: "faulty")
    monkeypatch.setattr(
        "fewfit.tuning.artifact.make_method", lambda name, o=None: FaultyTuning(**(o or {}))
    )
    for broken in ("none", fault):
        case = TuningCase(FaultyTuning(fault=broken), lambda: trunk("bert", dropout=0.0))
        if broken == "none":
            check(case)
        else:
            with pytest.raises(AssertionError):
                check(case)


def test_a_method_that_is_in_no_table_cannot_be_saved():
    with pytest.raises(InputError, match="add a line for it, or an entry point"):
        check_tuning_method(FaultyTuning(), lambda: trunk("bert"))
