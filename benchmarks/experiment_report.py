"""The sections of RESULTS.md on experiments: a row for each set, model and method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.spec import ExperimentFile
from fewfit.compare.report.formats import seconds, size
from fewfit.markdown import NONE, markdown_table


def experiment(path: Path, file: ExperimentFile) -> str:
    """One section for one experiment: a row per set, model and method, a column per shots."""
    runs = _runs(path, file)
    shots = sorted({item["shots"] for run in runs for item in run["summaries"]})
    rows = []
    for run in runs:
        where = f"{run['set']}, {short(run['model'])}"
        for method in dict.fromkeys(item["method"] for item in run["summaries"]):
            cells = {i["shots"]: i for i in run["summaries"] if i["method"] == method}
            rows.append([f"{where}: {method}", *(measured(cells.get(n)) for n in shots)])
    if file.published is not None:
        for method, values in file.published.accuracy.items():
            cells = [values.get(str(n)) or values.get("0") for n in shots]
            where = f"*published, {file.published.model}*: {method}"
            rows.append([where, *(published(cell) for cell in cells)])
    header = ["accuracy, %", *(f"{n} shot{'s' * (n > 1)}" for n in shots)]
    tested = ", ".join(_test_rows(name, runs) for name in dict.fromkeys(r["set"] for r in runs))
    source = ""
    if file.published is not None:
        source = (
            f"\n\nPublished: {file.published.source}. On another model and the full test split."
        )
    return (
        f"\n## {file.title}\n\n`python -m benchmarks {path.stem} --data DIR`\n\n"
        f"{file.note.strip()}{source}\n\n{markdown_table(header, rows)}\n\n"
        f"{_samples(runs)}; test rows: {tested}.\n"
    )


def _samples(runs: list[dict[str, Any]]) -> str:
    """How many samples each figure is of."""
    found: dict[int, set[int]] = {}
    for item in (item for run in runs for item in run["summaries"]):
        if item["shots"]:
            found.setdefault(item["shots"], set()).add(item["seeds"])
    said = {n: " or ".join(map(str, sorted(own))) for n, own in sorted(found.items())}
    if len(set(said.values())) > 1:
        return ", ".join(f"{own} at {n} shots" for n, own in said.items()) + " (samples)"
    (own,) = set(said.values())
    return f"{own} sample{'s' * (own != '1')} for each number of shots"


def _runs(path: Path, file: ExperimentFile) -> list[dict[str, Any]]:
    """Read what was run, in the order of the file's sets and models; what it has not comes last."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    sets, models = file.sets, [entry.spec for entry in file.models]

    def place(known: list[str], name: str) -> int:
        return known.index(name) if name in known else len(known)

    return sorted(runs, key=lambda run: (place(sets, run["set"]), place(models, run["model"])))


def _test_rows(name: str, runs: list[dict[str, Any]]) -> str:
    """How many rows a set was measured on, model by model where they differ."""
    rows = {short(r["model"]): r["setup"]["test_rows"] for r in runs if r["set"] == name}
    if len(set(rows.values())) == 1:
        return f"{name} {next(iter(rows.values())):,}"
    return f"{name} " + " and ".join(f"{n:,} ({model})" for model, n in rows.items())


def costs(path: Path) -> str:
    """What the methods of an experiment cost, at its largest number of shots."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    rows = []
    for run in runs:
        largest = max(item["shots"] for item in run["summaries"])
        for item in (i for i in run["summaries"] if i["shots"] == largest):
            rows.append(
                [
                    f"{run['set']}: {item['method']}, {largest} shots",
                    f"{item['queries']:,}",
                    seconds(item["fit_seconds"]),
                    f"{item['parameters']:,}",
                    size(item["artifact_bytes"]),
                ]
            )
    header = ["cost of fitting", "queries", "fit", "parameters", "artifact"]
    return (
        f"\n{markdown_table(header, rows)}\n\nMedians over samples. The fit of a decoder starts "
        "from the model's answers, that of a peer from the texts. Taken while other programs ran: "
        "read the orders of magnitude.\n"
    )


def spent(path: Path) -> str:
    """What each method of an experiment reached and took, means over its sets, model by model."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    rows = []
    for model in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == model]
        cells = [(item["method"], item["shots"]) for run in own for item in run["summaries"]]
        for method, n in dict.fromkeys(cells):
            items = [
                item
                for run in own
                for item in run["summaries"]
                if (item["method"], item["shots"]) == (method, n)
            ]

            def mean(key: str, items: list[dict[str, Any]] = items) -> float | None:
                given = [item[key] for item in items if item.get(key) is not None]
                return sum(given) / len(given) if len(given) == len(items) else None

            kept, held, flops = mean("saved_bytes"), mean("optimizer_bytes"), mean("fit_flops")
            rows.append(
                [
                    f"{method}, {n} shots",
                    f"{100 * (mean('accuracy') or 0):.1f}",
                    seconds(mean("fit_seconds")),
                    NONE if flops is None else f"{flops / 1e12:.1f}",
                    NONE if kept is None else f"{kept / 2**20:.0f} MiB",
                    NONE if held is None else size(round(held)),
                    f"{mean('parameters') or 0:,.0f}",
                    size(round(mean("artifact_bytes") or 0)),
                ]
            )
    sets = dict.fromkeys(run["set"] for run in runs)
    header = ["", "accuracy, %", "fit", "TFLOP of fitting", "kept for backward"]
    header += ["kept by the optimiser", "parameters", "artifact"]
    told = [i for i in range(len(header)) if any(row[i] != NONE for row in rows)]
    header, rows = [header[i] for i in told], [[row[i] for i in told] for row in rows]
    return (
        f"\n{markdown_table(header, rows)}\n\nMeans over {', '.join(sets)}. Operations are those "
        "of all trials, and for a decoder of the queries; seconds too are of all trials, on one "
        "thread beside another such run, and without a frozen model's answers; what is kept is "
        "the most of one step.\n"
    )


