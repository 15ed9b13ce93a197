"""The report for a browser or a printer: one file, no script, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fewfit.compare.report.advice import advice
from fewfit.compare.report.formats import count, largest_of, lines, seconds, size
from fewfit.compare.report.styles import COLOURS, Style, styles
from fewfit.compare.report.svg import Point, line_plot, reliability_plot, swatch
from fewfit.compare.report.tables import FLOPS_HEADER, FLOPS_NOTE, flops_rows, same_samples_note
from fewfit.compare.schema import Comparison, Diagnosis, Summary
from fewfit.markdown import NONE

_WHOLE_MATRIX = 16
_PAIRS = 20
_TEXT = 400
_CLASSES = 30

Grouped = Mapping[str, Sequence[Summary]]


@dataclass(frozen=True)
class _Table:
    """A table of the page: the first cell of a row names it, `groups` stand above the columns."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    kind: str = "numbers"
    groups: Sequence[tuple[str, int]] = field(default_factory=tuple)


def html_report(comparison: Comparison, *, title: str = "Comparison") -> str:
    """Return a self-contained page: the advice, tables, plots, and how each method errs.

    Texts of the test set are in it: those that methods are most confidently wrong about. All that
    comes from the user is escaped.
    """
    grouped = lines(comparison.summaries)
    drawn = styles(grouped)
    marks = {name: Markup(swatch(style)) for name, style in drawn.items()}
    shots = max(item.shots for item in comparison.summaries)
    page = _environment().get_template("report.html.j2")
    return page.render(
        title=title,
        advice=advice(comparison),
        colours=COLOURS,
        marks=marks,
        shots=sorted(comparison.setup.shots),
        n_samples=len(comparison.setup.seeds),
        same=same_samples_note(comparison),
        grouped=grouped,
        quality=_quality(grouped, marks, shots),
        costs=_costs(grouped, marks, shots),
        flops=_flops(grouped, marks, shots),
        plots=_plots(grouped, drawn),
        reliability=_reliability(grouped, comparison.diagnoses, drawn),
        diagnosed=max((found.shots for found in comparison.diagnoses), default=0),
        errors=_errors(grouped, comparison),
        setup=_setup(comparison),
    )


@cache
def _environment() -> Environment:
    loader = PackageLoader("fewfit.compare.report", package_path="")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _quality(grouped: Grouped, marks: Mapping[str, Markup], shots: int) -> _Table:
    rows = [
        [marks[name] + " " + name, *(f"{value:.3f}" for value in (s.macro_f1, s.log_loss, s.ece))]
        for name, s in largest_of(grouped).items()
    ]
    head = ["method", "macro F1", "log loss", "calibration error"]
    return _Table(f"Quality at {_shots(shots)}, means over samples", head, rows)


def _costs(grouped: Grouped, marks: Mapping[str, Markup], shots: int) -> _Table:
    last = largest_of(grouped)
    priced = any(item.cost is not None for item in last.values())
    rows = [
        [
            marks[name] + " " + name,
            f"{item.queries:,}",
            count(item.tokens),
            seconds(item.fit_seconds),
            NONE if item.row_queries is None else f"{item.row_queries:.3g}",
            NONE if item.row_tokens is None else f"{item.row_tokens:,.0f}",
            seconds(item.predict_seconds),
            f"{item.parameters:,}",
            size(item.artifact_bytes),
            size(item.peak_memory),
            *([NONE if item.cost is None else f"{item.cost:.4g}"] if priced else []),
        ]
        for name, item in last.items()
    ]
    head = ["method", "queries", "tokens", "time", "queries", "tokens", "time, all rows"]
    head += ["parameters", "artifact", "memory", *(["price"] if priced else [])]
    note = (
        "Times are those of the method, given the model's answers. Memory is what Python and NumPy "
        "allocate at most."
    )
    groups = [
        ("to fit", 3),
        ("to predict, per row", 3),
        ("kept", 3),
        *([("", 1)] if priced else []),
    ]
    caption = f"Cost at {_shots(shots)}, medians over samples"
    return _Table(caption, head, rows, note, groups=groups)


def _flops(grouped: Grouped, marks: Mapping[str, Markup], shots: int) -> _Table | None:
    rows = [[marks[name] + " " + name, *rest] for name, *rest in flops_rows(grouped)]
    head = ["method", *FLOPS_HEADER[1:]]
    return _Table(f"FLOPs at {_shots(shots)}", head, rows, FLOPS_NOTE) if rows else None


