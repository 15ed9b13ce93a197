"""The data sets and prompts that benchmarks use."""

from __future__ import annotations

import gzip
import json
import os
import tomllib
from pathlib import Path
from typing import Any

TASKS: dict[str, Any] = tomllib.loads(
    (Path(__file__).parent / "tasks.toml").read_text(encoding="utf-8")
)


def data_folder() -> Path:
    """Return the folder with the data sets: ``$FEWFIT_SHARED/data``, or that beside the project."""
    shared = os.environ.get("FEWFIT_SHARED", Path(__file__).parents[2] / "shared")
    return Path(shared) / "data"


def read_split(data: Path, name: str, split: str) -> list[dict[str, Any]]:
    """Read ``data/name/split.jsonl.gz``."""
    with gzip.open(data / name / f"{split}.jsonl.gz", "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
