"""Calibration: estimate a frozen model's prior over labels, and remove it.

One object does both, in a named score space:

* contextual calibration (Zhao et al. 2021, arXiv 2102.09690) divides label *probabilities* by
  those of content-free inputs; here it is the same thing as a subtraction of logarithms,
* domain-context calibration (Fei et al. 2023, arXiv 2305.19148) does so with inputs made of random
  words of the task's own texts,
* batch calibration (Zhou et al. 2024, arXiv 2309.17249) divides by the mean of the very rows that
  are to be decided,
* domain-conditional PMI (Holtzman et al. 2021, arXiv 2104.08315) divides by the probability that
  each answer has after a premise alone,
* DecT's calibration (Cui et al. 2023, arXiv 2212.08408, section 3.2) divides raw *logits*.

Scores are class scores of shape (N, K); the prior has shape (K,), float64, in the space of the
scores. Each template has its own prior.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.errors import CalibrationError, CapabilityError, InputError
from fewfit.observations import ScoreSpace
from fewfit.parameters import check_parameters, look_up, make
from fewfit.prompts import Part, Prompt, Row, View
from fewfit.prompts.content_free import pseudo_documents

Scores = NDArray[np.floating]

COARSEST = 0.1
"""Largest step of the probabilities with which a few answers tell a prior."""


@dataclass(frozen=True)
class Calibration(ABC):
    """How to estimate the prior over labels from content-free inputs, and how to remove it.

    Attributes
    ----------
    content_free : tuple of str
        Texts without content that are asked beside the examples, one query each.
    """

    name: ClassVar[str]
    spaces: ClassVar[frozenset[ScoreSpace]] = frozenset(ScoreSpace)
    row_independent: ClassVar[bool] = True
    """Whether a row's calibrated score depends on that row alone."""
    coarse: ClassVar[bool] = False
    """Whether scores may be counts of a few answers (:attr:`Capabilities.resolution`)."""
    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "0, and 1 per content-free text once"
    reference: ClassVar[str]

    _parameter_constraints: ClassVar[dict[str, Any]] = {"content_free": [tuple]}
    needs_content_free: ClassVar[bool] = False
    """Whether its prior is that of its content-free texts, so that there has to be one."""

    content_free: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.content_free, list):
            object.__setattr__(self, "content_free", tuple(self.content_free))
        check_parameters(self)
        if not all(isinstance(text, str) for text in self.content_free):
            raise InputError(f"content_free: {type(self).__name__} takes texts, and one is none")
        if self.needs_content_free and not self.content_free:
            raise InputError(f"content_free: {type(self).__name__} needs at least one text")

    @property
    def learns(self) -> bool:
        """Whether :meth:`fitted` looks at labels."""
        return False

    def check(self, space: ScoreSpace, resolution: float = 0.0) -> None:
        """Refuse scores for which this calibration is not defined (CapabilityError).

        Parameters
        ----------
        space : ScoreSpace
        resolution : float
            Smallest step of the probabilities behind them.
        """
        if space not in self.spaces:
            raise CapabilityError(
                f"{self.name!r} calibration is defined for {sorted(self.spaces)}, but this frozen "
                f"model gives {space.value!r} scores; use 'contextual'"
            )
        if resolution > COARSEST and not self.coarse:
            raise CapabilityError(
                f"{self.name!r} calibration takes what the model says to nothing for a prior, and "
                f"{round(1 / resolution)} answers in words do not tell one; use 'none' or 'batch', "
                f"or ask for {round(1 / COARSEST)} samples (samples=, temperature=)"
            )

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        """Return the content-free prompts of one view; `rows` are the examples of the fit."""
        return [view.render(dict.fromkeys(view.fields, text)) for text in self.content_free]

    def fitted(self, scores: Scores, y: NDArray[np.intp], space: ScoreSpace) -> Calibration:
        """Return this calibration with what it learns from labels; most learn nothing.

        Parameters
        ----------
        scores : ndarray of shape (N, P, K)
            Class scores of the labelled examples for each view, in units of log-odds.
        y : ndarray of shape (N,)
            Positions of their classes.
        space : ScoreSpace
        """
        return self

    @abstractmethod
    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        """Estimate the prior (K,) from the class scores (M, K) of the content-free inputs."""

    @abstractmethod
    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        """Return the class scores (N, K) without the prior; the input is not changed."""