def _plots(grouped: Grouped, drawn: Mapping[str, Style]) -> list[dict[str, Any]]:
    kinds = {
        "labelled examples per class": lambda item: item.shots,
        "queries of fitting": lambda item: item.queries,
        "seconds of fitting, asking included": lambda item: item.seconds,
    }
    figures: list[dict[str, Any]] = []
    for label, value in kinds.items():
        series = {
            name: [
                Point(value(item), item.accuracy, item.low, item.high)
                for item in items
                if value(item)
            ]
            for name, items in grouped.items()
        }
        absent = [name for name, points in series.items() if not points]
        if len(absent) < len(series):
            title = f"accuracy by {label}"
            plot = line_plot(series, drawn, x_label=label, y_label="accuracy", title=title)
            figures.append({"plot": Markup(plot), "absent": ", ".join(absent)})
    return figures


def _reliability(
    grouped: Grouped, diagnoses: Sequence[Diagnosis], drawn: Mapping[str, Style]
) -> list[dict[str, Any]]:
    figures = []
    for name, items in grouped.items():
        found = _of(items, diagnoses)
        if found is not None:
            title = f"reliability of {name}"
            plot = reliability_plot(found.reliability, title=title, style=drawn[name])
            figures.append({"plot": Markup(plot), "name": name, "ece": items[-1].ece})
    return figures


def _errors(grouped: Grouped, comparison: Comparison) -> list[dict[str, Any]]:
    classes = [str(name) for name, _ in comparison.setup.labels]
    parts = []
    for name, items in grouped.items():
        found = _of(items, comparison.diagnoses)
        if found is None:
            continue
        whole = len(classes) <= _WHOLE_MATRIX
        parts.append(
            {
                "name": name,
                "shots": found.shots,
                "open": items[-1].best,
                "matrix": _matrix(found, classes) if whole else None,
                "classes": classes,
                "pairs": None if whole else _pairs(found, classes),
                "wrong": _wrong(found),
            }
        )
    return parts


def _matrix(found: Diagnosis, classes: Sequence[str]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each class with its cells: a count and its share of the row."""
    return [
        (name, [(f"{n:,}", f"{n / max(1, sum(counts)):.2f}") for n in counts])
        for name, counts in zip(classes, found.confusion, strict=True)
    ]


def _pairs(found: Diagnosis, classes: Sequence[str]) -> _Table:
    pairs = sorted(
        (-n, classes[i], classes[j])
        for i, row in enumerate(found.confusion)
        for j, n in enumerate(row)
        if i != j and n
    )[:_PAIRS]
    rows = [[a, b, f"{-n:,}"] for n, a, b in pairs]
    head = ["class", "taken for", "rows, over all samples"]
    return _Table("Most frequent confusions", head, rows, kind="pairs")


def _wrong(found: Diagnosis) -> _Table | None:
    rows = [
        [f"{item.row + 1}", _short(item.text), item.label, item.predicted, f"{item.confidence:.2f}"]
        for item in found.wrong
    ]
    head = ["test row, from 1", "text", "class", "predicted", "confidence"]
    return _Table("Most confidently wrong", head, rows, kind="wrong") if rows else None


def _setup(comparison: Comparison) -> dict[str, str]:
    setup = comparison.setup
    listed = [
        f"{name}: {', '.join(w if isinstance(w, str) else f'{w[0]} ({w[1]:g})' for w in words)}"
        for name, words in setup.labels[:_CLASSES]
    ]
    if len(setup.labels) > _CLASSES:
        listed.append(f"… {len(setup.labels) - _CLASSES} more")
    paid = Counter[str]()
    for item in comparison.asked:
        paid[item.model] += item.queries
    dropped = setup.dropped_train_rows
    left = f" ({dropped:,} more were left out: their text is in the test set)" if dropped else ""
    trials = setup.search_trials
    return {
        "test rows": f"{setup.test_rows:,}",
        "samples from": f"{setup.train_rows:,} rows{left}",
        "seeds": ", ".join(map(str, setup.seeds)),
        "template": " | ".join(setup.template),
        **{f"template of {k}": " | ".join(v) for k, v in setup.method_templates.items()},
        "label words": "; ".join(listed),
        "calibration": setup.calibration,
        **({"searchers": f"may ask {trials:,} times the examples of a sample"} if trials else {}),
        "queries paid for": ", ".join(f"{model}: {n:,}" for model, n in paid.items())
        or "none: the store had all answers",
        "fewfit": setup.fewfit_version,
    }


def _shots(n: int) -> str:
    return f"{n} shot{'s' * (n > 1)}"


def _of(items: Sequence[Summary], diagnoses: Sequence[Diagnosis]) -> Diagnosis | None:
    wanted = (items[0].method, items[0].model)
    return next((found for found in diagnoses if (found.method, found.model) == wanted), None)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[:_TEXT] + " …"
