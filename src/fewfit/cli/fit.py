"""``fewfit fit``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.cli.columns import pick_columns, pick_labels, read_label_words
from fewfit.cli.doctor import probed
from fewfit.cli.options import (
    AsJson,
    Errors,
    Format,
    Input,
    LabelColumn,
    MaxQueries,
    Store,
    TextColumn,
    store_path,
)
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import read_table
from fewfit.errors import InputError


@plain_errors
def fit(
    train: Input,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact.")],
    text_column: TextColumn = None,
    label_column: LabelColumn = "label",
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with fields and one {mask}; repeat it for several views of each example. "
            "[default: '{text} This is about …']"
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="CLASS=word or CLASS=word,word; repeat for each class."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help='JSON file {"class": "word" or ["word", ...], ...}.')
    ] = None,
    decoder: Annotated[
        str, typer.Option(help="What is trained on the answers.")
    ] = "offset-regression",
    calibration: Annotated[
        str,
        typer.Option(help="none, contextual, domain-context, batch, pmi or ratio (logits only)."),
    ] = "contextual",
    shots: Annotated[
        int | None, typer.Option(min=1, help="Use this many examples of each class, at random.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample that --shots draws.")] = 0,
    probe: Annotated[
        bool,
        typer.Option(
            "--doctor",
            help="Probe the model first, with each template, and keep the report in the artifact.",
        ),
    ] = False,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Fit a classifier from a file of labelled examples: one query each."""
    from fewfit.compare import sample_shots
    from fewfit.decoders import DECODERS
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE, FewShotClassifier
    from fewfit.prompts import make_views

    if decoder not in DECODERS:
        raise InputError(f"--decoder: {decoder!r} is not one of {sorted(DECODERS)}")
    source = template or [DEFAULT_TEMPLATE]
    table = read_table(train, format)
    columns = pick_columns(table, make_views(source).fields, text_column)
    y = pick_labels(table, label_column)
    if shots is not None:
        sample = sample_shots(y, shots, seed=seed)
        columns = {name: [column[i] for i in sample] for name, column in columns.items()}
        y = [y[i] for i in sample]
    classifier = FewShotClassifier(
        model,
        template=source,
        labels=read_label_words(label, labels),
        decoder=DECODERS[decoder](),
        calibration=calibration,
        store=store_path(store),
        max_queries=max_queries,
        errors=errors,
    )
    found = probed(model, source, _words(classifier.labels, y)) if probe else None
    start = time.perf_counter()
    with bar("asking", len(y)) as progress:
        classifier.fit(columns, y, progress=progress)
    seconds = time.perf_counter() - start
    classifier.doctor_ = found
    classifier.save(output)
    size = sum(file.stat().st_size for file in output.iterdir())
    report = {
        "artifact": str(output),
        "examples": len(y),
        "classes": classifier.classes_.tolist(),
        "decoder": decoder,
        "queries": classifier.n_queries_,
        "retries": classifier.n_retries_,
        "seconds": round(seconds, 3),
        "artifact_bytes": size,
    }
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False))
    else:
        typer.echo(
            f"{len(y)} examples, {len(classifier.classes_)} classes, {classifier.n_queries_} "
            f"queries, {seconds:.1f} s; {size / 1024:.0f} KiB in {output}"
        )
        if found is not None:
            problems = [c["name"] for c in found["checks"] if c["outcome"] == "problem"]
            typer.echo(f"doctor: {found['queries']} queries, problems: {', '.join(problems) or 0}")


def _words(labels: Any, y: list[str]) -> tuple[str, ...]:
    from fewfit.prompts import Verbalizer

    return (Verbalizer.from_classes(y) if labels is None else Verbalizer(labels)).words
