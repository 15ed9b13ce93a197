"""Write RESULTS.md from ``results/*.json``, and nothing else: no number in it is typed.

python -m benchmarks report
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import (
    RESULTS,
    answers,
    decision,
    prompt_report,
    rate_end,
    scale_cost,
    searchers_report,
    setfit_grid,
    subset_transfer,
    temperature,
    token_shift,
    tuning_report,
    weights_report,
)
from benchmarks.experiment_report import averages, costs, experiment, spent
from benchmarks.serve import report as serve_report
from benchmarks.spec import FOLDER, read_experiment
from fewfit.markdown import markdown_table

HERE = Path(__file__).parent
STARTS = ("python -c 'import numpy'", "fewfit --version")
INTRODUCTION = """# Results

Made by `python -m benchmarks report` from the files in `results/`, each written by the command that
stands above its table; what is run is said in `experiments/`. Accuracy is the mean ± standard
deviation over samples of the training split, all methods on the same samples. A star marks the
best of a set at that number of shots, and what cannot be told apart from it (docs/compare.md).
Each row or table names its model: `embedded` is multilingual-e5-small in 4 bits, the default;
`embedded-en-float32`, all-MiniLM-L6-v2 in float32, was the default before, and what names that one
alone was not made again. DIR is a folder with
`<set>/{train,test}.jsonl.gz`, one JSON object with the template's fields and `label` per line. A
model that is not in an experiment's file was named by `--model SPEC`, on all test rows.
"""


def embedded(path: Path) -> str:
    """The section on which model `embedded` is."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = {tuple(key.split(" ")): row for key, row in content["rows"].items()}
    models = list(dict.fromkeys(model for model, _ in cells))
    names = list(dict.fromkeys(name for _, name in cells if name != "languages"))
    complete = [name for name in names if all((model, name) in cells for model in models)]

    def mean(model: str, name: str, n: str) -> float:
        values = cells[model, name]["accuracy"][n]
        return 100 * sum(values) / len(values)

    shots = ("1", "4", "16")
    header = ["set", *(f"{model}, {' / '.join(shots)}" for model in models)]
    rows = [
        [name, *(" / ".join(f"{mean(model, name, n):.1f}" for n in shots) for model in models)]
        for name in complete
    ]
    average = [
        " / ".join(
            f"{sum(mean(model, name, n) for name in complete) / len(complete):.1f}" for n in shots
        )
        for model in models
    ]
    ms = [
        f"{sum(cells[model, name]['cpu_ms_per_text'] for name in complete) / len(complete):.1f}"
        for model in models
    ]
    rows += [["mean", *average], ["CPU ms of a text, mean", *ms]]
    spoken = {model: cells[model, "languages"] for model in models if (model, "languages") in cells}
    tongues = list(dict.fromkeys(one for row in spoken.values() for one in row["own"]))
    foreign = [
        [
            one,
            *(
                f"{100 * row['own'][one]:.0f} / "
                + (f"{100 * row['english'][one]:.0f}" if one in row["english"] else "-")
                for row in spoken.values()
            ),
        ]
        for one in tongues
    ]
    return (
        "\n## Which model `embedded` is\n\n`OMP_NUM_THREADS=1 python -m benchmarks embedded`\n\n"
        f"Accuracy of the default decoder, %, at {', '.join(shots)} labels of each class: the "
        f"mean of {content['draws']} samples, at most {content['test']} test rows, the same for "
        "each model.\n\n"
        + markdown_table(header, rows)
        + "\n\nTwelve messages in each of six languages (`languages.toml`), three classes, "
        "accuracy in %: fitted on eleven of the language itself / fitted on the English ones.\n\n"
        + markdown_table(["language", *spoken], foreign)
        + "\n"
    )


