"""Fuzzers and kill loops: a few cases in CI, ``make fuzz`` for many."""

import os

CASES = int(os.environ.get("FEWFIT_FUZZ", "200"))
