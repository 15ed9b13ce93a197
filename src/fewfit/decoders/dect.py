"""Decoder Tuning (DecT): Cui, Li, Ding, Huang, Liu, Sun, ACL 2023, arXiv 2212.08408.

Symbols, as in the paper: h hidden state (H), W projection (D, H), z prototypes (K, D), r radii
(K), m calibrated scores of the label words (K), lambda their weight, s class scores (K).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.decoders.base import Floats, WeightedDecoder
from fewfit.decoders.threads import one_thread

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_SMALL = 2**18  # numbers in X, below which a second thread costs more than it brings


class DecT(WeightedDecoder):
    """Random, fixed prototypes on a learnt projection, with the model's own opinion added.

    For one example, with ``u = W h`` and ``x = u / ||u||``::

        s[k] = -|| x - z[k] || + r[k] + lambda * m[k]                       (eq. 4 and 6)

    trained by cross-entropy on softmax(s), full-batch Adam on W and r; z never moves.

    Parameters
    ----------
    proto_dim : int, default=128
        D, the dimension of the prototypes.
    lam : "1/n" or float, default="1/n"
        lambda, the weight of the model's own scores (``model_logits_weight`` in the authors' code).
        "1/n" is the paper's rule, n being the mean number of examples per class: the model is
        trusted less as labels grow.
    normalize : bool, default=True
        Whether x is ``u / ||u||`` or u itself. The paper's formula and the code of its time have u;
        the authors' later code normalises, in two repositories, and so the scale of the hidden
        states, which differs by orders of magnitude between models, stops mattering. Therefore it
        is the default.
    lr : float, default=0.01
        Step size of Adam.
    n_steps : int, default=30
        Full-batch steps.
    random_state : int, RandomState or None, default=0
        Seed of W (uniform in +-1/sqrt(H)) and z (Xavier-uniform).

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    W_ : ndarray of shape (D, H)
    z_ : ndarray of shape (K, D)
    r_ : ndarray of shape (K,)
    lam_ : ndarray of shape ()
        The lambda that was used.

    Notes
    -----
    The reference code differs from the paper in that the prototypes are random and frozen, and the
    radius, computed from projections that are not normalised, acts as a class bias of any sign;
    both are followed here. Its scores are calibrated by division ("ratio"), which needs logits; the
    default here is "contextual", as for all decoders. The random numbers are drawn class by class,
    in the order of the classes: with other names for the classes they are others. With one example
    per class every radius starts at 0. Probabilities are not calibrated. Scores may be absent; then
    lambda * m is 0. So may hidden states, from a server that gives scores alone; then r is all that
    is learnt, a bias of the classes beside lambda * m.

    Examples
    --------
    >>> decoder = DecT().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    >>> decoder.predict([[0.1, 2.0]])
    array(['a'], dtype='<U1')
    """

    reference: ClassVar[str] = "Cui et al. 2023, arXiv 2212.08408"
    own_calibration: ClassVar[str | None] = "ratio"
    draws_by_class: ClassVar[bool] = True
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "W_": ("D", "H"),
        "z_": ("K", "D"),
        "r_": ("K",),
        "lam_": (),
    }
    fixed_arrays: ClassVar[frozenset[str]] = frozenset({"z_", "lam_"})

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "proto_dim": [Interval(Integral, 1, None, closed="left")],
        "lam": [StrOptions({"1/n"}), Interval(Real, None, None, closed="neither")],
        "normalize": ["boolean"],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        proto_dim: int = 128,
        lam: str | float = "1/n",
        normalize: bool = True,
        lr: float = 0.01,
        n_steps: int = 30,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.proto_dim = proto_dim
        self.lam = lam
        self.normalize = normalize
        self.lr = lr
        self.n_steps = n_steps
        self.random_state = random_state

    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        K, D, H = len(self.classes_), self.proto_dim, X.shape[1]
        rng = check_random_state(self.random_state)
        W = rng.uniform(-1, 1, (D, H)) / np.sqrt(H)
        z = rng.uniform(-1, 1, (K, D)) * np.sqrt(6 / (K + D))
        N = len(y) if sample_weight is None else float(sample_weight.sum())
        self.lam_ = np.asarray(self._lambda(N / K))
        prior = np.zeros((len(X), K), X.dtype)
        if scores is not None:
            prior = scores * float(self.lam_)
        with one_thread() if X.size <= _SMALL else nullcontext():
            self.W_, self.r_ = fit_projection(
                X,
                y,
                prior,
                W.astype(X.dtype),
                z.astype(X.dtype),
                normalize=self.normalize,
                lr=self.lr,
                n_steps=self.n_steps,
                weight=sample_weight,
            )
        self.z_ = z.astype(X.dtype)

    def _lambda(self, n: float) -> float:
        if self.lam == "1/n":
            return 1.0 / n
        return float(self.lam)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        u = X @ self.W_.T
        x = _on_the_sphere(u)[0] if self.normalize else u
        s = self.r_ - _distances(x, self.z_)
        return s if scores is None else s + float(self.lam_) * scores


def fit_projection(
    X: Floats,
    y: NDArray[np.intp],
    prior: Floats,
    W: Floats,
    z: Floats,
    *,
    normalize: bool,
    lr: float,
    n_steps: int,
    weight: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Return W (D, H) and r (K,) after `n_steps` of full-batch Adam; `W` is not changed.

    Parameters
    ----------
    X : ndarray of shape (N, H)
    y : ndarray of shape (N,), positions of the classes
    prior : ndarray of shape (N, K)
        lambda * m, a constant of the loss.
    W, z : ndarray of shape (D, H), (K, D)
        Where the projection starts; the prototypes.
    weight : ndarray of shape (N,), optional
        How many rows each row counts for.
    """
    # both products like W.T
    A, r = np.ascontiguousarray(W.T), initial_radii(X @ W.T, y, len(z), weight)
    moments_A, moments_r, dA = _Moments(A), _Moments(r), np.empty_like(A)
    for step in range(1, n_steps + 1):
        _, du, dr = loss_and_gradient(X @ A, y, prior, z, r, weight, normalize=normalize)
        moments_A.update(A, np.matmul(X.T, du, out=dA), lr, step)
        moments_r.update(r, dr, lr, step)
    return np.ascontiguousarray(A.T), r


