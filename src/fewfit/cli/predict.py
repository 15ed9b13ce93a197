"""``fewfit predict``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fewfit.cli.options import (
    Artifact,
    AsJson,
    Delimiter,
    Encoding,
    Errors,
    Format,
    Hidden,
    Input,
    MaxQueries,
    Model,
    MultiLabel,
    Separator,
    Store,
    TextColumn,
)
from fewfit.cli.output import bar, note, plain_errors
from fewfit.errors import InputError, InputWarning
from fewfit.tables import open_table
from fewfit.tables.columns import SEPARATOR, column_names, count, find_texts, named

if TYPE_CHECKING:
    from fewfit.cli.loading import Part
    from fewfit.estimators.base import TextEstimator
    from fewfit.tables import Table


@plain_errors
def predict(
    artifact: Artifact,
    input: Input,
    output: Annotated[str, typer.Option("--output", "-o", help="File to write; - prints.")] = "-",
    text_column: TextColumn = None,
    proba: Annotated[bool, typer.Option(help="Add a column for each class.")] = False,
    adapt: Annotated[
        bool,
        typer.Option(
            "--adapt",
            help="Let the rows themselves, all together, correct the classifier first; the "
            "artifact stays as it is. No further query.",
        ),
    ] = False,
    model: Model = None,
    hidden: Hidden = None,
    store: Store = "default",
    max_queries: MaxQueries = None,
    errors: Errors = "raise",
    multi_label: MultiLabel = False,
    label_separator: Separator = None,
    format: Format = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    as_json: AsJson = False,
) -> None:
    """Label new rows: the input's columns, then 'prediction' and 'probability'.

    Where rows have several labels, 'prediction' holds those that are given, and there is no
    'probability'; --proba has that of each label.

    Rows are written as they are answered, with memory that does not grow with the file. A row
    without a text has no label: the cells stay empty. So has, with --errors nan, a row that the
    model cannot answer, and a further column 'prediction_status' says 'ok', or 'failed' and why.

    With --adapt nothing is written before all rows are answered, and memory grows with the file.
    """
    from fewfit.bulk import labels_of
    from fewfit.cli.loading import Answering, load_classifier
    from fewfit.cli.writing import Output

    classifier = load_classifier(artifact, model, store, max_queries, errors, hidden)
    separator = separator_of(classifier, multi_label, label_separator)
    if adapt:
        check_adapts(classifier)
    fields = classifier.task_.template.fields
    remembered = classifier.columns_.fields if classifier.columns_ else None
    names = [n for own in column_names(fields, text_column, remembered).values() for n in own]
    table = open_table(
        input, format, delimiter=delimiter, encoding=encoding, wanted=names, say=note
    )
    places = find_texts(table, fields, text_column, remembered)
    shown = Shown(separator, proba, status=errors == "nan")
    added = shown.columns(classifier)
    out = Output(
        output, [*table.columns, *added], as_json=as_json, not_over=[input, artifact, store]
    )
    if separator is not None and not out.as_json:
        _check_separator(classifier, separator, label_separator)
    taken = [] if out.as_json else [name for name in added if name in table.columns]
    if taken:
        raise InputError(
            f"{input}: has a column {taken[0]!r} already, which predict would write; rename it, or "
            "write JSON lines with --json"
        )
    tally = Tally(table, several=separator is not None)
    views = len(classifier.task_.template.views)
    try:
        with bar("asking", table.n * views) as progress, out:
            answering = Answering(classifier, table, places, progress, adapt)
            for part in answering:
                told = list(labels_of(classifier, part.probabilities))
                tally.add(part, told)
                out.write(shown.rows(part, told), shown.objects(classifier, part, told))
    except BaseException:
        if output != "-" and out.rows:
            kept = "" if store == "none" else "; run again to go on from there"
            note(f"{count(out.rows, 'row')} of {table.n:,} are in {output}{kept}")
        raise
    if output != "-":
        note(
            f"{count(out.rows, 'row')} in {output}: {count(answering.queries, 'query', 'queries')} "
            f"asked, {count(answering.stored, 'answer')} from the store{tally.sure()}"
        )
    tally.report()


class Tally:
    """What is said at the end: how sure, and which rows have no label."""

    def __init__(self, table: Table, *, several: bool) -> None:
        self.table, self.several = table, several
        self.empty: list[int] = []
        self.unanswered: list[int] = []
        self.labelled, self.total, self.below = 0, 0.0, 0
        self.least: tuple[float, int] = (2.0, 0)

    def add(self, part: Part, told: Sequence[tuple[Any, float]]) -> None:
        """Count a part."""
        for (number, _), (label, p), there in zip(part.rows, told, part.has_text, strict=True):
            if label is None:
                (self.unanswered if there else self.empty).append(number)
            elif p == p:
                self.labelled += 1
                self.total += p
                self.below += p < 0.5
                self.least = min(self.least, (p, number))

    def sure(self) -> str:
        """Return how sure the classifier is."""
        if not self.labelled:
            return ""
        p, number = self.least
        return (
            f"; mean probability {'of all labels of a row ' * self.several}"
            f"{self.total / self.labelled:.2f}, {count(self.below, 'row')} "
            f"below 0.50, the least sure {self.table.where(number)} ({p:.2f})"
        )

    def report(self) -> None:
        """Say which rows have no label."""
        for rows, why in ((self.empty, "text"), (self.unanswered, "usable answer")):
            if rows:
                note(
                    f"warning: {count(len(rows), 'row')} without a {why}, and so without a label "
                    f"({named(self.table, rows)})"
                )


def check_adapts(classifier: TextEstimator) -> None:
    """Refuse --adapt where nothing is learnt from texts without labels (FewfitError)."""
    from fewfit.estimators.examples import check_pool

    decoder = classifier.decoder_
    if not getattr(decoder, "adapts", False):
        raise InputError(
            f"--adapt: the artifact's decoder, {type(decoder).__name__}, does not learn from texts "
            "without labels once it is fitted; offset-regression, the default, and zero-shot do"
        )
    check_pool(classifier.task_)


def separator_of(classifier: TextEstimator, multi_label: bool, given: str | None) -> str | None:
    """Return what parts the labels of a row, None where the classifier gives one (InputError)."""
    from fewfit.estimators.multi_label import MultiLabelClassifier

    if not isinstance(classifier, MultiLabelClassifier):
        if multi_label or given is not None:
            raise InputError(
                f"--{'multi-label' if multi_label else 'label-separator'}: the artifact was fitted "
                "without it, on one label per row; fit it again with --multi-label"
            )
        return None
    if given == "":
        raise InputError("--label-separator: expected a character or more, got nothing")
    remembered = classifier.columns_.separator if classifier.columns_ else None
    return given or remembered or SEPARATOR


def _check_separator(classifier: TextEstimator, separator: str, given: str | None) -> None:
    """Refuse what cannot part the labels, or warn where it is the artifact's own (InputError)."""
    holding = next((c for c in map(str, classifier.classes_.tolist()) if separator in c), None)
    if holding is None:
        return
    what = (
        f"--label-separator: {separator!r} stands in the label {holding!r}, and text so parted "
        "cannot be read again; name another, or write JSON lines with --json"
    )
    if given is not None:
        raise InputError(what)
    warnings.warn(what, InputWarning, stacklevel=2)


