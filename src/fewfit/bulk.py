"""Labels for tables that come in batches, as engines of bulk data call it: no engine in here.

``docs/scale.md`` says how Ray Data is told to, and what else takes the same call.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from fewfit.errors import InputError
from fewfit.estimators.base import TextEstimator
from fewfit.estimators.multi_label import MultiLabelClassifier
from fewfit.prompts import read_rows
from fewfit.prompts.containers import is_missing
from fewfit.tables.columns import JOINED, has_text

if TYPE_CHECKING:
    import pyarrow as pa


class Predictor:
    """Appends labels to tables of pyarrow: the columns that ``fewfit predict`` writes.

    Each column of a table stays as it is, and rows stay in their order. The new columns have the
    same types in every table, whatever is in it, so that they can be written side by side. An
    object is small until it is first called, and what it pickles to stays so: engines make one for
    each worker, and the model is opened there.

    Parameters
    ----------
    classifier : FewShotClassifier or MultiLabelClassifier
        Fitted. Its `store`, `max_queries` and `errors` hold for each worker; several workers of one
        machine may share a store.
    columns : mapping of str to str or sequence of str, optional
        Field of the template -> the column with its text, or several, which are joined by a line
        break. Left out, those that the artifact was fitted on, or else those with the field's name.
    proba : bool, default=False
        Whether to add the probability of each class, as ``probability_CLASS``.

    Raises
    ------
    InputError
        If the classifier's calibration looks at all rows at once, which no worker sees, or
        `columns` names a field that the template does not have, or no column for one.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from fewfit import FewShotClassifier
    >>> clf = FewShotClassifier("fake", store=None).fit(["so good", "very bad"], ["yes", "no"])
    >>> table = pa.table({"id": [7, 8], "text": ["so good", None]})
    >>> Predictor(clf)(table).drop_columns("probability").to_pylist()
    [{'id': 7, 'text': 'so good', 'prediction': 'yes'}, {'id': 8, 'text': None, 'prediction': None}]
    """

    def __init__(
        self,
        classifier: TextEstimator,
        *,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        proba: bool = False,
    ) -> None:
        check_is_fitted(classifier, "classes_")
        if not classifier.task_.calibration.row_independent:
            raise InputError(
                f"the calibration {classifier.task_.calibration.name!r} looks at all rows at once, "
                "and a worker sees a batch of them; fit with another one"
            )
        fields = classifier.task_.template.fields
        columns = columns or {}
        for field in columns:
            if field not in fields:
                raise InputError(f"columns: the template has no field {field!r}, but {fields}")
            if not len(columns[field]):
                raise InputError(f"columns: field {field!r} has no column; name one")
        self.classifier = classifier
        self.proba = proba
        remembered = classifier.columns_.fields if classifier.columns_ is not None else {}
        self._named = bool(columns)
        given = columns or remembered
        self._columns = {
            field: [own] if isinstance(own := given.get(field, field), str) else list(own)
            for field in fields
        }

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return the table with labels.

        A row without a text has none: its new cells are null. So has, with ``errors="nan"``, a row
        that the model cannot answer, and ``prediction_status`` says why.

        Raises
        ------
        InputError
            Before anything is asked, if a column is missing, is there twice, holds something else
            than text, or has the name of one that would be added.
        """
        names = added_columns(self.classifier, proba=self.proba)
        if isinstance(table, Mapping) or not hasattr(table, "append_column"):
            raise InputError(
                f"expected a table of pyarrow, got a {type(table).__name__}; in Ray, say "
                "batch_format='pyarrow'"
            )
        taken = next((name for name in names if name in table.column_names), None)
        if taken is not None:
            raise InputError(f"the table has a column {taken!r} already; rename it")
        texts = self._texts(table)
        there = np.array(has_text(texts), dtype=bool)
        probabilities = np.full((table.num_rows, len(self.classifier.classes_)), np.nan)
        failures = ["no text"] * table.num_rows
        if there.any():
            kept = np.flatnonzero(there)
            answers = self.classifier.observe(
                {field: [column[i] for i in kept] for field, column in texts.items()}
            )
            probabilities[kept] = self.classifier.decode(answers)
            for i, why in zip(kept, self.classifier.task_.failures(answers), strict=True):
                failures[i] = why
        for name, column in zip(names, self._added(probabilities, failures), strict=True):
            table = table.append_column(name, column)
        return table

    def _texts(self, table: pa.Table) -> dict[str, list[str]]:
        texts: dict[str, list[str]] = {}
        for field, own in self._columns.items():
            lacking = [name for name in own if name not in table.column_names]
            # Who names a column means it: another one in its place would be labelled unnoticed.
            if lacking and not self._named and field in table.column_names:
                own, lacking = [field], []
            if lacking:
                raise InputError(
                    f"the template's field {field!r} is in column {lacking[0]!r}, and the table "
                    f"has {table.column_names}; name the right one with columns="
                )
            twice = next((name for name in own if table.column_names.count(name) > 1), None)
            if twice is not None:
                raise InputError(f"the table has two columns {twice!r}; rename one")
            parts = []
            for name in own:
                values = [
                    "" if is_missing(value) else value for value in table.column(name).to_pylist()
                ]
                rows = read_rows(values, [name], name=f"column {name!r}")
                parts.append([row[name] for row in rows])
            texts[field] = [JOINED.join(filter(None, row)) for row in zip(*parts, strict=True)]
        return texts

    def _added(
        self, probabilities: NDArray[np.float64], failures: Sequence[str]
    ) -> Iterator[pa.Array]:
        """Yield the columns in the order of :func:`added_columns`."""
        import pyarrow as pa

        kind = {"i": pa.int64(), "b": pa.bool_()}.get(self.classifier.classes_.dtype.kind)
        several = gives_several(self.classifier)
        told = list(labels_of(self.classifier, probabilities))
        labels = [label for label, _ in told]
        if kind is None:  # integers too, where one is larger than a column of integers holds
            kind = pa.string()
            labels = [_as_text(label) for label in labels]
        yield pa.array(labels, pa.list_(kind) if several else kind)
        if not several:
            yield pa.array([p for _, p in told], pa.float64(), from_pandas=True)
        if self.classifier.errors == "nan":
            said = [f"failed: {why}" if why else "ok" for why in failures]
            yield pa.array(said, pa.string())
        if self.proba:
            for column in probabilities.T:
                yield pa.array(column, pa.float64(), from_pandas=True)


