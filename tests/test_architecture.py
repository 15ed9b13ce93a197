"""A room knows only rooms below it, and no two modules wait for each other."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
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


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in ROOT.rglob("*.py")}


def imports(path: Path, *, at_import: bool = False) -> set[str]:
    """Return the modules of the project that a file imports; `at_import`, while it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    nodes = list(tree.body) if at_import else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fewfit"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else str(node.module))
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def test_every_room_is_in_the_plan_and_no_arrow_points_up():
    plan = floors()
    problems = []
    for name, path in MODULES.items():
        room = room_of(name)
        if room in ("fewfit", "__main__"):
            continue
        if room not in plan:
            problems.append(f"{room} is not in docs/architecture.md")
            continue
        for module in imports(path):
            other = room_of(module)
            if other not in (room, "fewfit") and plan.get(other, 99) >= plan[room]:
                problems.append(f"{name} (floor {plan[room]}) imports {module}")
    assert not problems
    assert len(plan) > 10


def test_no_module_waits_for_itself():
    try:
        TopologicalSorter(
            {name: imports(path, at_import=True) - {name} for name, path in MODULES.items()}
        ).prepare()
    except CycleError as error:
        raise AssertionError(f"a circle: {' -> '.join(error.args[1])}") from None


def test_every_file_that_the_plan_names_exists():
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?|[a-z_]+\.py)`", PLAN))
    for path in named:
        places = [ROOT, ROOT.parents[1]]
        assert any((place / path).exists() for place in places) or list(ROOT.rglob(path)), path