@dataclass(frozen=True)
class NoCalibration(Calibration):
    """Leave the scores as they are."""

    name = "none"
    coarse = True
    requires = frozenset()
    queries_per_example = "0"
    reference = ""

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return np.zeros(scores.shape[1])

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64)


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
        return _log_mean(scores, space)

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
        "seed": [Interval(Integral, 0, 2**32 - 1, closed="both")],
    }
    queries_per_example = "0, and 20 once"
    reference = "Fei et al. 2023, arXiv 2305.19148"

    content_free: tuple[str, ...] = ()
    n_documents: int = 20
    seed: int = 0

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        documents = pseudo_documents(rows, view.fields, n=self.n_documents, seed=self.seed)
        return [view.render(row) for row in documents]


@dataclass(frozen=True)
class BatchCalibration(Calibration):
    """Subtract the mean of the rows that are to be decided, no extra query (Zhou et al. 2024).

    The prior is the mean label probability over the batch: of the examples in `fit`, of the rows
    of one call in `predict`. So **a row's result depends on the rows beside it**, a single row
    becomes a tie, and predictions are pushed toward equal numbers per class: right where the
    classes are balanced, harmful where they are not.

    Attributes
    ----------
    strength : float or "labels"
        gamma in ``log p - gamma * log prior``: 1 is the plain method, 0 is no calibration.
        "labels" chooses it in [-5, 5] for the lowest log loss of the labelled examples, which is
        the paper's few-shot form.
    """

    name = "batch"
    coarse = True
    row_independent = False
    labels_needed = "none; any for strength='labels'"
    queries_per_example = "0"
    reference = "Zhou et al. 2024, arXiv 2309.17249"
    bound: ClassVar[float] = 5.0
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Calibration._parameter_constraints,
        "strength": [StrOptions({"labels"}), Interval(Real, None, None, closed="neither")],
    }

    strength: float | str = 1.0

    @property
    def learns(self) -> bool:
        return self.strength == "labels"

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return _log_mean(scores, space)

    def fitted(self, scores: Scores, y: NDArray[np.intp], space: ScoreSpace) -> BatchCalibration:
        if self.strength != "labels":
            return self
        prior = np.stack([self.prior(scores[:, p], space) for p in range(scores.shape[1])])

        def loss(gamma: float) -> float:
            s = (scores - gamma * prior).mean(axis=1)
            return -float(log_softmax(s, axis=1)[np.arange(len(y)), y].mean())

        best = minimize_scalar(loss, bounds=(-self.bound, self.bound), method="bounded")
        return replace(self, strength=float(best.x))

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        if isinstance(self.strength, str):
            raise CalibrationError("strength='labels' is chosen by fit; call it, or give a number")
        return scores.astype(np.float64) - self.strength * prior


