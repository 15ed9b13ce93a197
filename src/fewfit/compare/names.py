"""Methods by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewfit.calibration import CALIBRATIONS, Calibration, make_calibration
from fewfit.compare.heads import MultiLabelHead
from fewfit.compare.methods import DecoderMethod, Method, Tfidf
from fewfit.compare.searchers import SearcherMethod
from fewfit.compare.tuning import TuningRow
from fewfit.decoders import DECODERS, Decoder, make_decoder
from fewfit.errors import InputError
from fewfit.parameters import did_you_mean
from fewfit.searchers import SEARCHERS
from fewfit.tuning import METHODS as TUNERS

DEMONSTRATIONS = 4  # of the method "in-context", as many as the view shows by default

IN_CONTEXT = "in-context"

TFIDF = "tfidf"

MULTI_LABEL = "multi-label"

TUNE = "tune:"

UNLABELLED = "+unlabelled"

_OTHERS = (*DECODERS, IN_CONTEXT, MULTI_LABEL, TFIDF, *SEARCHERS)

METHODS: tuple[str, ...] = (*_OTHERS, *(n if n not in _OTHERS else f"{TUNE}{n}" for n in TUNERS))
"""Names that :func:`make_methods` knows; decoders and searchers take a ``+CALIBRATION`` behind.

Decoders that learn from texts without labels take ``+unlabelled`` last: then they are given the
rest of the training pool, without its labels, and its queries are counted.

A tuning method whose name a decoder has too is called ``tune:NAME``; that way of writing names any.
"""

DEFAULT_METHODS = ("offset-regression", "zero-shot", "tfidf", "linear-probe", "dect")
"""The default decoder, and its usual rivals."""


def make_methods(
    methods: Sequence[str] | Mapping[str, Method | Decoder | str | Mapping[str, Any]],
) -> dict[str, Method]:
    """Return methods by name.

    Parameters
    ----------
    methods : sequence of str, or mapping
        Names; or names of yours, each with a method, a decoder, a name of :data:`METHODS`, or
        options of a decoder, as a file can hold them:
        ``{"decoder": "dect", "calibration": "ratio", "lam": 0.5}``; or of a tuning method and its
        recipe: ``{"tuner": "lora", "rank": 8, "steps": 300}``. A name of :data:`METHODS` with
        options needs neither: ``"in-context": {"demonstrations": 8}``.

    Raises
    ------
    InputError
        For no method, an unknown name, calibration or option, or one given twice.
    """
    if not methods or isinstance(methods, str):
        raise InputError(f"methods: give a list of some of {list(METHODS)}")
    if isinstance(methods, Mapping):
        return {name: _made(name, method) for name, method in methods.items()}
    if len(set(methods)) != len(methods):
        raise InputError(f"methods: one is given twice in {list(methods)}")
    return {name: make_method(name) for name in methods}


def default_of(methods: Mapping[str, Method]) -> str | None:
    """Return the name of the method that is used where none is named, if it is among these."""
    key = DecoderMethod(make_decoder(None)).key()
    for name, method in methods.items():
        plain = method.calibration is None and method.template is None and not method.unlabelled
        if plain and method.key() == key:
            return name
    return None


def _made(name: str, method: Any) -> Method:
    if isinstance(method, Method):
        return method
    if isinstance(method, Decoder):
        return DecoderMethod(make_decoder(method))
    if isinstance(method, str):
        return make_method(method)
    if not isinstance(method, Mapping):
        raise InputError(
            f"methods: {name!r} is to be a method, a decoder, a name, or a mapping of options, not "
            f"a {type(method).__name__}"
        )
    options = dict(method)
    if "tuner" in options:
        return TuningRow(options.pop("tuner"), options)
    decoder = options.pop("decoder", name)
    if isinstance(decoder, str):
        if decoder != name and decoder not in DECODERS:
            raise InputError(
                f"methods: {name!r}: decoder: {decoder!r} is not one of {sorted(DECODERS)}"
                f"{did_you_mean(decoder, DECODERS)}"
            )
        return make_method(decoder, options)
    own, shown, pooled = _further(name, options)
    return DecoderMethod(make_decoder(decoder, options=options), own, shown or 0, pooled=pooled)


def _further(name: str, options: dict[str, Any]) -> tuple[Calibration | None, int | None, bool]:
    """Take out of the options what is not the decoder's: calibration, demonstrations, pool."""
    calibration, shown = options.pop("calibration", None), options.pop("demonstrations", None)
    pooled = options.pop("unlabelled", False)
    if not isinstance(pooled, bool):
        raise InputError(f"methods: {name!r}: unlabelled: expected true or false, got {pooled!r}")
    return None if calibration is None else make_calibration(calibration), shown, pooled


def _tuner(name: str) -> str | None:
    """Return the tuning method that a name stands for, if it does."""
    tuner = name.removeprefix(TUNE)
    return tuner if tuner in TUNERS and (name.startswith(TUNE) or name not in _OTHERS) else None


def make_method(name: str, options: Mapping[str, Any] = {}) -> Method:
    """Return the method of this name, with options of its own (InputError)."""
    tuner = _tuner(name)
    if tuner is not None:
        return TuningRow(tuner, options)
    pooled = name.endswith(UNLABELLED)
    plain, plus, calibration = name.removesuffix(UNLABELLED).partition("+")
    if plain not in _OTHERS or (plus and plain in (TFIDF, MULTI_LABEL)):
        raise InputError(
            f"methods: {name!r} is not one of {list(METHODS)}, nor a decoder of these and a "
            f"calibration, as in 'zero-shot+batch', of {sorted(CALIBRATIONS)}"
            f"{did_you_mean(plain, dict.fromkeys(METHODS))}"
        )
    if pooled and plain not in DECODERS:
        raise InputError(
            f"methods: {plain} does not learn from texts without labels; offset-regression, "
            "zero-shot and ipet do"
        )
    rest = dict(options)
    if plus and "calibration" in rest:
        raise InputError(f"methods: {name!r} names its calibration already; leave one of them out")
    if plain in SEARCHERS:
        own = rest.pop("calibration", calibration or None)
        return SearcherMethod(plain, None if own is None else make_calibration(own), rest)
    if plain in (TFIDF, MULTI_LABEL):
        if rest:
            raise InputError(f"option: {plain} has no {next(iter(rest))!r}; it has none")
        return Tfidf() if plain == TFIDF else MultiLabelHead()
    own, shown, told = _further(name, rest)
    own = make_calibration(calibration) if plus else own
    if plain == IN_CONTEXT:
        if rest:
            raise InputError(
                f"option: {plain} has no {next(iter(rest))!r}; it has calibration, demonstrations"
            )
        plain, shown = "zero-shot", DEMONSTRATIONS if shown is None else shown
    return DecoderMethod(make_decoder(plain, options=rest), own, shown or 0, pooled=pooled or told)