def installed(path: Path) -> str:
    """The section on sizes and cold starts."""
    rows = [
        [
            "`pip install fewfit`" if extra == "base" else f"`fewfit[{extra}]`",
            f"{row['mb']:,} MB",
            f"{row['bytecode_mb']:,} MB",
            f"{row['seconds']:.1f} s / {row['cpu_seconds']:.1f} s" if "seconds" in row else "",
        ]
        for extra, row in json.loads(path.read_text(encoding="utf-8"))["rows"].items()
    ]
    header = ["installed", "on disk, with pip", "of it bytecode", "first answer, wall / CPU"]
    return (
        "\n## What is installed, and how long the first answer takes\n\n"
        "`OMP_NUM_THREADS=1 python -m benchmarks installed`\n\n"
        "Fresh environments, torch without CUDA; `fewfit predict` of one text from a cold start, "
        "the median of five. `fewfit[minilm]` is what the embedded model needed "
        "before. Extras without a time were installed in later runs, for their sizes."
        f"\n\n{markdown_table(header, rows)}\n"
    )


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
        f"halved; the shots in two parts, which together are the whole. "
        "One thread, beside other programs: CPU seconds count. All answers are stored."
        f"\n\n{markdown_table(header, rows)}\n"
    )


def growth(path: Path) -> str:
    """The section on how a fit of the default decoder grows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        [
            f"{row['N']:,}",
            f"{row['H']:,}",
            f"{row['K']}",
            f"{row['seconds'] * 1000:,.1f} ms",
            f"{row['cpu_seconds']:.2f}",
            f"{row['dect_seconds'] * 1000:,.1f} ms",
            f"{row['peak_mib']:,.0f} MiB",
        ]
        for row in content["rows"]
    ]
    header = ["examples", "dimensions", "classes", "fit", "CPU s", "DecT's fit", "memory"]
    return (
        "\n## How a fit of the default decoder grows\n\n`python -m benchmarks growth`\n\n"
        f"{content['threads']} threads; the median of {content['repeats']} fits, or one beyond a "
        "second; DecT with its 30 steps on the same arrays. Memory is the growth of the peak of a "
        "fresh process over what it holds with the data loaded.\n\n"
        f"{markdown_table(header, rows)}\n"
    )


def speed(path: Path) -> str:
    """The section on speed and memory."""
    content = json.loads(path.read_text(encoding="utf-8"))
    dect = content["dect_fit"]
    second, memory = content["second_fit"], content["memory"]
    rows = [
        [
            "DecT's fit (N = 64, H = 1024, K = 4, 30 steps) / the same loop in torch",
            f"{dect['fewfit_ms']:.1f} ms / {dect['torch_ms']:.1f} ms",
            f"{dect['ratio']:.2f}",
        ],
        *(
            [
                f"encoding {part['texts']:,} short texts{model} / the bare network, {given}",
                f"{part['fewfit_texts_per_second']:.0f} / "
                f"{part['bare_texts_per_second']:.0f} texts per s",
                f"{part['ratio_of_throughput']:.2f}",
            ]
            for part, model, given in (
                (content["encoding"], "", "tokens at hand, one thread"),
                (content["encoding_float32"], ", embedded-en-float32", "length-sorted"),
            )
        ),
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
        "\n## Speed and memory\n\n`python -m benchmarks speed`\n\n"
        "On embedded, which onnxruntime runs, as it does the bare network, and where it is said "
        f"on embedded-en-float32, which torch runs; {content['threads']} threads, torch "
        f"{content['torch']}. The two sides of a ratio are timed in turn, and the median of the "
        "ratios is given.\n\n"
        + markdown_table(["what / against what", "figures", "ratio"], rows)
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
        f"\n## The default decoder, part by part, on {content['model']}\n\n"
        f"`python -m benchmarks ablation --model {content['model']} --seeds {content['seeds']}`\n\n"
        f"Rows of the training splits of {content['sets']} that the sample did not draw; "
        f"{content['seeds']} samples. Accuracy in %, log loss, calibration error.\n\n"
        + markdown_table(["variant", *(f"{n} shot{'s' * (n > 1)}" for n in shots)], rows)
        + "\n"
    )


def unlabelled(path: Path) -> str:
    """The section on texts without labels: a row for each set."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = {(row["set"], row["shots"]): row for row in content["rows"]}
    shots = sorted({n for _, n in cells})
    sets = list(dict.fromkeys(name for name, _ in cells))
    groups = {
        "chosen on": [name for name in sets if name in content["chosen_on"]],
        "confirmed on": [name for name in sets if name not in content["chosen_on"]],
    }

    def cell(names: list[str], n: int) -> str:
        rows = [cells[name, n] for name in names]
        (before, f1, loss, error), (after, f1_after, loss_after, error_after) = (
            [sum(row[way][i] for row in rows) / len(rows) for i in range(4)]
            for way in ("without", "with")
        )
        return (
            f"{100 * before:.1f} → {100 * after:.1f} ({100 * (after - before):+.1f}, F1 "
            f"{100 * (f1_after - f1):+.1f})  {loss:.3f} → {loss_after:.3f}  "
            f"{error:.3f} → {error_after:.3f}"
        )

    rows = []
    for group, names in groups.items():
        rows += [[name, *(cell([name], n) for n in shots)] for name in names]
        if names:
            rows.append([f"mean, {group}", *(cell(names, n) for n in shots)])
    rows.append(["mean of all", *(cell(sets, n) for n in shots)])
    size, said = content.get("large"), ""
    if size:
        said = (
            f"; {size['texts']:,} texts of {size['hidden']:,} numbers take {size['seconds']:.0f} "
            f"processor seconds and {size['peak_mb']:,} MB, the texts included"
        )
    slowest = max(row["seconds"] for row in content["rows"] if row["used"] > 0)
    return (
        "\n## Texts without labels\n\n`python -m benchmarks unlabelled`\n\n"
        f"The default decoder without and with up to 1,000 other rows of the training split, their "
        f"labels left out; {content['model']} model, 1,000 rows of the test split, "
        f"{content['seeds']} samples; without labels, the model's own scores. Accuracy in % "
        "(difference, that in macro F1), log loss, calibration error. The rule was chosen on other "
        "rows of the training splits of the upper part, on embedded-en-float32, and what it does "
        "beside many labels on such rows of nine sets, clinc150 among them, on embedded. Where "
        "nothing changes, the texts were not believed. What they "
        f"add takes {slowest:.2f} s at most on a busy machine, as a median of the samples"
        + said
        + ".\n\n"
        + markdown_table(["set", *(f"{n} shot{'s' * (n > 1)}" for n in shots)], rows)
        + "\n"
    )


