"""What every decoder promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from fewfit.decoders import Decoder
from fewfit.errors import ArtifactError, InputError
from fewfit.estimators import FewShotClassifier
from fewfit.models import FakeModel

_TEXTS = ["so good", "quite bad", "good good", "bad and worse", "the good part", "a bad day"]
_Y = ["pos", "neg"] * 3


class _Task(NamedTuple):
    """A small separable problem of three classes: 15 rows to learn from, 17 to predict."""

    X: NDArray[np.float64]
    y: NDArray[Any]
    scores: NDArray[np.float64]
    X_new: NDArray[np.float64]
    scores_new: NDArray[np.float64]


def _task() -> _Task:
    rng = np.random.default_rng(0)
    k = np.arange(15) % 3
    X = (3 * rng.standard_normal((3, 12)))[k] + rng.standard_normal((15, 12))
    scores = 2.0 * np.eye(3)[k] + rng.standard_normal((15, 3))
    y = np.array(["ant", "bee", "cat"])[k]
    return _Task(X, y, scores, rng.standard_normal((17, 12)), rng.standard_normal((17, 3)))


def _fitted(decoder: Decoder, t: _Task) -> Decoder:
    return cast(Decoder, clone(decoder)).fit(t.X, t.y, scores=t.scores)


def check_declares(decoder: Decoder) -> None:
    """It needs what a frozen model can give, and asks about each text once per view."""
    assert decoder.requires <= {"scores", "word_scores", "hidden", "full_vocabulary"}
    model = FakeModel(vocabulary=["good", "bad", "so"] if decoder.requires else ())
    further = [f"{text} again" for text in _TEXTS] if decoder.needs_unlabelled else []
    clf = FewShotClassifier(
        model, labels={"neg": "bad", "pos": "good"}, decoder=decoder, store=None
    ).fit(_TEXTS, _Y, unlabelled=further or None)
    assert model.queries == clf.n_queries_
    assert 0 <= model.queries - len(_TEXTS + further) <= 1
    assert np.isfinite(clf.predict_proba(_TEXTS)).all()


def check_rows_are_independent(decoder: Decoder) -> None:
    """A row's probabilities do not depend on the rows beside it; they sum to 1."""
    t = _task()
    fitted = _fitted(decoder, t)
    whole = fitted.predict_proba(t.X_new, scores=t.scores_new)
    for rows in (slice(3, 4), slice(5, 12), np.arange(17)[::-1]):
        part = fitted.predict_proba(t.X_new[rows], scores=t.scores_new[rows])
        np.testing.assert_allclose(part, whole[rows], atol=1e-12)
    np.testing.assert_allclose(whole.sum(axis=1), 1)
    np.testing.assert_array_equal(
        fitted.predict(t.X_new, scores=t.scores_new), fitted.classes_[whole.argmax(axis=1)]
    )


def check_constant_on_scores(decoder: Decoder) -> None:
    """A constant added to all scores of a row changes nothing: log-odds have no origin."""
    t = _task()
    shift = np.linspace(-3, 3, len(t.X))[:, None]
    shifted = cast(Decoder, clone(decoder)).fit(t.X, t.y, scores=t.scores + shift)
    np.testing.assert_allclose(
        _fitted(decoder, t).predict_proba(t.X_new, scores=t.scores_new),
        shifted.predict_proba(t.X_new, scores=t.scores_new + 1.5),
        atol=1e-9,
    )


def check_order_of_examples(decoder: Decoder) -> None:
    """The order of the examples does not matter."""
    t = _task()
    order = np.random.default_rng(2).permutation(len(t.X))
    other = cast(Decoder, clone(decoder)).fit(t.X[order], t.y[order], scores=t.scores[order])
    np.testing.assert_allclose(
        _fitted(decoder, t).predict_proba(t.X_new, scores=t.scores_new),
        other.predict_proba(t.X_new, scores=t.scores_new),
        atol=1e-9,
    )


def check_names_of_classes(decoder: Decoder) -> None:
    """Other names of the classes, in another order, only permute the columns.

    It is not asked of a decoder that declares :attr:`Decoder.draws_by_class`.
    """
    if decoder.draws_by_class:
        return
    t = _task()
    renamed = np.array([{"ant": "z", "bee": "x", "cat": "y"}[name] for name in t.y])
    columns = [1, 2, 0]  # x is bee, y is cat, z is ant
    other = cast(Decoder, clone(decoder)).fit(t.X, renamed, scores=t.scores[:, columns])
    np.testing.assert_allclose(
        other.predict_proba(t.X_new, scores=t.scores_new[:, columns]),
        _fitted(decoder, t).predict_proba(t.X_new, scores=t.scores_new)[:, columns],
        atol=1e-9,
    )


