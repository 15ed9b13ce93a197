"""iPET on a frozen model: Schick & Schütze, EACL 2021, arXiv 2001.07676, sections 3.3 and 3.4.

One classifier per pattern (view), each trained on what the others say about unlabelled texts,
in generations; then all of them distilled into one.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from fewfit.decoders.base import Decoder, Floats
from fewfit.decoders.linear_probe import LinearProbe
from fewfit.decoders.pet import PET
from fewfit.decoders.unit import unit
from fewfit.errors import InputError


class IPET(Decoder):
    """Patterns teach each other on unlabelled texts, and then one student.

    The classifier of a pattern is a :class:`LinearProbe` on its hidden states. In each generation
    its training set grows by `factor` with pseudo-labelled texts, in the classes' proportions: they
    are labelled by the weighted mean logits of a random `share` of the *other* classifiers, and
    drawn without replacement with probability proportional to the confidence. In the end the
    weighted mean logits of all classifiers on the unlabelled texts are the soft targets, at
    `temperature`, of one linear softmax on the hidden states of all patterns. A pattern weighs as
    much as its scores were right on the labelled examples (:class:`PET`), 1 without scores.

    Parameters
    ----------
    n_views : int, optional
        P. Left out, it is the number of views of `scores`, or 1 without scores; the text classifier
        fills in the number of its templates. One pattern has no others to learn from: it teaches
        the student directly.
    generations : int, default=3
    factor : float, default=5
        Growth of the training set per generation; the unlabelled texts limit it.
    share : float, default=0.25
        Share of the other classifiers that label the texts of one, at least one of them.
    temperature : float, default=2.0
    C : float, default=10.0
        Inverse strength of the L2 penalty of the student.
    random_state : int, RandomState or None, default=0

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    coef_ : ndarray of shape (K, H)
    intercept_ : ndarray of shape (K,)
        The student.

    Notes
    -----
    The paper fine-tunes a language model per pattern, three times, and a student; here nothing but
    regressions is trained. `generations` counts those that are taught by others; the reference
    code's 3 count the first ensemble, which learns from the labels alone, too, so that they are 2
    here. Without unlabelled texts there is nothing to distil: on arrays it is then
    :class:`LinearProbe`, and of texts :class:`fewfit.FewShotClassifier` and a comparison refuse to
    fit it.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    labels_needed: ClassVar[str] = "1 per class, and unlabelled texts"
    reference: ClassVar[str] = "Schick & Schütze 2021, arXiv 2001.07676"
    many_views: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True
    needs_unlabelled: ClassVar[bool] = True
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "coef_": ("K", "H"),
        "intercept_": ("K",),
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "generations": [Interval(Integral, 0, None, closed="left")],
        "factor": [Interval(Real, 1, None, closed="left")],
        "share": [Interval(Real, 0, 1, closed="right")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "C": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_views: int | None = None,
        generations: int = 3,
        factor: float = 5.0,
        share: float = 0.25,
        temperature: float = 2.0,
        C: float = 10.0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_views = n_views
        self.generations = generations
        self.factor = factor
        self.share = share
        self.temperature = temperature
        self.C = C
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        pool: ArrayLike | None = None,
        pool_scores: ArrayLike | None = None,
    ) -> Self:
        """Fit the decoder; `pool` holds the hidden states of unlabelled texts, shape (M, H).

        The patterns' classifiers read hidden states alone: `pool_scores` is not looked at.
        """
        self._pool = None if pool is None else np.asarray(pool)
        try:
            return super().fit(X, y, scores=scores)
        finally:
            del self._pool

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        pool = self._pool
        if pool is None or not len(pool):
            student = LinearProbe()
            student.fit(X, y)
            self.coef_, self.intercept_ = student.coef_, student.intercept_
            return
        if pool.shape[1:] != X.shape[1:] or not np.isfinite(pool).all():
            raise InputError(f"pool: expected finite numbers of shape (M, {X.shape[1]})")
        pool = pool.astype(X.dtype)
        told = 1 if scores is None else scores.shape[1]
        P = told if self.n_views is None else self.n_views
        if P < 1 or X.shape[1] % P:
            raise InputError(f"X: {X.shape[1]} columns are not the hidden states of {P} views")
        w = np.ones(P)
        if scores is not None and told == P:
            w = PET().fit(X, y, scores=scores).w_.astype(float)
        views, pools = np.split(X, P, axis=1), np.split(pool, P, axis=1)
        rng = check_random_state(self.random_state)

        def teach(p: int, rows: NDArray[np.intp], labels: NDArray[np.intp]) -> Floats:
            probe = LinearProbe()
            probe.fit(np.vstack([views[p], pools[p][rows]]), np.concatenate([y, labels]))
            return probe._log_odds(pools[p], None)

        logits = in_generations(
            teach,
            y,
            w,
            generations=self.generations if P > 1 else 0,
            factor=self.factor,
            share=self.share,
            rng=rng,
        )
        teacher = np.average(logits, axis=0, weights=w)
        self.coef_, self.intercept_ = distil(
            unit(pool)[0], teacher, temperature=self.temperature, C=self.C
        )

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        return unit(X)[0] @ self.coef_.T + self.intercept_


