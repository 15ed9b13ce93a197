"""Results as tables and CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewfit.compare.report.advice import advice
from fewfit.compare.report.formats import count, flops, largest_of, lines, seconds, size
from fewfit.compare.schema import Comparison, Summary
from fewfit.markdown import NONE, Table


def accuracy_table(summaries: Sequence[Summary]) -> Table:
    """Return accuracy by method and shots; ``*`` marks the best and what is tied with it."""
    shots = sorted({item.shots for item in summaries})
    rows = [
        [name, *(_accuracy(next((i for i in items if i.shots == n), None)) for n in shots)]
        for name, items in lines(summaries).items()
    ]
    return Table(["accuracy", *(f"{n} shot{'s' * (n > 1)}" for n in shots)], rows)


def flops_table(summaries: Sequence[Summary]) -> Table | None:
    """Return FLOPs and bytes by method, at the largest number of shots; None if none are known."""
    rows = flops_rows(lines(summaries))
    return Table(FLOPS_HEADER, rows) if rows else None


FLOPS_HEADER = (
    "FLOPs",
    "fit",
    "per row",
    "kept",
    "a step keeps",
    "the optimiser keeps",
    "in context, per row",
    "kept in context",
)
"""Columns of :func:`flops_rows`."""


def flops_rows(grouped: Mapping[str, Sequence[Summary]]) -> list[list[str]]:
    """Return a row for each method whose frozen model's size is known."""
    last = largest_of(grouped)
    return [
        [
            name,
            flops(item.fit_flops),
            flops(item.predict_flops),
            size(item.artifact_bytes),
            size(item.saved_bytes),
            size(item.optimizer_bytes),
            flops(item.in_context_flops),
            size(None if item.in_context_bytes is None else round(item.in_context_bytes)),
        ]
        for name, item in last.items()
        if item.predict_flops is not None
    ]


def cost_table(summaries: Sequence[Summary]) -> Table:
    """Return quality and cost by method, at the largest number of shots."""
    largest = max(item.shots for item in summaries)
    last = largest_of(lines(summaries))
    priced = any(item.cost is not None for item in last.values())
    header = [f"{largest} shot{'s' * (largest > 1)}", "macro F1", "log loss", "ECE", "queries"]
    header += ["tokens", "queries per row", "tokens per row", "fit", "predict", "memory"]
    header += ["parameters", "artifact"]
    rows = [
        [
            name,
            f"{item.macro_f1:.3f}",
            f"{item.log_loss:.3f}",
            f"{item.ece:.3f}",
            f"{item.queries:,}",
            count(item.tokens),
            NONE if item.row_queries is None else f"{item.row_queries:.3g}",
            NONE if item.row_tokens is None else f"{item.row_tokens:,.0f}",
            seconds(item.fit_seconds),
            seconds(item.predict_seconds),
            size(item.peak_memory),
            f"{item.parameters:,}",
            size(item.artifact_bytes),
            *([NONE if item.cost is None else f"{item.cost:.4g}"] if priced else []),
        ]
        for name, item in last.items()
    ]
    return Table([*header, *(["cost"] if priced else [])], rows)


def report(comparison: Comparison) -> str:
    """Return the advice, the tables and how to read them, as Markdown."""
    return "\n\n".join(map(str, report_parts(comparison)))


def report_parts(comparison: Comparison) -> list[str | Table]:
    """Return the same as paragraphs and tables."""
    setup, summaries = comparison.setup, comparison.summaries
    seeds = f"{len(setup.seeds)} sample{'s' * (len(setup.seeds) > 1)}"
    known, same = flops_table(summaries), same_samples_note(comparison)
    parts: list[str | Table] = [
        advice(comparison),
        accuracy_table(summaries),
        f"Mean ± sd over {seeds} on {setup.test_rows:,} test rows. * the best of its column, or "
        "not to be told apart from it (paired bootstrap over test rows and samples, Holm, 5 %)."
        f"{f' {same}' * bool(same)}",
        cost_table(summaries),
        "Queries and tokens are those of fitting; each row to predict takes those per row.",
    ]
    return [*parts, known, FLOPS_NOTE] if known else parts


def same_samples_note(comparison: Comparison) -> str:
    """Return a sentence about samples that are all the same; "" if there are none."""
    same = comparison.setup.same_samples
    if not same:
        return ""
    shots = f"{', '.join(map(str, same))} shot{'s' * (same != [1])}"
    return (
        f"At {shots} all samples are the same rows: there is no sd over samples, and the interval "
        "is over test rows alone."
    )


def write_csv(comparison: Comparison, path: str | Path) -> None:
    """Write one line per cell: its metrics and its ledger."""
    rows = []
    for cell in comparison.cells:
        entries = cell.model_dump()
        ledger = entries.pop("ledger")
        rows.append({**entries, **ledger})
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


FLOPS_NOTE = (
    "FLOPs of the frozen model, by its size and the tokens that it read (Liu et al. 2022): in "
    "fitting, a tuned model's training included, and for one row; beside them what a row would "
    "take with the same examples in its context. Those of a tuning method are counted as it runs, "
    "trials of rates included, and so are the bytes that one of its steps keeps for the backward "
    "pass, and those that its optimiser keeps from step to step."
)


def _accuracy(item: Summary | None) -> str:
    if item is None:
        return NONE
    spread = "" if item.sd is None else f" ± {item.sd:.3f}"
    return f"{item.accuracy:.3f}{spread}{' *' if item.tied else '  '}"
