"""RIFF's prediction: Najafi & Fyshe, Findings of ACL 2024, arXiv 2403.02271, stage 3."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Tags

from fewfit.decoders.base import Decoder, Floats
from fewfit.decoders.pet import weighted_mean


class ParaphraseMean(Decoder):
    """Half the opinion on the text itself, half the mean opinion on its paraphrases.

    ``s = 0.5 m_0 + 0.5 mean_j m_j``, where m_0 are the scores of the first view, the text as it is,
    and m_j those of the M others. With no paraphrase it is the zero-shot decoder; where every
    paraphrase repeats the text it gives the same result. Nothing is learnt; the views come from
    :func:`fewfit.prompts.paraphrased`.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)

    Examples
    --------
    >>> scores = [[[2.0, 0.0], [0.0, 1.0], [0.0, 2.0]]] * 2
    >>> decoder = ParaphraseMean().fit([[0.0], [0.0]], ["a", "b"], scores=scores)
    >>> decoder.predict([[0.0]], scores=scores[:1])  # 0.5 * (2, 0) + 0.5 * (0, 1.5)
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    labels_needed: ClassVar[str] = "none"
    reference: ClassVar[str] = "Najafi & Fyshe 2024, arXiv 2403.02271"
    many_views: ClassVar[bool] = True

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        pass

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        if scores is None:
            return np.zeros((len(X), len(self.classes_)), dtype=X.dtype)
        M = scores.shape[1] - 1
        w = [0.5] + M * [0.5 / M] if M else [1.0]
        return weighted_mean(scores, np.array(w, dtype=X.dtype))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        tags.classifier_tags.poor_score = True  # the hidden states are not looked at
        return tags
