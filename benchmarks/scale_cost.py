"""What a million and a billion texts cost: queries, hours, bytes, on what.

    OMP_NUM_THREADS=1 python -m benchmarks scale_cost [--set NAME=VALUE ...]

Measured here are what the client does of its own, the bytes of an answer in the store and of a row
in Parquet, and, in ``embedded.json`` and ``http_throughput.json``, the processor time of a text in
the embedded model and of a prompt over HTTP. What a server of language models does is assumed, by
the figures in ``ASSUMED``, each of which ``--set`` replaces. Writes ``results/scale_cost.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks import RESULTS
from fewfit import FewShotClassifier
from fewfit.bulk import Predictor
from fewfit.errors import InputError
from fewfit.markdown import markdown_table
from fewfit.models import FakeModel
from fewfit.store import StoredModel

TEXTS = (10**6, 10**9)
PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
EMBEDDED = 384
"""Numbers in the hidden state of the embedded model."""

ASSUMED = {
    "parameters": 8e9,  # of the language model
    "tokens": 200.0,  # of a prompt, template and text
    "hidden": 4096.0,  # numbers of its hidden state, float32
    "peak_flops": 989e12,  # of one H100 SXM in bfloat16, dense, as its maker says
    "utilisation": 0.4,  # of that peak, reading prompts in large batches
    "price": 0.10,  # of a million prompt tokens, where they are bought
    "chars": 600.0,  # of a text, a byte each
}
"""Name -> value. None of these was measured here."""

FORMULAS = {
    "queries": "texts x views, repeated texts once",
    "CPU hours, embedded": "texts x cpu_ms_per_text / 3.6e6",
    "GPU hours": "2 x parameters x tokens x texts / (peak_flops x utilisation) / 3600",
    "CPU hours, asking": "texts x (http_cpu_us + store_cpu_us + decode_cpu_us) / 3.6e9",
    "store, bytes": "texts x answer_bytes",
    "store, bytes, embedded": "texts x embedded_answer_bytes",
    "output, bytes": "texts x (chars + output_bytes), before compression of the text",
    "price": "texts x tokens / 1e6 x price",
}


def measured(hidden: int, n: int) -> dict[str, float]:
    """Measure the client's own part on this machine, on one thread, with `n` texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [f"text {i % 97} of {i}" for i in range(n)]
    labelled, labels = texts[:64], ["yes", "no"] * 32
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for key, width in (("embedded_answer_bytes", EMBEDDED), ("answer_bytes", hidden)):
            model = FakeModel(hidden_size=width, batch_size=256)
            classifier = FewShotClassifier(model, store=None).fit(labelled, labels)
            classifier.observe(texts)  # the toy model knows its words from now on
            rounds = [
                _round(classifier, texts, Path(name) / f"{width}-{i}.sqlite") for i in range(5)
            ]
            found["store_cpu_us"], found["decode_cpu_us"], found[key] = map(
                median, zip(*rounds, strict=True)
            )
        table = Predictor(classifier)(pa.table({"text": texts}))
        pq.write_table(table.drop_columns("text"), Path(name) / "out.parquet")
        found["output_bytes"] = (Path(name) / "out.parquet").stat().st_size / n
    return {key: round(value, 1) for key, value in found.items()}


def _round(classifier: FewShotClassifier, texts: list[str], path: Path) -> tuple[float, ...]:
    """Return what writing to a store and decoding takes, CPU us a text, and the store's bytes."""
    stored = FewShotClassifier(StoredModel(classifier.task_.model, path))
    stored.fit(texts[:64], ["yes", "no"] * 32)
    moments = [time.process_time()]
    classifier.observe(texts)
    moments.append(time.process_time())
    answers = stored.observe(texts)
    moments.append(time.process_time())
    classifier.decode(answers)
    moments.append(time.process_time())
    alone, both, decoding = np.diff(moments) * 1e6 / len(texts)
    return max(both - alone, 0.0), decoding, path.stat().st_size / len(texts)


