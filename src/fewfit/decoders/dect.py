"""Decoder Tuning (DecT): Cui, Li, Ding, Huang, Liu, Sun, ACL 2023, arXiv 2212.08408.

Symbols, as in the paper: h hidden state (H), W projection (D, H), z prototypes (K, D), r radii
(K), m calibrated scores of the label words (K), lambda their weight, s class scores (K).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from fewfit.decoders.base import Decoder, Floats
from fewfit.errors import InputError

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_CACHED = 2**15


class DecT(Decoder):
    """Random, fixed prototypes on a learnt projection, with the model's own opinion added.

    For one example, with ``u = W h`` and ``x = u / ||u||``::

        s[k] = -|| x - z[k] || + r[k] + lambda * m[k]                       (eq. 4 and 6)

    trained by cross-entropy on softmax(s), full-batch Adam on W and r; z never moves.

    Parameters
    ----------
    proto_dim : int, default=128
        D, the dimension of the prototypes.
    lam : "1/n" or float, default="1/n"
        lambda. "1/n" is the paper's rule, n being the mean number of examples per class: the
        model is trusted less as labels grow.
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
    both are followed here. With one example per class every radius starts at 0. Probabilities are
    not calibrated. Scores may be absent; then lambda * m is 0.

    Examples
    --------
    >>> decoder = DecT().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    >>> decoder.predict([[0.1, 2.0]])
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    reference: ClassVar[str] = "Cui et al. 2023, arXiv 2212.08408"
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "W_": ("D", "H"),
        "z_": ("K", "D"),
        "r_": ("K",),
        "lam_": (),
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

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        K, D, H = len(self.classes_), self.proto_dim, X.shape[1]
        rng = check_random_state(self.random_state)
        W = rng.uniform(-1, 1, (D, H)) / np.sqrt(H)
        z = rng.uniform(-1, 1, (K, D)) * np.sqrt(6 / (K + D))
        self.lam_ = np.asarray(self._lambda(len(y) / K))
        self.W_, self.r_ = fit_projection(
            X,
            y,
            np.zeros((len(X), K), X.dtype) if scores is None else scores * X.dtype.type(self.lam_),
            W.astype(X.dtype),
            z.astype(X.dtype),
            normalize=self.normalize,
            lr=self.lr,
            n_steps=self.n_steps,
        )
        self.z_ = z.astype(X.dtype)

    def _lambda(self, n: float) -> float:
        if self.lam == "1/n":
            return 1.0 / n
        if isinstance(self.lam, str) or not np.isfinite(self.lam):
            raise InputError(f"lam: expected '1/n' or a finite number, got {self.lam!r}")
        return float(self.lam)

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        x, _ = _project(X, self.W_, normalize=self.normalize)
        s = self.r_ - _distances(x, self.z_)
        return s if scores is None else s + self.lam_ * scores


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
    """
    W, r = W.copy(), initial_radii(X @ W.T, y, len(z))
    moments_W, moments_r, dW = _Moments(W), _Moments(r), np.empty_like(W)
    for step in range(1, n_steps + 1):
        _, dW, dr = loss_and_gradient(X, y, prior, W, z, r, normalize=normalize, out=dW)
        moments_W.update(W, dW, lr, step)
        moments_r.update(r, dr, lr, step)
    return W, r


def initial_radii(u: Floats, y: NDArray[np.intp], n_classes: int) -> Floats:
    """Mean distance of a class's projections to their centre, shape (K,) (eq. 5)."""
    groups = [u[y == k] for k in range(n_classes)]
    return np.array(
        [np.linalg.norm(g - g.mean(axis=0), axis=1).mean() for g in groups],
        dtype=u.dtype,
    )


def loss_and_gradient(
    X: Floats,
    y: NDArray[np.intp],
    prior: Floats,
    W: Floats,
    z: Floats,
    r: Floats,
    *,
    normalize: bool,
    out: Floats | None = None,
) -> tuple[float, Floats, Floats]:
    """Return the mean cross-entropy and its gradients by W (written to `out`) and by r."""
    N = len(X)
    x, norm = _project(X, W, normalize=normalize)
    d = _distances(x, z)
    s = r - d + prior
    s -= s.max(axis=1, keepdims=True)
    g = np.exp(s)
    total = g.sum(axis=1)
    rows = np.arange(N)
    loss = float((np.log(total) - s[rows, y]).mean())

    g /= total[:, None]
    g[rows, y] -= 1
    g /= N  # dL/ds = (p - onehot) / N
    # ds/dx = -(x - z) / d, taken as 0 where x lies on the prototype.
    pull = np.divide(g, d, out=np.zeros_like(g), where=d > 0)
    dx = pull @ z - pull.sum(axis=1, keepdims=True) * x
    if normalize:  # through x = u / ||u||
        dx -= (dx * x).sum(axis=1, keepdims=True) * x
        dx = np.divide(dx, norm, out=np.zeros_like(dx), where=norm > 0)
    return loss, np.matmul(dx.T, X, out=out), g.sum(axis=0)


def _project(X: Floats, W: Floats, *, normalize: bool) -> tuple[Floats, Floats]:
    u = X @ W.T
    norm = np.linalg.norm(u, axis=1, keepdims=True)
    return (u / np.where(norm > 0, norm, 1) if normalize else u), norm


def _distances(x: Floats, z: Floats) -> Floats:
    d = np.empty((len(x), len(z)), dtype=x.dtype)
    for k, prototype in enumerate(z):
        difference = x - prototype
        d[:, k] = np.einsum("nd,nd->n", difference, difference)
    return np.sqrt(d, out=d)


class _Moments:
    """Adam's running moments of one array, divided by 1 - beta, which saves passes over memory."""

    def __init__(self, parameter: Floats) -> None:
        self.first = np.zeros(parameter.size, parameter.dtype)
        self.second = np.zeros(parameter.size, parameter.dtype)

    def update(self, parameter: Floats, gradient: Floats, lr: float, step: int) -> None:
        """Take one step on `parameter` in place; `gradient` is overwritten."""
        scale = np.sqrt((1 - _BETA2) / (1 - _BETA2**step))
        rate = lr * (1 - _BETA1) / (1 - _BETA1**step) / scale
        flat, slope = parameter.reshape(-1), gradient.reshape(-1)
        for start in range(0, flat.size, _CACHED):  # all passes over one piece, then the next
            piece = slice(start, start + _CACHED)
            first, second, g = self.first[piece], self.second[piece], slope[piece]
            first *= _BETA1
            first += g
            g *= g
            second *= _BETA2
            second += g
            np.sqrt(second, out=g)
            g += _EPSILON / scale
            np.divide(first, g, out=g)
            g *= rate
            flat[piece] -= g
