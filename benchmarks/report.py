"""Write RESULTS.md from ``results/*.json``, and nothing else: no number in it is typed.

python -m benchmarks.report
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewfit.compare.tables import markdown_table

HERE = Path(__file__).parent
INTRODUCTION = """# Results

Made by `python -m benchmarks.report` from the files in `results/`, each written by the command that
stands above its table. Accuracy is the mean ± standard deviation over samples of the training
split; test rows are those of the test split, all of them unless a table says otherwise. DIR is a
folder with `<set>/{train,test}.jsonl.gz`, one JSON object with `text` (or the template's fields)
and `label` per line.
"""
ORIENTATION = """
Prompts are in `tasks.toml`. Scores of the embedded model are similarities × 20, the inverse
temperature that the encoder was trained with, after subtraction of the empty text's scores; DecT
adds them with weight lambda = 1/n.
"""


def few_shot(path: Path) -> str:
    """One section for one model: a row per set and method, a column per number of shots."""
    content = json.loads(path.read_text(encoding="utf-8"))
    sets: list[dict[str, Any]] = content["sets"]
    shots = sorted({row["shots"] for item in sets for row in item["rows"]})
    rows = []
    for item in sets:
        methods = dict.fromkeys(row["method"] for row in item["rows"])
        for method in methods:
            cells = {row["shots"]: row for row in item["rows"] if row["method"] == method}
            label = f"{item['set']}, {method}"
            rows.append([label, *(accuracy(cells.get(n)) for n in shots)])
    names = ",".join(item["set"] for item in sets)
    command = (
        f"python -m benchmarks.few_shot --data DIR --model {content['model']} --sets {names} "
        f"--shots {','.join(map(str, shots))} --seeds {content['seeds']}"
    )
    queries = sum(item["queries"] for item in sets)
    header = ["set, method", *(f"{n} shot{'s' * (n > 1)}" for n in shots)]
    return (
        f"\n## Accuracy from a few labels: {content['model']}\n\n`{command}`\n{ORIENTATION}\n"
        + markdown_table(header, rows)
        + f"\n\n{content['seeds']} samples per cell. All methods share the same {queries:,} "
        "queries, one per distinct text and one per set for the calibration.\n"
    )


def accuracy(row: dict[str, Any] | None) -> str:
    """Return ``mean ± sd``, or a dash where the set is too small for these shots."""
    return "–" if row is None else f"{row['accuracy']:.3f} ± {row['sd']:.3f}"


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
            f"first fit on {second['texts']:,} texts / second fit, which asks "
            f"{second['queries_of_the_second']:.0f} queries",
            f"{second['first_seconds']:.2f} s / {second['second_seconds']:.3f} s",
            f"{second['ratio']:.0f}",
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


def main() -> None:
    """Write RESULTS.md."""
    results = HERE / "results"
    sections = [few_shot(path) for path in sorted(results.glob("few_shot_*.json"))]
    if (results / "speed.json").exists():
        sections.append(speed(results / "speed.json"))
    (HERE / "RESULTS.md").write_text(INTRODUCTION + "".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