def measured(item: dict[str, Any] | None) -> str:
    """Return ``mean ± sd`` in percent, with a star where it cannot be told from the best."""
    if item is None:
        return NONE
    spread = "" if item["sd"] is None else f" ± {100 * item['sd']:.1f}"
    return f"{100 * item['accuracy']:.1f}{spread}{' *' if item['tied'] else '  '}"


def published(values: list[float] | None) -> str:
    """Return what a paper gives, as it gives it."""
    return NONE if values is None else " ± ".join(f"{value:.1f}" for value in values) + "  "


def averages(path: Path, file: ExperimentFile) -> str:
    """Averages over an experiment's sets, model by model; see :func:`_averages`."""
    runs = _runs(path, file)
    models = dict.fromkeys(run["model"] for run in runs)
    return "".join(
        _averages(short(model), [run for run in runs if run["model"] == model]) for model in models
    )


def _averages(model: str, runs: list[dict[str, Any]]) -> str:
    """Averages over sets, and how far the last method is ahead of DecT and behind simpler ones."""
    cells = {
        (run["set"], row["method"], row["shots"]): row for run in runs for row in run["summaries"]
    }
    sets = [run["set"] for run in runs]
    methods = list(dict.fromkeys(method for _, method, _ in cells))
    last, simple = methods[-1], ("zero-shot", "linear-probe")
    rows, regrets = [], []
    for n in sorted({shots for _, _, shots in cells}):
        served = [name for name in sets if (name, last, n) in cells]
        for method in methods:
            mean = {
                key: sum(cells[name, method, n][key] for name in served) / len(served)
                for key in ("accuracy", "log_loss", "ece")
            }
            rows.append(
                [
                    f"{n} shot{'s' * (n > 1)}, {method}",
                    f"{100 * mean['accuracy']:.1f}",
                    f"{mean['log_loss']:.2f}",
                    f"{mean['ece']:.3f}",
                ]
            )
        for key, measure in {"accuracy": "accuracy", "macro_f1": "macro F1"}.items():
            ahead = [
                _points(cells, name, n, last, key) - _points(cells, name, n, "dect", key)
                for name in served
            ]
            behind = {
                name: max(_points(cells, name, n, other, key) for other in simple)
                - _points(cells, name, n, last, key)
                for name in served
            }
            worst = max(behind, key=behind.__getitem__)
            over = sum(value > 1 for value in behind.values())
            regrets.append(
                [
                    f"{n}, {measure}",
                    f"{sum(ahead) / len(ahead):+.1f}",
                    f"{over} of {len(served)}",
                    f"{behind[worst]:.1f}",
                    worst,
                ]
            )
    header = ["shots", "ahead of dect", "sets behind by over 1", "worst", "set"]
    return (
        f"\nAverages over the {len(sets)} sets, {model}.\n\n"
        + markdown_table(["", "accuracy, %", "log loss", "calibration error"], rows)
        + f"\n\nHow far {last} is ahead of dect on average, and its regret: how far it is behind "
        f"the better of {' and '.join(simple)}. In points. The samples are balanced and some test "
        "sets are not: accuracy rewards a rule that leans to the largest class, macro F1 does "
        "not.\n\n" + markdown_table(header, regrets) + "\n"
    )


def _points(
    cells: dict[tuple[str, str, int], Any], name: str, n: int, method: str, key: str
) -> float:
    return 100 * cells[name, method, n][key]


def short(model: str) -> str:
    """Return the name of a model without its folder, and of its options whether it is a chat."""
    name, _, options = model.partition("?")
    chat = ", as a chat" if "chat=true" in options.split("&") else ""
    return name.rpartition("/")[2].removeprefix("hf:") + chat
