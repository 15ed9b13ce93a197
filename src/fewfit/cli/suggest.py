"""``fewfit suggest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.choices import choose
from fewfit.cli.labels import check_classes, check_names, find_labels, one_label, read_label_words
from fewfit.cli.options import (
    AsJson,
    Delimiter,
    Encoding,
    Errors,
    Format,
    Hidden,
    Input,
    LabelColumn,
    LabelFile,
    LabelWords,
    MaxQueries,
    Model,
    Store,
    TextColumn,
    store_path,
)
from fewfit.cli.output import bar, note, plain_errors
from fewfit.errors import InputError
from fewfit.tables import open_table
from fewfit.tables.columns import count, find_texts, is_blank, read_examples
from fewfit.tables.names import position, told_apart

if TYPE_CHECKING:
    from fewfit.estimators.classifier import FewShotClassifier

REASON = "reason"


@plain_errors
def suggest(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT_OR_MODEL",
            help="A folder written by 'fewfit fit'; or, before there is one, a frozen model such "
            "as 'embedded', with the classes in --label or --labels.",
        ),
    ],
    input: Input,
    n: Annotated[int, typer.Option("-n", min=1, help="How many texts.")] = 10,
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - prints.")] = "-",
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    template: Annotated[
        list[str] | None, typer.Option(help="Of a model, as in 'fewfit fit'.")
    ] = None,
    label: LabelWords = None,
    labels: LabelFile = None,
    model: Model = None,
    hidden: Hidden = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Say which texts of a file to label next: one query each, and no label to begin with.

    Writes their rows with an empty label to fill in, and a column 'reason': typical, uncertain, or
    new class suspected. Rows of the file that have a label are what is known, and are left out.
    """
    from fewfit.cli.writing import Output
    from fewfit.estimators.suggesting import NEW, TYPICAL, UNCERTAIN
    from fewfit.prompts import make_views

    words = read_label_words(label, labels)
    fitted = Path(artifact).is_dir()
    kept = {"hidden": hidden, "store": store, "max_queries": max_queries, "errors": errors}
    classifier = _loaded(artifact, model, template or words, **kept) if fitted else None
    if classifier is None:
        classifier = _new(artifact if model is None else model, template, words, **kept)
    views = make_views(classifier.template)
    columns = classifier.columns_ if fitted else None
    table = open_table(input, format, delimiter=delimiter, encoding=encoding, say=note)
    places = find_texts(table, views.fields, text_column, columns.fields if columns else None)
    name = label_column or (columns.label if columns else "label")
    place = position(table.columns, name)
    if label_column is not None:
        place = find_labels(table, label_column)
    why = position(table.columns, REASON)
    raw = dict(table.read())
    if why is not None:
        for number, values in raw.items():
            if not (is_blank(values[why]) or values[why] in (NEW, TYPICAL, UNCERTAIN)):
                raise InputError(
                    f"{table.path}: has a column {REASON!r} of its own, where suggest would write "
                    f"({table.where(number)}: {values[why]!r:.50}); rename it"
                )
    own = [column for column, there in ((name, place), (REASON, why)) if there is None]
    header = [*table.columns, *own]
    out = Output(output, header, as_json=as_json, not_over=[input, artifact, store])

    examples = read_examples(table, places, place)
    blank = [is_blank(value) for value in examples.values] or [True] * len(examples)
    pool = examples.select([i for i, yes in enumerate(blank) if yes])
    known = examples.select([i for i, yes in enumerate(blank) if not yes])
    if not len(pool):
        raise InputError(f"{table.path}: every row has a label already")
    classes: dict[str, Any] = words or {}
    if fitted:
        classes = {str(c): c for c in classifier.classes_.tolist()}
    y: list[Any] = list(one_label(table, known, name, classes)) if len(known) else []
    if not fitted:
        check_names(table, known, y, name, words)
    if fitted:
        check_classes(table, known, [[label] for label in y], list(classes))
        y = [classes[label] for label in y]
    spent, again = 0, bool(y)
    with bar("asking", len(examples) * len(views.views)) as progress:
        if not fitted:
            if len(set(y)) > 1:
                again = False
                classifier.fit(known.texts, y, progress=progress)
            else:
                classifier.set_params(decoder="zero-shot").fit([], [], progress=progress)
            spent = classifier.n_queries_
        labelled = (known.texts, y) if again else None
        found = classifier.suggest(pool.texts, n, labelled=labelled, progress=progress)
    to_fill = len(table.columns) if place is None else place
    reason = len(header) - 1 if why is None else why
    rows: list[list[Any]] = []
    for item in found:
        rows.append([*raw[pool.lines[item.index]], *[None] * len(own)])
        rows[-1][to_fill], rows[-1][reason] = None, item.reason
    keys = told_apart(header)
    with out:
        out.write(rows, (dict(zip(keys, row, strict=True)) for row in rows))
    where = "" if output == "-" else f" in {output}"
    note(
        f"{count(len(found), 'text')} to label{where}, "
        f"{count(found.queries + spent, 'query', 'queries')} asked; fill in {name!r}, fit on all "
        "rows that have a label, and let the next call read a file that holds them too"
    )


def _loaded(artifact: str, model: str | None, own: Any, **kept: Any) -> FewShotClassifier:
    """Return the classifier of a folder."""
    from fewfit.cli.loading import load_classifier
    from fewfit.estimators.classifier import FewShotClassifier

    if own:
        raise InputError("--template, --label, --labels: an artifact has its own; leave them out")
    loaded = load_classifier(Path(artifact), model, **kept)
    if not isinstance(loaded, FewShotClassifier):
        raise InputError(
            f"{artifact}: fitted on rows with several labels, for which nothing is suggested"
        )
    return loaded


def _new(
    model: str, template: list[str] | None, words: Any, *, store: str, **kept: Any
) -> FewShotClassifier:
    """Return a classifier that is still to be fitted."""
    from fewfit.estimators.classifier import FewShotClassifier
    from fewfit.task import DEFAULT_TEMPLATE

    choose("--errors", kept["errors"], ("raise", "nan"))
    if words is None:
        raise InputError(
            f"{model!r} is no folder, and for a model the classes have to be named: --label "
            "CLASS=word for each, or --labels FILE"
        )
    source = template or DEFAULT_TEMPLATE
    return FewShotClassifier(model, template=source, labels=words, store=store_path(store), **kept)
