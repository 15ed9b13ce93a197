"""How well a fitted classifier is likely to do, from the answers that `fit` paid for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.base import clone

from fewfit.decoders.base import tell_views
from fewfit.errors import InputError, ModelWarning
from fewfit.estimators.examples import fit_decoder
from fewfit.prompts.containers import shown
from fewfit.prompts.labels import Label
from fewfit.tables.columns import count, listed


@dataclass(frozen=True)
class ExpectedAccuracy:
    """Cross-validated accuracy of a classifier on examples like those it was fitted on.

    Attributes
    ----------
    accuracy : float or None
        Share of the `n` rows that were given their class by a decoder that had not seen them; None
        where it cannot be estimated.
    interval : (float, float) or None
        Wilson's 95 % interval of that share. It takes the rows as independent draws, and so errs
        to the narrow side.
    n : int
        Rows that were held out once.
    n_folds : int
    recall : dict of class to (int, int)
        Rows that were given their class, and rows, of each class that can be estimated.
    not_estimated : list of class
        Those without two different texts: with one held out, nothing is left to learn from. Those
        that have words and no example are among them.
    reason : str
        Why `accuracy` is None, or may be too high; else empty.
    held_out : tuple of class or None
        What each example of `fit` was given by the decoder that had not seen it, in their order,
        without those of weight 0 and those that the model did not answer; None for those of
        `not_estimated`. Empty where only hits are known, as of a tuned model and of examples with
        several labels.
    """

    accuracy: float | None
    interval: tuple[float, float] | None
    n: int
    n_folds: int
    recall: dict[Any, tuple[int, int]] = field(default_factory=dict)
    not_estimated: list[Any] = field(default_factory=list)
    reason: str = ""
    held_out: tuple[Any, ...] = ()

    @property
    def largest(self) -> tuple[Any, float]:
        """The class that most of the rows have, and their share."""
        name = max(self.recall, key=lambda c: self.recall[c][1])
        return name, self.recall[name][1] / self.n

    @property
    def weakest(self) -> Any:
        """The class of the lowest recall, the larger one of equals; None if none is estimated."""
        ranked = sorted(self.recall, key=lambda c: (self._share(c), -self.recall[c][1]))
        return ranked[0] if ranked else None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON keeps it; classes become the entries of a list."""
        low, high = self.interval or (None, None)
        return {
            "accuracy": self.accuracy,
            "low": low,
            "high": high,
            "interval": "wilson 95 %",
            "n": self.n,
            "n_folds": self.n_folds,
            "recall": [
                {"class": name, "right": right, "n": n} for name, (right, n) in self.recall.items()
            ],
            "not_estimated": self.not_estimated,
            "reason": self.reason,
        }

    def _share(self, name: Any) -> float:
        right, n = self.recall[name]
        return right / n


@dataclass(frozen=True)
class Training:
    """What a decoder was fitted on.

    Attributes
    ----------
    hidden, scores : ndarray
        As :meth:`Decoder.fit` takes them, scores of all K classes.
    codes : ndarray of shape (N,)
    rows : sequence of mapping
        The examples' texts; equal ones are held out together.
    further : mapping
        Other arguments of the decoder's `fit`.
    n_views : int
    fixed : bool
        Whether the prompts hold no labelled example, which no fold could hold out.
    sets : ndarray of shape (N, K), bool, or None
        The labels of each example where it has several; `codes` then number the sets that occur.
    right : ndarray of shape (N,), bool, optional
        Whether each row was given its class by a model that was tuned, and a decoder that was
        fitted, without it; where the model itself has learnt from the rows nothing else will do.
    n_folds : int
        How many times that was.
    label_mass : float or None
        Median share of the probability at the slot that all label words have together; None where
        the model does not tell.
    weight : ndarray of shape (N,), or None
        Of the examples in the fit; held out, each counts for one.
    """

    hidden: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    codes: NDArray[np.intp]
    rows: Sequence[Mapping[str, str]]
    further: Mapping[str, Any]
    n_views: int
    fixed: bool
    label_mass: float | None = None
    weight: NDArray[np.float64] | None = None
    sets: NDArray[np.bool_] | None = None
    right: NDArray[np.bool_] | None = None
    n_folds: int = 0


def expectation(expected: ExpectedAccuracy, *, several: bool = False) -> list[str]:
    """Return what a person wants to read of an expected accuracy."""
    what = "Rows with all labels right, to expect" if several else "Accuracy to expect"
    if expected.accuracy is None or expected.interval is None:
        return [f"{what}: cannot be estimated ({expected.reason})"]
    low, high = expected.interval
    lines = [
        f"{what}: {expected.accuracy:.0%} (95 % interval {low:.0%} to {high:.0%}, "
        f"Wilson; {count(expected.n, 'row')}, {expected.n_folds}-fold cross-validation)"
    ]
    if expected.reason:
        lines.append(f"That may be too high: {expected.reason}; evaluate it on other rows")
    if not expected.recall:
        return lines
    largest, share = expected.largest
    if low <= share and len(expected.recall) > 1 and not several:
        lines.append(
            f"That may be no better than always saying {largest}, which is right for {share:.0%}"
        )
    right, n = expected.recall[expected.weakest]
    if right < n:
        lines.append(f"Weakest class: {expected.weakest} ({right} of {n} found)")
    if expected.not_estimated:
        names = listed([str(name) for name in expected.not_estimated])
        lines.append(f"Not estimated, for want of two different texts: {names}")
    return lines


