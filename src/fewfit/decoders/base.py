"""The contract of a decoder: observations and labels in, class probabilities out."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from fewfit.errors import ArtifactError, InputError
from fewfit.parameters import check_parameters

Floats = NDArray[Any]


class Restorable:
    """What is learnt is a few named arrays, which is all that an artifact keeps."""

    fitted_arrays: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Learnt array -> its axes, named by letter: H hidden, K classes, others free but equal."""

    classes_: NDArray[Any]
    n_features_in_: int

    def restore(self, arrays: Mapping[str, Floats], classes: NDArray[Any]) -> Self:
        """Put saved arrays back in place of :meth:`fit`.

        Raises
        ------
        ArtifactError
            If an array is missing, unknown, or of a shape that does not fit the others.
        """
        who = type(self).__name__
        if set(arrays) != set(self.fitted_arrays):
            raise ArtifactError(
                f"{who} has the arrays {sorted(self.fitted_arrays)}, the artifact {sorted(arrays)}"
            )
        sizes = {"K": len(classes)}
        for name, axes in self.fitted_arrays.items():
            shape = arrays[name].shape
            if len(shape) != len(axes) or any(
                sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape, strict=True)
            ):
                raise ArtifactError(f"{who}: array {name!r} of shape {shape} does not fit {axes}")
            setattr(self, name, arrays[name])
        self.classes_ = classes
        if "H" in sizes:
            self.n_features_in_ = sizes["H"]
        return self