def suggest(path: Path) -> str:
    """The section on which texts to label: labels needed, and accuracy, for each rule."""
    content = json.loads(path.read_text(encoding="utf-8"))
    cells = {(row["set"], row["rule"]): row for row in content["rows"]}
    sets = list(dict.fromkeys(name for name, _ in cells))
    rules = list(dict.fromkeys(rule for _, rule in cells))
    most = content["per_class"][-1]

    def shown(value: float | None) -> str:
        return f"> {most}" if value is None or value > most else f"{value:.1f}"

    def table(key: str) -> str:
        rows = []
        for rule in rules:
            found = {name: cells[name, rule][key] for name in sets if (name, rule) in cells}
            middle = median([most + 1.0 if n is None else n for n in found.values()])
            own = [shown(found[name]) if name in found else "" for name in sets]
            rows.append([rule, shown(middle), *own])
        return markdown_table(["labels per class", "median", *sets], rows)

    def accuracy(way: str) -> str:
        rows = []
        for rule in rules:
            if any((name, rule) not in cells for name in sets):
                continue
            curves = [cells[name, rule][way] for name in sets]
            means = [sum(column) / len(sets) for column in zip(*curves, strict=True)]
            rows.append([rule, *(f"{100 * value:.1f}" for value in means)])
        return markdown_table(["mean accuracy, %", "0", *map(str, content["per_class"])], rows)

    return (
        "\n## Which texts to label\n\n`python -m benchmarks suggest`\n\n"
        f"From no label on, a rule chooses texts of a pool of 1,000; {content['model']} model, "
        f"1,000 rows of the test split, mean of {content['seeds']} pools. Labels per class until "
        f"the mean accuracy is that of random choice with {most} per class and no other texts; the "
        "fit learns from the pool too.\n\n"
        + table("needed_with")
        + "\n\nThe same where the fit learns from the labels alone:\n\n"
        + table("needed_without")
        + f"\n\nLabels per class until it is that of random choice with {most} per class *and* the "
        "pool:\n\n"
        + table("needed_alike")
        + "\n\nMean accuracy over the sets by labels per class, with the pool, then without:\n\n"
        + accuracy("with")
        + "\n\n"
        + accuracy("without")
        + "\n"
    )


