"""SciPrompt's soft verbalizer, on a frozen model: You et al., EMNLP 2024, arXiv 2410.01946.

Symbols: s scores of the W label words, m the class scores that the verbalizer's weights make of
them, K classes, c the mean of s over the labelled examples, D what is learnt.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval

from fewfit.decoders.base import Floats, WeightedDecoder


class SoftVerbalizer(WeightedDecoder):
    """Label words whose weights the labels correct, starting from the verbalizer's own.

    ``X`` is the score of each label word, in place of a hidden state. Every class has a weight for
    every word, those of the other classes included, and

        f = m + (s - c) D,    D (W, K) = argmin  sum_i CE(f_i, y_i) + |D|^2 / (2 t^2)

    D = 0 is the verbalizer as it was given, semantic weights included; t is what a weight may
    change by. The minimum is unique, and found by L-BFGS.

    Parameters
    ----------
    spread : float, default=1.0
        t in units of K / W, which is the mean weight of a word in its class.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    coef_ : ndarray of shape (K, W)
        D.
    intercept_ : ndarray of shape (K,)
        -c D.

    Notes
    -----
    The paper puts a matrix (K, H) on the hidden state, which starts from the words' output
    embeddings and is trained by AdamW, together with the model: the text has their weighted mean,
    the released code their weighted sum divided by the number of words, not by the sum of the
    weights. Here the model stays,
    and the matrix is a mixture of the words' embeddings, since their scores are what is known: it
    starts at the same place, and a penalty instead of a few epochs keeps it near. With one word
    per class there is little to weigh.

    Examples
    --------
    >>> X = [[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]  # the third word says nothing
    >>> decoder = SoftVerbalizer().fit(X, ["a", "b"], scores=[[3.0, 0.0], [2.5, 1.0]])
    >>> decoder.predict(X, scores=[[3.0, 0.0], [1.2, 1.0]])
    array(['a', 'b'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"scores", "word_scores"})
    reference: ClassVar[str] = "You et al. 2024, arXiv 2410.01946"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "coef_": ("K", "H"),
        "intercept_": ("K",),
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "spread": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, spread: float = 1.0) -> None:
        self.spread = spread

    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        K = len(self.classes_)
        c = np.average(X.astype(np.float64), axis=0, weights=sample_weight)
        x = X - c
        m = np.zeros((len(y), K)) if scores is None else scores.astype(np.float64)
        spread = self.spread * K / max(X.shape[1], 1)
        D = correct(x, m, y, spread=spread, weight=sample_weight)
        self.coef_ = D.T.astype(X.dtype)
        self.intercept_ = -(c @ D).astype(X.dtype)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        change = X @ self.coef_.T + self.intercept_
        return change if scores is None else scores + change

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.poor_score = True  # without class scores it starts from nothing
        return tags


def correct(
    x: Floats, m: Floats, y: NDArray[np.intp], *, spread: float, weight: Floats | None = None
) -> Floats:
    """Return D (W, K) for centred word scores x (N, W) and class scores m (N, K)."""
    shape = (x.shape[1], m.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        return loss_and_gradient(flat.reshape(shape), x, m, y, spread, weight)

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    return found.x.reshape(shape)


def loss_and_gradient(
    D: Floats,
    x: Floats,
    m: Floats,
    y: NDArray[np.intp],
    spread: float,
    weight: Floats | None = None,
) -> tuple[float, Floats]:
    """Return the penalised cross-entropy and its gradient, flat."""
    log_p, rows = log_softmax(m + x @ D, axis=1), np.arange(len(y))
    w: Any = 1.0 if weight is None else weight[:, None]
    value = (D**2).sum() / (2 * spread**2) - (w * log_p[rows, y, None]).sum()
    p = np.exp(log_p)
    p[rows, y] -= 1
    return float(value), (x.T @ (w * p) + D / spread**2).ravel()
