"""What hooks into the interpreter runs apart from what it would disturb."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz import AUDITED, AUDITED_FILES

FOLDER = Path(__file__).parent


def test_in_a_process_of_its_own():
    tuned = all(importlib.util.find_spec(name) for name in ("torch", "accelerate"))
    files = [name for name in AUDITED_FILES if tuned or "tuned" not in name]
    ours = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**ours, AUDITED: "1"},
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
