"""All methods in one table, made from what each declares beside its own code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fewfit.analysis import ANALYSES
from fewfit.calibration import CALIBRATIONS
from fewfit.decoders import DECODERS, MultiLabel
from fewfit.prompts import VERBALIZERS, VIEWS
from fewfit.searchers import SEARCHERS
from fewfit.tuning import ENTRIES, METHODS


class Method(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    name : str
        As it is given to ``--decoder``, ``--calibration``, ``--method`` and in Python.
    kind : str
        A key of :data:`TABLES`, or "tuning".
    room : str
        The file that holds it.
    requires : tuple of str
        What the model must give.
    queries : str
        Queries per example.
    labels : str
        Labels needed.
    source : str
        Author, year, arXiv id; empty where it is common knowledge.
    """

    name: str
    kind: str
    room: str
    requires: tuple[str, ...]
    queries: str
    labels: str
    source: str


TABLES: dict[str, Mapping[str, Any]] = {
    "calibration": CALIBRATIONS,
    "view": VIEWS,
    "verbalizer": VERBALIZERS,
    "decoder": DECODERS,
    "multi-label decoder": {"multi-label": MultiLabel},
    "searcher": SEARCHERS,
    "analysis": ANALYSES,
}
"""Kind -> the fixed tables of the rooms."""


def list_methods() -> list[Method]:
    """Return every method, by kind and then by name."""
    found = [
        Method(
            name=name,
            kind=kind,
            room=item.__module__.removeprefix("fewfit.").replace(".", "/") + ".py",
            requires=tuple(sorted(item.requires)),
            queries=item.queries_per_example,
            labels=item.labels_needed,
            source=item.reference,
        )
        for kind, table in TABLES.items()
        for name, item in sorted(table.items())
    ]
    return [*found, *(_tuned(name) for name in sorted(METHODS))]


def _tuned(name: str) -> Method:
    """A line of the table that needs no torch; what is installed is asked itself."""
    entry = ENTRIES.get(name)
    if entry is None:
        kind = METHODS[name]
        room, reference, labels = kind.__module__, kind.source, kind.labels_needed
        return Method(name, "tuning", room, ("gradients",), "1", labels, reference)
    room = f"tuning/{entry.where.partition(':')[0].replace('.', '/')}"
    return Method(name, "tuning", f"{room}.py", entry.needs, "1", entry.labels, entry.reference)


def methods_table() -> str:
    """Return the table in Markdown."""
    header = ("method", "kind", "file", "requires", "queries per example", "labels", "source")
    rows = [
        (*method[:3], ", ".join(method.requires) or "–", *method[4:6], method.source or "–")  # noqa: RUF001
        for method in list_methods()
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: tuple[str, ...]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])
