"""Fuzzers and kill loops: a few cases in CI, ``make fuzz`` for many."""

import os

CASES = int(os.environ.get("FEWFIT_FUZZ", "200"))

AUDITED = "FEWFIT_AUDITED"
"""Set in the environment of the process that runs these files."""

AUDITED_FILES = ("test_artifacts.py", "test_tuned_artifacts.py")
"""They hook into the interpreter for good: whatever happens afterwards runs a line of theirs, in
which threads change; those that start under a tracer at that moment die.
"""
