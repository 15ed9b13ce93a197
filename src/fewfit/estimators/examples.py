"""Examples and classes: where each stands, which have no example, a decoder fitted to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.decoders import Decoder
from fewfit.errors import InputError, InputWarning, ModelError, ModelWarning
from fewfit.observations import Observations
from fewfit.prompts import Row, Verbalizer, read_rows
from fewfit.prompts.containers import row_name, shown
from fewfit.prompts.labels import Label, check_kinds, class_array
from fewfit.task import Task

_COMPUTABLE = (1e-30, 1e30)  # weights; beyond, their products leave single precision


def positions(verbalizer: Verbalizer, y: Sequence[Label], *, name: str = "y") -> NDArray[np.intp]:
    """Return the position of each example's class, shape (N,); each has label words."""
    place = {own: k for k, own in enumerate(verbalizer.classes)}
    for i, own in enumerate(y):
        if own not in place:
            raise InputError(
                f"{name}: class {shown(own)} has no label words ({row_name(i)}); labels has "
                f"{shown(list(verbalizer.classes))}"
            )
    return np.array([place[own] for own in y], dtype=np.intp)


def read_weights(given: Any, N: int) -> NDArray[np.float64] | None:
    """Return the weight of each example, shape (N,); None where none are given (InputError)."""
    if given is None:
        return None
    try:
        weight = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("sample_weight: expected a number for each example") from None
    if weight.shape != (N,):
        raise InputError(f"sample_weight: expected shape {(N,)}, got {weight.shape}")
    if not (np.isfinite(weight).all() and (weight >= 0).all() and (weight.any() or not N)):
        raise InputError(
            "sample_weight: weights are finite and not negative, and one of them is above 0"
        )
    some = weight[weight > 0]
    least, most = _COMPUTABLE
    if some.size and not least <= some.min() <= some.max() <= most:
        raise InputError(
            f"sample_weight: a weight is 0 or from {least:g} to {most:g}, which single precision "
            f"can compute with; got {some.min():g} to {some.max():g}"
        )
    return weight


def check_kind(known: Sequence[Label], y: Sequence[Label]) -> None:
    """Refuse to score text against numbers, which is never right (InputError).

    Parameters
    ----------
    known : sequence
        The classes.
    y : sequence
        Labels of one kind.
    """
    if len(y) and isinstance(known[0], str) != isinstance(y[0], str):
        who = ("fit knew", "there is")
        check_kinds([known[0], y[0]], lambda i: who[i], name="y")


def check_unseen(
    verbalizer: Verbalizer,
    codes: NDArray[np.intp],
    decoder: Decoder,
    *,
    scored: bool,
    pool: bool = False,
) -> None:
    """Refuse classes without an example where nothing would speak for them, else warn."""
    seen = set(codes.tolist())
    unseen = [name for k, name in enumerate(verbalizer.classes) if k not in seen]
    if not unseen:
        return
    what = f"labels: class {shown(unseen[0])} has label words but no example in y"
    if not (decoder.unseen and scored and (len(seen) > 1 or not decoder.fitted_arrays)):
        raise InputError(
            f"{what}; give it at least one example or leave it out. Where the model gives scores, "
            "the default decoder (from two classes with examples on) and ZeroShot can do without"
        )
    warnings.warn(
        f"{what} ({len(unseen)} of {len(verbalizer.classes)} classes have none): only the model's "
        f"own scores{' and the texts without labels' if pool else ''} speak for it",
        InputWarning,
        stacklevel=3,
    )


def check_kept(verbalizer: Verbalizer, codes: NDArray[np.intp], there: NDArray[np.bool_]) -> None:
    """Refuse to fit if a class that had examples has none left."""
    lost = np.setdiff1d(codes, codes[there])
    if len(lost):
        raise ModelError(
            "the model gave no usable answer to any example of class "
            f"{shown(verbalizer.classes[lost[0]])}. Run again, which asks nothing "
            "that the store has"
        )


def fit_decoder(
    decoder: Decoder,
    codes: NDArray[np.intp],
    hidden: NDArray[np.float32],
    scores: NDArray[np.float32] | None,
    classes: Sequence[Label],
    further: Mapping[str, Any],
    weight: NDArray[Any] | None = None,
    temperature: float = 1.0,
) -> Decoder:
    """Fit on positions, which are alike for classes of any kind, and name the classes then.

    Parameters
    ----------
    codes : ndarray of shape (N,)
        Positions of the examples' classes; not all need occur, see :func:`check_unseen`.
    hidden, scores : ndarray
        As :meth:`Decoder.fit` takes them, scores of all K classes.
    classes : sequence, length K
    further : mapping
        Texts without labels, as the decoder's `fit` takes them.
    weight : ndarray of shape (N,), optional
        Of the examples.
    temperature : float, default=1
        By what log-odds are divided in the end, which changes no label.

    Returns
    -------
    Decoder
        `decoder`, or what it has become by texts without labels: those speak of all classes, so
        that they come last.
    """
    seen = np.unique(codes)
    later = decoder.adapts and bool(further)
    if len(seen) < len(classes) and not decoder.fitted_arrays:
        decoder.restore({}, class_array(classes))
    else:
        own = scores if scores is None else scores[..., seen]
        more: dict[str, Any] = {} if later else dict(further)
        if weight is not None and decoder.fitted_arrays:
            more["sample_weight"] = weight
        decoder.fit(hidden, codes, scores=own, **more)
        if scores is not None and len(seen) < len(classes):
            decoder.add_unseen(seen, codes, scores)
        decoder.classes_ = class_array(classes)
    if later:
        pool, pool_scores = further["pool"], further["pool_scores"]
        decoder = decoder.adapt(pool, scores=pool_scores, labelled=(hidden, codes, weight))
    decoder.temper(temperature)
    return decoder


def read_pool(X: Any, fields: Sequence[str], *, name: str = "unlabelled") -> list[Row]:
    """Return the rows of texts without labels, of which there has to be one (InputError)."""
    rows = read_rows(X, fields, name=name)
    if not rows:
        raise InputError(f"{name}: no examples")
    return rows


def check_pool(task: Task) -> None:
    """Refuse texts without labels where a model gives no hidden states (CapabilityError)."""
    given, who = task.model.capabilities, "learning from texts without labels"
    given.check(frozenset({"hidden"}), who=who, n_words=len(task.verbalizer.words))


def usable(task: Task, answers: Observations) -> dict[str, Any]:
    """Return what a decoder learns of those texts without labels that were answered."""
    there = task.answered(answers)
    if not there.any():
        raise ModelError("unlabelled: the model gave no usable answer to any example")
    report_left_out(there, "unlabelled examples")
    hidden, scores = task.features(task.select(answers, there))
    return {"pool": hidden, "pool_scores": scores}


def report_left_out(there: NDArray[np.bool_], what: str) -> None:
    """Warn of examples that got no usable answer; `there` are those that did, shape (N,)."""
    if not there.all():
        warnings.warn(
            f"{(~there).sum()} of {len(there)} {what} got no usable answer and are left out",
            ModelWarning,
            stacklevel=3,
        )
