"""Examples and classes: where each stands, which have no example, a decoder fitted to them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.decoders import Decoder
from fewfit.errors import InputError, InputWarning, ModelError
from fewfit.prompts import Verbalizer
from fewfit.prompts.containers import row_name, shown
from fewfit.prompts.labels import Label, class_array


def positions(verbalizer: Verbalizer, y: Sequence[Label]) -> NDArray[np.intp]:
    """Return the position of each example's class, shape (N,); each has label words."""
    place = {name: k for k, name in enumerate(verbalizer.classes)}
    for i, name in enumerate(y):
        if name not in place:
            raise InputError(
                f"y: class {shown(name)} has no label words ({row_name(i)}); labels has "
                f"{shown(list(verbalizer.classes))}"
            )
    return np.array([place[name] for name in y], dtype=np.intp)


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
    return weight


def check_unseen(
    verbalizer: Verbalizer, codes: NDArray[np.intp], decoder: Decoder, *, scored: bool
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
        "own scores speak for it",
        InputWarning,
        stacklevel=3,
    )


def check_kept(verbalizer: Verbalizer, codes: NDArray[np.intp], there: NDArray[np.bool_]) -> None:
    """Refuse to fit if a class that had examples has none left."""
    lost = np.setdiff1d(codes, codes[there])
    if len(lost):
        raise ModelError(
            "the model gave no usable answer to any example of class "
            f"{shown(verbalizer.classes[lost[0]])}; run again to ask only what is missing"
        )


def fit_decoder(
    decoder: Decoder,
    codes: NDArray[np.intp],
    hidden: NDArray[np.float32],
    scores: NDArray[np.float32] | None,
    classes: Sequence[Label],
    further: Mapping[str, Any],
    weight: NDArray[Any] | None = None,
) -> None:
    """Fit on positions, which are alike for classes of any kind, and name the classes then.

    Parameters
    ----------
    codes : ndarray of shape (N,)
        Positions of the examples' classes; not all need occur, see :func:`check_unseen`.
    hidden, scores : ndarray
        As :meth:`Decoder.fit` takes them, scores of all K classes.
    classes : sequence, length K
    further : mapping
        Other arguments of the decoder's `fit`.
    weight : ndarray of shape (N,), optional
        Of the examples.
    """
    seen = np.unique(codes)
    if len(seen) < len(classes) and not decoder.fitted_arrays:
        decoder.restore({}, class_array(classes))
        return
    own = scores if scores is None else scores[..., seen]
    if weight is not None and decoder.fitted_arrays:
        further = {**further, "sample_weight": weight}
    decoder.fit(hidden, codes, scores=own, **further)
    if scores is not None and len(seen) < len(classes):
        decoder.add_unseen(seen, codes, scores)
    decoder.classes_ = class_array(classes)
