"""Write RESULTS.md from ``results/*.json``, and nothing else: no number in it is typed.

python -m benchmarks.report
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import searchers_report, tuning_report
from benchmarks.spec import FOLDER, ExperimentFile, read_experiment
from fewfit.compare.tables import NONE, markdown_table, seconds, size

HERE = Path(__file__).parent
INTRODUCTION = """# Results

Made by `python -m benchmarks.report` from the files in `results/`, each written by the command that
stands above its table; what is run is said in `experiments/`. Accuracy is the mean ± standard
deviation over samples of the training split, all methods on the same samples. A star marks the
best of a set at that number of shots, and what cannot be told apart from it (docs/compare.md). DIR
is a folder with `<set>/{train,test}.jsonl.gz`, one JSON object with the template's fields and
`label` per line.
"""


def experiment(path: Path, file: ExperimentFile) -> str:
    """One section for one experiment: a row per set, model and method, a column per shots."""
    runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    shots = sorted({item["shots"] for run in runs for item in run["summaries"]})
    rows = []
    for run in runs:
        where = f"{run['set']}, {run['model']}"
        for method in dict.fromkeys(item["method"] for item in run["summaries"]):
            cells = {i["shots"]: i for i in run["summaries"] if i["method"] == method}
            rows.append([f"{where}: {method}", *(measured(cells.get(n)) for n in shots)])
    if file.published is not None:
        for method, values in file.published.accuracy.items():
            cells = [values.get(str(n)) or values.get("0") for n in shots]
            where = f"*published, {file.published.model}*: {method}"
            rows.append([where, *(published(cell) for cell in cells)])
    header = ["accuracy, %", *(f"{n} shot{'s' * (n > 1)}" for n in shots)]
    setups = {run["set"]: run["setup"] for run in runs}
    tested = ", ".join(f"{name} {setup['test_rows']:,}" for name, setup in setups.items())
    source = ""
    if file.published is not None:
        source = (
            f"\n\nPublished: {file.published.source}. On another model and the full test split."
        )
    return (
        f"\n## {file.title}\n\n`python -m benchmarks {path.stem} --data DIR`\n\n"
        f"{file.note.strip()}{source}\n\n{markdown_table(header, rows)}\n\n"
        f"{len(file.seeds)} samples for each number of shots; test rows: {tested}.\n"
    )


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


def measured(item: dict[str, Any] | None) -> str:
    """Return ``mean ± sd`` in percent, with a star where it cannot be told from the best."""
    if item is None:
        return NONE
    spread = "" if item["sd"] is None else f" ± {100 * item['sd']:.1f}"
    return f"{100 * item['accuracy']:.1f}{spread}{' *' if item['tied'] else '  '}"


def published(values: list[float] | None) -> str:
    """Return what a paper gives, as it gives it."""
    return NONE if values is None else " ± ".join(f"{value:.1f}" for value in values) + "  "


def grid(path: Path) -> str:
    """The section on the speed of a comparison."""
    content = json.loads(path.read_text(encoding="utf-8"))
    full = content.pop("size")
    rows = [
        [
            name,
            f"{item['cells']}",
            f"{item['seconds']:.1f}",
            f"{item['cpu_seconds']:.1f}",
            f"{item['cpu_seconds'] / content['full']['cpu_seconds']:.2f}",
        ]
        for name, item in content.items()
    ]
    header = ["grid", "cells", "seconds", "CPU seconds", "CPU / full"]
    return (
        "\n## Speed of a comparison\n\n`OMP_NUM_THREADS=1 python -m benchmarks grid`\n\n"
        f"{full['seeds']} seeds, {full['shots']} numbers of shots, {full['decoders']} decoders, "
        f"{full['n_test'] + 1000:,} stored observations of 384 dimensions; then with one factor "
        f"halved. One thread, beside other programs: CPU seconds count. All answers are stored."
        f"\n\n{markdown_table(header, rows)}\n"
    )


def speed(path: Path) -> str:
    """The section on speed and memory."""
    content = json.loads(path.read_text(encoding="utf-8"))
    dect, encoding = content["dect_fit"], content["encoding"]
    second, memory = content["second_fit"], content["memory"]
    rows = [
        [
            "DecT's fit (N = 64, H = 1024, K = 4, 30 steps) / the same loop in torch",
            f"{dect['fewfit_ms']:.1f} ms / {dect['torch_ms']:.1f} ms",
            f"{dect['ratio']:.2f}",
        ],
        [
            f"encoding {encoding['texts']:,} short texts / the bare network, length-sorted",
            f"{encoding['fewfit_texts_per_second']:.0f} / "
            f"{encoding['bare_texts_per_second']:.0f} texts per s",
            f"{encoding['ratio_of_throughput']:.2f}",
        ],
        [
            f"first fit on {second['texts']:,} texts, weights loaded in it / second fit, with "
            f"{second['queries_of_the_second']:.0f} queries",
            f"{second['first_seconds']:.2f} s / {second['second_seconds']:.3f} s",
            f"{second['ratio']:.0f}",
        ],
        [
            "the same, the weights loaded before",
            f"{second['loaded_seconds']:.2f} s / {second['second_seconds']:.3f} s",
            f"{second['ratio_loaded']:.0f}",
        ],
        [
            f"growth of peak memory from 2,048 to {memory['texts']:,} texts / the observations",
            f"{memory['peak_growth_mb']:.0f} MB / {memory['observations_mb']:.0f} MB",
            f"{memory['peak_growth_mb'] / memory['observations_mb']:.2f}",
        ],
    ]
    return (
        "\n## Speed and memory\n\n`python -m benchmarks.speed`\n\n"
        f"{content['threads']} threads, torch {content['torch']}. The two sides of a ratio are "
        "timed in turn, and the median of the ratios is given.\n\n"
        + markdown_table(["what / against what", "figures", "ratio"], rows)
        + "\n"
    )


def averages(path: Path) -> str:
    """Averages over an experiment's sets, and how far its last method is behind simpler ones."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
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
        behind = {
            name: 100 * max(cells[name, other, n]["accuracy"] for other in simple)
            - 100 * cells[name, last, n]["accuracy"]
            for name in served
        }
        worst = max(behind, key=behind.__getitem__)
        over = sum(value > 1 for value in behind.values())
        regrets.append([str(n), f"{over} of {len(served)}", f"{behind[worst]:.1f}", worst])
    return (
        f"\nAverages over the {len(sets)} sets.\n\n"
        + markdown_table(["", "accuracy, %", "log loss", "calibration error"], rows)
        + f"\n\nRegret: where {last} is behind the better of {' and '.join(simple)}, in points.\n\n"
        + markdown_table(["shots", "sets behind by over 1", "worst", "set"], regrets)
        + "\n"
    )


