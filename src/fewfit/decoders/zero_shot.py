"""Zero-shot: the frozen model's own scores, nothing learnt."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags

from fewfit.decoders.base import Decoder, Floats


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

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        pass

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        return np.zeros((len(X), len(self.classes_)), dtype=X.dtype) if scores is None else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.poor_score = True
        return tags
