"""PET's ensemble, on a frozen model: Schick & Schütze, EACL 2021, arXiv 2001.07676."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions

from fewfit.decoders.base import Decoder, Floats
from fewfit.errors import InputError


class PET(Decoder):
    """Patterns that were right more often on the labelled examples weigh more.

    With s_p the calibrated scores of pattern p (a view), the class scores are
    ``sum_p w_p s_p / sum_p w_p``. Nothing but the weights is learnt. The paper fine-tunes a model
    per pattern and weighs it by the accuracy that the pattern had before; this is its form for a
    model that cannot be changed. With one pattern it is the zero-shot decoder.

    Parameters
    ----------
    weights : {"accuracy", "uniform"}, default="accuracy"
        The paper's "weighted" and "uniform". Patterns that are all never right weigh the same.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    w_ : ndarray of shape (P,)
        The weights of the patterns.

    Examples
    --------
    >>> scores = [[[2.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 1.0]]]  # the first pattern is right
    >>> decoder = PET().fit([[0.0], [0.0]], ["a", "b"], scores=scores)
    >>> decoder.w_
    array([1. , 0.5])
    """

    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    reference: ClassVar[str] = "Schick & Schütze 2021, arXiv 2001.07676"
    many_views: ClassVar[bool] = True
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {"w_": ("P",)}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "weights": [StrOptions({"accuracy", "uniform"})],
    }

    def __init__(self, weights: str = "accuracy") -> None:
        self.weights = weights

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        P = 1 if scores is None else scores.shape[1]
        self.w_ = np.ones(P, dtype=X.dtype)
        if self.weights == "accuracy" and scores is not None:
            self.w_ = accuracies(scores, y).astype(X.dtype)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        if scores is None:
            return np.zeros((len(X), len(self.classes_)), dtype=X.dtype)
        return weighted_mean(scores, self.w_)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.poor_score = True  # the hidden states are not looked at
        return tags


def accuracies(scores: Floats, y: NDArray[np.intp]) -> Floats:
    """Return how often each pattern of scores (N, P, K) is right, shape (P,).

    A tie of several classes is right as often as a guess among them. Ones where none ever is
    right: as weights they must not all be zero.
    """
    highest = scores == scores.max(axis=2, keepdims=True)
    share = highest[np.arange(len(y)), :, y] / highest.sum(axis=2)
    right = share.mean(axis=0)
    return right if right.any() else np.ones_like(right)


def weighted_mean(scores: Floats, w: Floats) -> Floats:
    """Return ``sum_p w_p s_p / sum_p w_p`` of scores (N, P, K), shape (N, K).

    Raises
    ------
    InputError
        If there are not as many weights as views.
    """
    if scores.shape[1] != len(w):
        raise InputError(f"scores: {scores.shape[1]} views, but the decoder was fitted on {len(w)}")
    return np.einsum("p,npk->nk", w / w.sum(), scores)
