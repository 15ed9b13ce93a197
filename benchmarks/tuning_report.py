"""The sections on tuning in RESULTS.md: speed, and the first measurements of T-Few and PET.

Used by ``benchmarks.report``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fewfit.markdown import markdown_table

_SINCE = """\
Measured by the programs of version 0.1.0, which drew the first 32 rows of a shuffled training
split ({options}). The base: `python -m benchmarks tfew_base benchmarks/base --data DIR --masked
FOLDER --steps {steps} --vector-steps {vectors}`. The same rows are now experiments, `python -m
benchmarks tfew_small --data DIR` and `tfew_in_context`, in the samples that all experiments have: 8
rows of each class, 32 and 48 in all. They have not been run at this length, and their draws are
others; all weights now means those of the blocks.

What both have in common gives the same vectors, bit for bit, where no text is cut: see below."""


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
        "\n## Tuning: speed and memory\n\n`python -m benchmarks tuning_speed`\n\n"
        f"A random T5 v1.1 of {content['layers']} + {content['layers']} blocks of width "
        f"{content['width']}, {content['examples']} examples of up to {content['tokens']} tokens "
        f"with {content['choices']} choices each, {content['threads']} thread, torch "
        f"{content['torch']}. The two sides compute the same losses (largest difference "
        f"{content['largest_difference_of_the_loss']:.0e}) and are timed in turn.\n\n"
        + markdown_table(["what / against what", "figures", "ratio"], rows)
        + "\n"
    )


def vectors(path: Path) -> str:
    """The section on what an earlier version learnt."""
    content = json.loads(path.read_text(encoding="utf-8"))
    said = {True: "the same", False: "others"}
    rows = [
        [row["set"], str(row["tokens"]), row["method"], said[row["same"]]]
        for row in content["rows"]
    ]
    return (
        "\n## Tuning: the vectors of version 0.1.0\n\n"
        "`python -m benchmarks vectors --before TREE --model FOLDER`\n\n"
        f"The same 32 rows (PET: 40 more without labels), {content['steps']} steps, through the "
        "code of then and of now, compared bit for bit. The questions of trec are short; two in "
        "three of agnews are longer than 48 tokens, and cut by another rule since.\n\n"
        + markdown_table(["set", "tokens at most", "method", "vectors"], rows)
        + "\n"
    )


def tfew(path: Path) -> str:
    """The section on T-Few with a small encoder-decoder."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    given, base, cells = content["arguments"], content["base"], content["cells"]
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    sets = list(dict.fromkeys(cell["set"] for cell in cells))
    seeds = len({cell["seed"] for cell in cells})

    def of(method: str, name: str, key: str) -> list[float]:
        return [c[key] for c in cells if (c["method"], c["set"]) == (method, name)]

    def accuracy(method: str, name: str) -> str:
        low, middle, high = np.percentile(of(method, name, "accuracy"), [25, 50, 75])
        return f"{middle:.3f}" + (
            "" if len(set(of(method, name, "seed"))) < 2 else f" ({high - low:.3f})"
        )

    def mean(method: str, key: str) -> float:
        return float(np.mean([np.median(of(method, name, key)) for name in sets]))

    accuracies = [
        [
            method,
            *(accuracy(method, name) for name in sets),
            f"{mean(method, 'accuracy'):.3f}",
        ]
        for method in methods
    ]
    costs = [
        [
            method,
            f"{mean(method, 'fit_seconds'):.1f}",
            f"{mean(method, 'test_seconds'):.1f}",
            f"{mean(method, 'fit_growth') / 2**20:.0f}",
            f"{mean(method, 'growth') / 2**20:.0f}",
            f"{max(of(method, sets[0], 'bytes')) / 1024:,.1f}",
        ]
        for method in methods
    ]
    known = [
        [
            name,
            f"{found['choices']}",
            f"{found['largest_class']:.2f}",
            f"{base['validation_before'][name]['accuracy']:.2f}",
            f"{found['accuracy']:.2f}",
        ]
        for name, found in base["validation"].items()
    ]
    options = " ".join(f"--{key.replace('_', '-')} {given[key]}" for key in given)
    costs_header = ["method", "fit, s", "test, s", "fit, MiB", "all, MiB", "KiB kept"]
    return "\n\n".join(
        [
            "\n## T-Few on a small encoder-decoder",
            _SINCE.format(options=options, steps=base["steps"], vectors=base["vectors_steps"]),
            _origin(base),
            markdown_table(["set", "answers", "largest class", "before", "after"], known),
            f"The sets {', '.join(sets)} had no part in it. 32 examples, {seeds} draws, median "
            f"accuracy (interquartile range) on {given['test_rows']} test rows; {given['steps']:,} "
            f"steps, and {round(0.3 * given['steps'])} of full fine-tuning (in the paper "
            "1,000 and 300). "
            f"The pre-trained vectors are those of {base['vectors_steps']} steps on the mixture.",
            markdown_table(["method", *sets, "mean"], accuracies),
            _paired(cells),
            "Processor seconds on one thread, mean of the sets' medians; growth of peak memory in "
            "fitting, and in all, over what the base and one step on one row take. Full "
            "fine-tuning keeps float32 weights, everything else bfloat16.",
            markdown_table(costs_header, costs) + "\n",
        ]
    )