def cross_validate(
    training: Training,
    decoder: Any,
    classes: Sequence[Label],
    *,
    n_folds: int,
    seed: int,
    n_tuned: int = 0,
) -> ExpectedAccuracy:
    """Fit copies of `decoder` without some rows, and count what they say of these.

    `n_tuned` is how many labelled rows the model has learnt from, nobody knows which.
    """
    if isinstance(n_folds, bool) or not isinstance(n_folds, Integral) or n_folds < 2:
        raise InputError(f"n_folds: expected an integer from 2 on, got {shown(n_folds)}")
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InputError(f"seed: expected an integer from 0 on, got {shown(seed)}")
    found = _cross_validate(training, decoder, classes, n_folds=n_folds, seed=seed)
    if found.accuracy is None or training.right is not None or not n_tuned:
        return found
    why = f"the model was tuned on {count(n_tuned, 'labelled row')}, these may be among them"
    return replace(found, reason=why)


def _cross_validate(
    training: Training, decoder: Any, classes: Sequence[Label], *, n_folds: int, seed: int
) -> ExpectedAccuracy:
    codes = training.codes
    seen = np.unique(codes)
    if training.right is not None:
        return _counted(*_recall(training.right, codes, classes, training.n_folds, []), [])
    if not training.fixed:
        why = "the prompt shows labelled examples, which cannot be held out without new queries"
        return _none(n_folds, list(classes), why)
    folds = assign_folds(training.rows, codes, n_folds, seed)
    if training.sets is not None:
        return _cross_validate_sets(training, training.sets, decoder, classes, folds)
    alone = np.array([k for k in seen if len(np.unique(folds[codes == k])) < 2], dtype=np.intp)
    tested = ~np.isin(codes, alone)
    known = set(codes[tested].tolist())  # a class without any example is not among them either
    lonely = [name for k, name in enumerate(classes) if k not in known]
    if not tested.any():
        return _none(n_folds, lonely, "no class has two different texts")
    told = np.full(len(codes), -1)
    used = np.unique(folds[tested])
    for fold in used:
        held = tested & (folds == fold)
        copy = clone(decoder)
        tell_views(copy, training.n_views)
        hidden, scores, kept = training.hidden, training.scores, ~held
        try:
            own = None if scores is None else scores[kept]
            weight = None if training.weight is None else training.weight[kept]
            with warnings.catch_warnings():  # of a fold's pool, which is not that of the fit
                warnings.simplefilter("ignore", ModelWarning)
                copy = fit_decoder(
                    copy, codes[kept], hidden[kept], own, classes, training.further, weight
                )
        except InputError as error:
            why = f"the decoder cannot be fitted with rows held out: {error}"
            return _none(n_folds, list(classes), why)
        out = None if scores is None else scores[held]
        proba = copy.predict_proba(hidden[held], scores=out)
        told[held] = proba.argmax(axis=1)
    found = _counted(*_recall(told == codes, codes, classes, len(used), alone), lonely)
    return replace(found, held_out=tuple(None if k < 0 else classes[k] for k in told))


def _cross_validate_sets(
    training: Training,
    sets: NDArray[np.bool_],
    decoder: Any,
    classes: Sequence[Label],
    folds: NDArray[np.intp],
) -> ExpectedAccuracy:
    """Do the same where an example has a set of labels; a row is right if its set is."""
    used = np.unique(folds)
    if len(used) < 2:
        return _none(len(used), list(classes), "there are no two different texts")
    told = np.zeros_like(sets)
    for fold in used:
        held = folds == fold
        weight = None if training.weight is None else training.weight[~held]
        copy = clone(decoder)
        copy.fit(training.hidden[~held], sets[~held].astype(int), sample_weight=weight)
        told[held] = copy.predict(training.hidden[held]) == 1
    lonely = [
        name for name, own in zip(classes, sets.T, strict=True) if len(np.unique(folds[own])) < 2
    ]
    recall = {
        name: (int((told[:, k] & sets[:, k]).sum()), int(sets[:, k].sum()))
        for k, name in enumerate(classes)
        if name not in lonely
    }
    right = (told == sets).all(axis=1)
    return _counted(int(right.sum()), len(right), len(used), recall, lonely)


def _recall(
    right: NDArray[np.bool_],
    codes: NDArray[np.intp],
    classes: Sequence[Label],
    n_folds: int,
    alone: Any,
) -> tuple[int, int, int, dict[Any, tuple[int, int]]]:
    """Return hits, rows, folds and recall, without the classes that stand alone."""
    tested = ~np.isin(codes, alone)
    recall = {
        classes[k]: (int(right[codes == k].sum()), int((codes == k).sum()))
        for k in np.unique(codes[tested])
    }
    return int(right[tested].sum()), int(tested.sum()), n_folds, recall


def _counted(
    hits: int, n: int, n_folds: int, recall: dict[Any, tuple[int, int]], lonely: list[Any]
) -> ExpectedAccuracy:
    ci = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    interval = (float(ci.low), float(ci.high))
    return ExpectedAccuracy(hits / n, interval, n, n_folds, recall, lonely)


def assign_folds(
    rows: Sequence[Mapping[str, str]], codes: NDArray[np.intp], n_folds: int, seed: int
) -> NDArray[np.intp]:
    """Return each row's fold, shape (N,): stratified by class, equal texts in the same one.

    A text that stood on both sides would be known to the decoder that is asked about it.
    """
    first: dict[tuple[tuple[str, str], ...], int] = {}
    keys = [tuple(sorted(row.items())) for row in rows]
    for i, key in enumerate(keys):
        first.setdefault(key, i)
    starts = np.random.default_rng(seed).permutation(list(first.values()))
    starts = starts[np.argsort(codes[starts], kind="stable")]
    fold = {int(i): place % n_folds for place, i in enumerate(starts)}
    return np.array([fold[first[key]] for key in keys], dtype=np.intp)


def _none(n_folds: int, classes: list[Any], why: str) -> ExpectedAccuracy:
    return ExpectedAccuracy(None, None, 0, n_folds, {}, classes, why)
