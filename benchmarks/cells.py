"""Cells of a program, one a line in ``results/NAME.jsonl``: a run that was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_cells(path: Path) -> list[dict[str, Any]]:
    """Return what was measured; nothing, where there is no file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def add_cell(path: Path, cell: dict[str, Any]) -> None:
    """Append a cell."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(cell) + "\n")
