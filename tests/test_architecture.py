"""A room knows only rooms below it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import fewfit

ROOT = Path(fewfit.__file__).parent
PLAN = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")


def floors() -> dict[str, int]:
    """Room -> floor, read from the table of the document."""
    rooms: dict[str, int] = {}
    for floor, names in re.findall(r"^\| (\d+) \| ([^|]+) \|", PLAN, flags=re.MULTILINE):
        for name in re.findall(r"`([\w./]+)`", names):
            rooms[name.removesuffix("/").removesuffix(".py")] = int(floor)
    return rooms


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewfit"):
            if node.module == "fewfit":
                found |= {f"fewfit.{alias.name}" for alias in node.names}
            else:
                found.add(node.module or "")
    return found


def test_every_room_is_in_the_plan_and_no_arrow_points_up():
    plan = floors()
    problems = []
    for path in ROOT.rglob("*.py"):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room in ("__init__", "__main__"):
            continue
        if room not in plan:
            problems.append(f"{room} is not in docs/architecture.md")
            continue
        for module in imports(path):
            other = room_of(module)
            if other != room and plan.get(other, 99) > plan[room]:
                problems.append(f"{path.relative_to(ROOT)} (floor {plan[room]}) imports {module}")
    assert not problems
    assert len(plan) > 10
