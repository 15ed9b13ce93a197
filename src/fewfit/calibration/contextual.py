"""What the model says to nothing: contextual calibration, and with words of the domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from sklearn.utils._param_validation import Interval

from fewfit.calibration.base import Calibration, Scores, log_mean
from fewfit.choices import SEEDS
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt, Row, View
from fewfit.prompts.content_free import pseudo_documents


@dataclass(frozen=True)
class ContextualCalibration(Calibration):
    """Subtract what the model says to nothing (Zhao et al. 2021).

    In the space ``logprob`` the prior is the logarithm of the label probabilities, averaged over
    the content-free inputs and then normalised over the K classes, as the authors' code does;
    subtracting it equals the paper's division of probabilities. Where several inputs are asked,
    those on which the model says a label word at all count for more. A ``logit`` does not tell the
    probability among all tokens, and so there each input is normalised before the average: every
    input counts the same. In ``similarity`` it is the mean score.

    The default is the empty text alone, one extra query; the paper's three inputs are
    ``("N/A", "", "[MASK]")``.
    """

    name = "contextual"
    needs_content_free = True
    reference = "Zhao et al. 2021, arXiv 2102.09690"

    content_free: tuple[str, ...] = ("",)

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        if space is ScoreSpace.LOGPROB:
            return log_softmax(logsumexp(scores.astype(np.float64), axis=0))
        return log_mean(scores, space)

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) - prior


@dataclass(frozen=True)
class DomainContextCalibration(ContextualCalibration):
    """Contextual calibration with pseudo-documents of the task's own words (Fei et al. 2023).

    Each of `n_documents` content-free texts has one word more than the average example and is
    drawn, with replacement, from the words of the examples that the fit is given; their labels are
    not looked at. It sees a bias toward a label that the domain's words alone cause, which an
    empty text cannot show. The paper's code draws from the test texts.

    Attributes
    ----------
    n_documents : int
        How many; each costs one query. The paper takes 20.
    seed : int
    """

    name = "domain-context"
    needs_content_free = False
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Calibration._parameter_constraints,
        "n_documents": [Interval(Integral, 1, None, closed="left")],
        "seed": [Interval(Integral, 0, SEEDS - 1, closed="both")],
    }
    queries_per_example = "0, and 20 once"
    reference = "Fei et al. 2023, arXiv 2305.19148"

    content_free: tuple[str, ...] = ()
    n_documents: int = 20
    seed: int = 0

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        documents = pseudo_documents(rows, view.fields, n=self.n_documents, seed=self.seed)
        return [view.render(row) for row in documents]