def pairs(path: Path) -> str:
    """The section on two fields: a row for each set and way of reading."""
    content = json.loads(path.read_text(encoding="utf-8"))
    shots = list(next(iter(next(iter(content["sets"].values())).values())))
    rows = [
        [f"{name}: {way}", *(f"{100 * mean:.1f} ± {100 * sd:.1f}" for mean, sd in cells.values())]
        for name, ways in content["sets"].items()
        for way, cells in ways.items()
    ]
    return (
        "\n## Two fields as one text or as a pair\n\n`python -m benchmarks pairs`\n\n"
        f"A linear probe on the hidden states of {content['model']}; 500 rows of the training "
        f"split that no sample drew, {content['seeds']} samples. agnews and trec are single texts, "
        "cut in two after a third of their words.\n\n"
        + markdown_table(["accuracy, %", *(f"{n} shot{'s' * (n != '1')}" for n in shots)], rows)
        + "\n"
    )


def chat(path: Path) -> str:
    """The section on a chat's answers: a row for each set, shots, and what is seen."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows: list[list[str]] = []
    for name, found in content["sets"].items():
        alone = {(r["seen"], r["shots"]): r for r in found if r["method"] == "zero-shot"}
        probe = {r["shots"]: r for r in found if r["method"] == "linear-probe"}
        learnt = {(r["seen"], r["shots"]): r for r in found if r["method"] == "offset-regression"}
        for shots in sorted({n for _, n in learnt}):
            told = learnt["both", shots]
            cells = [alone["answer", shots], *(learnt[s, shots] for s in _SEEN)]
            cells.insert(2, probe[shots])
            shown = [f"{100 * row['accuracy']:.1f}" for row in cells]
            rows.append([f"{name}, {shots}", *shown, str(told["queries"]), str(told["tokens"])])
    names = ["answer, no labels", "answer", "vectors", "embedding", "both", "queries", "tokens"]
    return (
        "\n## A chat's answer, an embedding, and both\n\n`python -m benchmarks chat`\n\n"
        "SmolLM2-135M-Instruct through its chat template, one answer a text out of the label "
        "words, as a server with a schema gives it at temperature 0; hidden states of "
        f"{content.get('encoder', 'embedded-en-float32')}, which alone has its cosines to label "
        "sentences as scores; "
        f"the default decoder, {content['seeds']} samples, the same {content['rows']} "
        "rows of each test split: a difference of 5 is within chance. Queries and tokens are those "
        "of both together, for the labelled rows. Both have the answer and the vectors, not the "
        "cosines, which are what the embedding has beside its vectors: the vectors alone, by a "
        "linear probe, are what the answer is added to. The prompts were written once, and nothing "
        "was chosen on these rows.\n\n"
        + markdown_table(["accuracy, %; shots", *names], rows)
        + "\n"
    )


_SEEN = ("answer", "embedding", "both")


def _accuracy_and_losses(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.1f}  {row['log_loss']:.3f}  {row['ece']:.3f}"


def http(path: Path) -> str:
    """The section on remote models: the table that the benchmark itself wrote."""
    table = path.with_suffix(".md").read_text(encoding="utf-8")
    command = "\n\n`python -m benchmarks http_throughput --rounds 5`\n"
    return "\n#" + table.replace("\n", command, 1)


def hf(path: Path) -> str:
    """The section on the speed of local models."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for row in content["rows"]:
        if "ours_seconds" in row:
            figures = f"{row['ours_seconds']:.1f} s / {row['theirs_seconds_extrapolated']:.0f} s"
        else:
            ours, theirs = row["ours_tokens_per_second"], row["theirs_tokens_per_second"]
            figures = f"{ours:,.0f} / {theirs:,.0f} tokens per s"
        rows.append([row["race"], figures, f"{row['ratio']:.2f}", row["wanted"]])
    return (
        "\n## Speed of local models\n\n`python -m benchmarks hf_speed`\n\n"
        f"{content['threads']} threads, {content['device']}, torch {content['torch']}, "
        "transformers "
        f"{content['transformers']}. Both sides of a race take turns, piece by piece.\n\n"
        + markdown_table(["race", "figures", "ratio", "wanted"], rows)
        + "\n"
    )


