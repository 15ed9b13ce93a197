"""ProtoVerb: Cui, Hu, Ding, Huang, Liu, ACL 2022, arXiv 2203.09770.

Symbols, as in the paper: h hidden state (H), W projection (D, H), v = W h, c prototypes (K, D),
S cosine similarity.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval

from fewfit.decoders.adam import minimise
from fewfit.decoders.base import Decoder, Floats
from fewfit.decoders.unit import through_unit, unit


class ProtoVerb(Decoder):
    """Prototypes learnt by contrast, averaged with the model's own opinion.

    W and c are trained together, full-batch Adam, on two contrasts of ``exp S`` (eq. 3 and 4):
    each example with its own class's prototype against all prototypes, and with the examples of
    its class against all examples. The class score is the mean of two z-scores over the classes,
    those of ``S(v, c[k])`` and of the calibrated label-word scores.

    With two classes a z-score is only a vote, +0.71 or -0.71: where prototypes and model agree,
    that is the score, and where they contradict each other the votes cancel, and the prototypes,
    which the labels have taught, decide alone with ``S(v, c[k])``.

    Parameters
    ----------
    proto_dim : int, default=64
        D.
    lr : float, default=0.01
        Step size of Adam.
    n_steps : int, default=30
        Full-batch steps.
    ensemble : bool, default=True
        Whether the model's scores take part; without them the score is ``S(v, c[k])``.
    random_state : int, RandomState or None, default=0
        Seed of W and c.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    W_ : ndarray of shape (D, H)
    c_ : ndarray of shape (K, D)

    Notes
    -----
    Unlike the reference code, classes may have different numbers of examples: each contrast is a
    mean over its pairs. In the reference code the contrast of an example with one of its class
    leaves the others of its class out of the denominator; here that is the sum over all examples.
    There, with two classes, rounding decides where prototypes and model contradict each other.
    Probabilities are not calibrated: cosines span [-1, 1]. The random numbers are drawn class by
    class, in the order of the classes: with other names for the classes they are others.

    Examples
    --------
    >>> decoder = ProtoVerb().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    >>> decoder.predict([[0.1, 2.0]])
    array(['a'], dtype='<U1')
    """

    requires: ClassVar[frozenset[str]] = frozenset({"hidden"})
    reference: ClassVar[str] = "Cui et al. 2022, arXiv 2203.09770"
    draws_by_class: ClassVar[bool] = True
    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {"W_": ("D", "H"), "c_": ("K", "D")}

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "proto_dim": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "n_steps": [Interval(Integral, 0, None, closed="left")],
        "ensemble": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        proto_dim: int = 64,
        lr: float = 0.01,
        n_steps: int = 30,
        ensemble: bool = True,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.proto_dim = proto_dim
        self.lr = lr
        self.n_steps = n_steps
        self.ensemble = ensemble
        self.random_state = random_state

    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        K, D, H = len(self.classes_), self.proto_dim, X.shape[1]
        rng = check_random_state(self.random_state)
        W = rng.uniform(-1, 1, (D, H)) / np.sqrt(H)
        c = rng.uniform(-1, 1, (K, D)) * np.sqrt(6 / (K + D))
        self.W_, self.c_ = minimise(
            lambda arrays: loss_and_gradient(X, y, *arrays),
            [W.astype(X.dtype), c.astype(X.dtype)],
            lr=self.lr,
            n_steps=self.n_steps,
        )

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        S = unit(X @ self.W_.T)[0] @ unit(self.c_)[0].T
        if scores is None or not self.ensemble:
            return S
        f = (z_score(S) + z_score(scores)) / 2
        if f.shape[1] == 2:
            f = np.where(f.any(axis=1, keepdims=True), f, S)
        return f


def z_score(scores: Floats) -> Floats:
    """Shift and scale each row (N, K) to mean 0 and sample standard deviation 1 over its classes.

    A row of equal scores becomes 0. Two classes are exactly opposite, whatever the rounding.
    """
    if scores.shape[1] == 2:
        sign = np.sign(scores[:, 0] - scores[:, 1])
        return np.stack([sign, -sign], axis=1) * scores.dtype.type(np.sqrt(0.5))
    centred = scores - scores.mean(axis=1, keepdims=True)
    sd = centred.std(axis=1, ddof=1, keepdims=True)
    differ = np.ptp(scores, axis=1, keepdims=True) > 0  # of equal ones rounding leaves an sd
    return np.divide(centred, sd, out=np.zeros_like(centred), where=differ & (sd > 0))


def loss_and_gradient(
    X: Floats, y: NDArray[np.intp], W: Floats, c: Floats
) -> tuple[float, tuple[Floats, Floats]]:
    """Return the sum of both contrasts, and its gradients by W and c."""
    x, norm = unit(X @ W.T)
    z, length = unit(c)
    own = np.eye(len(c), dtype=X.dtype)[y]
    same = own @ own.T  # an example is a pair with itself, as in the reference code
    proto, d_proto = _contrast(x @ z.T, own)
    instance, d_instance = _contrast(x @ x.T, same)
    dx = d_proto @ z + (d_instance + d_instance.T) @ x
    dc = through_unit(d_proto.T @ x, z, length)
    return proto + instance, (through_unit(dx, x, norm).T @ X, dc)


def _contrast(S: Floats, positive: Floats) -> tuple[float, Floats]:
    """Mean over positive pairs of ``-log(exp S / sum over the row of exp S)``, and its dL/dS."""
    log_p, pairs = log_softmax(S, axis=1), positive.sum()
    gradient = (positive.sum(axis=1, keepdims=True) * np.exp(log_p) - positive) / pairs
    return float(-(positive * log_p).sum() / pairs), gradient
