"""The command ``fewfit compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import did_you_mean
from fewfit.cli.doctor import joined
from fewfit.cli.labels import (
    check_classes,
    check_names,
    find_labels,
    one_label,
    read_label_words,
    read_taxonomy,
)
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Format,
    LabelFile,
    LabelWords,
    Store,
    Taxonomy,
    TextColumn,
    Transforms,
    read_options,
    store_path,
    through,
)
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.cli.terminal import show
from fewfit.errors import InputError
from fewfit.tables import open_table
from fewfit.tables.columns import column_names, count, find_texts, read_examples, split_labelled

if TYPE_CHECKING:
    from fewfit.calibration import Calibration
    from fewfit.compare import Method


@plain_errors
def compare(
    train: Annotated[str, typer.Argument(help="Labelled rows to draw the few examples from.")],
    test: Annotated[str, typer.Argument(help="Labelled rows to measure on.")],
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names, by commas: zero-shot, linear-probe, dect, tfidf, prompt-search, ... (see "
            "'fewfit methods'). A decoder takes a calibration of its own after a plus: "
            "zero-shot+batch. [default: the default decoder and its usual rivals]"
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Frozen models, by commas; %2C is one in a model's address.")
    ] = "embedded",
    models: Annotated[str | None, typer.Option(hidden=True)] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="A frozen model for hidden states, such as embedded: compared alone, and beside "
            "the label scores of each other model."
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Labelled examples per class, by commas. [default: 1,4,16, as far as the smallest "
            "class goes]"
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, max=100_000, help="Samples for each number of shots.")
    ] = 5,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for report.html, comparison.json and cells.csv; a run "
            "that was stopped continues from it.",
        ),
    ] = None,
    text_column: TextColumn = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="Text with fields and one {mask}; repeat it for several views of each row. "
            "[default: '{text} This is about …']"
        ),
    ] = None,
    transform: Transforms = None,
    label: LabelWords = None,
    labels: LabelFile = None,
    taxonomy: Taxonomy = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Of methods that name none: contextual, domain-context, batch, pmi, none or ratio "
            "(logits only). [default: contextual; none where few answers in words are the scores]"
        ),
    ] = None,
    premise: Annotated[
        str | None,
        typer.Option(help="What pmi asks without an example: one {mask} and no field."),
    ] = None,
    drop_overlap: Annotated[
        bool, typer.Option("--drop-overlap", help="Leave out training rows that are test rows.")
    ] = False,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="METHOD.NAME=VALUE, an option of a method that --methods names, for example "
            "lora.rank=8, in-context.demonstrations=8 or prompt-search.length=3; repeat it."
        ),
    ] = None,
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
    store: Store = "default",
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Compare methods on your task: same samples, same answers, every cost on the table."""
    from fewfit.artifacts.files import check_folder
    from fewfit.calibration import make_calibration
    from fewfit.compare import Experiment
    from fewfit.compare.names import DEFAULT_METHODS, make_methods
    from fewfit.compare.report.html import html_report
    from fewfit.compare.report.tables import report_parts, write_csv
    from fewfit.compare.splits import overlap
    from fewfit.prompts import make_views
    from fewfit.task import DEFAULT_TEMPLATE

    if output is not None:
        check_folder(output, None)
    named, words = _specs(models or model), read_label_words(label, labels)
    if taxonomy is not None:
        named, words = _over_taxonomy(taxonomy, named, words)
    views = make_views(through(template or [DEFAULT_TEMPLATE], transform, store))
    names = [n for own in column_names(views.fields, text_column).values() for n in own]
    splits: list[Any] = []
    rows: list[Any] = []
    for path in (train, test):
        table = open_table(
            path,
            format,
            delimiter=delimiter,
            encoding=encoding,
            wanted=[*names, label_column],
            say=note,
        )
        places, place = (
            find_texts(table, views.fields, text_column),
            find_labels(table, label_column),
        )
        examples, _ = split_labelled(table, read_examples(table, places, place), use=False)
        known = words or (splits[1] if splits else None)
        y = one_label(table, examples, table.columns[place], known)
        if words is None and splits:  # the test set has of the other's classes what it has
            check_classes(table, examples, [[label] for label in y], sorted(set(splits[1])))
        else:
            check_names(table, examples, y, table.columns[place], words)
        splits += [examples.texts, y]
        first = {name: examples.texts[name] for name in views.views[0].fields}
        own = [dict(zip(first, row, strict=True)) for row in zip(*first.values(), strict=True)]
        rows.append((own, lambda i, t=table, e=examples: f"{t.where(e.lines[i])} of {t.path}"))
    if taxonomy is not None and words is not None:
        words = _with_examples(words, splits[1])
    (own, where), (other, there) = rows
    if not drop_overlap:
        overlap(own, other, drop=False, where=(where, there))
    listed: list[str] = _names(methods) if methods is not None else [*DEFAULT_METHODS]
    _check_methods(listed)
    compared, shared = _with_premise(
        make_methods(_with_options(listed, option or [])),
        None if calibration is None else make_calibration(calibration),
        premise,
    )
    experiment = Experiment(
        *splits,
        template=views,
        labels=words,
        methods=compared,
        models=_models(named, hidden),
        shots=None if shots is None else [_number(item) for item in _names(shots)],
        seeds=seeds,
        calibration=shared,
        store=store_path(store),
        drop_overlap=drop_overlap,
        search_trials=search_trials,
        where=(where, there),
    )
    if dry_run:
        costs = experiment.cost(output)
        if as_json:
            say(json.dumps([cost._asdict() for cost in costs]))
            return
        for cost in costs:
            searched = f", and at most {cost.search_queries} by searchers"
            say(
                f"{cost.model}: {count(cost.queries, 'query', 'queries')} to ask "
                f"({count(cost.prompts, 'prompt')}, {cost.prompts - cost.queries:,} in the store)"
                + (searched if cost.search_queries else "")
            )
        if not costs:
            say("no frozen model is asked")
        return
    found = experiment.run(output, price_per_token=price_per_token, bar=bar)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        found.write(output / "comparison.json")
        write_csv(found, output / "cells.csv")
        page = html_report(found, title=f"{Path(train).name}, {Path(test).name}")
        (output / "report.html").write_text(page, encoding="utf-8")
    if as_json:
        say(found.model_dump_json())
        return
    where = f"In {output}: report.html, comparison.json, cells.csv"
    show(*report_parts(found), *([where] if output is not None else []))