class Decoder(Restorable, ClassifierMixin, BaseEstimator):
    """Base of all decoders: scikit-learn classifiers on the arrays of an observation.

    ``X`` holds hidden states, shape (N, H); ``scores`` holds calibrated class scores in units of
    log-odds, shape (N, K), columns in the order of ``classes_``. Either may be absent, as far as
    :attr:`requires` allows: ``scores=None``, or an ``X`` with no columns.

    Where P views were asked about each example, ``X`` holds their hidden states side by side,
    shape (N, P * H), and ``scores`` has shape (N, P, K). A decoder that does not declare
    :attr:`many_views` is given the mean of the views' scores.

    A decoder implements :meth:`_fit` and :meth:`_log_odds`, and lists in :attr:`fitted_arrays`
    the arrays that it learns, which is all that is ever saved of it.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """What it needs of the frozen model: "hidden", "scores"; or, in the place of hidden states,
    "full_vocabulary" (log-probabilities of all tokens) or "word_scores" (of all label words)."""

    labels_needed: ClassVar[str] = "1 per class"
    queries_per_example: ClassVar[str] = "1 per view"
    reference: ClassVar[str] = ""
    """Author, year, arXiv id."""

    many_views: ClassVar[bool] = False
    """Whether :meth:`_fit` and :meth:`_log_odds` are given the scores of each view, (N, P, K)."""

    fixed_arrays: ClassVar[frozenset[str]] = frozenset()
    """Those of them that are kept but that training does not change."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    """What each parameter may be, as :func:`fewfit.parameters.check_parameters` reads it."""

    unlabelled: ClassVar[bool] = False
    """Whether :meth:`fit` takes the hidden states and scores of texts without labels, ``pool=`` and
    ``pool_scores=``."""

    adapts: ClassVar[bool] = False
    """Whether :meth:`adapt` learns from texts without labels, once it is fitted."""

    needs_unlabelled: ClassVar[bool] = False
    """Whether they have to be given where the texts are a user's (:func:`check_unlabelled`)."""

    own_calibration: ClassVar[str | None] = None
    """The calibration that its paper takes, where that is part of the method."""

    draws_by_class: ClassVar[bool] = False
    """Whether it draws random numbers class by class, so that with other names of the classes, in
    another order, it is fitted with others. All other decoders do not care what classes are called,
    but for ties, which go to the first class: KNNPrompting's few votes have many. PromptBoosting
    does where a class has no token of its own."""

    tempers: ClassVar[bool] = False
    """Whether :meth:`temper` takes confidence away once it is fitted."""

    unseen: ClassVar[bool] = False
    """Whether a class without an example can be put in (:meth:`add_unseen`)."""

    def fit(self, X: ArrayLike, y: ArrayLike, *, scores: ArrayLike | None = None) -> Self:
        """Fit the decoder.

        Parameters
        ----------
        X : array-like of shape (N, H)
            Hidden states, float32 or float64; float64 arithmetic unless X is float32.
        y : array-like of shape (N,)
            Labels, at least two classes.
        scores : array-like of shape (N, K) or (N, P, K), optional
            Calibrated class scores in units of log-odds.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If there is only one class, `scores` has another shape, or a parameter is not what
            it may be; scikit-learn's ValueError for NaN, infinite, or empty input.
        """
        return self._learn_from(X, y, scores, None)

    def _learn_from(
        self,
        X: ArrayLike,
        y: ArrayLike,
        scores: ArrayLike | None,
        sample_weight: ArrayLike | None,
    ) -> Self:
        """Check what :meth:`fit` was given, and fit."""
        check_parameters(self)
        hidden: Floats
        hidden, y = validate_data(
            self,
            X,
            y,
            dtype=[np.float64, np.float32],
            ensure_min_features=1 if scores is None else 0,
        )
        with warnings.catch_warnings():  # one example of each class is no regression problem
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"y: at least two classes are needed, got 1 class ({self.classes_.tolist()[0]!r})"
            )
        checked = self._checked(scores, hidden)
        if sample_weight is None:
            self._fit(hidden, codes, checked)
            return self
        weight: Floats = _check_sample_weight(
            sample_weight, hidden, dtype=hidden.dtype, ensure_non_negative=True
        )
        kept = weight > 0
        lost = np.setdiff1d(codes, codes[kept])
        if len(lost):
            name = self.classes_[lost[0]].item()
            raise InputError(
                f"sample_weight: all rows of class {name!r} weigh 0; leave the class out, or give "
                "one of them a weight"
            )
        own = None if checked is None else checked[kept]
        further: dict[str, Any] = {"sample_weight": weight[kept]}
        self._fit(hidden[kept], codes[kept], own, **further)
        return self

    def add_unseen(self, seen: NDArray[np.intp], y: NDArray[np.intp], scores: Floats) -> Self:
        """Put in classes that had no example: what is learnt of them is nothing, that is 0.

        Parameters
        ----------
        seen : ndarray
            Where the classes that were fitted stand among all K.
        y : ndarray of shape (N,)
            Where the classes of the rows of the fit stand among all K.
        scores : ndarray of shape (N, K) or (N, P, K)
            The scores of those rows, of all classes.
        """
        K = scores.shape[-1]
        for name, axes in self.fitted_arrays.items():
            if "K" in axes:
                array = getattr(self, name)
                axis = axes.index("K")
                wide = np.zeros((*array.shape[:axis], K, *array.shape[axis + 1 :]), array.dtype)
                wide[(slice(None),) * axis + (seen,)] = array
                setattr(self, name, wide)
        self.classes_ = np.arange(K)
        return self

    def temper(self, temperature: float) -> None:
        """Divide the log-odds by a number, if it :attr:`tempers`; else nothing."""

    def adapt(
        self,
        X: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        labelled: Sequence[Any] | None = None,
    ) -> Decoder:
        """Return a fitted decoder that has learnt from texts without labels too.

        Parameters
        ----------
        X : array-like of shape (M, H)
            Hidden states of the texts.
        scores : array-like of shape (M, K) or (M, P, K), optional
        labelled : (array-like of shape (N, H), array-like of shape (N,)), optional
            Hidden states of the rows of the fit and the positions of their classes; a third says
            what each row counts for.

        Raises
        ------
        InputError
            If this decoder does not :attr:`adapt <adapts>`.
        """
        raise InputError(
            f"{type(self).__name__} does not learn from texts without labels once it is fitted; "
            "OffsetLogisticRegression and ZeroShot do"
        )

    def predict_proba(self, X: ArrayLike, *, scores: ArrayLike | None = None) -> Floats:
        """Return the probability of each class, shape (N, K), columns as in ``classes_``.

        Raises
        ------
        InputError
            As :meth:`fit`; and if the log-odds of a decoder of one's own are NaN.
        """
        check_is_fitted(self)
        hidden: Floats = validate_data(
            self,
            X,
            reset=False,
            dtype=[np.float64, np.float32],
            ensure_min_features=1 if scores is None else 0,
        )
        p = softmax(self._log_odds(hidden, self._checked(scores, hidden)), axis=1)
        bad = np.flatnonzero(np.isnan(p).any(axis=1))
        if len(bad):  # a row of NaN is one that the model did not answer
            raise InputError(
                f"{type(self).__name__}: its log-odds are no numbers in {len(bad)} of {len(p)} "
                f"rows, row {bad[0]} the first, though what it was given is finite"
            )
        return p

    def predict(self, X: ArrayLike, *, scores: ArrayLike | None = None) -> NDArray[Any]:
        """Return the most probable class of each row, shape (N,); ties go to the first class."""
        best = self.predict_proba(X, scores=scores).argmax(axis=1)
        return self.classes_[best]

    @abstractmethod
    def _fit(self, X: Floats, y: NDArray[np.intp], scores: Floats | None) -> None:
        """Learn the arrays of :attr:`fitted_arrays`; y holds positions in ``classes_``."""

    @abstractmethod
    def _log_odds(self, X: Floats, scores: Floats | None) -> Floats:
        """Return (N, K) numbers whose softmax over K is the probability."""

    def _checked(self, scores: ArrayLike | None, X: Floats) -> Floats | None:
        if scores is None:
            return None
        array = check_array(scores, dtype=X.dtype, input_name="scores", allow_nd=True)
        N, K = len(X), len(self.classes_)
        if array.shape != (N, K) and (array.ndim != 3 or array.shape[::2] != (N, K)):
            raise InputError(
                f"scores: expected shape {(N, K)}, one column per class, or {(N, 'P', K)} for P "
                f"views, got {array.shape}"
            )
        if self.many_views:
            return array.reshape(N, -1, K)
        return array if array.ndim == 2 else array.mean(axis=1)


