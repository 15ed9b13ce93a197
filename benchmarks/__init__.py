"""The committed benchmarks: ``python -m benchmarks NAME``."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
