"""Ridge-penalised multinomial logistic regression with an offset, and its leave-one-out likelihood.

Symbols: Z features (N, R), its columns orthogonal, each row counted a[i] times, with squared norms
d (R); V weights (R, K);
o offset (N, K); t prior variance; p = softmax(o + Z V) (N, K); e_y one-hot labels. V minimises

    L(V) = -sum_i a[i] log p[i, y_i] + ||V||^2 / (2 t)                                 (eq. 1)

a[i] is the weight of a row, 1 where none is given. An answer that stands there with several labels
is a row for each, which share its weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, eigh, solve_triangular

Floats = NDArray[Any]
Labels = NDArray[np.intp]

_MOVE, _NATS = 0.02, 0.003
"""Stop when two steps in a row move no log-odds of a labelled row by more than `_MOVE`, and lower
the loss by less than `_NATS`: a sum over many rows changes by more than any of them."""

_EASES = 0.8  # what the curvature is multiplied by after a step
_STEPS = 200


def basis(X: Floats, y: Labels, n_classes: int, rank: int) -> tuple[Floats, Floats, Floats]:
    """Return Z (N, R), d (R) and B (H, R) such that Z = X B and Z'Z = diag(d).

    R = min(N, H) where that is at most 2 `rank`, and nothing is lost: the penalised optimum lies
    in the span of the rows. Beyond, R = `rank`: the leading subspace by block power iteration,
    begun at the class sums (so that the directions between class means are in it) and the columns
    of X'X that belong to the largest columns of X; no random start.
    """
    N, H = X.shape
    if min(N, H) > 2 * rank:
        sums = np.zeros((n_classes, H), X.dtype)
        np.add.at(sums, y, X)
        largest = np.argsort(-np.einsum("ij,ij->j", X, X), kind="stable")
        B = np.hstack([sums.T, X.T @ X[:, largest[: max(rank - n_classes, 0)]]])
        for _ in range(2):
            B = X.T @ (X @ np.linalg.qr(B)[0])
        B = np.linalg.qr(np.hstack([sums.T, B]))[0]
        Z = X @ B
        d, Q = _eigh(Z.T @ Z)
        d, Q = d[-rank:], Q[:, -rank:]
        return Z @ Q, np.maximum(d, 0), B @ Q
    d, Q = _eigh(X @ X.T if N <= H else X.T @ X)
    if N > H:
        return X @ Q, np.maximum(d, 0), Q
    keep = d > np.finfo(X.dtype).eps * N * d[-1]
    d, Q = d[keep], Q[:, keep]
    return Q * np.sqrt(d), d, X.T @ (Q / np.sqrt(d))


def minimise(
    Z: Floats,
    d: Floats,
    y: Labels,
    offset: Floats,
    t: float,
    start: Floats | None = None,
    weight: Floats | None = None,
) -> Floats:
    """Return V (R, K) of eq. 1: accelerated gradient steps, preconditioned by the diagonal

        c d[r] + 1 / t,   c >= the curvature of the log-likelihood in any log-odds        (eq. 2)

    c starts at 1/K, its value where p is uniform, and is doubled, up to its bound 1/2, where the
    loss would lie above the quadratic majorant of eq. 2. After each step it is eased: the surer
    the fit is of its rows, the less curved is their loss.
    """
    N, K = offset.shape
    rows = np.arange(N)
    V = np.zeros((Z.shape[1], K), Z.dtype) if start is None else start
    F = offset + Z @ V
    step_V, step_F, age = np.zeros_like(V), np.zeros_like(F), 0
    c, still = 1 / K, 0
    slack = 8 * np.finfo(Z.dtype).eps * (N if weight is None else float(weight.sum()))
    for _ in range(_STEPS):
        ahead = age / (age + 3)  # Nesterov's momentum; it restarts at age 0
        P, FP = V + ahead * step_V, F + ahead * step_F
        loss, slope_F = _loss(FP, rows, y, weight)
        gradient = Z.T @ slope_F + P / t
        while True:
            D = -gradient / (c * d + 1 / t)[:, None]
            FD = Z @ D
            if c == 0.5:
                break
            square = np.vdot(FD, FD if weight is None else weight[:, None] * FD)
            bound = loss + np.vdot(slope_F, FD) + c / 2 * square + slack  # of rounding
            if _loss(FP + FD, rows, y, weight)[0] <= bound:
                break
            c = min(2 * c, 0.5)
        step_V, step_F = P + D - V, FP + FD - F
        V, F = V + step_V, F + step_F
        age = 0 if np.vdot(gradient, step_V) > 0 else age + 1
        moved = max(step_F.max(), -step_F.min())
        still = still + 1 if moved < _MOVE and -np.vdot(gradient, D) < _NATS else 0
        if still == 2:
            break
        c *= _EASES
    return V


def leave_one_out(
    Z: Floats,
    y: Labels,
    offset: Floats,
    t: float,
    V: Floats,
    weight: Floats | None = None,
    answer: Labels | None = None,
) -> Floats:
    """Return f (N, K), the log-odds of each row by a fit without it, without refitting.

    Were only row i left out, its class k would be one row short and its rivals would not, which
    is not how a new row is met: h would look worse than it is, the more the more classes. So of
    every other class c each row goes by the share 1/n_c (n_c rows in class c): every class loses
    one row's worth, of a row of weight a its a. One Newton step from V, with a scalar curvature w_i
    of the row, gives

        w_i = (1 - sum_k p_ik^2) (1 - a/n_c) / (K - 1),     A = Z' diag(w) Z + I / t        (eq. 3)
        G_i = V / t - sum of z_j (e_y - p)_j over what is left                            (eq. 4)
        f_i(-i) = f_i - z_i' (A - w_i z_i z_i')^-1 G_i                                    (eq. 5)

    G_i is the slope of eq. 1 without what goes. With one row in each class nothing is left, and
    f_i(-i) is the offset exactly.

    Parameters
    ----------
    weight, answer : ndarray of shape (N,), optional
        a of eq. 1, and a number that is the same for rows of one answer with several labels: these
        go together, as z_j = z_i.
    """
    N, K = offset.shape
    rows, F = np.arange(N), offset + Z @ V
    minus = _loss(F, rows, y)[1]  # p - e_y
    p_y = 1 + minus[rows, y]
    worth = np.ones(N, Z.dtype)  # what goes of every class when a row does
    if weight is not None:
        worth = weight if answer is None else np.bincount(answer, weight)[answer].astype(Z.dtype)
    n = np.maximum(np.bincount(y, weight, minlength=K), worth.max())
    share = (1 / n[y]).astype(Z.dtype)
    w = (1 - (minus**2).sum(axis=1) + (1 - p_y) ** 2 - p_y**2) * (1 - worth * share) / (K - 1)
    if weight is not None:
        w, minus = w * weight, minus * weight[:, None]
    A = (Z.T * w) @ Z
    A[np.diag_indices_from(A)] += 1 / t
    L = cholesky(A, lower=True, overwrite_a=True, check_finite=False)
    T = solve_triangular(L, Z.T, lower=True, check_finite=False)  # T'T = Z A^-1 Z'
    slope = solve_triangular(L, Z.T @ minus + V / t, lower=True, check_finite=False)
    part = share[:, None] * minus
    v = (T**2).sum(axis=0)
    # Row i itself, and its worth of all classes ...
    of_all = T @ part
    if weight is None:
        change = T.T @ (slope - of_all)
    else:
        change = T.T @ slope - worth[:, None] * (T.T @ of_all)
    change -= v[:, None] * minus
    for k in range(K):  # ... but not of its own
        own = T[:, y == k]
        change[y == k] += worth[y == k, None] * (own.T @ (own @ part[y == k]))
    if answer is not None:
        rest = np.zeros((answer.max() + 1, K), Z.dtype)  # what is left of an answer's other labels
        left = minus - worth[:, None] * part
        np.add.at(rest, answer, left)
        change -= v[:, None] * (rest[answer] - left)
        w = np.bincount(answer, w)[answer]
    return F - change / np.maximum(1 - w * v, 1e-3)[:, None]


def _loss(F: Floats, rows: Labels, y: Labels, weight: Floats | None = None) -> tuple[float, Floats]:
    """Return the summed cross-entropy and its gradient p - e_y (N, K), both weighted."""
    p = F - F.max(axis=1, keepdims=True)
    own = p[rows, y]
    np.exp(p, out=p)
    total = p.sum(axis=1)
    p /= total[:, None]
    p[rows, y] -= 1
    losses = np.log(total) - own
    if weight is not None:
        losses, p = losses * weight, p * weight[:, None]
    return float(losses.sum()), p


def _eigh(A: Floats) -> Any:
    return eigh(A, overwrite_a=True, check_finite=False, driver="evd")