def ablation(path: Path) -> str:
    """The section on the parts of the default decoder: a row for each variant."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = {(row["variant"], row["shots"]): row for row in content["rows"]}
    shots = sorted({n for _, n in cells})
    rows = [
        [variant, *(_accuracy_and_losses(cells[variant, n]) for n in shots)]
        for variant in dict.fromkeys(variant for variant, _ in cells)
    ]
    return (
        "\n## The default decoder, part by part\n\n"
        f"`python -m benchmarks.ablation --seeds {content['seeds']}`\n\n"
        f"Rows of the training splits of {content['sets']} that the sample did not draw; "
        f"{content['seeds']} samples. Accuracy in %, log loss, calibration error.\n\n"
        + markdown_table(["variant", *(f"{n} shot{'s' * (n > 1)}" for n in shots)], rows)
        + "\n"
    )


def _accuracy_and_losses(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}  {row['log_loss']:.3f}  {row['ece']:.3f}"


def http(path: Path) -> str:
    """The section on remote models: the table that the benchmark itself wrote."""
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    command = "\n\n`python -m benchmarks.http_throughput --rounds 5`\n"
    return "\n#" + table.replace("\n", command, 1)


def main() -> None:
    """Write RESULTS.md."""
    results = HERE / "results"
    sections = []
    for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem.startswith("dect_")):
        found = results / f"{path.stem}.json"
        if found.exists():
            sections.append(experiment(found, read_experiment(path)))
            if path.stem == "setfit":
                sections.append(costs(found))
            if path.stem == "default_decoder":
                sections.append(averages(found))
    programs = {
        "ablation_embedded": ablation,
        "searchers": searchers_report.searchers,
        "searchers_long": searchers_report.searchers,
        "grid": grid,
        "speed": speed,
        "http_throughput": http,
        "tuning_speed": tuning_report.speed,
        "tfew_small": tuning_report.tfew,
    }
    for name, section in programs.items():
        if (results / f"{name}.json").exists():
            sections.append(section(results / f"{name}.json"))
    (HERE / "RESULTS.md").write_text(INTRODUCTION + "".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
