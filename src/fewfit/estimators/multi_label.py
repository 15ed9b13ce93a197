"""Text in, any number of labels out: the multi-label head on a frozen model's hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.base import ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from fewfit.asking import Policy
from fewfit.calibration import NoCalibration
from fewfit.decoders import MultiLabel, make_decoder
from fewfit.errors import InputError, ModelError
from fewfit.estimators.base import TextEstimator, check_labelled
from fewfit.estimators.examples import check_kind, read_weights, report_left_out
from fewfit.estimators.expected import Training
from fewfit.estimators.fitted import Fitted
from fewfit.estimators.opening import open_model
from fewfit.models import FrozenModel
from fewfit.models.optional import check_installed, retries_of
from fewfit.parameters import check_parameters
from fewfit.progress import Progress, showing
from fewfit.prompts import Verbalizer, View, make_views, read_label_sets, read_rows
from fewfit.prompts.containers import shown
from fewfit.prompts.labels import Label
from fewfit.task import DEFAULT_TEMPLATE, Task


class MultiLabelClassifier(ClassifierMixin, TextEstimator):
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
        The labels that there are, at least two; left out, those that occur in `y`. Of an indicator
        without names, the names of its columns in their order.
    decoder : MultiLabel or "multi-label", optional
        With other parameters than its defaults, ``MultiLabel(threshold="f1")`` for instance.
    store, max_queries, errors
        As for :class:`FewShotClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The labels, the order of all columns: sorted, or as the columns of an indicator.
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
    _indicator: bool = False
    """Whether `fit` was given 0 and 1, so that `predict` gives them."""

    def __init__(
        self,
        model: str | FrozenModel = "embedded",
        *,
        template: str | View | Sequence[str | View] = DEFAULT_TEMPLATE,
        labels: Sequence[Any] | None = None,
        decoder: MultiLabel | str | None = None,
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

    def fit(
        self,
        X: Any,
        y: Any,
        *,
        sample_weight: Any = None,
        progress: Progress | bool | None = None,
    ) -> Self:
        """Ask the model about each example once, and fit a head per label.

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
            The examples; see :func:`fewfit.prompts.read_rows`.
        y : sequence of collections of str or of int, length N, or indicator of shape (N, K)
            The labels of each example, as many as it has, none included; or 0 and 1 for each
            label, as an array, sparse or not, or a table with a column for each. See
            :func:`fewfit.prompts.read_label_sets`. Each label has an example.
        sample_weight : array-like of shape (N,), optional
            How many examples each counts for; one of weight 0 is not asked about.
        progress : callable or bool, optional
            True shows a bar; a function is called with the number of prompts newly answered.

        Returns
        -------
        self
        """
        check_parameters(self)
        template = make_views(self.template)
        rows = read_rows(X, template.fields)
        Y, classes, indicator = read_label_sets(y, len(rows), labels=self.labels)
        if not rows:
            raise InputError("X: no examples")
        weight = read_weights(sample_weight, len(rows))
        if weight is not None:
            rows = [row for row, w in zip(rows, weight, strict=True) if w > 0]
            Y, weight = Y[weight > 0], weight[weight > 0]
        verbalizer = Verbalizer(_words(classes), classes=classes)
        empty = np.flatnonzero(~Y.any(axis=0))
        if len(empty) and indicator:
            at = int(empty[0])
            called = f" ({shown(classes[at])})" * (classes[at] != at)
            raise InputError(
                f"y: column {at}{called} is 0 in every row{' with a weight' * (weight is not None)}"
                ", so that nothing can be learnt of it; leave the column out, or give an example"
            )
        if len(empty):
            raise InputError(
                f"labels: {shown(classes[empty[0]])} has no example; give it one or leave it out"
            )
        decoder = make_decoder(self.decoder, self.kind)
        task = Task(
            open_model(self.model, self.store, self.max_queries),
            template,
            verbalizer,
            NoCalibration(),
            policy=Policy(self.errors, chosen=True),
        )
        task.check(decoder.requires, who=type(decoder).__name__)
        check_installed(task.model)
        retries = retries_of(task.model)
        with showing(progress, len(rows) * len(template.views)) as told:
            task, asked, self.n_queries_ = task.begin(rows, more=[task.probe], progress=told)
        P = len(template.views)
        answers, probe = asked[:-P], asked[-P:]
        self.n_retries_ = retries_of(task.model) - retries
        there = task.answered(answers)
        report_left_out(there, "examples")
        lost = Y[there].sum(axis=0) == 0
        if lost.any():
            raise ModelError(
                "the model gave no usable answer to any example of label "
                f"{shown(classes[int(lost.argmax())])}. Run again, which asks nothing that the "
                "store has"
            )
        answers = task.select(answers, there)
        weight = None if weight is None else weight[there]
        hidden, sets = task.features(answers)[0], Y[there] == 1
        decoder = decoder.fit(hidden, Y[there], sample_weight=weight)
        counts = Y[there].sum(axis=0).tolist()
        self._keep(Fitted(task, decoder, int(there.sum()), example=None, counts=counts))
        self._probe = self._recorded(task.probe, probe)
        self._example = self._recorded(rows[int(there.argmax())], answers[:P])
        self._indicator = indicator
        own = [rows[i] for i in there.nonzero()[0]]
        codes = np.unique(sets, axis=0, return_inverse=True)[1].reshape(-1)
        fixed = not any(view.learns for view in template.views)
        self._training = Training(hidden, None, codes, own, {}, P, fixed, weight=weight, sets=sets)
        return self

    def predict(
        self, X: Any, *, progress: Progress | bool | None = None
    ) -> list[list[Any]] | NDArray[np.int64]:
        """Return the labels of each example in the form that `fit` was given.

        Returns
        -------
        list of N lists, or ndarray of shape (N, K)
            Sorted labels; or, after a fit on an indicator, 0 and 1 in the order of its columns,
            which is what scikit-learn's scorers take. What was loaded from a folder gives lists.

        Raises
        ------
        ModelError
            If an example got no usable answer, with ``errors="nan"`` too: labels would be a guess.
        """
        given = self.predict_indicator(X, progress=progress)
        if self._indicator:
            return given
        return [sorted(self.classes_[row == 1].tolist()) for row in given]

    def predict_indicator(
        self, X: Any, *, progress: Progress | bool | None = None
    ) -> NDArray[np.int64]:
        """Return 0 and 1, shape (N, K), columns as in ``classes_``."""
        probabilities = self.predict_proba(X, progress=progress)
        check_labelled(probabilities)
        return (probabilities > self.decoder_.threshold_).astype(np.int64)

    def decision_function(
        self, X: Any, *, progress: Progress | bool | None = None
    ) -> NDArray[np.float64]:
        """Return the log-odds of each label, shape (N, K), columns as in ``classes_``.

        They rank as the probabilities of :meth:`predict_proba` do, and are finite: 0 is one half,
        not a label's threshold. These are what scikit-learn's ``"roc_auc"`` takes; two columns of
        probabilities it would read as one class and its opposite. Its ``"average_precision"`` asks
        two labels with names for one that is 1, and takes those without.
        """
        p = self.predict_proba(X, progress=progress)
        return logit(np.clip(p, np.finfo(float).tiny, 1 - np.finfo(float).epsneg))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the share of examples that are given exactly their labels (subset accuracy).

        Parameters
        ----------
        X : sequence of str, sequence of mapping, or table
        y : as in :meth:`fit`
            A label that `fit` did not know is never given.
        sample_weight : array-like of shape (N,), optional

        Raises
        ------
        InputError
            Before any query, if `y` is text and the labels are numbers, or the other way round.
        """
        check_is_fitted(self, "classes_")
        rows, names = read_rows(X, self.task_.template.fields), self.classes_.tolist()
        Y, classes, indicator = read_label_sets(y, len(rows))
        weight = read_weights(sample_weight, len(rows))
        if indicator and list(classes) == list(range(len(names))):
            classes = tuple(names)
        if indicator and set(classes) != set(names):
            raise InputError(
                f"y: the columns are {shown(list(classes))}, and fit knew {shown(names)}"
            )
        check_kind(names, classes)
        given = self.predict_indicator(rows)
        told = [{names[k] for k in np.flatnonzero(row)} for row in given]
        true = [{classes[k] for k in np.flatnonzero(row)} for row in Y]
        right = [a == b for a, b in zip(told, true, strict=True)]
        return float(np.average(right, weights=weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.multi_class = False
        tags.classifier_tags.multi_label = True
        tags.target_tags.one_d_labels = tags.target_tags.single_output = False
        tags.target_tags.two_d_labels = tags.target_tags.multi_output = True
        return tags

    def _proba(
        self, hidden: NDArray[np.float32], scores: NDArray[np.float32] | None
    ) -> NDArray[Any]:
        return self.decoder_.predict_proba(hidden)

    @classmethod
    def _options(cls, task: Task) -> dict[str, Any]:
        return {"labels": list(task.verbalizer.classes)}


def _words(classes: Sequence[Label]) -> dict[Label, str]:
    """Return a word for each label, no two alike: they are asked about, and nothing reads it."""
    words: dict[Label, str] = {}
    seen: set[str] = set()
    for k, name in enumerate(classes):
        word = str(name).replace("_", " ").strip()
        while not word or word.casefold() in seen:
            word = f"{word} {k}".strip()
        seen.add(word.casefold())
        words[name] = word
    return words