def _as_text(label: Any) -> Any:
    """Return a label as text, or each of several; None stays None."""
    if isinstance(label, list):
        return [str(item) for item in label]
    return None if label is None else str(label)


def gives_several(classifier: TextEstimator) -> bool:
    """Return whether a row may have several labels."""
    return isinstance(classifier, MultiLabelClassifier)


def added_columns(classifier: TextEstimator, *, proba: bool) -> list[str]:
    """Return the names of the columns that hold what is predicted of a row."""
    names = ["prediction"] if gives_several(classifier) else ["prediction", "probability"]
    names += ["prediction_status"] * (classifier.errors == "nan")
    if proba:
        names += [f"probability_{name}" for name in classifier.classes_.tolist()]
    return names


def labels_of(
    classifier: TextEstimator, probabilities: NDArray[np.float64]
) -> Iterator[tuple[Any, float]]:
    """Yield the label of each row and its probability; None and NaN for a row without one.

    Where a row may have several labels, a list of them, and the probability that all of it is
    right, labels left out among them, as if they were independent.

    Parameters
    ----------
    classifier : TextEstimator
    probabilities : ndarray of shape (N, K)
        Of ``predict_proba``; NaN in a row without an answer.
    """
    names = classifier.classes_.tolist()
    thresholds = classifier.decoder_.threshold_ if gives_several(classifier) else None
    for row in probabilities:
        if row[0] != row[0]:
            yield None, float("nan")
        elif thresholds is not None:
            given = row > thresholds
            own = [name for name, yes in zip(names, given, strict=True) if yes]
            right = (p if yes else 1 - p for p, yes in zip(row.tolist(), given, strict=True))
            yield own, math.prod(right)
        else:
            best = int(row.argmax())
            yield names[best], float(row[best])
