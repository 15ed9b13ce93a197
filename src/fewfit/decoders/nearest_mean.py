"""Nearest class mean: prototypical networks without training, Snell et al. 2017."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.decoders.base import Floats, WeightedDecoder
from fewfit.decoders.unit import unit


class NearestMean(WeightedDecoder):
    """The class whose mean hidden state is nearest.

    With ``x = h / ||h||`` and c[k] the mean of a class's x, the score of a class is
    ``-|| x - c[k] ||^2``, whose softmax is the probability (eq. 2). With one example per class it
    is the nearest neighbour.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    c_ : ndarray of shape (K, H)
        The class means.

    Examples
    --------
    >>> decoder = NearestMean().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    >>> decoder.predict([[1.0, 3.0]])
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    reference: ClassVar[str] = "Snell et al. 2017, arXiv 1703.05175"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {"c_": ("K", "H")}

    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        x, _ = unit(X)
        own = [y == k for k in range(len(self.classes_))]
        w = [None if sample_weight is None else sample_weight[rows] for rows in own]
        self.c_ = np.stack(
            [np.average(x[rows], axis=0, weights=w_k) for rows, w_k in zip(own, w, strict=True)]
        )

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        x, _ = unit(X)
        return np.stack([-((x - c) ** 2).sum(axis=1) for c in self.c_], axis=1)
