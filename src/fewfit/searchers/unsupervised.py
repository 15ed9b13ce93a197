"""Unsupervised prompt learning (UPL): Zhang et al. 2024, arXiv 2410.03124.

No code is public and the paper was withdrawn; what its abstract leaves open is filled in here, and
said so where it is. Treat it as a baseline.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.utils._param_validation import Interval

from fewfit.calibration import BatchCalibration, NoCalibration
from fewfit.choices import SEEDS
from fewfit.declare import declare
from fewfit.errors import FewfitWarning, InputError
from fewfit.models.base import FrozenModel
from fewfit.parameters import checked
from fewfit.prompts import InContext, Row, Verbalizer, read_rows
from fewfit.searchers.prompt_search import check_words, fill, search_prompt
from fewfit.searchers.trials import cost_of
from fewfit.task import Task

_COLLAPSED = 0.3


@dataclass(frozen=True)
class Learnt:
    """What came of unlabelled texts.

    Attributes
    ----------
    view : InContext
        The template with its learnt words, and the reliable examples in front of it: what to ask
        new texts with.
    pseudo_labels : ndarray of shape (N,)
        Classes that the model, asked in that way, gave the texts.
    confidence : ndarray of shape (N,)
        Their probabilities.
    queries : int
        What was asked, whether or not a store had it.
    """

    view: InContext
    pseudo_labels: NDArray[Any]
    confidence: NDArray[np.float64]
    queries: int


def _smallest_budget(
    n_rows: int, n_free: int, *, n_samples: int = 10, batch_size: int = 16, **_: Any
) -> int:
    """Both passes, and a step between them."""
    return 2 * n_rows + n_samples * min(batch_size, n_rows)


@declare(
    requires=frozenset({"scores"}),
    queries="2, and samples times steps, up to a budget",
    reference="Zhang et al. 2024, arXiv 2410.03124",
    smallest_budget=_smallest_budget,
)
@checked(
    {
        "vocabulary": [list, tuple],
        "start": [list, tuple],
        "max_queries": [Interval(Integral, 1, None, closed="left")],
        "n_demonstrations": [Interval(Integral, 1, None, closed="left")],
        "quantile": [Interval(Real, 0, 1, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "seed": [Interval(Integral, 0, SEEDS - 1, closed="both")],
    }
)
def learn_unsupervised(
    model: FrozenModel,
    template: str,
    vocabulary: Sequence[str],
    texts: Any,
    labels: Mapping[Any, Any],
    *,
    start: Sequence[str],
    max_queries: int,
    n_demonstrations: int = 4,
    quantile: float = 0.8,
    batch_size: int = 16,
    n_samples: int = 10,
    lr: float = 0.1,
    seed: int = 0,
) -> Learnt:
    """Learn prompt words and pseudo-labels together, without any label.

    The model labels every text with the words of `start`; the most confident of each class become
    demonstrations; prompt words are then learnt by policy gradient on the pseudo-labels of the
    other texts, with these demonstrations in front; at last every text is labelled again in the
    form that new texts will be asked in. Pseudo-labels are batch-calibrated, without which one
    class easily takes all (a choice of this library, as are the quota per class and the single
    refresh).

    Parameters
    ----------
    model : FrozenModel
    template : str
        With ``{prompt}`` where the words go, a field and ``{mask}``.
    vocabulary : sequence of str
        Candidate words; a comparison takes the most frequent ones of the examples.
    texts : as for `FewShotClassifier.fit`
        N unlabelled examples.
    labels : mapping of class to label words
    start : sequence of str
        Words of the first prompt, whose number is that of the prompt; a comparison takes the first
        five of `vocabulary`.
    max_queries : int
        Never exceeded; at least 2 N for both passes, and `n_samples` batches for a step between.
    n_demonstrations : int, default=4
        In all, the classes in turn.
    quantile : float, default=0.8
        The texts of a class above this quantile of its confidences are reliable.
    batch_size : int, default=16
        Examples per step.
    n_samples : int, default=10
        Prompts that are drawn per step.
    lr : float, default=0.1
        Step size of :class:`PolicyGradient`.
    seed : int, default=0

    Warns
    -----
    FewfitWarning
        If nearly all texts get one class: pseudo-labels then confirm themselves.
    """
    check_words("vocabulary", vocabulary)
    check_words("start", start)
    verbalizer = Verbalizer(labels)
    rows = read_rows(texts, InContext(fill(template, start)).fields)
    least = _smallest_budget(len(rows), 0, n_samples=n_samples, batch_size=batch_size)
    if max_queries < least:
        raise InputError(
            f"max_queries: both passes over {len(rows)} texts and a step of the search need "
            f"{least}, got {max_queries}"
        )
    codes, confidence, asked = _label(
        model, InContext(fill(template, start), n=0), rows, verbalizer
    )
    shown, reliable = _reliable(codes, confidence, rows, verbalizer, quantile, n_demonstrations)

    def view(source: str) -> InContext:
        return InContext(source, n=n_demonstrations, demonstrations=shown)

    others = np.setdiff1d(np.arange(len(rows)), reliable)
    best = fill(template, start)
    if len(others):
        found = search_prompt(
            model,
            template,
            vocabulary,
            [rows[i] for i in others],
            codes[others],
            verbalizer,
            NoCalibration(),
            length=len(start),
            max_queries=max_queries - asked - len(rows),
            batch_size=batch_size,
            n_samples=n_samples,
            lr=lr,
            seed=seed,
            view=view,
        )
        asked += found.queries
        best = found.template
    codes, confidence, again = _label(model, view(best), rows, verbalizer)
    return Learnt(view(best), np.array(verbalizer.classes)[codes], confidence, asked + again)


def _label(
    model: FrozenModel, view: InContext, rows: Sequence[Row], verbalizer: Verbalizer
) -> tuple[NDArray[np.intp], NDArray[np.float64], int]:
    task = Task(model, view, verbalizer, BatchCalibration())
    task.check(frozenset({"scores"}), who="learn_unsupervised")
    task, answers, _ = task.begin(rows)
    proba = softmax(np.asarray(task.features(answers)[1], dtype=np.float64), axis=1)
    codes = proba.argmax(axis=1)
    share = np.bincount(codes, minlength=proba.shape[1]) / len(codes)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum() / np.log(proba.shape[1])
    if entropy < _COLLAPSED:
        warnings.warn(
            f"{share.max():.0%} of the texts got one class: pseudo-labels have collapsed, and what "
            "is learnt from them confirms itself; try other label words or another prompt",
            FewfitWarning,
            stacklevel=3,
        )
    return codes, proba.max(axis=1), cost_of(task, rows)


def _reliable(
    codes: NDArray[np.intp],
    confidence: NDArray[np.float64],
    rows: Sequence[Row],
    verbalizer: Verbalizer,
    quantile: float,
    n: int,
) -> tuple[list[tuple[Row, str]], NDArray[np.intp]]:
    """Return the demonstrations, the classes in turn, and all reliable rows."""
    ranked: list[list[int]] = []
    for k in range(len(verbalizer.classes)):
        there = np.flatnonzero(codes == k)
        if len(there):
            sure = there[confidence[there] >= np.quantile(confidence[there], quantile)]
            ranked.append(sure[np.argsort(-confidence[sure], kind="stable")].tolist())
    longest = max(len(chosen) for chosen in ranked)
    turns = [chosen[j] for j in range(longest) for chosen in ranked if j < len(chosen)]
    shown: list[tuple[Row, str]] = [
        (dict(rows[int(i)]), verbalizer.first[int(codes[i])]) for i in turns[: n + 1]
    ]
    return shown, np.array(sorted(turns), dtype=np.intp)