def start_up(path: Path) -> str:
    """The section on what starting costs, and on what an earlier version took."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for what, found in content["figures"].items():
        after, before = median(found["after"]), found.get("before")
        ratio = "–" if before is None else f"{after / median(before):.2f}"
        rows.append(
            [what, "–" if before is None else f"{median(before):.2f}", f"{after:.2f}", ratio]
        )
    numpy, version = (median(content["figures"][name]["after"]) for name in STARTS)
    return (
        "\n## What starting costs, and what an earlier version took\n\n"
        "`OMP_NUM_THREADS=1 python -m benchmarks start-up --before TREE`\n\n"
        "CPU seconds of whole processes on one thread, or a ratio where it says so; medians, the "
        "two versions in turn. sst2: two processes from the command line, 32 + 1,821 texts, DecT, "
        "no store. With `dtype=auto`, where the processor multiplies bfloat16, "
        f"{content['other_labels']} of {content['texts']:,} texts get another label, so that it is "
        f"not the default. `fewfit --version` takes {version / numpy:.1f} times what importing "
        "numpy takes.\n\n" + markdown_table(["what", "before", "now", "now / before"], rows) + "\n"
    )


TUNING = (
    "prompt_table",
    "prompt_table_causal",
    "weights_small",
    "weights_full",
    "weights_steps",
    "subsets",
)
"""Experiments that tell what training takes."""


def main(argv: Sequence[str] = ()) -> None:
    """Write RESULTS.md."""
    sections = []
    for path in sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem.startswith("dect_")):
        found = RESULTS / f"{path.stem}.json"
        if found.exists():
            file = read_experiment(path)
            sections.append(experiment(found, file))
            if path.stem == "setfit":
                sections.append(costs(found))
            if path.stem in TUNING:
                sections.append(spent(found))
            if path.stem == "default_decoder":
                sections.append(averages(found, file))
    programs = {
        "embedded": embedded,
        "installed": installed,
        "ablation_embedded": ablation,
        "ablation_embedded-en-float32": ablation,
        "unlabelled": unlabelled,
        "suggest": suggest,
        "pairs": pairs,
        "setfit_grid": setfit_grid.section,
        "decision": decision.section,
        "temperature": temperature.section,
        "chat": chat,
        "answers": answers.section,
        "token_shift": token_shift.section,
        "searchers": searchers_report.searchers,
        "grid": grid,
        "growth": growth,
        "start_up": start_up,
        "speed": speed,
        "hf_speed": hf,
        "http_throughput": http,
        "scale_cost": scale_cost.section,
        "serve_load": serve_report.section,
        "tuning_speed": tuning_report.speed,
        "prompt_speed": prompt_report.speed,
        "prompt_proofs": prompt_report.proofs,
        "vectors": tuning_report.vectors,
        "weights_speed": weights_report.speed,
        "weights_proofs": weights_report.proofs,
        "subset_transfer": subset_transfer.section,
        "rate_end": rate_end.section,
        "tfew_small_first": tuning_report.tfew,
        "pet_small_first": tuning_report.pet,
    }
    for name, section in programs.items():
        if any((RESULTS / f"{name}.{ending}").exists() for ending in ("json", "jsonl")):
            sections.append(section(RESULTS / f"{name}.json"))
    (HERE / "RESULTS.md").write_text(INTRODUCTION + "".join(sections), encoding="utf-8")
