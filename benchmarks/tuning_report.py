"""The sections on tuning in RESULTS.md, from ``results/tuning_speed.json`` and ``tfew_small.json``.

Used by ``benchmarks.report``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fewfit.compare.tables import markdown_table


def speed(path: Path) -> str:
    """The section on speed and memory of tuning."""
    content = json.loads(path.read_text(encoding="utf-8"))

    def row(name: str, key: str) -> list[str]:
        pair = content[key]
        figures = f"{pair['first_ms']:.0f} ms / {pair['second_ms']:.0f} ms"
        return [name, figures, f"{pair['ratio']:.2f}"]

    memory = content["peak_growth_mb"]
    plain, ours = memory["plain_peft"], memory["fewfit"]
    rows = [
        row("a step: peft's IA3Model, a row per choice / fewfit", "steps_against_plain_peft"),
        [
            "growth of peak memory in two steps: peft's / fewfit",
            f"{plain:.0f} MB / {ours:.0f} MB",
            f"{plain / ours:.2f}",
        ],
        row("8 rows of 8 tasks / of one task, forward", "mixed_of_8_tasks_inference"),
        row("the same, forward and backward", "mixed_of_8_tasks_training"),
    ]
    return (
        "\n## Tuning: speed and memory\n\n`python -m benchmarks.tuning_speed`\n\n"
        f"A random T5 v1.1 of {content['layers']} + {content['layers']} blocks of width "
        f"{content['width']}, {content['examples']} examples of up to {content['tokens']} tokens "
        f"with {content['choices']} choices each, {content['threads']} thread, torch "
        f"{content['torch']}. The two sides compute the same losses (largest difference "
        f"{content['largest_difference_of_the_loss']:.0e}) and are timed in turn.\n\n"
        + markdown_table(["what / against what", "figures", "ratio"], rows)
        + "\n"
    )


def tfew(path: Path) -> str:
    """The section on T-Few with a model trained from scratch."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    given, sets = content["arguments"], content["sets"]
    methods = list(next(iter(sets.values()))["methods"])

    def cell(name: str, method: str) -> str:
        found = sets[name]["methods"][method]
        return f"{found['median']:.3f} ({found['iqr']:.3f})"

    rows = []
    for method in methods:
        last = [sets[name]["methods"][method] for name in sets]
        seconds = sum(item["seconds"] for item in last) / len(last)
        size = max(item["bytes"] for item in last)
        kept = f"{size / 1024:,.0f}"
        rows.append([method, *(cell(name, method) for name in sets), f"{seconds:.0f}", kept])
    options = " ".join(f"--{key.replace('_', '-')} {given[key]}" for key in given)
    known = ", ".join(f"{name} {value:.2f}" for name, value in content["base_accuracy"].items())
    return (
        "\n## T-Few on a model trained from scratch\n\n"
        f"`python -m benchmarks.tfew_small --data DIR {options}`\n\n"
        f"A T5 of {content['parameters']:,} parameters, trained for {given['base_steps']} steps of "
        f"16 rows on {', '.join(content['mixture'])}; 32 examples of each set below, "
        f"{given['seeds']} draws, median accuracy (interquartile range) on "
        f"{next(iter(sets.values()))['test_rows']} test rows. {given['steps']} steps stand for the "
        f"paper's 1,000. On its own mixture the base reaches {known}. "
        "Seconds include the testing and are those of a shared machine.\n\n"
        + markdown_table(["method", *sets, "seconds", "KiB kept"], rows)
        + "\n"
    )