def initial_radii(
    u: Floats, y: NDArray[np.intp], n_classes: int, weight: Floats | None = None
) -> Floats:
    """Mean distance of a class's projections to their centre, shape (K,) (eq. 5)."""
    if weight is not None:
        radii = []
        for k in range(n_classes):
            g, w = u[y == k], weight[y == k]
            centre = np.average(g, axis=0, weights=w)
            radii.append(np.average(np.linalg.norm(g - centre, axis=1), weights=w))
        return np.array(radii, dtype=u.dtype)
    groups = [u[y == k] for k in range(n_classes)]
    return np.array(
        [np.linalg.norm(g - g.mean(axis=0), axis=1).mean() for g in groups],
        dtype=u.dtype,
    )


def loss_and_gradient(
    u: Floats,
    y: NDArray[np.intp],
    prior: Floats,
    z: Floats,
    r: Floats,
    weight: Floats | None = None,
    *,
    normalize: bool,
) -> tuple[float, Floats, Floats]:
    """Return the mean cross-entropy and its gradients by u (N, D) and by r (K,).

    u holds the projections W h; the gradient by W is ``du.T @ X``.
    """
    N = len(u)
    x, norm = _on_the_sphere(u) if normalize else (u, None)
    d = _distances(x, z)
    s = r - d + prior
    s -= s.max(axis=1, keepdims=True)
    g = np.exp(s)
    total = g.sum(axis=1)
    rows = np.arange(N)
    losses = np.log(total) - s[rows, y]
    loss = float(losses.mean() if weight is None else np.average(losses, weights=weight))

    g /= total[:, None]
    g[rows, y] -= 1
    if weight is None:
        g /= N  # dL/ds = (p - onehot) / N
    else:
        g *= (weight / weight.sum())[:, None]
    # ds/dx = -(x - z) / d, taken as 0 where x lies on the prototype.
    pull = np.divide(g, d, out=np.zeros_like(g), where=d > 0)
    dx = pull @ z
    dx -= pull.sum(axis=1, keepdims=True) * x
    if norm is not None:  # through x = u / ||u||
        dx -= np.einsum("nd,nd->n", dx, x)[:, None] * x
        dx /= norm
    return loss, dx, g.sum(axis=0)


def _on_the_sphere(u: Floats) -> tuple[Floats, Floats]:
    """Return u / ||u|| and ||u|| (N, 1); a zero stays a zero."""
    norm = np.sqrt(np.einsum("nd,nd->n", u, u))[:, None]
    norm[norm == 0] = 1
    return u / norm, norm


def _distances(x: Floats, z: Floats) -> Floats:
    d = np.empty((len(x), len(z)), dtype=x.dtype)
    for k, prototype in enumerate(z):
        difference = x - prototype
        d[:, k] = np.einsum("nd,nd->n", difference, difference)
    return np.sqrt(d, out=d)


class _Moments:
    """Adam's running moments of one array, divided by 1 - beta, which saves passes over memory."""

    def __init__(self, parameter: Floats) -> None:
        self.first = np.zeros_like(parameter)
        self.second = np.zeros_like(parameter)

    def update(self, parameter: Floats, gradient: Floats, lr: float, step: int) -> None:
        """Take one step on `parameter` in place; `gradient` is overwritten."""
        # Python's floats, not NumPy's: those would turn single precision into double.
        scale = math.sqrt((1 - _BETA2) / (1 - _BETA2**step))
        self.first *= _BETA1
        self.first += gradient
        gradient *= gradient
        self.second *= _BETA2
        self.second += gradient
        np.sqrt(self.second, out=gradient)
        gradient += _EPSILON / scale
        np.divide(self.first, gradient, out=gradient)
        gradient *= lr * (1 - _BETA1) / (1 - _BETA1**step) / scale
        parameter -= gradient
