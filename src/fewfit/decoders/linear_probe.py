"""Linear probe: logistic regression on the hidden state, the model's own scores unused."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from fewfit.decoders.base import Decoder, Floats

_GRID = (1.0, 10.0, 100.0, 1000.0)
_ALONE = 10.0


class LinearProbe(Decoder):
    """Multinomial logistic regression on unit-normalised hidden states.

    Parameters
    ----------
    C : float or "cv", default="cv"
        Inverse strength of the L2 penalty. "cv" takes the one of 1, 10, 100, 1000 with the lowest
        log loss in stratified cross-validation over the labelled examples themselves (at most 5
        folds, no shuffling), and 10 where a class has a single example and nothing can be held out.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes.
    C_ : float
        The inverse strength that was used.
    coef_ : ndarray of shape (K, H)
        Weights.
    intercept_ : ndarray of shape (K,)
        Biases.

    Notes
    -----
    With fewer examples than dimensions the problem is solved in the span of the examples, which
    is exact: an L2 penalty keeps the weights in that span.

    Examples
    --------
    >>> decoder = LinearProbe(C=10.0).fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    >>> decoder.predict([[2.0, 1.0]])
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "coef_": ("K", "H"),
        "intercept_": ("K",),
    }

    def __init__(self, C: float | str = "cv") -> None:
        self.C = C

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        unit = _unit(X)
        if len(unit) < unit.shape[1]:
            Q, R = np.linalg.qr(unit.T)  # unit = R.T Q.T, so the rows of R.T replace those of unit
            reduced = R.T
        else:
            Q, reduced = None, unit
        self.C_ = _choose(reduced, y) if self.C == "cv" else float(self.C)
        model = _regression(self.C_).fit(reduced, y)
        coef, intercept = model.coef_, model.intercept_
        if len(self.classes_) == 2:  # scikit-learn keeps one row; its softmax twin has two
            coef, intercept = (
                np.vstack([-coef, coef]) / 2,
                np.hstack([-intercept, intercept]) / 2,
            )
        self.coef_ = np.ascontiguousarray(coef if Q is None else coef @ Q.T)
        self.intercept_ = intercept

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        return _unit(X) @ self.coef_.T + self.intercept_


def _regression(C: float) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=1000, tol=1e-4)


def _choose(X: Floats, y: NDArray[np.intp]) -> float:
    folds = min(5, int(np.bincount(y).min()))
    if folds < 2:
        return _ALONE
    losses = np.zeros(len(_GRID))
    for train, test in StratifiedKFold(folds).split(X, y):
        for j, C in enumerate(_GRID):
            proba = _regression(C).fit(X[train], y[train]).predict_proba(X[test])
            losses[j] += log_loss(y[test], proba, labels=np.unique(y)) * len(test)
    return _GRID[int(losses.argmin())]


def _unit(X: Floats) -> Floats:
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(X.dtype).tiny)