@dataclass(frozen=True)
class Shown:
    """What is written of a prediction.

    Attributes
    ----------
    separator : str or None
        What parts the labels of a row; None where there is one.
    proba : bool
        Whether the probability of each class is.
    status : bool
        Whether it is said of each row if it was answered, and why not.
    """

    separator: str | None
    proba: bool
    status: bool

    def columns(self, classifier: TextEstimator) -> list[str]:
        """Return the columns beside those of the input."""
        from fewfit.bulk import added_columns

        return added_columns(classifier, proba=self.proba)

    def rows(self, part: Part, told: Sequence[tuple[Any, float]]) -> Iterator[list[Any]]:
        """Yield the rows of a part as CSV has them."""
        for (_, values), (label, p), row, why in zip(
            part.rows, told, part.probabilities, part.failures, strict=True
        ):
            if self.separator is None:
                own = ["" if label is None else label, _shown(p)]
            else:
                own = [self.separator.join(map(str, label or []))]
            own += [f"failed: {why}" if why else "ok"] * self.status
            yield [*values, *own, *(map(_shown, row) if self.proba else [])]

    def objects(
        self, classifier: TextEstimator, part: Part, told: Sequence[tuple[Any, float]]
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a part as JSON lines have them."""
        names = [str(name) for name in classifier.classes_.tolist()]
        for (label, _), row, why in zip(told, part.probabilities, part.failures, strict=True):
            shares = row.tolist() if label is not None else [None] * len(row)
            item = {"prediction": label, "probabilities": dict(zip(names, shares, strict=True))}
            if self.status:
                item |= {"status": "failed", "reason": why} if why else {"status": "ok"}
            yield item


def _shown(probability: float) -> str:
    return "" if probability != probability else f"{probability:.6f}"
