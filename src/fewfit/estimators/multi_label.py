"""Text in, any number of labels out: the multi-label head on a frozen model's hidden states."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from fewfit.calibration import NoCalibration
from fewfit.decoders import MultiLabel
from fewfit.errors import InputError, ModelError
from fewfit.estimators.base import TextEstimator, check_labelled, report_left_out
from fewfit.estimators.fitted import Fitted
from fewfit.estimators.opening import open_model
from fewfit.models import FrozenModel
from fewfit.models.base import Progress
from fewfit.prompts import Verbalizer, View, make_views, read_rows
from fewfit.prompts.verbalizer import Label, sort_classes
from fewfit.task import DEFAULT_TEMPLATE, Task


class MultiLabelClassifier(TextEstimator):
    """Adapt a frozen model to a task whose examples have none, one or several labels.

    One query per example, as with :class:`FewShotClassifier`; the hidden states then train one
    logistic regression per label, with a threshold of its own. The model's scores of label words
    are not used, so that labels need no words.

    Parameters
    ----------
    model : str or FrozenModel, default="embedded"
        One that gives hidden states; see :func:`fewfit.load_model`.
    template : str, View, or list of these, default="{text} This is about {mask}."
        As for :class:`FewShotClassifier`.
    labels : sequence of str or of int, optional
        The labels that there are, at least two; left out, those that occur in `y`.
    decoder : MultiLabel, optional
        With other parameters than its defaults, ``MultiLabel(threshold="f1")`` for instance.
    store, max_queries, errors
        As for :class:`FewShotClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The labels, sorted: the order of all columns.
    decoder_ : MultiLabel
        The fitted decoder; ``decoder_.threshold_`` holds the thresholds, shape (K,).
    task_ : Task
    n_queries_, n_retries_ : int
        What `fit` paid for, and attempts made again.

    Raises
    ------
    InputError
        Before any query: texts and labels that do not go together.
    CapabilityError
        Before any query: the model gives no hidden states.
    ModelError
        The model did not answer, or not all of it.

    Examples
    --------
    >>> from fewfit import MultiLabelClassifier
    >>> texts = ["cheap and quick", "quick", "cheap", "neither"]
    >>> y = [{"price", "speed"}, {"speed"}, {"price"}, set()]
    >>> clf = MultiLabelClassifier(model="fake", store=None).fit(texts, y)
    >>> clf.predict(["very cheap", "quick and cheap", "neither"])
    [['price'], ['price', 'speed'], []]
    """

    kind: ClassVar[type[MultiLabel]] = MultiLabel
    decoder_: MultiLabel

    def __init__(
        self,
        model: str | FrozenModel = "embedded",
        *,
        template: str | View | Sequence[str | View] = DEFAULT_TEMPLATE,
        labels: Sequence[Any] | None = None,
        decoder: MultiLabel | None = None,
        store: str | Path | None = "default",
        max_queries: int | None = None,
        errors: str = "raise",
    ) -> None:
        self.model = model
        self.template = template
        self.labels = labels
        self.decoder = decoder
        self.store = store
        self.max_queries = max_queries
        self.errors = errors

    def fit(self, X: Any, y: Any, *, progress: Progress | None = None) -> Self:
        """Ask the model about each example once, and fit a head per label.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The examples; see :func:`fewfit.prompts.read_rows`.
        y : sequence of collections of str or of int, length N
            The set of labels of each example; it may be empty. Each label has an example.
        progress : callable, optional
            Called with the number of prompts newly answered.

        Returns
        -------
        self
        """
        template = make_views(self.template)
        rows = read_rows(X, template.fields)
        given = read_label_sets(y, len(rows))
        if not rows:
            raise InputError("X: no examples")
        labels = self.labels if self.labels is not None else {name for own in given for name in own}
        if isinstance(labels, str):
            raise InputError(f"labels: expected a list of labels, got {labels!r}")
        verbalizer = Verbalizer.from_classes(sort_classes(labels))
        Y = indicator(given, verbalizer.classes)
        decoder = cast(MultiLabel, clone(self.decoder if self.decoder is not None else self.kind()))
        task = Task(
            open_model(self.model, self.store, self.max_queries),
            template,
            verbalizer,
            NoCalibration(),
            errors=self.errors,
        )
        task.check(decoder.requires, who=type(decoder).__name__)
        retries = task.model.retries
        task, answers, self.n_queries_ = task.begin(rows, progress=progress)
        self.n_retries_ = task.model.retries - retries
        there = task.answered(answers)
        report_left_out(there, "examples")
        lost = Y[there].sum(axis=0) == 0
        if lost.any():
            raise ModelError(
                "the model gave no usable answer to any example of label "
                f"{verbalizer.classes[int(lost.argmax())]!r}; run again to ask only what is missing"
            )
        answers = task.select(answers, there)
        decoder = decoder.fit(task.features(answers)[0], Y[there])
        self._keep(Fitted(task, decoder, n_examples=int(there.sum()), example=None))
        self._keep_example(rows[int(there.argmax())], answers)
        return self

    def predict(self, X: Any, *, progress: Progress | None = None) -> list[list[Any]]:
        """Return the labels of each example, sorted, N lists.

        Raises
        ------
        ModelError
            If an example got no usable answer, with ``errors="nan"`` too: labels would be a guess.
        """
        given = self.predict_indicator(X, progress=progress)
        return [self.classes_[row == 1].tolist() for row in given]

    def predict_indicator(self, X: Any, *, progress: Progress | None = None) -> NDArray[np.int64]:
        """Return the same as 0 and 1, shape (N, K), which is what scikit-learn's metrics take."""
        probabilities = self.predict_proba(X, progress=progress)
        check_labelled(probabilities)
        return (probabilities > self.decoder_.threshold_).astype(np.int64)

    def _proba(
        self, hidden: NDArray[np.float32], scores: NDArray[np.float32] | None
    ) -> NDArray[Any]:
        return self.decoder_.predict_proba(hidden)

    @classmethod
    def _options(cls, task: Task) -> dict[str, Any]:
        return {"labels": list(task.verbalizer.classes)}


def read_label_sets(y: Any, n: int) -> list[set[Label]]:
    """Check the sets of labels of `n` examples (InputError)."""
    if isinstance(y, str | bytes) or not isinstance(y, Iterable):
        raise InputError(f"y: expected a list of sets of labels, got {type(y).__name__}")
    given: list[set[Label]] = []
    for i, own in enumerate(y):
        if isinstance(own, str | bytes) or not isinstance(own, Iterable):
            raise InputError(
                f"y: row {i}: expected a set of labels, got {own!r}; one label is ['label'], none "
                "is []"
            )
        given.append({name.item() if hasattr(name, "item") else name for name in own})
    if len(given) != n:
        raise InputError(f"y: labels for {len(given)} examples, and {n} examples")
    sort_classes(name for own in given for name in own)
    return given


def indicator(given: Sequence[set[Label]], labels: Sequence[Label]) -> NDArray[np.int64]:
    """Return 1 where an example has a label, shape (N, K); each label occurs (InputError)."""
    known = set(labels)
    for i, own in enumerate(given):
        if own - known:
            raise InputError(f"y: row {i}: {min(own - known, key=str)!r} is not in labels")
    Y = np.array([[name in own for name in labels] for own in given], dtype=np.int64)
    for name, column in zip(labels, Y.reshape(-1, len(labels)).T, strict=True):
        if not column.any():
            raise InputError(f"labels: {name!r} has no example; give it one or leave it out")
    return Y
