"""Multi-Prompting Decoder (MPD): Cheng et al., Findings of ACL 2025, arXiv 2406.06279.

Symbols, as in the paper: P prompts (views), Q prototypes per class; h hidden states (P, H), W
projection (D, H), V = W h (P, D), R prototypes of a class (Q, D), S their cosines (P, Q), T the
transport plan (P, Q).
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.decoders.adam import minimise
from fewfit.decoders.base import Decoder, Floats
from fewfit.decoders.unit import through_unit, unit
from fewfit.errors import InputError


class MPD(Decoder):
    """Match the hidden states of P prompts to Q prototypes per class by optimal transport.

    ``s[k] = sum_pq T[p, q] S[p, q]``, T being the entropic transport plan between the prompts'
    projections and the class's prototypes, at cost 1 - S and uniform marginals. W and R are trained
    by cross-entropy on ``s / temperature``, full-batch Adam, with T held constant; the decision is
    on ``s / temperature + beta * m``, m being the mean over the prompts of the calibrated scores.

    Parameters
    ----------
    n_views : int, optional
        P. Left out, it is the number of views of `scores`, or 1 without scores; the text classifier
        fills in the number of its templates.
    n_prototypes : int, default=3
        Q.
    proto_dim : int, default=128
        D.
    beta : "1/n" or float, default="1/n"
        Weight of the model's own scores; "1/n" is one over the mean number of examples per class.
    epsilon : float, default=0.1
        Strength of the entropy. Toward 0 each prompt is matched to one prototype; a large one
        averages all cosines.
    temperature : float, default=0.1
        What the cosines are divided by.
    joint_loss : bool, default=False
        Whether ``beta * m`` is inside the training loss too, as lambda * m is in DecT.
    lr : float, default=0.01
    n_steps : int, default=30
    random_state : int, RandomState or None, default=0

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    W_ : ndarray of shape (D, H')
        H' is the size of one view's hidden state.
    R_ : ndarray of shape (K, Q, D)
    beta_, n_views_ : ndarray of shape ()

    Notes
    -----
    There is no public code. P, Q and D are the paper's; epsilon, the temperature, the rule for
    beta, the steps and uniform marginals are not in what is published, and are choices of this
    library: PLOT's epsilon and at most 100 Sinkhorn iterations, DecT's rule and steps. ``Q = 1`` is
    the mean cosine whatever epsilon; ``P = Q = 1`` is one cosine. The order of the prompts does not
    matter. The random numbers are drawn class by class, in the order of the classes: with other
    names for the classes they are others.

    Examples
    --------
    >>> X = [[0.0, 1.0, 0.1, 1.0], [1.0, 0.0, 0.9, 0.0]]  # two views of two numbers
    >>> MPD(n_views=2).fit(X, ["a", "b"]).predict([[0.0, 2.0, 0.2, 1.0]])
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    reference: ClassVar[str] = "Cheng et al. 2025, arXiv 2406.06279"
    many_views: ClassVar[bool] = True
    draws_by_class: ClassVar[bool] = True
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "W_": ("D", "h"),
        "R_": ("K", "Q", "D"),
        "beta_": (),
        "n_views_": (),
    }
    fixed_arrays: ClassVar[frozenset[str]] = frozenset({"beta_", "n_views_"})

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "n_prototypes": [Interval(Integral, 1, None, closed="left")],
        "proto_dim": [Interval(Integral, 1, None, closed="left")],
        "beta": [StrOptions({"1/n"}), Interval(Real, None, None, closed="neither")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "joint_loss": ["boolean"],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        n_views: int | None = None,
        n_prototypes: int = 3,
        proto_dim: int = 128,
        beta: str | float = "1/n",
        epsilon: float = 0.1,
        temperature: float = 0.1,
        joint_loss: bool = False,
        lr: float = 0.01,
        n_steps: int = 30,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_views = n_views
        self.n_prototypes = n_prototypes
        self.proto_dim = proto_dim
        self.beta = beta
        self.epsilon = epsilon
        self.temperature = temperature
        self.joint_loss = joint_loss
        self.lr = lr
        self.n_steps = n_steps
        self.random_state = random_state

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        K, D, Q = len(self.classes_), self.proto_dim, self.n_prototypes
        told = 1 if scores is None else scores.shape[1]
        self.n_views_ = np.asarray(float(told if self.n_views is None else self.n_views))
        self.beta_ = np.asarray(self._beta(len(y) / K))
        h = self._views(X)
        prior = np.zeros((len(X), K), X.dtype)
        if scores is not None and self.joint_loss:
            prior += float(self.beta_) * scores.mean(axis=1)
        rng = check_random_state(self.random_state)
        W = rng.uniform(-1, 1, (D, h.shape[2])) / np.sqrt(h.shape[2])
        R = rng.standard_normal((K, Q, D)) / np.sqrt(D)
        self.W_, self.R_ = minimise(
            lambda arrays: loss_and_gradient(
                h, y, prior, *arrays, epsilon=self.epsilon, temperature=self.temperature
            ),
            [W.astype(X.dtype), R.astype(X.dtype)],
            lr=self.lr,
            n_steps=self.n_steps,
        )

    def restore(self, arrays: Mapping[str, Floats], classes: NDArray[Any]) -> Self:
        super().restore(arrays, classes)
        self.n_features_in_ = int(self.n_views_) * self.W_.shape[1]
        return self

    def _beta(self, n: float) -> float:
        if self.beta == "1/n":
            return 1.0 / n
        return float(self.beta)

    def _views(self, X: Floats) -> Floats:
        P = int(self.n_views_)
        if P < 1 or X.shape[1] % P:
            raise InputError(f"X: {X.shape[1]} columns are not the hidden states of {P} views")
        return X.reshape(len(X), P, -1)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        V, R = unit(self._views(X) @ self.W_.T)[0], unit(self.R_)[0]
        s = transport_scores(cosines(V, R), self.epsilon)[0] / self.temperature
        return s if scores is None else s + float(self.beta_) * scores.mean(axis=1)


def cosines(V: Floats, R: Floats) -> Floats:
    """Return S (N, K, P, Q) of unit vectors V (N, P, D) and R (K, Q, D)."""
    return np.einsum("npd,kqd->nkpq", V, R, optimize=True)


def transport_scores(S: Floats, epsilon: float, *, max_iter: int = 100) -> tuple[Floats, Floats]:
    """Return the scores ``sum_pq T S`` and the plans T for similarities S (..., P, Q)."""
    T = sinkhorn(1 - S, epsilon, max_iter=max_iter)
    return (T * S).sum(axis=(-2, -1)), T


def sinkhorn(C: Floats, epsilon: float, *, tolerance: float = 1e-9, max_iter: int = 100) -> Floats:
    """Return the entropic transport plans (..., P, Q) for costs C, with uniform marginals.

    In the log domain (Cuturi 2013, arXiv 1306.0895), so that a small `epsilon` does not overflow.
    Each problem stops on its own, and so none depends on the others in the block.

    Parameters
    ----------
    C : ndarray of shape (..., P, Q)
    epsilon : float
    tolerance : float
        Largest deviation of a row's sum from 1 / P at which a problem stops.
    max_iter : int
        Where it stops at the latest; columns then sum to 1 / Q, rows only nearly to 1 / P.
    """
    P, Q = C.shape[-2:]
    K = (-C.reshape(-1, P, Q) / epsilon).astype(np.float64)
    f, g = np.zeros((len(K), P, 1)), np.zeros((len(K), 1, Q))
    active = np.arange(len(K))
    for _ in range(max_iter):
        k, fa, ga = K[active], f[active], g[active]
        towards = _log_sum_exp(k + ga, axis=2)
        off = np.abs(np.exp(towards + fa) - 1 / P).max(axis=(1, 2))
        fa = -np.log(P) - towards
        ga = -np.log(Q) - _log_sum_exp(k + fa, axis=1)
        f[active], g[active] = fa, ga
        active = active[off > tolerance]
        if not len(active):
            break
    return np.exp(K + f + g).reshape(C.shape).astype(C.dtype)


def _log_sum_exp(x: Floats, *, axis: int) -> Floats:
    """SciPy's logsumexp without its checks, which cost more than the sum for a few numbers."""
    top = x.max(axis=axis, keepdims=True)
    return top + np.log(np.exp(x - top).sum(axis=axis, keepdims=True))


def loss_and_gradient(
    h: Floats,
    y: NDArray[np.intp],
    prior: Floats,
    W: Floats,
    R: Floats,
    *,
    epsilon: float,
    temperature: float,
) -> tuple[float, tuple[Floats, Floats]]:
    """Return the mean cross-entropy and its gradients by W and R, the plans held constant.

    Parameters
    ----------
    h : ndarray of shape (N, P, H)
    y : ndarray of shape (N,), positions of the classes
    prior : ndarray of shape (N, K)
        beta * m where that is inside the loss, else 0.
    """
    V, norm = unit(h @ W.T)
    z, length = unit(R)
    s, T = transport_scores(cosines(V, z), epsilon)
    log_p = log_softmax(s / temperature + prior, axis=1)
    rows = np.arange(len(y))
    g = np.exp(log_p)
    g[rows, y] -= 1
    dS = (g / (len(y) * temperature))[:, :, None, None] * T
    dV = np.einsum("nkpq,kqd->npd", dS, z, optimize=True)
    dR = np.einsum("nkpq,npd->kqd", dS, V, optimize=True)
    dW = np.einsum("npd,nph->dh", through_unit(dV, V, norm), h, optimize=True)
    return float(-log_p[rows, y].mean()), (dW, through_unit(dR, z, length))
