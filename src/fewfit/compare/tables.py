"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

from fewfit.compare.grid import Summary


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> str:
    """Return an aligned Markdown table; the first column to the left, `numbers` to the right."""
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


def shots_table(summaries: Sequence[Summary]) -> str:
    """Return accuracy (mean ± sd) by method and shots, and what fitting the last one took."""
    methods = list(dict.fromkeys(item.method for item in summaries))
    shots = sorted({item.shots for item in summaries})
    cells = {(item.method, item.shots): item for item in summaries}
    header = ["method", *(f"{n} shot{'s' * (n > 1)}" for n in shots), "queries/example", "fit, ms"]
    rows = []
    for method in methods:
        row = [cells[method, n] for n in shots]
        rows.append(
            [
                method,
                *(f"{item.accuracy:.3f} ± {item.sd:.3f}" for item in row),
                "1",
                f"{1000 * row[-1].fit_seconds:.1f}",
            ]
        )
    return markdown_table(header, rows)