def check_saved_arrays(decoder: Decoder) -> None:
    """The arrays of ``fitted_arrays`` are all there is; wrong ones are refused."""
    t = _task()
    fitted = _fitted(decoder, t)
    arrays = {name: np.array(getattr(fitted, name)) for name in fitted.fitted_arrays}

    def restored(**changed: NDArray[Any]) -> Decoder:
        return cast(Decoder, clone(decoder)).restore({**arrays, **changed}, fitted.classes_)

    np.testing.assert_array_equal(
        restored().predict_proba(t.X_new, scores=t.scores_new),
        fitted.predict_proba(t.X_new, scores=t.scores_new),
    )
    _refuses(ArtifactError, lambda: restored(odd=np.zeros(1)), "an array that it does not have")
    axes = [axis for shape in fitted.fitted_arrays.values() for axis in shape]
    for name, array in arrays.items():
        first = fitted.fitted_arrays[name][:1]
        if first and (first[0] == "K" or axes.count(first[0]) > 1):  # else any length is right
            short = {name: array[:-1]}
            _refuses(ArtifactError, lambda short=short: restored(**short), f"a short {name!r}")


def check_views(decoder: Decoder) -> None:
    """Scores of several views, (N, P, K), are taken; of other shapes refused."""
    t = _task()
    hidden, scores = np.hstack([t.X, t.X]), np.stack([t.scores, t.scores], axis=1)
    fitted = cast(Decoder, clone(decoder)).fit(hidden, t.y, scores=scores)
    twice = np.hstack([t.X_new, t.X_new]), np.stack([t.scores_new, t.scores_new], axis=1)
    whole = fitted.predict_proba(twice[0], scores=twice[1])
    assert whole.shape == (17, 3)
    part = fitted.predict_proba(twice[0][:5], scores=twice[1][:5])
    np.testing.assert_allclose(part, whole[:5], atol=1e-12)
    wrong = np.zeros((17, 2, 4))
    _refuses(InputError, lambda: fitted.predict_proba(twice[0], scores=wrong), "4 columns for 3")


def check_bad_scores(decoder: Decoder) -> None:
    """Scores of another shape, or NaN among them, are refused; so is a single class."""
    t = _task()
    fresh = cast(Decoder, clone(decoder))
    _refuses(InputError, lambda: fresh.fit(t.X, t.y, scores=t.scores[:, :2]), "2 columns for 3")
    _refuses(ValueError, lambda: fresh.fit(t.X, t.y, scores=t.scores * np.nan), "NaN in scores")
    one = np.repeat("ant", len(t.X))
    _refuses(InputError, lambda: fresh.fit(t.X, one, scores=t.scores[:, :1]), "a single class")


def check_single_precision(decoder: Decoder) -> None:
    """Single precision stays single, and close to double."""
    t = _task()
    single = cast(Decoder, clone(decoder)).fit(
        t.X.astype(np.float32), t.y, scores=t.scores.astype(np.float32)
    )
    got = single.predict_proba(t.X_new.astype(np.float32), scores=t.scores_new)
    expected = _fitted(decoder, t).predict_proba(t.X_new, scores=t.scores_new)
    assert (got.dtype, expected.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(got, expected, atol=1e-3)


DECODER_CHECKS: tuple[Callable[[Decoder], None], ...] = (
    check_declares,
    check_rows_are_independent,
    check_constant_on_scores,
    check_order_of_examples,
    check_names_of_classes,
    check_saved_arrays,
    check_views,
    check_bad_scores,
    check_single_precision,
)


def check_decoder(decoder: Decoder) -> None:
    """Check that a decoder keeps the promises of all decoders, and scikit-learn's.

    Parameters
    ----------
    decoder : Decoder
        An instance with the parameters to be checked; it is cloned, never fitted itself.

    Raises
    ------
    AssertionError
        Or whatever the decoder raises, at the first promise that is not kept.
    """
    for check in DECODER_CHECKS:
        check(decoder)
    check_estimator(decoder, on_skip=None)


def _refuses(kind: type[Exception], action: Callable[[], object], what: str) -> None:
    try:
        action()
    except kind:
        return
    raise AssertionError(f"{what} was not refused with {kind.__name__}")
