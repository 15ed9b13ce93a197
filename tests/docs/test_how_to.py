"""The pages that say how to add something are followed to the letter, in a fresh copy."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fewfit

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"


def follow(page: str, table: str, folder: Path) -> Path:
    """Copy the package, add the page's file and its line; return the folder to import from."""
    text = (PAGES / page).read_text(encoding="utf-8")
    name = re.search(r"`(src/fewfit/\S+\.py)`, whole:", text)
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert name is not None
    assert len(blocks) == 2, "one file and one line"
    shutil.copytree(
        Path(fewfit.__file__).parent,
        folder / "src" / "fewfit",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (folder / name.group(1)).write_text(blocks[0], encoding="utf-8")
    assert blocks[1].count("\n") == 1
    place = folder / table
    source = place.read_text(encoding="utf-8")
    start = source.index("= Registry(")
    where = source.index("    {\n", start) + len("    {\n")
    place.write_text(source[:where] + blocks[1] + source[where:], encoding="utf-8")
    return folder / "src"


def run(source: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1", "FEWFIT_CACHE": str(source.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.csv"
    rows = [f"so good {i},yes\nquite bad {i},no\n" for i in range(6)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path


def test_a_decoder_is_one_file_and_one_line(tmp_path, train):
    source = follow("add-a-decoder.md", "src/fewfit/decoders/__init__.py", tmp_path)
    check = (
        "from fewfit.testing import check_decoder; from fewfit.decoders import DECODERS;"
        "check_decoder(DECODERS['diagonal-lda']())"
    )
    run(source, "-W", "ignore", "-c", check)
    cli = ("-m", "fewfit")
    assert "floor=0.1" in run(source, *cli, "methods", "diagonal-lda")
    folder = str(tmp_path / "task")
    fit = ("fit", str(train), "-o", folder, "--model", "fake", "--decoder", "diagonal-lda")
    run(source, *cli, *fit)
    assert "yes" in run(source, *cli, "predict", folder, str(train))
    test = tmp_path / "test.csv"
    test.write_text("text,label\ngood,yes\nbad,no\n", encoding="utf-8")
    split = ("compare", str(train), str(test), "--model", "fake", "--shots", "2", "--seeds", "2")
    assert "diagonal-lda" in run(source, *cli, *split, "--methods", "diagonal-lda,linear-probe")


def test_a_frozen_model_is_one_file_and_one_line(tmp_path, train):
    source = follow("add-a-frozen-model.md", "src/fewfit/models/__init__.py", tmp_path)
    check = (
        "from fewfit import load_model; from fewfit.testing import check_frozen_model;"
        "check_frozen_model(load_model('hashing'))"
    )
    run(source, "-c", check)
    cli, folder = ("-m", "fewfit"), str(tmp_path / "task")
    run(source, *cli, "fit", str(train), "-o", folder, "--model", "hashing")
    found = run(source, *cli, "predict", folder, str(train), "--model", "hashing")
    assert found.count("yes") >= 6
    assert "hidden state" in run(source, *cli, "doctor", "hashing")
