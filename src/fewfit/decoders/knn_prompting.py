"""kNN-Prompting: Xu, Wang, Mao, Lyu, She, Zhang, ICLR 2023, arXiv 2303.13824."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval

from fewfit.decoders.base import Decoder, Floats

_CHUNK = 512  # rows whose distances are computed at once


class KNNPrompting(Decoder):
    """Vote of the labelled examples at which the model's next-token distribution is most alike.

    ``X`` is the log-probability of each of the V tokens at the slot, in place of a hidden state;
    a constant on a row changes nothing. The distance to an anchor, with its distribution a, is
    ``KL(a || p)``, the direction of the reference code. The probability of a class is its share of
    the votes, so many are exactly 0; a tie goes to the first class, and so does one of distances,
    as of one text that stands among the examples with several labels.

    Parameters
    ----------
    k : int, default=3
        Neighbours that vote; at most the number of examples of the smallest class.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    anchors_ : ndarray of shape (A, V)
        Log-probabilities of the labelled examples, class after class.
    votes_ : ndarray of shape (A, K)
        Their classes, one-hot.

    Notes
    -----
    The paper asks with demonstrations in front, which are not anchors themselves; here they are a
    view, :class:`fewfit.prompts.InContext`, in which no example is its own demonstration, and so
    every label is an anchor. It keeps all distributions: A times V numbers. Of several views the
    distributions are put side by side, which makes the distance the mean of the views' distances.

    Examples
    --------
    >>> anchors = np.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    >>> KNNPrompting().fit(anchors, ["a", "b"]).predict(np.log([[0.5, 0.3, 0.2]]))
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"full_vocabulary"})
    reference: ClassVar[str] = "Xu et al. 2023, arXiv 2303.13824"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "anchors_": ("A", "H"),
        "votes_": ("A", "K"),
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "k": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(self, k: int = 3) -> None:
        self.k = k

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        by_class = np.argsort(y, kind="stable")
        self.anchors_ = log_softmax(X[by_class], axis=1)
        self.votes_ = np.eye(len(self.classes_), dtype=X.dtype)[y[by_class]]

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        k = min(self.k, int(self.votes_.sum(axis=0).min()))
        distance = divergence(self.anchors_, log_softmax(X, axis=1))
        # Anchors that are the same are equally far, which a matrix product only nearly says.
        first: dict[bytes, int] = {}
        distance = distance[
            :, [first.setdefault(a.tobytes(), i) for i, a in enumerate(self.anchors_)]
        ]
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
        with np.errstate(divide="ignore"):
            return np.log(self.votes_[nearest].sum(axis=1))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        # Features are read as log-probabilities: two of them hold only one number.
        tags.classifier_tags.poor_score = True
        return tags


def divergence(log_a: Floats, log_p: Floats) -> Floats:
    """Return ``KL(a || p)`` of every row p (N, V) from every anchor a (A, V), shape (N, A).

    In float64: near distributions differ by less than what float32 makes of the sums.
    """
    log_a = log_a.astype(np.float64)
    a = np.exp(log_a)
    own = np.einsum("av,av->a", a, np.where(a > 0, log_a, 0))
    found = np.empty((len(log_p), len(a)))
    # A token that the query holds impossible is as unlikely as the number format allows.
    floor = np.log(np.finfo(log_p.dtype).tiny)
    for start in range(0, len(log_p), _CHUNK):
        rows = np.maximum(log_p[start : start + _CHUNK].astype(np.float64), floor)
        found[start : start + _CHUNK] = own - rows @ a.T
    return found
