"""What hooks into the interpreter runs apart from what it would disturb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import AUDITED, AUDITED_FILES

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("name", AUDITED_FILES)
def test_in_a_process_of_its_own(name):
    if "tuned" in name:
        pytest.importorskip("torch")
        pytest.importorskip("accelerate")
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER / name)],
        env={**ours, AUDITED: "1"},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