def in_generations(
    teach: Callable[[int, NDArray[np.intp], NDArray[np.intp]], Floats],
    y: NDArray[np.intp],
    w: Floats,
    *,
    generations: int,
    factor: float,
    share: float,
    rng: np.random.RandomState,
) -> list[Floats]:
    """Let P classifiers label unlabelled rows for each other; no generation is PET's ensemble.

    Parameters
    ----------
    teach : callable
        Takes the number p of a classifier, and rows of the pool with their pseudo-labels. Trains
        it on these and the labelled examples, and returns its logits on the whole pool, (M, K).
    y : ndarray of shape (N,)
        The labelled examples' classes, 0..K-1.
    w : ndarray of shape (P,)
        How much each classifier weighs beside the others.
    generations : int
    factor, share, rng
        See :class:`IPET`.

    Returns
    -------
    list of ndarray
        The logits (M, K) of each classifier of the last generation.
    """
    P, none = len(w), np.empty(0, dtype=np.intp)
    logits = [teach(p, none, none) for p in range(P)]
    for generation in range(1, generations + 1):
        size = round(len(y) * factor**generation) - len(y)
        drawn = []
        for p in range(P):
            others = committee(P, p, share, rng)
            v = w[others] if w[others].any() else np.ones(len(others))
            opinion = np.average([logits[q] for q in others], axis=0, weights=v)
            drawn.append(pseudo_label(opinion, y, size, rng))
        logits = [teach(p, rows, labels) for p, (rows, labels) in enumerate(drawn)]
    return logits


def check_generations(generations: int, factor: float, share: float) -> None:
    """Refuse settings under which no training set can grow (InputError)."""
    if generations < 0 or not factor >= 1 or not 0 < share <= 1:
        raise InputError(
            f"generations: {generations} is at least 0; factor: {factor} is at least 1; share: "
            f"{share} is above 0 and at most 1"
        )


def committee(P: int, p: int, share: float, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Draw a share of the classifiers other than p, at least one; never p itself."""
    others = np.delete(np.arange(P), p)
    return rng.choice(others, size=max(1, round(share * len(others))), replace=False)


def pseudo_label(
    logits: Floats, y: NDArray[np.intp], size: int, rng: np.random.RandomState
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw pseudo-labelled rows of logits (M, K), in the class proportions of y.

    Returns
    -------
    rows, labels : ndarray
        At most `size` rows without repetition, fewer where the pool has not enough of a class.
    """
    proba = softmax(logits, axis=1)
    best, confidence = proba.argmax(axis=1), proba.max(axis=1)
    share = np.bincount(y, minlength=logits.shape[1]) / len(y)
    # The highest of these are a draw without replacement, one for all classes in any order.
    key = np.log(confidence) + rng.gumbel(size=len(confidence))
    rows: list[NDArray[np.intp]] = []
    for k in range(logits.shape[1]):
        there = np.flatnonzero(best == k)
        wanted = min(len(there), round(size * share[k]))
        rows.append(there[np.argsort(-key[there], kind="stable")[:wanted]])
    chosen = np.concatenate(rows)
    return chosen, best[chosen]


def distil(x: Floats, teacher: Floats, *, temperature: float, C: float) -> tuple[Floats, Floats]:
    """Fit a linear softmax to a teacher's logits (M, K) on x (M, H).

    The loss is ``T^2 mean KL(softmax(teacher / T) || softmax(student / T))``, whose gradient keeps
    its size whatever T, and ``||coef||^2 / (2 C M)``.
    """
    M, H = x.shape
    K = teacher.shape[1]

    def loss(flat: Floats) -> tuple[float, Floats]:
        coef, intercept = flat[: K * H].reshape(K, H), flat[K * H :]
        value, slope = distillation_loss(x @ coef.T + intercept, teacher, temperature)
        gradient = slope.T @ x + coef / (C * M)
        return (
            value + (coef**2).sum() / (2 * C * M),
            np.concatenate([gradient.ravel(), slope.sum(axis=0)]),
        )

    best = minimize(loss, np.zeros(K * H + K), jac=True, method="L-BFGS-B").x.astype(x.dtype)
    return best[: K * H].reshape(K, H), best[K * H :]


def distillation_loss(student: Floats, teacher: Floats, T: float) -> tuple[float, Floats]:
    """Return ``T^2 mean KL`` of softened logits (M, K), and its gradient by the student's."""
    p, log_q = softmax(teacher / T, axis=1), log_softmax(student / T, axis=1)
    kl = (p * (log_softmax(teacher / T, axis=1) - log_q)).sum(axis=1).mean()
    return float(T**2 * kl), T * (np.exp(log_q) - p) / len(student)
