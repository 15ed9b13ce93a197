"""The command ``fewfit compare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewfit.cli.columns import pick_columns, pick_labels, read_label_words
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import read_table
from fewfit.errors import InputError

if TYPE_CHECKING:
    from fewfit.calibration import Calibration
    from fewfit.compare import Method


@plain_errors
def compare(
    train: Annotated[str, typer.Argument(help="Labelled rows to draw the few examples from.")],
    test: Annotated[str, typer.Argument(help="Labelled rows to measure on.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Names, by commas: zero-shot, linear-probe, dect, tfidf, prompt-search, ... (see "
            "'fewfit methods'). A decoder takes a calibration of its own after a plus: "
            "zero-shot+batch."
        ),
    ] = "zero-shot,tfidf,linear-probe,dect",
    models: Annotated[str, typer.Option(help="Frozen models, by commas.")] = "embedded",
    shots: Annotated[str, typer.Option(help="Labelled examples per class, by commas.")] = "1,4,16",
    seeds: Annotated[int, typer.Option(min=1, help="Samples for each number of shots.")] = 5,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for report.html, comparison.json and cells.csv; a run "
            "that was stopped continues from it.",
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the text, for a template with one field.")
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with fields and one {mask}; repeat it for several views of each row. "
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
    calibration: Annotated[
        str,
        typer.Option(
            help="Of methods that name none: contextual, domain-context, batch, pmi, none or ratio "
            "(logits only)."
        ),
    ] = "contextual",
    premise: Annotated[
        str | None,
        typer.Option(help="What pmi asks without an example: one {mask} and no field."),
    ] = None,
    drop_overlap: Annotated[
        bool, typer.Option("--drop-overlap", help="Leave out training rows that are test rows.")
    ] = False,
    search_trials: Annotated[
        int,
        typer.Option(
            min=2, help="Prompts that a searcher may try in each cell, each on all its examples."
        ),
    ] = 50,
    price_per_token: Annotated[
        float | None, typer.Option(min=0.0, help="Price of a token, to have costs in money.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many queries would be asked.")
    ] = False,
    store: Annotated[
        str, typer.Option(help="File that keeps the model's answers; 'none' keeps nothing.")
    ] = "default",
    format: Annotated[
        str | None, typer.Option(help="Format of both files, if their names do not tell.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare methods on your task: same samples, same answers, every cost on the table."""
    from fewfit.calibration import make_calibration
    from fewfit.compare import Experiment
    from fewfit.compare.names import make_methods
    from fewfit.compare.report.html import html_report
    from fewfit.compare.report.tables import report, write_csv
    from fewfit.estimators.classifier import DEFAULT_TEMPLATE
    from fewfit.prompts import make_views

    views = make_views(template or DEFAULT_TEMPLATE)
    splits = []
    for path in (train, test):
        table = read_table(path, format)
        splits += [
            pick_columns(table, views.fields, text_column),
            pick_labels(table, label_column),
        ]
    compared, shared = _with_premise(
        make_methods(_names(methods)), make_calibration(calibration), premise
    )
    experiment = Experiment(
        *splits,
        template=views,
        labels=read_label_words(label, labels),
        methods=compared,
        models=_names(models),
        shots=[_number(item) for item in _names(shots)],
        seeds=seeds,
        calibration=shared,
        store=None if store == "none" else store,
        drop_overlap=drop_overlap,
        search_trials=search_trials,
    )
    if dry_run:
        costs = experiment.cost(output)
        if as_json:
            typer.echo(json.dumps([cost._asdict() for cost in costs]))
            return
        for cost in costs:
            searched = f", and at most {cost.search_queries} by searchers"
            typer.echo(
                f"{cost.model}: {cost.queries} queries to ask "
                f"({cost.prompts} prompts, {cost.prompts - cost.queries} in the store)"
                + (searched if cost.search_queries else "")
            )
        if not costs:
            typer.echo("no frozen model is asked")
        return
    found = experiment.run(output, price_per_token=price_per_token, bar=bar)
    if output is not None:
        found.write(output / "comparison.json")
        write_csv(found, output / "cells.csv")
        page = html_report(found, title=f"{Path(train).name}, {Path(test).name}")
        (output / "report.html").write_text(page, encoding="utf-8")
    if as_json:
        typer.echo(found.model_dump_json())
        return
    typer.echo(report(found))
    if output is not None:
        typer.echo(f"\nIn {output}: report.html, comparison.json, cells.csv")


def _with_premise(
    methods: dict[str, Method], shared: Calibration, premise: str | None
) -> tuple[dict[str, Method], Calibration]:
    """Give every PMI calibration its premise."""
    if premise is None:
        return methods, shared
    from fewfit.calibration import PMICalibration
    from fewfit.compare import DecoderMethod, SearcherMethod

    pmi, found = PMICalibration(premise=premise), isinstance(shared, PMICalibration)
    for name, method in methods.items():
        own = isinstance(method.calibration, PMICalibration)
        if own and isinstance(method, DecoderMethod | SearcherMethod):
            methods[name], found = replace(method, calibration=pmi), True
    if not found:
        raise InputError("--premise: no method is calibrated with 'pmi'")
    return methods, pmi if isinstance(shared, PMICalibration) else shared


def _names(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InputError(f"--shots: {value!r} is not a whole number") from error
