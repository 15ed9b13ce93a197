"""PromptBoosting: Hou, O'Connor, Andreas, Chang, Zhang, ICML 2023, arXiv 2212.09257.

Symbols: P prompts (views), V tokens, w weights of the examples (N), e weighted error, alpha weight
of a weak learner.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval

from fewfit.decoders.base import Decoder, Floats
from fewfit.errors import InputError

_BLOCK = 2**22  # combinations times examples that are looked at together


class PromptBoosting(Decoder):
    """AdaBoost over verbalizers that are found in the model's own next-token distributions.

    A weak learner is a prompt and one token per class: it says the class whose token is most
    probable at the slot. Prompts take turns. Tokens are screened first: with p the probability of
    a token, its score for class k is

        sum_i w_i p_i (+1 where y_i = k, else -1)                                       (eq. 1)

    A token belongs to the class for which it scores highest, and the best of each class are its
    candidates. Of all combinations of candidates the one with the least weighted error is taken
    (of two classes each also the other way round), and counts
    ``alpha = log((1 - e) / e) + log(K - 1)`` (SAMME, Zhu et al. 2009).

    Parameters
    ----------
    n_views : int, optional
        P: ``X`` holds the log-probabilities of P prompts side by side, (N, P * V). Left out, 1;
        the text classifier fills in the number of its templates.
    n_rounds : int, default=200
        Weak learners at most; it ends when each prompt has a perfect one.
    n_tokens : int, optional
        Candidates per class; left out, 50 for two classes, 10 for three and four, 5 for more, as
        in the authors' experiments.
    max_combinations : int, default=20000
        Of more combinations than these, a random choice is tried.
    random_state : int, RandomState or None, default=0

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    alpha_, views_ : ndarray of shape (T,)
        Weight and prompt of each weak learner.
    tokens_ : ndarray of shape (T, K)
        Its token for each class.
    n_views_ : ndarray of shape ()

    Notes
    -----
    All values are those of the authors' code, and so is the screening. The authors choose the
    number of learners, and for two classes one single learner, on as many further labels; here
    there are none, and all count. A perfect learner counts as if half of one example were wrong,
    where the reference code divides by zero. Of combinations with the same error the one is taken
    under which the classes are most likely, there the first of a random order. The probability is
    the softmax of ``sum alpha [h = k] / (K - 1)``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"full_vocabulary"})
    reference: ClassVar[str] = "Hou et al. 2023, arXiv 2212.09257"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "alpha_": ("T",),
        "views_": ("T",),
        "tokens_": ("T", "K"),
        "n_views_": (),
    }
    fixed_arrays: ClassVar[frozenset[str]] = frozenset({"views_", "n_views_"})

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "n_tokens": [Interval(Integral, 1, None, closed="left"), None],
        "max_combinations": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_views: int | None = None,
        n_rounds: int = 200,
        n_tokens: int | None = None,
        max_combinations: int = 20_000,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_views = n_views
        self.n_rounds = n_rounds
        self.n_tokens = n_tokens
        self.max_combinations = max_combinations
        self.random_state = random_state

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        P = 1 if self.n_views is None else self.n_views
        if P < 1 or X.shape[1] % P:
            raise InputError(f"X: {X.shape[1]} columns are not those of {P} views")
        N, K = len(y), len(self.classes_)
        self.n_views_ = np.asarray(float(P))
        log_p = self._distributions(X)
        rng = check_random_state(self.random_state)
        n_tokens = self.n_tokens or (50 if K == 2 else 10 if K <= 4 else 5)
        w = np.full(N, 1 / N)
        learners: list[tuple[float, int, NDArray[np.intp]]] = []
        errors: list[float] = []
        for round_ in range(self.n_rounds):
            view = round_ % P
            candidates = telling_tokens(np.exp(log_p[:, view]), y, w, K, n_tokens)
            tried = combinations(candidates, self.max_combinations, rng)
            tokens, wrong = best_combination(log_p[:, view], y, w, tried)
            e = float(w[wrong].sum())
            errors.append(e)
            if e < 1 - 1 / K:  # better than chance
                alpha = learner_weight(e or 1 / (2 * N), K)
                learners.append((alpha, view, tokens))
                w = w * np.exp(alpha * wrong)
                w /= w.sum()
            if round_ + 1 >= P and not any(errors[-P:]):
                break
        alphas, views, tokens = zip(*learners, strict=True) if learners else ([], [], [])
        self.alpha_ = np.array(alphas, dtype=float)
        self.views_ = np.array(views, dtype=float)
        self.tokens_ = np.array(tokens, dtype=float).reshape(len(learners), K)

    def _distributions(self, X: Floats) -> Floats:
        return log_softmax(X.reshape(len(X), int(self.n_views_), -1), axis=2)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        log_p, K = self._distributions(X), len(self.classes_)
        F = np.zeros((len(X), K), dtype=X.dtype)
        rows = np.arange(len(X))
        for alpha, view, tokens in zip(self.alpha_, self.views_, self.tokens_, strict=True):
            said = log_p[:, int(view), tokens.astype(int)].argmax(axis=1)
            F[rows, said] += alpha
        return F / (K - 1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.classifier_tags is not None
        # Features are read as log-probabilities: two of them hold only one number.
        tags.classifier_tags.poor_score = True
        return tags


def learner_weight(e: float, K: int) -> float:
    """Return ``alpha = log((1 - e) / e) + log(K - 1)``."""
    return float(np.log((1 - e) / e) + np.log(K - 1))


def telling_tokens(
    p: Floats, y: NDArray[np.intp], w: Floats, K: int, n: int
) -> list[NDArray[np.intp]]:
    """Return the n best tokens of each class by eq. 1, each token being of one class.

    Fewer for a class that has not as many; its single best by eq. 1 where it has none.

    Parameters
    ----------
    p : ndarray of shape (N, V)
    """
    own = (w[:, None] * np.eye(K)[y]).T @ p
    score = 2 * own - own.sum(axis=0)
    of_class = score.argmax(axis=0)
    chosen = []
    for k in range(K):
        mine = np.flatnonzero(of_class == k)
        mine = mine if len(mine) else score[k].argmax(keepdims=True)
        chosen.append(mine[np.argsort(-score[k, mine], kind="stable")[:n]])
    return chosen


def combinations(
    candidates: list[NDArray[np.intp]], limit: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Return combinations of one token per class, shape (C, K): all, or `limit` random ones.

    Of two classes, each stands twice, the second time the other way round.
    """
    if np.prod([float(len(tokens)) for tokens in candidates]) <= limit:
        tried = np.stack(np.meshgrid(*candidates, indexing="ij"), axis=-1)
        tried = tried.reshape(-1, len(candidates))
    else:
        # Drawn in the order of the tokens, so that it does not matter what classes are called.
        tried = np.empty((limit, len(candidates)), dtype=np.intp)
        for k in np.argsort([tokens.min() for tokens in candidates], kind="stable"):
            tried[:, k] = rng.choice(np.sort(candidates[k]), size=limit)
    return np.vstack([tried, tried[:, ::-1]]) if len(candidates) == 2 else tried


def best_combination(
    log_p: Floats, y: NDArray[np.intp], w: Floats, tried: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the combination with the least weighted error, and which rows (N,) it gets wrong.

    Of several, the one under which the classes are most likely.
    """
    tokens, place = np.unique(tried, return_inverse=True)
    place, by_token = place.reshape(tried.shape), np.ascontiguousarray(log_p[:, tokens].T)

    def is_wrong(c: NDArray[np.intp]) -> NDArray[np.bool_]:
        best = by_token[c[:, 0]]  # (C, N), one class after the other
        said = np.zeros(best.shape, dtype=np.intp)
        for k in range(1, c.shape[1]):
            own = by_token[c[:, k]]
            said[own > best] = k
            np.maximum(best, own, out=best)
        return said != y

    blocks = np.array_split(place, max(1, len(place) * len(y) // _BLOCK))
    errors = np.concatenate([is_wrong(block) @ w for block in blocks])
    least = np.flatnonzero(errors <= errors.min() + 1e-12)
    chosen = log_p[:, tried[least]]  # (N, few, K)
    rows = np.arange(len(y))
    likely = w @ (chosen[rows, :, y] - logsumexp(chosen, axis=2))
    first = least[likely.argmax()]
    return tried[first], is_wrong(place[first : first + 1])[0]
