"""The sections on prompts that are learnt in RESULTS.md. Used by ``benchmarks.report``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewfit.markdown import markdown_table


def speed(path: Path) -> str:
    """The section on what prompts cost."""
    content = json.loads(path.read_text(encoding="utf-8"))
    parts, header = content["parts"], ["what / against what", "figures", "ratio"]
    rows: list[list[str]] = []

    def row(part: str, one: str, other: str, key: str, unit: str, scale: float) -> None:
        a, b = parts[part][one][key], parts[part][other][key]
        figures = f"{a * scale:,.1f} {unit} / {b * scale:,.1f} {unit}"
        rows.append([f"{part}: {one} / {other}", figures, f"{a / b:.2f}"])

    if "reading" in parts:
        more = f"bare, {content['front']} tokens more"
        for name in ("prompt-tuning", "prefix-tuning"):
            row("reading", name, "bare", "seconds", "ms", 1000)
            row("reading", name, "bare", "flops", "GFLOP", 1e-9)
        row("reading", "prompt-tuning", more, "seconds", "ms", 1000)
    if "training" in parts:
        for name in ("dept", "ept"):
            row("training", name, "prompt-tuning", "seconds", "ms", 1000)
            row("training", name, "prompt-tuning", "saved_bytes", "MB", 1e-6)
            row("training", name, "prompt-tuning", "values", "thousand values", 1e-3)
    if "serving" in parts:
        for name in ("lora", "lora of peft", "bare"):
            row("serving", "iapt", name, "tokens_per_second", "tokens/s", 1)
    c = content
    return (
        "\n## What prompts cost\n\n`OMP_NUM_THREADS=1 python -m benchmarks prompt_speed`\n\n"
        f"Random networks of {c['layers']} blocks of width {c['width']}, a BERT for reading and "
        f"training and a Llama for serving; {c['rows']} rows of {c['tokens']} tokens, one thread, "
        f"torch {c['torch']}, medians of {c['rounds']} runs in turn, processor time. Reading: "
        f"{c['front']} vectors, or {c['front']} keys and values of each attention. Training: as "
        f"many values as a prompt of {c['long']} vectors has; DePT and EPT have a prompt of "
        f"{c['front']} of them, and EPT its fusion and spaces besides. Serving: {c['rows']} tasks "
        f"at once, {c['generated']} tokens behind each text, LoRA of rank {c['rank']} on all "
        "layers of the blocks, as two products of stacked matrices and as peft does it.\n\n"
        + markdown_table(header, rows)
        + "\n"
    )


def proofs(path: Path) -> str:
    """The section on what prompts claim."""
    rows, more = [], []
    for member, found in json.loads(path.read_text(encoding="utf-8")).items():
        if member in OWN:
            more += _own(member, found)
            continue
        draws = found["draws"]
        arms = [key for key in draws[0] if key not in ("set", "draw")]
        ours = "cpt" if member == "cpt" else arms[-1]
        for other in (arm for arm in arms if arm != ours):
            mean = {
                arm: float(np.mean([draw[arm]["accuracy"] for draw in draws]))
                for arm in (ours, other)
            }
            loss = np.mean([draw[ours]["loss"] - draw[other]["loss"] for draw in draws])
            rows.append(
                [
                    f"{ours} / {other}",
                    f"{100 * mean[ours]:.1f} / {100 * mean[other]:.1f}",
                    _interval([d[ours]["accuracy"] - d[other]["accuracy"] for d in draws]),
                    f"{loss:+.2f}",
                    f"{_mean(draws, ours, FLOPS)} / {_mean(draws, other, FLOPS)}",
                    f"{_seconds(draws, ours)} / {_seconds(draws, other)}",
                    f"{len(draws)} on {len({d['set'] for d in draws})} sets",
                    str(found["steps"]),
                ]
            )
    header = ["arms", "accuracy, %", "points, 95 %", "nats", FLOPS, "CPU s", "draws", "steps"]
    return (
        "\n## What prompts that are learnt claim\n\n"
        "`OMP_NUM_THREADS=1 python -m benchmarks prompt_proofs --member NAME --draws D "
        "--steps S`\n\n"
        "On minilm-mlm, and CPT on SmolLM2-135M-Instruct (`--causal 'FOLDER?dtype=bfloat16' "
        "--test-rows 100`), weights in bfloat16; 200 test rows if not said; 16 rows of each "
        "class, 64 for prompt tuning against zero-shot, 2 for CPT. Means over sets and draws; the "
        "difference is paired by set and draw, with the 95 % interval of Student's t. EPT and IAPT "
        "are reconstructions. Few steps: what their papers train for is ten to a hundred times as "
        "long. A member that is not in the table was not run.\n\n"
        + (markdown_table(header, rows) + "\n" if rows else "")
        + (f"\n{OWN_TEXT}\n\n{markdown_table(OWN_HEADER, more)}\n" if more else "")
    )


OWN = ("panda", "ptec", "promot")
"""Members with figures of their own."""

FLOPS = "GFLOP a row"
NO_ARM = ("set", "draw", "sources")
OWN_HEADER = ["arms", "figure", "means", "difference, 95 %", "draws", "steps"]
OWN_TEXT = (
    "PANDA: six sources and four targets, 32 rows of each class; transfer tunes the source's "
    "prompt on, accuracies are means over the sources, and so are the correlations over the "
    "sources of a target. PTEC: texts of two intents, of 30, 8 texts of each, with a head per "
    "label behind the prompt and without a prompt; and a prompt tuned to name an intent, whose two "
    "best are taken. ProMoT: sentiment in the words true and false, by full tuning with a prompt "
    "before it and without; "
    "off task are questions on news topics and question types, the prompt left out, and it is "
    "counted how often the most probable word is one of the two."
)


def _own(member: str, found: dict[str, Any]) -> list[list[str]]:
    """Return the rows of a member whose draws have figures of their own."""
    draws, rows = found["draws"], []
    arms = {key: value for key, value in draws[0].items() if key not in NO_ARM}
    for figure in dict.fromkeys(figure for arm in arms.values() for figure in arm):
        *others, ours = [arm for arm in arms if figure in arms[arm]]
        for other in others:
            a, b = ([draw[arm][figure] for draw in draws] for arm in (ours, other))
            apart = _interval([(x - y) / 100 for x, y in zip(a, b, strict=True)], ".3f")
            means = f"{np.mean(a):.3f} / {np.mean(b):.3f}"
            rows.append(
                [f"{ours} / {other}", figure, means, apart, str(len(draws)), str(found["steps"])]
            )
    return rows


def _interval(differences: Sequence[float], form: str = ".1f") -> str:
    """Mean and 95 % interval, in hundredths."""
    from scipy.stats import t

    x = 100 * np.asarray(differences)
    if len(x) < 2:
        return f"{x.mean():+{form}}"
    half = t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return f"{x.mean():+{form}} ({x.mean() - half:+{form}} to {x.mean() + half:+{form}})"


def _mean(draws: Sequence[dict[str, Any]], arm: str, figure: str) -> str:
    return f"{np.mean([draw[arm][figure] for draw in draws]):.2f}"


def _seconds(draws: Sequence[dict[str, Any]], arm: str) -> str:
    taken = [draw[arm]["cpu_s"] for draw in draws if "cpu_s" in draw[arm]]
    return f"{np.mean(taken):.0f}" if taken else "0"
