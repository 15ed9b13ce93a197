"""What the pages show of Python is Python, of names that there are; the how-tos are followed."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks() -> Iterator[Any]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 2
            yield pytest.param(found[1], id=f"{page.relative_to(ROOT)}:{line}")


@pytest.mark.parametrize("source", list(blocks()))
def test_a_block_is_python_and_imports_what_there_is(source):
    for node in ast.walk(ast.parse(source)):
        name = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and name.startswith("fewfit"):
            if name.startswith("fewfit.tuning"):
                pytest.importorskip("torch")
            module = importlib.import_module(name)
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            assert not missing
