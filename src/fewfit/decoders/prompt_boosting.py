"""PromptBoosting: Hou, O'Connor, Andreas, Chang, Zhang, ICML 2023, arXiv 2212.09257.

Symbols: P prompts (views), V tokens, w weights of the examples (N), e weighted error, alpha weight
of a weak learner.
"""

from __future__ import annotations

from itertools import product
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp
from sklearn.utils import Tags, check_random_state

from fewfit.decoders.base import Decoder, Floats
from fewfit.errors import InputError


class PromptBoosting(Decoder):
    """AdaBoost over verbalizers that are found in the model's own next-token distributions.

    A weak learner is a prompt and one token per class: it says the class whose token is most
    probable at the slot. Prompts take turns; of the tokens that tell the weighted examples of a
    class best from the others, the combination with the least weighted error is taken, and counts
    ``alpha = log((1 - e) / e) + log(K - 1)`` (SAMME, Zhu et al. 2009).

    Parameters
    ----------
    n_views : int, optional
        P: ``X`` holds the log-probabilities of P prompts side by side, (N, P * V). Left out, 1;
        the text classifier fills in the number of its templates.
    n_rounds : int, default=100
        Weak learners at most; it ends when each prompt has a perfect one.
    n_tokens : int, optional
        Candidates per class; left out, 5 for two classes and 3 for more, as in the paper.
    max_combinations : int, default=500
        Of more combinations than these, a random choice is tried. The paper has 20,000.
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
    The paper chooses the number of learners on as many further labels; here there are none, and all
    count. A perfect learner counts as if half of one example were wrong, where the reference code
    divides by zero. The probability is the softmax of ``sum alpha [h = k] / (K - 1)``.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"full_vocabulary"})
    reference: ClassVar[str] = "Hou et al. 2023, arXiv 2212.09257"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "alpha_": ("T",),
        "views_": ("T",),
        "tokens_": ("T", "K"),
        "n_views_": (),
    }

    def __init__(
        self,
        *,
        n_views: int | None = None,
        n_rounds: int = 100,
        n_tokens: int | None = None,
        max_combinations: int = 500,
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
        if self.n_rounds < 1 or self.max_combinations < 1:
            raise InputError("n_rounds, max_combinations: at least 1 is needed")
        N, K = len(y), len(self.classes_)
        self.n_views_ = np.asarray(float(P))
        log_p = self._distributions(X)
        rng = check_random_state(self.random_state)
        n_tokens = self.n_tokens or (5 if K == 2 else 3)
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
                alpha = learner_weight(max(e, 1 / (2 * N)), K)
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
    """Return for each class the n tokens that tell it best from the class that has most of them.

    By the weighted mean probability (N, V) of the class's examples less that of the other class.
    """
    share = w[:, None] * np.eye(K)[y]
    mean = (share / np.maximum(share.sum(axis=0), 1e-300)).T @ p
    chosen = []
    for k in range(K):
        lead = mean[k] - np.delete(mean, k, axis=0).max(axis=0)
        chosen.append(np.argsort(-lead, kind="stable")[:n])
    return chosen


def combinations(
    candidates: list[NDArray[np.intp]], limit: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Return combinations of one token per class, shape (C, K): all, or `limit` random ones."""
    if np.prod([float(len(tokens)) for tokens in candidates]) <= limit:
        return np.array(list(product(*candidates)))
    return np.stack([rng.choice(tokens, size=limit) for tokens in candidates], axis=1)


def best_combination(
    log_p: Floats, y: NDArray[np.intp], w: Floats, tried: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the combination with the least weighted error, and which rows (N,) it gets wrong.

    Of several, the one under which the classes are most likely.
    """
    chosen = log_p[:, tried]  # (N, C, K)
    wrong = chosen.argmax(axis=2) != y[:, None]
    errors = w @ wrong
    rows = np.arange(len(y))
    likely = w @ (chosen[rows, :, y] - logsumexp(chosen, axis=2))
    least = np.flatnonzero(errors <= errors.min() + 1e-12)
    best = least[likely[least].argmax()]
    return tried[best], wrong[:, best]
