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


COMMANDS = """
import sys
from fewfit.cli import main
from fewfit.testing import check_decoder, check_frozen_model
check = sys.argv.pop(1)
exec(check)
commands = " ".join(sys.argv[1:]).split(" ; ")
for command in commands:
    sys.argv[1:] = command.split(" ")
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
    print("-- end --")
"""
"""A check and several command lines, in the one interpreter that has the copy."""


def run(source: Path, check: str, *commands: str) -> list[str]:
    """Return what each command said."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMMANDS, check, " ; ".join(commands)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1", "FEWFIT_CACHE": str(source.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("-- end --\n")[:-1]


@pytest.fixture
def train(tmp_path):
    path = tmp_path / "train.csv"
    rows = [f"so good {i},yes\nquite bad {i},no\n" for i in range(6)]
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    return path


def test_a_decoder_is_one_file_and_one_line(tmp_path, train):
    source = follow("add-a-decoder.md", "src/fewfit/decoders/__init__.py", tmp_path)
    test = tmp_path / "test.csv"
    test.write_text("text,label\ngood,yes\nbad,no\n", encoding="utf-8")
    shown, _, predicted, compared = run(
        source,
        "from fewfit.decoders import DECODERS; check_decoder(DECODERS['diagonal-lda']())",
        "methods diagonal-lda",
        f"fit {train} -o {tmp_path / 'task'} --model fake --decoder diagonal-lda",
        f"predict {tmp_path / 'task'} {train}",
        f"compare {train} {test} --model fake --shots 2 --seeds 2"
        " --methods diagonal-lda,linear-probe",
    )
    assert "floor=0.1" in shown
    assert "yes" in predicted
    assert "diagonal-lda" in compared


def test_a_frozen_model_is_one_file_and_one_line(tmp_path, train):
    source = follow("add-a-frozen-model.md", "src/fewfit/models/__init__.py", tmp_path)
    _, found, told = run(
        source,
        "from fewfit import load_model; check_frozen_model(load_model('hashing'))",
        f"fit {train} -o {tmp_path / 'task'} --model hashing",
        f"predict {tmp_path / 'task'} {train} --model hashing",
        "doctor hashing",
    )
    assert found.count("yes") >= 6
    assert "hidden state" in told
