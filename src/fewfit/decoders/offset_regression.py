"""Offset logistic regression: the frozen model's scores as prior log-odds, the labels correct them.

The default decoder. Symbols: h hidden state (H), m calibrated scores of the classes (K), x the
standardised h, a the standardised m, W (H, K) and u (K) weights and biases, b strength of the
offset, t prior variance of the weights, N labelled examples, n_k of them in class k.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_array, check_is_fitted

from fewfit.decoders.base import Floats, WeightedDecoder, check_unlabelled
from fewfit.decoders.duplicates import distinct, first_rows
from fewfit.decoders.pool import Labelled, learn_from_pool, warn_of_useless
from fewfit.decoders.ridge import basis, leave_one_out, minimise
from fewfit.decoders.threads import one_thread
from fewfit.errors import InputError

_STRENGTHS = (0.0, 0.5, 2.0)  # of the offset, beside 1
_ZERO = 0.5  # what a strength of 0 counts as in the prior
_COARSE = (0.25, 0.5, 2.0)  # the same where scores are few answers in words; their median is 1/2
_WORTHLESS = 3.0  # how much likelier it then is that they are worth nothing
_LEVELS = 11  # values that the shares of so few answers have
_VARIANCES = (0.25, 1.0, 4.0, 16.0)  # of the weights, beside the median of their prior
_MEDIAN = 2.0  # of that prior, times log2(K)^2
_EMPTY = 5.0  # examples that the empty input counts for in the label bias
_BIAS = 0.3  # scale of a bias beside that of a weight
_RANK = 256  # of the features, where N and H are both more than twice as many
_ROUNDING = 32  # units in the last place that a difference may be off
_SHARPNESS = (0.125, 0.25, 0.5, 1.0)  # of the final log-odds


class OffsetLogisticRegression(WeightedDecoder):
    """Multinomial logistic regression with the model's own scores as offset.

    The probability of the classes is softmax(f), with

        f = b a(m) + W' x(h) + u                                                        (eq. 1)

    The labelled rows standardise both inputs, every class with equal weight. Scores, already free
    of the bias that the model has on the empty input, lose what the labelled rows show of a bias
    on this task; the empty input counts as `_EMPTY` rows that show none:

        x = (h - mean h) / rms |h - mean h|,     h of unit length                       (eq. 2)
        a = (m - c) / rms (m - c),     c = mean m * N / (N + _EMPTY)                    (eq. 3)

    W and u have a Gaussian prior of variance t (u: `_BIAS`^2 t) and are the posterior mode, which
    is unique. With x and a of unit size, b and t are numbers near 1 whatever the model: before any
    label is seen, log2 b ~ N(0, 1), where 0 counts as `_ZERO`, and log4(t / t0) ~ N(0, 1) with
    t0 = `_MEDIAN` log2(K)^2: to tell K classes apart takes log2 K bits, so weights of that size.
    The labels then weigh each pair by its likelihood on rows left out, and the fits are averaged:

        weight(b, t) ~ prior(b) prior(t) prod_i softmax(f(-i; b, t))[y_i]               (eq. 4)
        (b, W, u)    = s * sum over pairs of weight(b, t) * (b, W, u)(b, t)             (eq. 5)

    f(-i) is the log-odds of row i by a fit without it and without one row's worth of every other
    class (see `ridge.leave_one_out`). With one example per class that leaves b a: the labels
    then judge the scores alone, and t keeps its prior.

    The pairs are b = 1 with every t, then every other b with the t that weighs most. An average
    of parameters is an average of log-odds, so the result is one linear model. The sharpness s
    only calibrates: with f(-i) averaged like f,

        weight(s) ~ prod_i softmax(s f(-i))[y_i],    log s = sum of weight(s) log s     (eq. 6)

    over `_SHARPNESS`, at most 1: held-out rows may take confidence away, not add it.

    Scores that are shares of a few answers in words (:attr:`Capabilities.resolution`) say nothing
    of how sure the model is, and may say nothing at all, where the hidden states alone would do
    better: a weak chat model's one answer a text. Such scores are seen by their few values, and
    believed only as far as the labels speak for them: log2 b ~ N(-1, 1), and b = 0, which counts as
    1/4, has `_WORTHLESS` times that prior and is tried with every t.

    A text is one row, however often it stands there: a second copy is no further evidence, and
    would be the very row that is to be left out. So rows of the same hidden states, scores and
    label count once, and with several labels each counts by its share of the copies. To take all
    examples twice, or those of a rare class, changes nothing.

    Texts without labels may be given too, with the fit or later (:meth:`adapt`). A Gaussian mixture
    over them, which starts at f, adds a linear term; see ``docs/unlabelled.md``. Where it cannot be
    believed the fit is the one without them, and a warning says so.

    Parameters
    ----------
    prior : {"balanced", "frequencies"}, default="balanced"
        What the numbers of labelled rows say of how frequent the classes are: nothing, as where
        some of each class were picked out; or, with "frequencies", what they say if the rows are a
        random sample. Then log((n_k + 1) / (N + K)) is added to f, in the fit and ever after, and
        texts without labels leave the mean probability of each class as it is.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The classes.
    coef_ : ndarray of shape (K, H)
        W' in units of h of unit length.
    intercept_ : ndarray of shape (K,)
        u, less what eq. 2 and 3 subtract.
    strength_ : ndarray of shape ()
        Weight of m in the log-odds: b in units of m; 0 without scores.
    offset_strength_, weight_variance_ : float
        b of eq. 5 and the geometric mean of t, to see what the labels have chosen.
    pool_used_ : bool
        Whether texts without labels have changed the log-odds.

    Notes
    -----
    Without scores, b = 0: the linear probe, its penalty averaged by leave-one-out. Without hidden
    states, only b and u are learnt. No random numbers; any order of rows gives the same answer to
    rounding; a constant added to all scores of a row changes nothing. The form and its constants
    were chosen on training rows of sst2, agnews, trec, dbpedia, mpqa and clinc150; what was tried
    and what it is measured against is in ``docs/default-decoder.md``.

    Examples
    --------
    >>> decoder = OffsetLogisticRegression().fit([[0.0, 1.0], [1.0, 0.0]], ["a", "b"])
    >>> decoder.predict([[0.1, 2.0]])
    array(['a'], dtype='<U1')
    """

    unlabelled: ClassVar[bool] = True
    adapts: ClassVar[bool] = True
    tempers: ClassVar[bool] = True
    unseen: ClassVar[bool] = True
    """Weights of a class without examples are the mean of their prior, 0, so f = b (m - c)."""

    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {
        "coef_": ("K", "H"),
        "intercept_": ("K",),
        "strength_": (),
    }

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "prior": [StrOptions({"balanced", "frequencies"})]
    }

    def __init__(self, *, prior: str = "balanced") -> None:
        self.prior = prior

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        pool: ArrayLike | None = None,
        pool_scores: ArrayLike | None = None,
    ) -> Self:
        """Fit the decoder.

        Parameters
        ----------
        X : array-like of shape (N, H)
            Hidden states, float32 or float64; float64 arithmetic unless X is float32.
        y : array-like of shape (N,)
            Labels, at least two classes.
        scores : array-like of shape (N, K) or (N, P, K), optional
            Calibrated class scores in units of log-odds.
        sample_weight : array-like of shape (N,), optional
            What each row counts for in eq. 1 to 4 and 6; a row of weight 0 is not there. Copies of
            a row count for one, whose weight is their mean.
        pool : array-like of shape (M, H), optional
            Hidden states of texts without labels.
        pool_scores : array-like of shape (M, K) or (M, P, K), optional
            Their scores, where `scores` are given.

        Raises
        ------
        InputError
            As :meth:`WeightedDecoder.fit`; if `scores` are given without `pool_scores` or the
            reverse; and for a pool, if it learns from none.
        """
        check_unlabelled(self, given=pool is not None)
        if pool is None and pool_scores is not None:
            raise InputError("pool_scores: they need the hidden states of the same texts, pool=")
        if pool is not None and (scores is None) != (pool_scores is None):
            raise InputError("scores, pool_scores: both or none, where there is a pool")
        super().fit(X, y, scores=scores, sample_weight=sample_weight)
        self.pool_used_ = False
        if pool is not None:
            codes = np.searchsorted(self.classes_, y)
            labelled = (X, codes, sample_weight)
            found = self.adapt(pool, scores=pool_scores, labelled=labelled)
            self.__dict__.update(found.__dict__)
        return self

    def adapt(
        self,
        X: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        labelled: Sequence[Any] | None = None,
    ) -> Self:
        """Return the decoder with what texts without labels add to it; it stays as it is itself.

        Nothing but the decoder and these texts is needed. With many labels and a rare class it
        does better if it is also told which rows it was fitted on.

        Parameters
        ----------
        X : array-like of shape (M, H)
            Hidden states of the texts. Copies count once.
        scores : array-like of shape (M, K) or (M, P, K), optional
            Their scores, where the decoder was fitted on scores.
        labelled : (array-like of shape (N, H), array-like of shape (N,)), optional
            Hidden states of the rows of the fit and the positions of their classes; a third says
            what each row counts for.

        Raises
        ------
        InputError
            If they have another shape than what the decoder was fitted on.
        """
        check_is_fitted(self)
        found, dtype = copy.copy(self), self.coef_.dtype
        texts: Floats = check_array(X, dtype=dtype, input_name="pool", ensure_min_features=0)
        if texts.shape[1] != self.coef_.shape[1]:
            raise InputError(f"pool: expected shape (M, {self.coef_.shape[1]}), got {texts.shape}")
        told, M = self._checked(scores, texts), len(texts)
        if texts.shape[1]:
            first = first_rows(texts, told)
            texts, told = texts[first], None if told is None else told[first]
        with one_thread():
            f = self._log_odds(texts, told)
            known = None
            if labelled is not None:
                x, y = np.asarray(labelled[0], dtype), np.asarray(labelled[1])
                weight = next(iter(labelled[2:]), None)
                if weight is not None:
                    weight = np.asarray(weight, dtype)
                    x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
                some = getattr(self, "_distinct", None)  # a restored decoder does not know
                if some is not None:
                    x, y, weight = x[some.rows], y[some.rows], some.weight
                known = Labelled(_unit(x), y, weight)
            shares = self.prior == "frequencies"
            learnt = learn_from_pool(_unit(texts), f, known, keep_shares=shares)
        found.pool_used_ = learnt is not None
        if learnt is None:
            warn_of_useless(M, texts, len(self.classes_))
            return found
        scale, coef, bias = learnt
        found.coef_ = np.ascontiguousarray(scale * self.coef_ + coef).astype(dtype)
        found.intercept_ = (scale * self.intercept_ + bias).astype(dtype)
        found.strength_ = np.asarray(scale * self.strength_, dtype)
        return found

    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        K, N = len(self.classes_), len(y)
        found = distinct(X, y, scores, sample_weight)
        weight, answer = sample_weight, None
        self._distinct = found
        if found is not None:
            X, y = X[found.rows], y[found.rows]
            scores = None if scores is None else scores[found.rows]
            N, weight = len(y), None
            if found.weight is not None:
                weight, answer = found.weight.astype(X.dtype), found.answer
        if weight is not None:
            N = float(weight.sum())
        self._weight = weight
        counts = np.bincount(y, weight)
        balance = (1 / (K * counts[y])).astype(X.dtype)
        if weight is not None:
            balance *= weight  # sums to 1, every class alike

        h = _unit(X)
        centre = balance @ h
        x = h - centre
        size = _size(balance @ np.einsum("ij,ij->i", x, x) * N / max(N - 1, 1), 1.0)
        x = np.hstack([x / size, np.full((len(y), 1), _BIAS, X.dtype)])
        m = np.zeros((len(y), K), X.dtype) if scores is None else scores
        a = m - m.mean(axis=1, keepdims=True)
        bias = balance @ a * N / (N + _EMPTY)
        a = a - bias
        unit = _size(balance @ (a**2).sum(axis=1) / (K - 1), (m**2).max())

        known = self.prior == "frequencies"
        often = (np.log(counts + 1) if known else np.zeros(K)).astype(X.dtype)
        rare = -float(often.mean())  # log-odds of a class without rows
        often += X.dtype.type(rare)
        with one_thread():
            b, t, s, W = _average(
                *(x, a / unit, often, y, weight, answer),
                has_scores=scores is not None,
                coarse=scores is not None and X.shape[1] > 0 and _is_coarse(scores),
            )
        self.offset_strength_, self.weight_variance_ = float(b), float(t)
        self.strength_ = np.asarray(b / unit, X.dtype)
        self.coef_ = np.ascontiguousarray(W[:-1].T / size)
        self.intercept_ = W[-1] * _BIAS - self.coef_ @ centre - self.strength_ * bias
        self.intercept_ += X.dtype.type(s) * often
        self._rare = s * rare

    def temper(self, temperature: float) -> None:
        dtype = self.coef_.dtype
        for name in self.fitted_arrays:
            setattr(self, name, np.asarray(getattr(self, name) / temperature, dtype))

    def add_unseen(self, seen: NDArray[np.intp], y: NDArray[np.intp], scores: Floats) -> Self:
        """Put in classes k that had no example.

        Their c[k] (eq. 3) lacks rows of their own. In those the score of k would be as much above
        its mean over the other rows, as the scores of the seen classes are in theirs on average.
        """
        super().add_unseen(seen, y, scores)
        if self._distinct is not None:
            y, scores = y[self._distinct.rows], scores[self._distinct.rows]
        m = scores if scores.ndim == 2 else scores.mean(axis=1)
        w = np.ones(len(y)) if self._weight is None else self._weight
        each = [np.average(m[y == k], axis=0, weights=w[y == k]) for k in seen]
        means = np.stack(each)  # row: class; column: score
        S, total = len(seen), means.mean(axis=0)
        own = np.diag(means[:, seen])
        above = (own - (total[seen] * S - own) / (S - 1)).mean()
        unseen = np.setdiff1d(np.arange(len(total)), seen)
        c = total[unseen] + above / S - total[seen].mean()
        c *= w.sum() / (w.sum() + _EMPTY)
        self.intercept_[unseen] = self._rare - self.strength_ * c
        return self

    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        f = _unit(X) @ self.coef_.T + self.intercept_
        if scores is None:
            return f
        return f + self.strength_ * (scores - scores.mean(axis=1, keepdims=True))


def _average(
    x: Floats,
    a: Floats,
    often: Floats,
    y: NDArray[np.intp],
    weight: Floats | None,
    answer: NDArray[np.intp] | None,
    *,
    has_scores: bool,
    coarse: bool = False,
) -> tuple[float, float, float, Floats]:
    """Return b, t, s and W (H + 1, K) of eq. 5 and 6; `often` (K,) is added to all log-odds."""
    K = a.shape[1]
    root = 1 if weight is None else np.sqrt(weight)[:, None]
    Z, d, B = basis(root * x, y, K, max(K, _RANK))
    Z = Z / root
    median = _MEDIAN * math.log2(K) ** 2
    pairs: list[tuple[float, float]] = []
    fits: list[Floats] = []
    held_out: list[Floats] = []
    evidence: list[float] = []

    def add(b: float, t: float, start: Floats | None) -> None:
        offset = b * a + often
        V = minimise(Z, d, y, offset, t, start, weight)
        away = np.log2(2 * max(b, _ZERO / 2)) if coarse else np.log2(max(b, _ZERO))
        prior = -(away**2 + (np.log(t / median) / np.log(4)) ** 2) / 2
        prior += math.log(_WORTHLESS) * (coarse and b == 0)
        pairs.append((b, t))
        fits.append(V)
        held_out.append(leave_one_out(Z, y, offset, t, V, weight, answer))
        evidence.append(prior + _log_likelihood(held_out[-1], y, weight))

    for t in _VARIANCES:
        add(1.0 if has_scores else 0.0, t * median, fits[-1] if fits else None)
    if has_scores:
        best = int(np.argmax(evidence))
        for t in _VARIANCES if coarse else ():
            add(0.0, t * median, fits[0])
        for b in _COARSE if coarse else _STRENGTHS:
            add(b, pairs[best][1], fits[best])
    share = softmax(evidence)
    f = np.tensordot(share, held_out, axes=1)
    s = _geometric(_SHARPNESS, softmax([_log_likelihood(s * f, y, weight) for s in _SHARPNESS]))
    b, t = zip(*pairs, strict=True)
    V = np.tensordot((s * share).astype(Z.dtype), fits, axes=1)
    return s * (share @ b), _geometric(t, share), s, B @ V


def _is_coarse(scores: Floats) -> bool:
    """Whether scores (N, K) are shares of a few answers: they have few values, again and again.

    The same in each column, where a prior over the labels was removed.
    """

    def few(values: Floats, most: int) -> bool:
        size = float(np.ptp(values))
        return size > 0 and len(np.unique(np.round((values - values.min()) / size, 4))) <= most

    if few(scores, min(_LEVELS, scores.size // 2)):
        return True
    most = min(_LEVELS, len(scores) // 2)
    spread = [column for column in scores.T if np.ptp(column) > 0]
    return bool(spread) and all(few(column, most) for column in spread)


def _log_likelihood(f: Floats, y: NDArray[np.intp], weight: Floats | None) -> float:
    log_p = log_softmax(f, axis=1)[np.arange(len(y)), y]
    return float(log_p.sum() if weight is None else weight @ log_p)


def _geometric(values: Sequence[float], weight: Floats) -> float:
    return float(np.exp(weight @ np.log(values)))


def _unit(X: Floats) -> Floats:
    return X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), np.finfo(X.dtype).tiny)


def _size(square: Any, before: Any) -> Any:
    """Return the root, or 1 where nothing is left but what rounding makes of squares `before`."""
    info = np.finfo(square.dtype)
    noise = (_ROUNDING * info.eps) ** 2 * before
    return np.sqrt(square) if square > max(noise, info.tiny) else square.dtype.type(1)