@dataclass(frozen=True)
class PMICalibration(Calibration):
    """Subtract what each answer scores after a premise without an example (Holtzman et al. 2021).

    Domain-conditional pointwise mutual information, ``log P(y|x) - log P(y|premise)``: an answer
    that is common everywhere gains nothing by it. Unlike contextual calibration the premise need
    not be the template, and nothing is normalised over the classes, so that scores of multi-token
    answers may be summed log-probabilities. Several label words of a class are reduced to their
    best before the premise is removed; the paper has one answer per class.

    Attributes
    ----------
    premise : str
        A stub of the task with one ``{mask}`` and no field, for example ``"The topic is {mask}"``.
        Empty means the view's own template with empty fields.
    """

    name = "pmi"
    needs_content_free = True
    spaces = frozenset({ScoreSpace.LOGIT, ScoreSpace.LOGPROB})
    queries_per_example = "0, and 1 once"
    reference = "Holtzman et al. 2021, arXiv 2104.08315"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Calibration._parameter_constraints,
        "premise": [str],
    }

    content_free: tuple[str, ...] = ("",)
    premise: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.premise and self.premise.count("{mask}") != 1:
            raise InputError(f"premise: exactly one {{mask}} is needed in {self.premise!r}")

    def prompts(self, view: View, rows: Sequence[Row]) -> list[Prompt]:
        if not self.premise:
            return super().prompts(view, rows)
        before, _, after = self.premise.partition("{mask}")
        parts = (Part("literal", before), Part("mask", ""), Part("literal", after))
        return [Prompt(tuple(part for part in parts if part.kind == "mask" or part.text))]

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        return scores.astype(np.float64).mean(axis=0)

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) - prior


@dataclass(frozen=True)
class RatioCalibration(Calibration):
    """Divide raw logits by those of the empty text, as DecT does.

    ``c_bar = c / mean(c)`` and ``m_cal = m / (c_bar + 1e-15)``. Unlike a subtraction this is not
    invariant to a constant added to all logits, and it explodes or flips signs where a content-free
    logit is near zero or negative; such a prior is refused.

    Raises
    ------
    CalibrationError
        If an entry of `c_bar` is below 0.01, from :meth:`prior`.
    """

    name = "ratio"
    needs_content_free = True
    reference = "Cui et al. 2023, arXiv 2212.08408"
    spaces = frozenset({ScoreSpace.LOGIT})
    smallest: ClassVar[float] = 0.01

    content_free: tuple[str, ...] = ("",)

    def prior(self, scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
        c = scores.astype(np.float64).mean(axis=0)
        mean = c.mean()
        c_bar = c / mean if mean > 0 else np.full_like(c, -np.inf)
        if c_bar.min() < self.smallest:
            raise CalibrationError(
                f"'ratio' calibration divides by the content-free logits {c.tolist()}, which are "
                "not safely positive; use calibration='contextual'. Nothing needs to be asked again"
            )
        return c_bar

    def remove(self, scores: Scores, prior: Scores) -> NDArray[np.float64]:
        return scores.astype(np.float64) / (prior + 1e-15)


CALIBRATIONS: dict[str, type[Calibration]] = {
    kind.name: kind
    for kind in (
        NoCalibration,
        ContextualCalibration,
        DomainContextCalibration,
        BatchCalibration,
        PMICalibration,
        RatioCalibration,
    )
}


def default_calibration(resolution: float = 0.0) -> Calibration:
    """Return the calibration where none is named: contextual, and none for a few answers in words.

    Parameters
    ----------
    resolution : float
        Smallest step of the probabilities behind the scores.
    """
    return NoCalibration() if resolution > COARSEST else ContextualCalibration()


def make_calibration(
    calibration: str | Calibration, *, options: Mapping[str, Any] | None = None
) -> Calibration:
    """Return the calibration of this name; a calibration is returned as it is.

    Parameters
    ----------
    calibration : str or Calibration
    options : mapping of str to value, optional
        Parameters of the one that is named, as text or as they are.

    Raises
    ------
    InputError
        If nothing is known under this name, or it has no such parameter or value.
    """
    if isinstance(calibration, Calibration):
        if options:
            raise InputError("option: give options with the name of a calibration, not with one")
        check_parameters(calibration)
        return calibration
    kind = look_up(calibration, CALIBRATIONS, parameter="calibration")
    return make(kind, options or {}, who=f"{calibration!r} calibration")


def _log_mean(scores: Scores, space: ScoreSpace) -> NDArray[np.float64]:
    """Logarithm of the mean label probability over the rows; the mean score for similarities."""
    scores = scores.astype(np.float64)
    if space is ScoreSpace.SIMILARITY:
        return scores.mean(axis=0)
    return logsumexp(log_softmax(scores, axis=1), axis=0) - np.log(len(scores))