def _with_premise(
    methods: dict[str, Method], shared: Calibration | None, premise: str | None
) -> tuple[dict[str, Method], Calibration | None]:
    """Give every PMI calibration its premise."""
    if premise is None:
        return methods, shared
    told = {name: method.with_premise(premise) for name, method in methods.items()}
    new = shared if shared is None else shared.with_premise(premise)
    if new is shared and all(told[name] is methods[name] for name in methods):
        raise InputError("--premise: no method is calibrated with 'pmi'")
    return told, new


def _check_methods(listed: list[str]) -> None:
    """Refuse a name that is none, with the nearest one that is (InputError)."""
    from fewfit.compare.names import METHODS

    for name in listed:
        plain = name.partition("+")[0]
        if plain not in METHODS:
            raise InputError(
                f"--methods: {plain!r} is not one of {list(METHODS)}"
                f"{did_you_mean(plain, list(METHODS))}"
            )


def _with_options(listed: list[str], options: list[str]) -> dict[str, Any] | list[str]:
    """Give methods the options that name them: METHOD.NAME=VALUE."""
    from fewfit.compare.names import make_method

    own: dict[str, list[str]] = {}
    for item in options:
        name, dot, rest = item.partition(".")
        if not dot or name.strip() not in listed:
            raise InputError(f"--option: {item!r} is not METHOD.NAME=VALUE with one of {listed}")
        own.setdefault(name.strip(), []).append(rest)
    if not own:
        return listed
    given: dict[str, Any] = {name: name for name in listed}
    told = {name: read_options(items, typed=True) for name, items in own.items()}
    return given | {name: make_method(name, options) for name, options in told.items()}


def _names(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _specs(value: str) -> list[str]:
    """Return the models that are named; a comma between braces, as JSON has it, parts none."""
    found, depth = [""], 0
    for character in value:
        depth += (character == "{") - (character == "}")
        if character == "," and depth < 1:
            found.append("")
        else:
            found[-1] += character
    return [spec.strip() for spec in found if spec.strip()]


def _over_taxonomy(
    path: Path, models: list[str], words: dict[str, Any] | None
) -> tuple[list[str], dict[str, Any] | None]:
    """Return the models as they score a taxonomy's labels, and its words (InputError)."""
    if not models:
        raise InputError("--model: none is named")
    found = [read_taxonomy(path, spec, words) for spec in models]
    return [spec for spec, _ in found], found[0][1]


def _with_examples(words: dict[str, Any], y: list[str]) -> dict[str, Any]:
    """Return the labels that have examples: the others cannot be drawn."""
    there = set(y)
    kept = {label: word for label, word in words.items() if label in there}
    if len(kept) < len(words):
        note(f"{len(words) - len(kept)} labels of the taxonomy have no training row, left out")
    return kept


def _models(listed: list[str], hidden: str | None) -> list[str]:
    """Return who is compared: each model alone, the one for hidden states, and both together."""
    if hidden is None:
        return listed
    others = [spec for spec in listed if spec != hidden]
    return [*others, hidden, *(joined(spec, hidden) for spec in others)]


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InputError(f"--shots: {value!r} is not a whole number") from error
