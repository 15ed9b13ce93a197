"""PTEC's output side: one independent decision per label. Buchner et al. 2024, arXiv 2309.12075."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fewfit.decoders.base import Restorable
from fewfit.errors import InputError
from fewfit.parameters import check_parameters

Floats = NDArray[Any]

_FOLDS, _LEAST = 5, 4
_ROUNDING = 32  # units in the last place that a column's mean may be off


class MultiLabel(Restorable, ClassifierMixin, BaseEstimator):
    """A logistic regression per label, and the threshold at which the label is given.

    K independent sigmoids, ``p[k] = sigmoid(w[k] x + b[k])``, on standardised hidden states, with
    the positives of a rare label weighted up in the loss (`pos_weight`). Labels do not compete: a
    further one changes no probability of the others.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the L2 penalty.
    pos_weight : "balanced" or float, default="balanced"
        What each positive counts in the loss; "balanced" is negatives over positives, per label.
    threshold : float or "f1", default=0.5
        Give a label where its probability is above. "f1" is the value with the best F1 of the label
        in 5-fold cross-validation over the examples (copies of one are in one fold), and 0.5 for a
        label with fewer than 4 positives or negatives, where that would be a guess.

    Attributes
    ----------
    n_labels_ : int
        K.
    classes_ : ndarray of shape (K,)
        Positions of the labels, or the classes.
    mean_, scale_ : ndarray of shape (H,)
        What the hidden states are standardised with.
    coef_ : ndarray of shape (K, H)
    intercept_ : ndarray of shape (K,)
    threshold_ : ndarray of shape (K,)

    Notes
    -----
    The paper tunes a soft prompt beside this head, which needs the model's gradients and is
    ``fewfit tune --method ptec``; this is the part that a frozen model allows. Its own linear
    baseline failed for want of standardised
    features. :class:`fewfit.MultiLabelClassifier` gives it a model's hidden states of texts; the
    examples of :class:`fewfit.FewShotClassifier` have one class each.

    Examples
    --------
    >>> X = [[2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [0.0, 0.0]] * 4
    >>> Y = [[1, 0], [1, 1], [0, 1], [0, 0]] * 4
    >>> MultiLabel().fit(X, Y).predict([[3.0, 3.0], [3.0, -1.0]])
    array([[1, 1],
           [1, 0]])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    labels_needed: ClassVar[str] = "both sides of each label"
    queries_per_example: ClassVar[str] = "1 per view"
    reference: ClassVar[str] = "Buchner et al. 2024, arXiv 2309.12075"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "mean_": ("H",),
        "scale_": ("H",),
        "coef_": ("K", "H"),
        "intercept_": ("K",),
        "threshold_": ("K",),
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "pos_weight": [StrOptions({"balanced"}), Interval(Real, 0, None, closed="neither")],
        "threshold": [StrOptions({"f1"}), Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        C: float = 1.0,
        *,
        pos_weight: str | float = "balanced",
        threshold: str | float = 0.5,
    ) -> None:
        self.C = C
        self.pos_weight = pos_weight
        self.threshold = threshold

    def fit(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the head.

        Parameters
        ----------
        X : array-like of shape (N, H)
        y : array-like of shape (N, K) of 0 and 1, or of shape (N,)
            A label that all examples have, or none, keeps that answer. One class per example, shape
            (N,) or (N, 1), is one-vs-rest: the sigmoids are normalised, and the largest decides.
        sample_weight : array-like of shape (N,), optional
            How many rows each row counts for; left out, one. A row of weight 0 is not there.

        Raises
        ------
        InputError
            If `y` holds anything but 0 and 1, or for a parameter that is not as above.
        """
        check_parameters(self)
        hidden: Floats
        given: Any = y
        if issparse(given):
            given = given.toarray()
        hidden, given = validate_data(
            self, X, given, dtype=[np.float64, np.float32], multi_output=True
        )
        check_classification_targets(given)
        given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
        self.single_ = given.ndim == 1
        if self.single_:
            self.classes_, codes = np.unique(given, return_inverse=True)
            if len(self.classes_) < 2:
                raise InputError("y: at least two classes are needed, got 1 class")
            targets = np.eye(len(self.classes_), dtype=int)[codes]
        else:
            if not np.isin(given, (0, 1)).all():
                raise InputError("y: expected 0 and 1, one column per label")
            targets = given.astype(int)
            self.classes_ = np.arange(targets.shape[1])
        self.n_labels_ = targets.shape[1]
        w: Floats | None = None
        if sample_weight is not None:
            given_weight: Floats = _check_sample_weight(
                sample_weight, hidden, dtype=hidden.dtype, ensure_non_negative=True
            )
            kept = given_weight > 0
            hidden, targets, w = hidden[kept], targets[kept], given_weight[kept]
        wide = hidden.astype(np.float64)
        mean = np.average(wide, axis=0, weights=w)
        spread = np.sqrt(np.average((wide - mean) ** 2, axis=0, weights=w))
        noise = _ROUNDING * np.finfo(hidden.dtype).eps * np.abs(mean)
        self.mean_ = mean.astype(hidden.dtype)
        self.scale_ = np.where(spread > noise, spread, 1).astype(hidden.dtype)
        x = (hidden - self.mean_) / self.scale_
        dealt = _dealt(hidden) if self.threshold == "f1" else None
        heads = [self._head(x, column, w) for column in targets.T]
        self.coef_ = np.stack([head[0] for head in heads])
        self.intercept_ = np.array([head[1] for head in heads])
        self.threshold_ = np.array([self._threshold(x, column, w, dealt) for column in targets.T])
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Return the probability of each label, shape (N, K), each on its own."""
        check_is_fitted(self)
        hidden: Floats = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        x = (hidden - self.mean_) / self.scale_
        p = expit(x @ self.coef_.T + self.intercept_)
        return p / p.sum(axis=1, keepdims=True) if self.single_ else p

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return 1 where a label is given, shape (N, K), or the class, shape (N,)."""
        p = self.predict_proba(X)
        if self.single_:
            return self.classes_[p.argmax(axis=1)]
        return (p > self.threshold_).astype(int)

    def restore(self, arrays: Mapping[str, Floats], classes: NDArray[Any]) -> Self:
        """Put saved arrays of labels back in place of :meth:`fit` (ArtifactError)."""
        self.single_, self.n_labels_ = False, len(classes)
        return super().restore(arrays, np.arange(len(classes)))

    def _head(self, x: Floats, y: NDArray[Any], w: Floats | None = None) -> tuple[Floats, float]:
        if y.min() == y.max():
            return np.zeros(x.shape[1], x.dtype), 30.0 if y[0] else -30.0
        weight = self.pos_weight
        if weight == "balanced":
            weight = float(np.average(1 - y, weights=w) / np.average(y, weights=w))
        model = LogisticRegression(C=self.C, class_weight={0: 1.0, 1: weight}, max_iter=1000)
        model.fit(x, y, sample_weight=w)
        return model.coef_[0], float(model.intercept_[0])

    def _threshold(
        self, x: Floats, y: NDArray[Any], w: Floats | None, dealt: NDArray[np.intp] | None
    ) -> float:
        if dealt is None:
            return float(self.threshold)
        folds = assign_folds(dealt, y)
        if folds is None:
            return 0.5
        held_out = np.empty(len(y))
        for fold in range(_FOLDS):
            test, train = folds == fold, folds != fold
            coef, intercept = self._head(x[train], y[train], None if w is None else w[train])
            held_out[test] = expit(x[test] @ coef + intercept)
        return best_threshold(y, held_out, w)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags


def _dealt(X: Floats) -> NDArray[np.intp]:
    """Return a number for each row, (N,), the same for equal rows, from 0 on.

    In which order says the rows' own content, so that it does not matter where they stand.
    """
    rows = [row.tobytes() for row in np.ascontiguousarray(X + 0)]  # no -0.0
    order = sorted(set(rows), key=lambda row: blake2b(row).digest())
    place = {row: i for i, row in enumerate(order)}
    return np.array([place[row] for row in rows], dtype=np.intp)


def assign_folds(dealt: NDArray[np.intp], y: NDArray[Any]) -> NDArray[np.intp] | None:
    """Return each row's fold, (N,); equal rows are in one, and each has its share of the label.

    None where fewer than :data:`_LEAST` different rows have the label, or lack it.
    """
    has = np.zeros(dealt.max() + 1, dtype=bool)
    has[dealt[y == 1]] = True
    if min(has.sum(), (~has).sum()) < _LEAST:
        return None
    order = np.argsort(has, kind="stable")
    fold = np.empty(len(has), dtype=np.intp)
    fold[order] = np.arange(len(has)) % _FOLDS
    return fold[dealt]


def best_threshold(y: NDArray[Any], p: Floats, w: Floats | None = None) -> float:
    """Return the threshold with the best F1 of ``p > threshold``, midway between two values of p.

    Of several, the one nearest to 0.5.
    """
    values = np.unique(p)
    cuts = np.concatenate([[values[0] / 2], (values[1:] + values[:-1]) / 2])
    w = np.ones(len(y)) if w is None else w
    given = p[:, None] > cuts
    true = (w * y) @ given
    f1 = 2 * true / (w @ given + w @ y)
    best = cuts[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])
