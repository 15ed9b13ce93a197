"""The sections of RESULTS.md on searching for a prompt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fewfit.compare.report.formats import seconds
from fewfit.markdown import NONE, markdown_table


def searchers(path: Path) -> str:
    """A section on searching for prompts: accuracy and cost, and the cost beside DecT's."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for name, found in content["sets"].items():
        middle = {
            method: {
                key: float(np.median([c[key] for c in cells])) for key in ("queries", "seconds")
            }
            for method, cells in found["methods"].items()
        }
        dect = middle["DecT"]
        for method, cells in found["methods"].items():
            accuracy = [100 * cell["accuracy"] for cell in cells]
            spread = f" ± {np.std(accuracy, ddof=1):.1f}" if len(cells) > 1 else ""
            cost = middle[method]
            rows.append(
                [
                    f"{name}: {method}",
                    f"{np.mean(accuracy):.1f}{spread}",
                    f"{cost['queries']:,.0f}",
                    ratio(cost["queries"], dect["queries"]),
                    NONE if cost["queries"] < 2 else seconds(cost["seconds"]),
                    NONE if cost["queries"] < 2 else ratio(cost["seconds"], dect["seconds"]),
                ]
            )
    header = ["", "accuracy, %", "queries", "/ DecT's", "fit and asking", "/ DecT's"]
    n = content["trials"]
    seeds = "; ".join(
        f"{name}: seeds {', '.join(map(str, range(len(found['methods']['DecT']))))}, "
        f"{found['test_rows']} test rows"
        for name, found in content["sets"].items()
    )
    return (
        f"\n## Searching for a prompt, with {n:,} tries\n\n"
        f"`python -m benchmarks searchers{content['options']}`\n\n"
        f"{content['model']}, {content['shots']} shots. {seeds}. Mean ± standard deviation over "
        f"seeds. BBT, RLPrompt-like and BDPL may ask {n:,} times the number of examples; the "
        "papers of BBT and RLPrompt take 8,000 and 12,000. A searcher pays for the examples with "
        "every prompt that it tries, DecT once. Medians of queries and seconds; threads: "
        f"{content['threads']}, beside other programs: read the orders of magnitude. Nothing is "
        "stored. What is set, and what is not as in the papers, is said at the head of the program "
        f"and of each method's file.\n\n{markdown_table(header, rows)}\n"
    )


def ratio(a: float, b: float) -> str:
    """Return a / b, to one decimal below 10."""
    return f"{a / b:.1f}" if a < 10 * b else f"{a / b:,.0f}"