class WeightedDecoder(Decoder):
    """A decoder whose labelled rows may count for more than others."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the decoder.

        Parameters
        ----------
        X, y, scores
            As for :meth:`Decoder.fit`.
        sample_weight : array-like of shape (N,), optional
            How many rows each row counts for; left out, one. A row of weight 0 is not there.

        Returns
        -------
        self

        Raises
        ------
        InputError
            As :meth:`Decoder.fit`; and if all rows of a class weigh 0. scikit-learn's ValueError
            for weights that are negative, not finite or not one for each row.
        """
        return self._learn_from(X, y, scores, sample_weight)

    @abstractmethod
    def _fit(
        self,
        X: Floats,
        y: NDArray[np.intp],
        scores: Floats | None,
        sample_weight: Floats | None = None,
    ) -> None:
        """Learn as :meth:`Decoder._fit`; every row has a weight above 0."""


def check_weighted(decoder: Decoder) -> None:
    """Refuse weights of examples where a decoder cannot take them (InputError).

    One that learns nothing from labels has nothing to weigh, and is the same with any weights.
    """
    if decoder.fitted_arrays and not has_fit_parameter(decoder, "sample_weight"):
        raise InputError(
            f"sample_weight: {type(decoder).__name__} counts every example alike; take the default "
            "decoder, LinearProbe, NearestMean, DecT or SoftVerbalizer, or leave the weights out"
        )


def check_unlabelled(decoder: Decoder, *, given: bool) -> None:
    """Refuse a decoder that learns from unlabelled texts where none are given, and the reverse."""
    name = type(decoder).__name__
    if decoder.needs_unlabelled and not given:
        raise InputError(
            f"unlabelled: {name} learns from texts without labels, and none are given; give some "
            "(fit(..., unlabelled=texts)), or take LinearProbe ('linear-probe'), which needs none"
        )
    if given and not decoder.unlabelled:
        later = " beside examples, but does without any and once it is fitted (adapt)"
        raise InputError(
            f"unlabelled: {name} does not learn from texts without labels{later * decoder.adapts}; "
            "take OffsetLogisticRegression or IPET, or leave them out"
        )


def tell_views(decoder: Decoder, P: int) -> None:
    """Tell a decoder that cuts the hidden states into views how many there are.

    Raises
    ------
    InputError
        If it was made for another number.
    """
    if "n_views" not in decoder.get_params():
        return
    if decoder.get_params()["n_views"] not in (None, P):
        raise InputError(
            f"decoder: {type(decoder).__name__} expects {decoder.get_params()['n_views']} views, "
            f"the template has {P}; leave n_views out"
        )
    decoder.set_params(n_views=P)
