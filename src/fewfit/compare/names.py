"""Methods by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fewfit.calibration import CALIBRATIONS, make_calibration
from fewfit.compare.methods import DecoderMethod, Method, Tfidf
from fewfit.compare.searchers import SearcherMethod
from fewfit.decoders import DECODERS, Decoder
from fewfit.errors import InputError
from fewfit.searchers import SEARCHERS

DEMONSTRATIONS = 4  # of the method "in-context", as many as the view shows by default

IN_CONTEXT = "in-context"

TFIDF = "tfidf"

METHODS: tuple[str, ...] = (*DECODERS, IN_CONTEXT, TFIDF, *SEARCHERS)
"""Names that :func:`make_methods` knows; all but "tfidf" may be followed by ``+CALIBRATION``."""

DEFAULT_METHODS = ("offset-regression", "zero-shot", "tfidf", "linear-probe", "dect")
"""The default decoder, and its usual rivals."""


def make_methods(
    methods: Sequence[str] | Mapping[str, Method | Decoder],
) -> dict[str, Method]:
    """Return methods by name, from names or from a mapping of name to method or decoder.

    Raises
    ------
    InputError
        For no method, an unknown name or calibration, or one given twice.
    """
    if not methods or isinstance(methods, str):
        raise InputError(f"methods: give a list of some of {list(METHODS)}")
    if isinstance(methods, Mapping):
        return {
            name: DecoderMethod(method) if isinstance(method, Decoder) else method
            for name, method in methods.items()
        }
    if len(set(methods)) != len(methods):
        raise InputError(f"methods: one is given twice in {list(methods)}")
    made: dict[str, Method] = {}
    for name in methods:
        plain, plus, calibration = name.partition("+")
        if plain not in METHODS or (plus and plain == TFIDF):
            raise InputError(
                f"methods: {name!r} is not one of {list(METHODS)}, nor a decoder of these and a "
                f"calibration, as in 'zero-shot+batch', of {sorted(CALIBRATIONS)}"
            )
        own = make_calibration(calibration) if plus else None
        if plain == TFIDF:
            made[name] = Tfidf()
        elif plain in SEARCHERS:
            made[name] = SearcherMethod(plain, own)
        elif plain == IN_CONTEXT:
            made[name] = DecoderMethod(DECODERS["zero-shot"](), own, DEMONSTRATIONS)
        else:
            made[name] = DecoderMethod(DECODERS[plain](), own)
    return made