def pet(path: Path) -> str:
    """The section on PET beside T-Few, with the base of the section on T-Few."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    given, cells = content["arguments"], content["cells"]
    found = {(c["method"], c["set"], c["seed"]): c for c in cells}
    methods = list(dict.fromkeys(cell["method"] for cell in cells))
    draws = sorted({(cell["set"], cell["seed"]) for cell in cells})

    def figures(method: str, draw: tuple[str, int]) -> str:
        cell = found.get((method, *draw))
        return "" if cell is None else f"{cell['accuracy']:.3f}, {cell['fit_seconds']:.0f} s"

    options = " ".join(f"--{key.replace('_', '-')} {given[key]}" for key in given)
    sets = ",".join(dict.fromkeys(name for name, _ in draws))
    seeds = len({seed for _, seed in draws})
    rows = [
        [f"{name}, draw {seed}", *(figures(method, (name, seed)) for method in methods)]
        for name, seed in draws
    ]
    return (
        "\n## PET on the same encoder-decoder\n\n"
        f"Measured by the program of version 0.1.0 on {sets}, {seeds} draw, {options}; the rows "
        "are now those of the experiment `pet_small`, `python -m benchmarks pet_small --data DIR`, "
        "in balanced samples. "
        "The base is made as above, in a training of its own. T-Few has the 32 labelled rows "
        "of a draw in two wordings, PET the same and "
        f"{given['unlabelled']} rows without labels, one repetition and no generations: three "
        f"trainings of {given['steps']} steps against one. "
        f"Accuracy on {given['test_rows']} test rows and the processor seconds of fitting:\n\n"
        + markdown_table(["set", *methods], rows)
        + "\n"
    )


def _origin(base: dict[str, Any]) -> str:
    """Say what the base is, and what it is not."""
    return (
        f"The base has {base['parameters']:,} parameters and is not trained from scratch: it is "
        "put together from the six layers and the head of a small masked language model, which "
        "has read unlabelled training texts of all sets below; only the cross-attention is "
        f"new, and starts as a copy of the self-attention. {base['trained_parameters']:,} of its "
        f"weights are then trained for {base['steps']} steps of 16 rows, "
        f"{base['cpu_seconds'] / 60:.0f} minutes of one processor, on {base['prompted_rows']:,} "
        f"prompted rows of {len(base['sets'])} sets and {base['cloze_rows']:,} sentences with a "
        "missing word. Accuracy on 100 rows of each set's training split that were kept back, "
        "before and after:"
    )


def _paired(cells: Any) -> str:
    """Differences that the paper speaks of, paired by set and draw."""
    found = {(c["method"], c["set"], c["seed"]): c["accuracy"] for c in cells}
    both = "(IA)^3, LM + UL + LN"
    rows = []
    for name, other in (
        ("(IA)^3, LM + UL", "(IA)^3, LM"),
        ("(IA)^3, LM + LN", "(IA)^3, LM"),
        (both, "(IA)^3, LM"),
        ("T-Few: the same, pre-trained vectors", both),
        (both, "full fine-tuning"),
        (both, "LoRA"),
        (both, "in-context, 4 examples"),
        (both, "default decoder"),
    ):
        pairs = [
            (v, found[other, s, n])
            for (m, s, n), v in found.items()
            if m == name and (other, s, n) in found
        ]
        gaps = np.array([a - b for a, b in pairs])
        error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else float("nan")
        better = f"{(gaps > 0).sum()} / {(gaps < 0).sum()}"
        rows.append([f"{name} - {other}", f"{gaps.mean():+.3f} ± {error:.3f}", better])
    header = ["difference, paired by set and draw", "mean ± standard error", "better / worse"]
    return markdown_table(header, rows)
