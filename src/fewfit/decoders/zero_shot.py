"""Zero-shot: the frozen model's own scores, nothing learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_array

from fewfit.decoders.base import Decoder, Floats
from fewfit.decoders.offset_regression import OffsetLogisticRegression


class ZeroShot(Decoder):
    """Believe the model: the class whose calibrated score is highest.

    Probabilities are the softmax of the scores. Labels only name the classes; nothing is learnt
    from them. Without scores there is no evidence, and every class is equally likely.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes.

    Examples
    --------
    >>> decoder = ZeroShot().fit([[0.0], [0.0]], ["no", "yes"], scores=[[1, 0], [0, 1]])
    >>> decoder.predict([[0.0]], scores=[[-2, 3]])
    array(['yes'], dtype='<U3')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    labels_needed: ClassVar[str] = "none"
    unseen: ClassVar[bool] = True
    adapts: ClassVar[bool] = True

    def adapt(
        self,
        X: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        labelled: Sequence[Any] | None = None,
    ) -> OffsetLogisticRegression:
        """Return the model's scores with what texts without labels add to them.

        It is :meth:`OffsetLogisticRegression.adapt` of a decoder whose log-odds are the scores, and
        looks at no label, here neither.
        """
        H = check_array(X, input_name="pool", ensure_min_features=0).shape[1]
        K = len(self.classes_)
        arrays = {
            "coef_": np.zeros((K, H), np.float32),
            "intercept_": np.zeros(K, np.float32),
            "strength_": np.ones((), np.float32),
        }
        plain = OffsetLogisticRegression().restore(arrays, self.classes_)
        return plain.adapt(X, scores=scores)

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        pass

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        return np.zeros((len(X), len(self.classes_)), dtype=X.dtype) if scores is None else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.poor_score = True
        return tags
