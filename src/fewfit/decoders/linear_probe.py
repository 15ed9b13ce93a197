"""Linear probe: logistic regression on the hidden state, the model's own scores unused."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.decoders.base import Floats
from fewfit.decoders.offset_regression import OffsetLogisticRegression


class LinearProbe(OffsetLogisticRegression):
    """Multinomial logistic regression on unit-normalised hidden states.

    It is :class:`OffsetLogisticRegression` without an offset: L2 penalties are weighed by their
    closed-form leave-one-out likelihood on the labelled examples and the fits averaged, so that
    no validation set is needed.

    Parameters
    ----------
    prior : {"balanced", "frequencies"}, default="balanced"
        As for :class:`OffsetLogisticRegression`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes.
    coef_ : ndarray of shape (K, H)
        Weights, for hidden states of unit length.
    intercept_ : ndarray of shape (K,)
        Biases.
    weight_variance_ : float
        Geometric mean of the prior variances of the weights that the labels have chosen.

    Examples
    --------
    >>> decoder = LinearProbe().fit([[1.0, 0.0], [0.0, 1.0]], ["a", "b"])
    >>> decoder.predict([[2.0, 1.0]])
    array(['a'], dtype='<U1')
    """

    unlabelled: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    unseen: ClassVar[bool] = False

    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        super()._fit(X, y, None, sample_weight)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        return super()._log_odds(X, None)
