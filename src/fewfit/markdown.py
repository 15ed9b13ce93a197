"""Tables as data: Markdown where they are text; a terminal lays them out itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NONE = "\N{EN DASH}"
"""Stands in tables for a number that there is not."""


class Table(NamedTuple):
    """A table whose cells are text; ``str`` gives it as Markdown.

    Attributes
    ----------
    header : sequence of str
    rows : sequence of sequence of str
        As many cells each as the header has.
    numbers : bool
        Whether all columns but the first are numbers, which stand to the right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True

    def __str__(self) -> str:
        return markdown_table(self.header, self.rows, numbers=self.numbers)


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> str:
    """Return an aligned Markdown table; the first column to the left, `numbers` to the right.

    A bar in a cell is escaped, so that it does not end the cell.
    """
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in [header, *rows])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [
            cell.rjust(width) if numbers else cell.ljust(width)
            for cell, width in zip(cells[1:], widths[1:], strict=True)
        ]
        return "| " + " | ".join([first, *rest]) + " |"

    end = ":" if numbers else "-"
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + end for width in widths[1:])]
    return "\n".join([line(header), "|" + "|".join(rule) + "|", *map(line, rows)])