def before() -> dict[str, float]:
    """Return what other benchmarks measured."""
    rows = json.loads((RESULTS / "embedded.json").read_text(encoding="utf-8"))["rows"]
    http = json.loads((RESULTS / "http_throughput.json").read_text(encoding="utf-8"))
    own = http["clients"]["fewfit"]
    return {
        "cpu_ms_per_text": round(
            mean(
                row["cpu_ms_per_text"]
                for key, row in rows.items()
                if key.startswith("embedded ") and "cpu_ms_per_text" in row
            ),
            2,
        ),
        "http_cpu_us": round(own["cpu_microseconds_per_prompt"], 1),
        "http_per_second": round(own["per_second"], 1),
    }


def cost(texts: int, m: dict[str, float], a: dict[str, float]) -> dict[str, float]:
    """Return what `texts` texts in one view cost, by ``FORMULAS``."""
    flops = 2 * a["parameters"] * a["tokens"] * texts
    asking = m["http_cpu_us"] + m["store_cpu_us"] + m["decode_cpu_us"]
    return {
        "queries": float(texts),
        "CPU hours, embedded": texts * m["cpu_ms_per_text"] / 3.6e6,
        "GPU hours": flops / (a["peak_flops"] * a["utilisation"]) / 3600,
        "CPU hours, asking": texts * asking / 3.6e9,
        "store, bytes": texts * m["answer_bytes"],
        "store, bytes, embedded": texts * m["embedded_answer_bytes"],
        "output, bytes": texts * (a["chars"] + m["output_bytes"]),
        "price": texts * a["tokens"] / 1e6 * a["price"],
    }


def section(path: Path) -> str:
    """The section of RESULTS.md, and of docs/scale.md."""
    content = json.loads(path.read_text(encoding="utf-8"))
    m, a = content["measured"], content["assumed"]
    costs = [cost(n, m, a) for n in TEXTS]
    rows = [
        [what, f"`{FORMULAS[what]}`", *(_shown(what, found[what]) for found in costs)]
        for what in FORMULAS
    ]
    listed = [f"`{key}` {value:,g}" for key, value in m.items()]
    guessed = [f"`{key}` {value:,g}" for key, value in a.items()]
    header = ["", "formula", *(f"{n:,} texts" for n in TEXTS)]
    return (
        "\n## What a million and a billion texts cost\n\n"
        "`OMP_NUM_THREADS=1 python -m benchmarks scale_cost`\n\n"
        f"Measured ({content['machine']}, one thread): {', '.join(listed)}; of these the "
        "processor time of a text in the embedded model and of a prompt over HTTP are those of the "
        "tables above. Assumed, and not measured (`--set NAME=VALUE`): "
        f"{', '.join(guessed)}. Hours are of one core, or one GPU; k of them take a k-th.\n\n"
        + markdown_table(header, rows)
        + "\n"
    )


def page(told: str) -> str:
    """Return docs/scale.md with a section's body in it."""
    begin, end = (f"<!-- scale_cost: {which} -->\n" for which in ("begin", "end"))
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    return head + begin + told.partition("\n\n")[2] + end + rest.partition(end)[2]


def _shown(what: str, value: float) -> str:
    if "bytes" in what:
        return f"{value / 1e9:,.1f} GB" if value < 1e12 else f"{value / 1e12:,.1f} TB"
    if what == "queries":
        return f"{value:,.0f}"
    return f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--texts", type=int, default=4000, help="to measure with")
    options = parser.parse_args(argv)
    assumed = dict(ASSUMED)
    for item in options.set:
        name, _, value = item.partition("=")
        if name not in ASSUMED:
            raise InputError(f"--set: {name!r} is not one of {list(ASSUMED)}")
        assumed[name] = float(value)
    content: dict[str, Any] = {
        "measured": before() | measured(int(assumed["hidden"]), options.texts),
        "assumed": assumed,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, numpy {np.__version__}",
    }
    path = RESULTS / "scale_cost.json"
    if not options.set:  # what is committed has the assumptions of this file
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(section(path)), encoding="utf-8")
        print(section(path))
        return
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "scale_cost.json"
        own.write_text(json.dumps(content), encoding="utf-8")
        print(section(own))
