"""The sections on a network's own weights in RESULTS.md. Used by ``benchmarks.report``."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from fewfit.markdown import markdown_table


def speed(path: Path) -> str:
    """What the methods take."""
    content = json.loads(path.read_text(encoding="utf-8"))
    best, plan, masked = content["top_k"], content["plan"], content["masked"]
    rows = [
        [
            f"a step under a mask of {masked['share']:.1%} / of full tuning",
            f"{masked['mask_ms']:.0f} ms / {masked['full_ms']:.0f} ms",
            f"{masked['ratio']:.2f}",
        ],
        [
            f"the best of {best['scalars']:,} scalars; growth of the peak / the scores",
            f"{best['cpu_s']:.1f} s",
            f"{best['growth']:.2f}",
        ],
        [
            f"GreenTrainer's plan over {plan['parameters']} parameters",
            f"{1000 * plan['seconds']:.1f} ms",
            "",
        ],
    ]
    green = dict(content["green"])
    steps, full = green.pop("steps"), green["full"]
    arms = [
        [
            name,
            f"{100 * arm['accuracy']:.1f}",
            f"{arm['flops'] / full['flops']:.3f}",
            f"{arm['cpu_s'] / full['cpu_s']:.2f}",
        ]
        for name, arm in green.items()
    ]
    return (
        "\n## Weights: what methods take\n\n`python -m benchmarks weights_speed`\n\n"
        f"minilm-mlm on trec, one thread, processor seconds, torch {content['torch']}.\n\n"
        + markdown_table(["what / against what", "figures", "ratio"], rows)
        + f"\n\nGreenTrainer and LoRA beside full tuning, two epochs over {content['rows']:,} rows "
        f"({steps} steps), one draw; operations are those of the whole training, probes "
        "included, as a share of full tuning's.\n\n"
        + markdown_table(["method", "accuracy, %", "operations", "seconds"], arms)
        + "\n"
    )


def proofs(path: Path) -> str:
    """What the methods are for."""
    content = json.loads(path.read_text(encoding="utf-8"))
    parts = {
        "composition": _composition,
        "facts": _facts,
        "forgetting": _forgetting,
        "stability": _stability,
        "pruning": _pruning,
    }
    found = [part(content[name]) for name, part in parts.items() if name in content]
    return (
        "\n## Weights: what methods are for\n\n`python -m benchmarks weights_proofs "
        + " ".join(name for name in parts if name in content)
        + " --causal 'FOLDER?dtype=bfloat16'`, FOLDER being SmolLM2-135M-Instruct "
        "(`fewfit download smollm2`)\n" + "".join(found)
    )


def _composition(row: dict[str, Any]) -> str:
    base = row["base"]
    rows = [["the base model", _percent(base["english"]), _percent(base["foreign"]), "", ""]]
    for name, own in row.items():
        if name in ("base", "words", "language_rows", "cpu_s"):
            continue
        gain = own["english"] - base["english"]
        back = (own["foreign, language added"] - base["foreign"]) / gain if gain else float("nan")
        rows.append(
            [
                name,
                _percent(own["english"]),
                _percent(own["foreign"]),
                _percent(own["foreign, language added"]),
                f"{back:.2f}",
            ]
        )
    return (
        f"\nA language made of English by exchanging {row['words']} frequent words in "
        "pairs; the task, trec, is learnt in English, the language from unlabelled text, and the "
        "two are added "
        "(accuracy, %, 500 rows, one draw). The last column is what comes back of the gain.\n\n"
        + markdown_table(
            ["method", "English", "foreign", "foreign, language added", "share of the gain"], rows
        )
        + "\n"
    )


def _facts(row: dict[str, Any]) -> str:
    before = row["before"]
    rows = [["before", _percent(before["known"]), "", f"{before['prose']:.3f}", ""]]
    rows += [
        [
            name,
            _percent(row[name]["known"]),
            _percent(row[name]["rephrased"]),
            f"{row[name]['prose']:.3f}",
            f"{row[name]['cpu_s']:.0f}",
        ]
        for name in row
        if "first" in name
    ]
    return (
        f"\n{row['facts']} made-up facts in one matrix of SmolLM2-135M (`locft`): answered "
        "word for word, asked in other words, and nats per token of encyclopaedia prose.\n\n"
        + markdown_table(["", "known, %", "rephrased, %", "prose", "CPU s"], rows)
        + "\n"
    )


def _forgetting(row: dict[str, Any]) -> str:
    before = row["before"]
    rows = [["before", _percent(before["sums"]), f"{before['prose']:.3f}", "", "", ""]]
    for name in ("full", "hft"):
        runs = row[name]
        prose = mean(run["prose"] for run in runs)
        rows.append(
            [
                name,
                _percent(mean(run["sums"] for run in runs)),
                f"{prose:.3f}",
                f"{prose - before['prose']:+.3f}",
                f"{median(run['cpu_s'] for run in runs):.0f}",
                f"{runs[0]['optimiser_bytes'] / 2**20:.0f} MiB",
            ]
        )
    n = len(row["full"])
    return (
        f"\nSums of two numbers taught to SmolLM2-135M, {n} {'seed' if n == 1 else 'seeds'}; "
        "nats per token of encyclopaedia prose.\n\n"
        + markdown_table(["method", "sums, %", "prose", "rise", "CPU s", "optimiser's state"], rows)
        + "\n"
    )


def _stability(row: dict[str, Any]) -> str:
    failed = row["majority"] + 0.02
    rows = [
        [
            name,
            f"{100 * mean(runs):.1f} ± {100 * stdev(runs):.1f}",
            f"{sum(run <= failed for run in runs)} of {len(runs)}",
        ]
        for name, runs in row.items()
        if name not in ("majority", "cpu_s")
    ]
    return (
        "\nFull tuning of minilm-mlm on 16 rows of each class of trec, by recipe of stability; a "
        "run has failed at most two points above the largest class.\n\n"
        + markdown_table(["recipe", "accuracy, %", "failed"], rows)
        + "\n"
    )


def _pruning(row: dict[str, Any]) -> str:
    rows = [[f"dense, N = {n}", _spread(runs), "", ""] for n, runs in row["scalars"].items()]
    ratio = {k: row[k]["cut"] / row[k]["dense"] for k in ("flops", "seconds")}
    rows.append(["a quarter pruned, N = 64", _spread(row["pruned"]), "", ""])
    rows.append(
        [
            "the first of these, cut out",
            _percent(row["cut"]),
            f"{ratio['flops']:.2f}",
            f"{ratio['seconds']:.2f}",
        ]
    )
    n = len(row["pruned"])
    return (
        f"\nDSEE on minilm-mlm and {row['rows']} rows of trec, {row['steps']} steps (as many again "
        f"once pruned), {n} {'seed' if n == 1 else 'seeds'}; N scalars beside the low rank. What "
        f"is cut out, {row['lost']:,} heads' and hidden features, is read with the operations and "
        "in the processor's seconds of the right columns, as shares of the dense network's.\n\n"
        + markdown_table(["", "accuracy, %", "operations", "seconds"], rows)
        + "\n"
    )


def _spread(runs: list[float]) -> str:
    return _percent(mean(runs)) + (f" ± {100 * stdev(runs):.1f}" if len(runs) > 1 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
