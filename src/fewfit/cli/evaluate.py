"""``fewfit evaluate``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from fewfit.cli.labels import check_classes, find_labels, label_sets, one_label
from fewfit.cli.options import (
    Artifact,
    AsJson,
    Delimiter,
    Encoding,
    Format,
    Hidden,
    Input,
    LabelColumn,
    MaxQueries,
    Model,
    MultiLabel,
    Separator,
    Store,
    TextColumn,
)
from fewfit.cli.output import bar, note, plain_errors, say
from fewfit.cli.predict import separator_of
from fewfit.cli.terminal import show
from fewfit.markdown import NONE, Table
from fewfit.tables import open_table
from fewfit.tables.columns import column_names, find_texts, read_examples, split_labelled

_WIDTH = 60
_CLASSES, _WEAKEST = 30, 20


@plain_errors
def evaluate(
    artifact: Artifact,
    test: Input,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    model: Model = None,
    hidden: Hidden = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    multi_label: MultiLabel = False,
    label_separator: Separator = None,
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Measure a classifier on labelled rows: in all, class by class, and where it is wrong."""
    import numpy as np

    from fewfit.cli import measuring
    from fewfit.cli.loading import load_classifier

    classifier = load_classifier(artifact, model, store, max_queries, "raise", hidden)
    separator = separator_of(classifier, multi_label, label_separator)
    fields, known = classifier.task_.template.fields, classifier.columns_
    remembered = known.fields if known else None
    own = known.label if known else "label"
    name = own if label_column is None else label_column
    names = [n for own in column_names(fields, text_column, remembered).values() for n in own]
    table = open_table(
        test, format, delimiter=delimiter, encoding=encoding, wanted=[*names, name], say=note
    )
    places = find_texts(table, fields, text_column, remembered)
    place = find_labels(table, name)
    examples, column = read_examples(table, places, place), table.columns[place]
    classes = [str(label) for label in classifier.classes_.tolist()]
    if separator is None:
        examples, _ = split_labelled(table, examples, use=False)
        y = one_label(table, examples, column, classes)
        sets: list[list[str]] = [[label] for label in y]
    else:
        sets = label_sets(table, examples, separator, column, classes)
    check_classes(table, examples, sets, classes)
    start = time.perf_counter()
    with bar("asking", len(examples) * len(classifier.task_.template.views)) as progress:
        probabilities = classifier.predict_proba(examples.texts, progress=progress)
    seconds = time.perf_counter() - start
    truth = np.array([[name in own for name in classes] for own in sets])
    if separator is None:
        told = np.eye(len(classes), dtype=bool)[probabilities.argmax(axis=1)]
        found = measuring.single(truth, probabilities, classes)
        found["confusions"] = measuring.confusions(truth, told, classes)
        found["wrong"] = measuring.wrong(truth, probabilities, classes, examples)
    else:
        told = probabilities > classifier.decoder_.threshold_
        found = measuring.several(truth, told)
        found["wrong"] = measuring.wrong_labels(truth, told, probabilities, classes, examples)
    found["classes"] = measuring.by_class(truth, told, classes)
    found["seconds"] = round(seconds, 3)
    if as_json:
        say(json.dumps(found, ensure_ascii=False))
    else:
        show(*_blocks(found, table.unit))


def _blocks(found: dict[str, Any], unit: str) -> Iterator[str | Table]:
    """What was found, for people: in all, class by class, and where it is wrong."""
    titles = {
        "accuracy": "accuracy",
        "exact_match": "all labels right",
        "micro_f1": "micro F1",
        "macro_f1": "macro F1",
        "log_loss": "log loss",
        "ece": "calibration error",
    }
    rows = [[title, f"{found[key]:.3f}", ""] for key, title in titles.items() if key in found]
    first = "accuracy" if "accuracy" in found else "exact_match"
    rows[0][2] = f"{found[f'{first}_low']:.3f} to {found[f'{first}_high']:.3f}"
    yield Table(["", "value", "95 % interval"], [*rows, ["rows", f"{found['n']:,}", ""]])
    classes: dict[str, Any] = found["classes"]
    own = sorted(classes.items(), key=lambda item: (not item[1]["rows"], item[1]["f1"] or 0))
    listed = own if len(own) <= _CLASSES else own[:_WEAKEST]
    yield "Class by class, the weakest first:"
    rows = [
        [_cell(name), *(_share(c[key]) for key in ("precision", "recall", "f1")), f"{c['rows']:,}"]
        for name, c in listed
    ]
    yield Table(["class", "precision", "recall", "F1", "rows"], rows)
    if len(listed) < len(own):
        rest = own[len(listed) :]
        yield (
            f"The other {len(rest):,} classes have an F1 of {_share(rest[0][1]['f1'])} or more; "
            "--json has all."
        )
    if found.get("confusions"):
        yield "Taken for each other most often:"
        rows = [
            [f"{c['rows']:,}", _cell(c["label"]), _cell(c["predicted"])]
            for c in found["confusions"]
        ]
        yield Table(["rows", "label", "predicted"], rows, numbers=False)
    if found.get("wrong"):
        yield "Wrong, and most sure of it:"
        rows = [
            [
                str(w["row"]),
                _cell(w["label"]),
                _cell(w["predicted"])
                if isinstance(w["predicted"], str)
                else ("given" if w["predicted"] else "missed"),
                f"{w['probability']:.2f}",
                _cell(" / ".join(w["text"].values())),
            ]
            for w in found["wrong"]
        ]
        header = [unit, "label", "predicted", "probability", "text"]
        yield Table(header, rows, numbers=False)


def _share(share: float | None) -> str:
    """A share, or a dash where there is nothing that it could be of."""
    return NONE if share is None else f"{share:.3f}"


def _cell(text: str | Sequence[str]) -> str:
    """A text in a cell: one line, not long."""
    line = " ".join(str(text).split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
