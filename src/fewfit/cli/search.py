"""The command ``fewfit search``."""

from __future__ import annotations

import json
import shlex
from typing import Annotated, Any

import typer

from fewfit.choices import choose
from fewfit.cli.labels import check_names, find_labels, one_label, read_label_words
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Folder,
    Format,
    Input,
    LabelFile,
    LabelWords,
    Seed,
    Store,
    TextColumn,
    read_options,
    store_path,
)
from fewfit.cli.output import note, plain_errors, say
from fewfit.errors import InputError
from fewfit.tables import open_table
from fewfit.tables.columns import column_names, count, find_texts, read_examples, split_labelled


@plain_errors
def search(
    train: Input,
    output: Folder,
    method: Annotated[
        str,
        typer.Option(
            help="prompt-search, policy-network, black-box-tuning (vectors, a masked hf: model) or "
            "unsupervised-prompts (no labels)."
        ),
    ] = "prompt-search",
    model: Annotated[str, typer.Option(help="The frozen model.")] = "embedded",
    template: Annotated[
        str | None,
        typer.Option(help="Text with fields and one {mask}, from which it starts."),
    ] = None,
    text_column: TextColumn = None,
    label_column: Annotated[str, typer.Option(help="Column of the labels.")] = "label",
    label: LabelWords = None,
    labels: LabelFile = None,
    decoder: Annotated[
        str,
        typer.Option(
            help="What is fitted on the answers to the question that is found; zero-shot believes "
            "the model, as searchers do."
        ),
    ] = "zero-shot",
    calibration: Annotated[
        str | None, typer.Option(help="Of the model's scores. [default: none, as in the papers]")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the searcher; repeatable."),
    ] = None,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="What the search, and the fit of what it finds, may ask. [default: 50 prompts "
            "about all examples]",
        ),
    ] = None,
    seed: Seed = 0,
    store: Store = "default",
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Look for a better question with queries to spend, and keep the classifier that asks it."""
    from fewfit.artifacts import schema
    from fewfit.artifacts.files import check_folder
    from fewfit.compare.searching import search as searched
    from fewfit.decoders import DECODERS
    from fewfit.prompts import Template
    from fewfit.searchers import SEARCHERS
    from fewfit.task import DEFAULT_TEMPLATE

    choose("--method", method, sorted(SEARCHERS))
    choose("--decoder", decoder, sorted(DECODERS))
    words = read_label_words(label, labels)
    check_folder(output, schema.files_of(output))
    source = template or DEFAULT_TEMPLATE
    fields = Template(source).fields
    named = [n for own in column_names(fields, text_column).values() for n in own]
    unsupervised = "labels" not in _needs(method)
    wanted = [*named, *([] if unsupervised else [label_column])]
    table = open_table(
        train, format, delimiter=delimiter, encoding=encoding, wanted=wanted, say=note
    )
    places = find_texts(table, fields, text_column)
    y: list[Any] | None = None
    place = None
    if unsupervised:
        if words is None:
            raise InputError(f"--method {method}: name the classes, --label CLASS=word for each")
        examples = read_examples(table, places)
    else:
        place = find_labels(table, label_column)
        examples, _ = split_labelled(table, read_examples(table, places, place), use=False)
        y = one_label(table, examples, table.columns[place], words)
        check_names(table, examples, y, table.columns[place], words)
    found = searched(
        *(method, examples.texts, y),
        model=model,
        template=source,
        labels=words,
        calibration=calibration,
        decoder=decoder,
        options=read_options(option or [], typed=True),
        max_queries=max_queries,
        seed=seed,
        store=store_path(store),
    )
    classifier = found.classifier
    columns = {f: [table.columns[i] for i in own] for f, own in places.items()}
    name = label_column if place is None else table.columns[place]
    classifier.columns_ = schema.ColumnsEntry(fields=columns, label=name, separator=None)
    classifier.save(output)
    if as_json:
        told = {"artifact": str(output), "method": method, "question": found.shown}
        told |= {"queries": found.queries, "max_queries": found.max_queries}
        told["classes"] = classifier.classes_.tolist()
        say(json.dumps(told, ensure_ascii=False))
        return
    say(f"{count(found.queries, 'query', 'queries')}, of {found.max_queries:,} allowed")
    say("What is asked now, with the first text:")
    say(found.shown)
    say(f"Next: {shlex.join(['fewfit', 'evaluate', str(output), 'LABELLED.csv'])}")


def _needs(method: str) -> set[str]:
    """Return what a searcher is given beside the texts."""
    import inspect

    from fewfit.searchers import SEARCHERS

    return {"labels"} if "y" in inspect.signature(SEARCHERS[method]).parameters else set()
