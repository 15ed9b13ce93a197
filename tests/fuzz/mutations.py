"""Ways to spoil JSON: values of other types, other sizes, and other shapes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

LONG = "@@LONG@@"
"""Stands for a number of 400 digits, which Python would not write itself."""

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    5,
    3.5,
    -0.5,
    1e20,
    -1e20,
    1e300,
    10**30,
    -(10**30),
    2**63,
    LONG,
    "-" + LONG,
    "",
    "x",
    "0",
    "\ud800",
    "a\x00b\x1b[31m\u202e",
    "é" * 50,
    "NaN",
    [],
    [[]],
    [None],
    [0],
    ["x"],
    [[[[1.0]]]],
    {},
    {"": None},
    {"x": {"y": []}},
    {"index": 0},
    float("nan"),
    float("inf"),
    -float("inf"),
    1e400,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value; of a list with more than 6 entries the first 3 and the last."""
    found = [path]
    if isinstance(value, dict):
        for name in value:
            found += places(value[name], (*path, name))
    elif isinstance(value, list):
        shown = range(len(value)) if len(value) <= 6 else [0, 1, 2, len(value) - 1]
        for i in shown:
            found += places(value[i], (*path, i))
    return found


def spoiled(value: Any, rng: random.Random, times: int = 1) -> Any:
    """A copy of a JSON value, changed in `times` places."""
    value = copy.deepcopy(value)
    for _ in range(times):
        value = _spoil(value, rng)
    return value


def text_of(value: Any) -> str:
    """JSON, with what JSON does not allow where the value has it."""
    return json.dumps(value).replace(f'"-{LONG}"', "-" + "7" * 400).replace(f'"{LONG}"', "7" * 400)


def _spoil(value: Any, rng: random.Random) -> Any:
    path = rng.choice(places(value))
    if not path:
        return rng.choice(ODD)
    *parents, last = path
    holder = value
    for step in parents:
        holder = holder[step]
    old = holder[last]
    kind = rng.randrange(8)
    if kind < 4:
        holder[last] = copy.deepcopy(rng.choice(ODD))
    elif kind == 4:
        del holder[last]
    elif kind == 5:
        holder[last] = [old]
    elif kind == 6:
        holder[last] = {"x": old} if rng.random() < 0.5 else str(old)
    elif isinstance(holder, list):
        holder.insert(last, copy.deepcopy(old))
    else:
        holder[rng.choice(["extra", "error", "\ud800", "index", "model"])] = copy.deepcopy(
            rng.choice([old, *ODD])
        )
    return value
