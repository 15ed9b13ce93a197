"""The report for a browser or a printer: one file, no script, nothing fetched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from fewfit.compare.report.advice import advice
from fewfit.compare.report.formats import NONE, count, lines, seconds, size
from fewfit.compare.report.svg import Point, line_plot, reliability_plot, swatch
from fewfit.compare.report.tables import FLOPS_HEADER, FLOPS_NOTE, flops_rows, same_samples_note
from fewfit.compare.schema import Comparison, Diagnosis, Summary

_WHOLE_MATRIX = 16
_PAIRS = 20
_TEXT = 400


def html_report(comparison: Comparison, *, title: str = "Comparison") -> str:
    """Return a self-contained page: tables, plots, and how each method errs.

    Texts of the test set are in it: those that methods are most confidently wrong about. All that
    comes from the user is escaped.
    """
    grouped = lines(comparison.summaries)
    style = (files("fewfit.compare.report") / "report.css").read_text(encoding="utf-8")
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="advice">{escape(advice(comparison))}</p>',
            _setup(comparison),
            "<h2>Accuracy</h2>",
            _accuracy(grouped, comparison),
            "<h2>Quality and cost</h2>",
            _costs(grouped),
            _flops(grouped),
            "<h2>Accuracy against what it costs</h2>",
            _plots(grouped),
            "<h2>Reliability</h2>",
            _reliability(grouped, comparison.diagnoses),
            "<h2>Errors</h2>",
            _errors(grouped, comparison),
            "</body>\n</html>\n",
        ]
    )


def _word(word: str | tuple[str, float]) -> str:
    return word if isinstance(word, str) else f"{word[0]} ({word[1]:g})"


def _templates(views: Sequence[str]) -> str:
    return " | ".join(views)


def _setup(comparison: Comparison) -> str:
    setup = comparison.setup
    words = "; ".join(
        f"{name}: {', '.join(map(_word, listed))}" for name, listed in setup.labels[:30]
    )
    more = f"; … {len(setup.labels) - 30} more" if len(setup.labels) > 30 else ""
    paid = Counter[str]()
    for item in comparison.asked:
        paid[item.model] += item.queries
    asked = ", ".join(f"{model}: {queries:,}" for model, queries in paid.items())
    dropped = setup.dropped_train_rows
    entries = {
        "test rows": f"{setup.test_rows:,}",
        "samples from": f"{setup.train_rows:,} rows"
        + (f" ({dropped:,} more were left out: their text is in the test set)" if dropped else ""),
        "seeds": ", ".join(map(str, setup.seeds)),
        "template": _templates(setup.template),
        **{f"template of {k}": _templates(v) for k, v in setup.method_templates.items()},
        "label words": words + more,
        "calibration": setup.calibration,
        **(
            {"searchers": f"may ask {setup.search_trials:,} times the examples of a sample"}
            if setup.search_trials
            else {}
        ),
        "queries paid for": asked or "none: the store had all answers",
        "fewfit": setup.fewfit_version,
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items())
    return f"<dl>{rows}</dl>"


def _accuracy(grouped: dict[str, list[Summary]], comparison: Comparison) -> str:
    shots = comparison.setup.shots
    head = ["method", *(f"{n} shot{'s' * (n > 1)}" for n in sorted(shots))]
    rows = []
    for i, (name, items) in enumerate(grouped.items()):
        row = [f"{swatch(i)} {escape(name)}"]
        for item in items:
            spread = "" if item.sd is None else f" ± {item.sd:.3f}"
            mark = ' class="tied"' if item.tied else ""
            p = "best" if item.best else f"p = {item.p_value:.3f}"
            row.append(
                f"<span{mark}><b>{item.accuracy:.3f}</b>{spread}</span>"
                f"<small>{item.low:.3f} to {item.high:.3f}</small><small>median "
                f"{item.median:.3f}, IQR {item.q75 - item.q25:.3f}</small><small>{p}</small>"
            )
        rows.append(row)
    n = len(comparison.setup.seeds)
    return _table(head, rows) + (
        f"<p>Mean ± standard deviation over {n} sample{'s' * (n > 1)}; below, the 95 % bootstrap "
        "interval of the mean over test rows and samples, median and interquartile range over "
        "samples, and the p-value of the paired test against the best of the column "
        "(Holm-corrected). Marked: the best, and what cannot be told apart from it at 5 %. "
        f"{same_samples_note(comparison)}</p>"
    )


def _costs(grouped: dict[str, list[Summary]]) -> str:
    last = {name: items[-1] for name, items in grouped.items()}
    priced = any(item.cost is not None for item in last.values())
    head = ["method", "macro F1", "log loss", "ECE", "queries", "tokens", "queries per row"]
    head += [
        "tokens per row",
        "fit",
        "predict",
        "memory",
        "parameters",
        "artifact",
        *(["cost"] if priced else []),
    ]
    rows = [
        [
            f"{swatch(i)} {escape(name)}",
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
        for i, (name, item) in enumerate(last.items())
    ]
    shots = max(item.shots for item in last.values())
    return _table(head, rows) + (
        f"<p>At {shots} shots, medians over samples. Queries and tokens are those of fitting; each "
        "row to predict takes those per row. "
        "Times are those of the decoder, given the model's answers. Memory is what Python and "
        "NumPy allocate at most.</p>"
    )


def _flops(grouped: dict[str, list[Summary]]) -> str:
    rows = [[escape(name), *rest] for name, *rest in flops_rows(grouped)]
    return _table(FLOPS_HEADER, rows) + f"<p>{FLOPS_NOTE}</p>" if rows else ""


def _plots(grouped: dict[str, list[Summary]]) -> str:
    kinds = {
        "labelled examples per class": lambda item: item.shots,
        "queries of fitting": lambda item: item.queries,
        "seconds of fitting, asking included": lambda item: item.seconds,
    }
    legend = "".join(f"<li>{swatch(i)} {escape(name)}</li>" for i, name in enumerate(grouped))
    figures = []
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
        note = (
            f"Not here, since it has none or it is not known: {', '.join(absent)}."
            if absent
            else ""
        )
        if len(absent) < len(series):
            plot = line_plot(
                series, x_label=label, y_label="accuracy", title=f"accuracy by {label}"
            )
            figures.append(f"<figure>{plot}<figcaption>{escape(note)}</figcaption></figure>")
    return (
        f'<ul class="legend">{legend}</ul><div class="plots">{"".join(figures)}</div>'
        "<p>Bars are the 95 % intervals.</p>"
    )


def _reliability(grouped: dict[str, list[Summary]], diagnoses: Sequence[Diagnosis]) -> str:
    figures = []
    for i, (name, items) in enumerate(grouped.items()):
        found = _of(items, diagnoses)
        plot = reliability_plot(found.reliability, title=f"reliability of {name}", series=i)
        figures.append(
            f"<figure>{plot}<figcaption>{swatch(i)} {escape(name)}, ECE {items[-1].ece:.3f}"
            "</figcaption></figure>"
        )
    return (
        f'<div class="plots small">{"".join(figures)}</div><p>At {diagnoses[0].shots} shots. On '
        "the dashed line a method is right as often as it says; below it, it is too sure.</p>"
    )


def _errors(grouped: dict[str, list[Summary]], comparison: Comparison) -> str:
    classes = [str(name) for name, _ in comparison.setup.labels]
    parts = []
    for name, items in grouped.items():
        found = _of(items, comparison.diagnoses)
        opened = " open" if items[-1].best else ""
        parts.append(
            f"<details{opened}><summary>{escape(name)}, {found.shots} shots</summary>"
            f"{_confusion(found, classes)}{_wrong(found)}</details>"
        )
    return "".join(parts)


def _confusion(found: Diagnosis, classes: Sequence[str]) -> str:
    if len(classes) > _WHOLE_MATRIX:
        pairs = sorted(
            (-n, classes[i], classes[j])
            for i, row in enumerate(found.confusion)
            for j, n in enumerate(row)
            if i != j and n
        )[:_PAIRS]
        rows = [[escape(a), escape(b), f"{-n:,}"] for n, a, b in pairs]
        return "<h3>Most frequent confusions</h3>" + _table(["class", "taken for", "rows"], rows)
    rows = []
    for name, counts in zip(classes, found.confusion, strict=True):
        total = max(1, sum(counts))
        cells = [f'<td class="heat" style="--h:{n / total:.2f}">{n:,}</td>' for n in counts]
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("true \\ predicted", *classes))
    return (
        "<h3>Confusion</h3><div class='wide'><table class='confusion'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _wrong(found: Diagnosis) -> str:
    rows = [
        [
            f"{item.row}",
            f'<span class="text">{escape(_short(item.text))}</span>',
            escape(item.label),
            escape(item.predicted),
            f"{item.confidence:.2f}",
        ]
        for item in found.wrong
    ]
    if not rows:
        return "<p>No test row is predicted wrong.</p>"
    head = ["row", "text", "class", "predicted", "confidence"]
    return "<h3>Most confidently wrong</h3>" + _table(head, rows, kind="wrong")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, kind: str = "numbers") -> str:
    """Return a table; cells are HTML already."""
    heads = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _of(items: Sequence[Summary], diagnoses: Sequence[Diagnosis]) -> Diagnosis:
    return next(
        found
        for found in diagnoses
        if (found.method, found.model) == (items[0].method, items[0].model)
    )


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else text[:_TEXT] + " …"
