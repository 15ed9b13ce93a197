"""``fewfit predict`` and ``fewfit evaluate``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from fewfit.cli.columns import pick_columns, pick_labels
from fewfit.cli.options import (
    Artifact,
    AsJson,
    Errors,
    Format,
    Input,
    LabelColumn,
    MaxQueries,
    Model,
    Store,
    TextColumn,
    store_path,
)
from fewfit.cli.output import bar, plain_errors
from fewfit.cli.tables import Table, read_table, write_csv, writing
from fewfit.errors import InputError


@plain_errors
def predict(
    artifact: Artifact,
    input: Input,
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - prints.")] = "-",
    text_column: TextColumn = None,
    proba: Annotated[bool, typer.Option(help="Add a column for each class.")] = False,
    model: Model = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Label new rows: the input's columns, then 'prediction' and 'probability'.

    With --errors nan a row that the model cannot answer has no label: the cells stay empty, and
    a further column 'prediction_status' says 'ok', or 'failed' and why.
    """
    classifier, columns, table = _loaded(
        artifact, input, text_column, model, store, format, max_queries, errors
    )
    probabilities, failures = _predicted(classifier, columns)
    answered = (probabilities == probabilities).all(axis=1)
    told = errors == "nan"
    best = probabilities.argmax(axis=1)
    predicted = [
        classifier.classes_[k].item() if ok else None for k, ok in zip(best, answered, strict=True)
    ]
    with writing(output) as stream:
        if as_json:
            for name, p, why in zip(predicted, probabilities, failures, strict=True):
                shares = p.tolist() if name is not None else [None] * len(p)
                row = dict(zip([str(c) for c in classifier.classes_], shares, strict=True))
                entry: dict[str, Any] = {"prediction": name, "probabilities": row}
                if told:
                    entry |= {"status": "failed" if why else "ok"} | (
                        {"reason": why} if why else {}
                    )
                json.dump(entry, stream, ensure_ascii=False)
                stream.write("\n")
        else:
            shown: dict[str, Any] = dict(table)
            shown["prediction"] = ["" if name is None else name for name in predicted]
            shown["probability"] = [_shown(p) for p in probabilities.max(axis=1)]
            if told:
                shown["prediction_status"] = [f"failed: {why}" if why else "ok" for why in failures]
            if proba:
                for k, name in enumerate(classifier.classes_):
                    shown[f"probability_{name}"] = [_shown(p) for p in probabilities[:, k]]
            write_csv(shown, stream)


@plain_errors
def evaluate(
    artifact: Artifact,
    test: Input,
    text_column: TextColumn = None,
    label_column: LabelColumn = "label",
    model: Model = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    format: Format = None,
    as_json: AsJson = False,
) -> None:
    """Measure a classifier on labelled rows."""
    import numpy as np

    from fewfit.compare import measure
    from fewfit.compare.report.tables import markdown_table

    classifier, columns, table = _loaded(
        artifact, test, text_column, model, store, format, max_queries
    )
    y = np.array(pick_labels(table, label_column))
    unknown = sorted(set(y.tolist()) - {str(name) for name in classifier.classes_})
    if unknown:
        raise InputError(
            f"{test}: class {unknown[0]!r} is not one of {classifier.classes_.tolist()}"
        )
    start = time.perf_counter()
    probabilities, _ = _predicted(classifier, columns)
    seconds = time.perf_counter() - start
    metrics = measure(y, probabilities, classifier.classes_.astype(str))
    if as_json:
        typer.echo(json.dumps({**metrics._asdict(), "seconds": round(seconds, 3)}))
        return
    rows = [
        [
            "accuracy",
            f"{metrics.accuracy:.3f}",
            f"{metrics.accuracy_low:.3f} to {metrics.accuracy_high:.3f}",
        ],
        ["macro F1", f"{metrics.macro_f1:.3f}", ""],
        ["log loss", f"{metrics.log_loss:.3f}", ""],
        ["calibration error", f"{metrics.ece:.3f}", ""],
        ["rows", str(metrics.n), ""],
    ]
    typer.echo(markdown_table(["", "value", "95 % interval"], rows))


def _shown(probability: float) -> str:
    return "" if probability != probability else f"{probability:.6f}"


def _loaded(
    artifact: Path,
    input: str,
    text_column: str | None,
    model: str | None,
    store: str,
    format: str | None,
    max_queries: int | None = None,
    errors: str = "raise",
) -> tuple[Any, Table, Table]:
    from fewfit.estimators.classifier import FewShotClassifier

    classifier = FewShotClassifier.load(
        artifact, model=model, store=store_path(store), max_queries=max_queries, errors=errors
    )
    table = read_table(input, format)
    return classifier, pick_columns(table, classifier.task_.template.fields, text_column), table


def _predicted(classifier: Any, columns: Table) -> tuple[Any, list[str]]:
    """Return the probabilities, and for each row why it has none."""
    with bar("asking", len(next(iter(columns.values())))) as progress:
        answers = classifier.observe(columns, progress=progress)
    return classifier.decode(answers), classifier.task_.failures(answers)
