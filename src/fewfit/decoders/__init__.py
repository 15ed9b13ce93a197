"""Decoders: numbers in, numbers out. One method per file, reading like its paper."""

from collections.abc import Mapping
from typing import Any

from sklearn.base import clone

from fewfit.decoders.base import Decoder
from fewfit.decoders.dect import DecT
from fewfit.decoders.ipet import IPET
from fewfit.decoders.knn_prompting import KNNPrompting
from fewfit.decoders.linear_probe import LinearProbe
from fewfit.decoders.mpd import MPD
from fewfit.decoders.multi_label import MultiLabel
from fewfit.decoders.nearest_mean import NearestMean
from fewfit.decoders.offset_regression import OffsetLogisticRegression
from fewfit.decoders.paraphrase_mean import ParaphraseMean
from fewfit.decoders.pet import PET
from fewfit.decoders.prompt_boosting import PromptBoosting
from fewfit.decoders.proto_verb import ProtoVerb
from fewfit.decoders.soft_verbalizer import SoftVerbalizer
from fewfit.decoders.zero_shot import ZeroShot
from fewfit.errors import InputError
from fewfit.parameters import check_parameters, look_up, make
from fewfit.registry import Registry

__all__ = [
    "DECODERS",
    "IPET",
    "MPD",
    "PET",
    "DecT",
    "Decoder",
    "KNNPrompting",
    "LinearProbe",
    "MultiLabel",
    "NearestMean",
    "OffsetLogisticRegression",
    "ParaphraseMean",
    "PromptBoosting",
    "ProtoVerb",
    "SoftVerbalizer",
    "ZeroShot",
    "make_decoder",
]

DECODERS = Registry(
    "fewfit.decoders",
    {
        "dect": "dect:DecT",
        "ipet": "ipet:IPET",
        "knn-prompting": "knn_prompting:KNNPrompting",
        "linear-probe": "linear_probe:LinearProbe",
        "mpd": "mpd:MPD",
        "nearest-mean": "nearest_mean:NearestMean",
        "offset-regression": "offset_regression:OffsetLogisticRegression",
        "paraphrase-mean": "paraphrase_mean:ParaphraseMean",
        "pet": "pet:PET",
        "prompt-boosting": "prompt_boosting:PromptBoosting",
        "protoverb": "proto_verb:ProtoVerb",
        "soft-verbalizer": "soft_verbalizer:SoftVerbalizer",
        "zero-shot": "zero_shot:ZeroShot",
    },
)
"""Name -> decoder: where artifacts and the command line look names up; a new one is one line."""


def make_decoder(
    decoder: Any,
    default: type[Any] = OffsetLogisticRegression,
    *,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Return a decoder of one's own to fit: the one of this name, a copy of this one, the default.

    Parameters
    ----------
    decoder : str, Decoder, MultiLabel or None
    default : type of Decoder, or MultiLabel
        Made for None. Where it is :class:`MultiLabel`, so has `decoder` to be.
    options : mapping of str to value, optional
        Parameters of the one that is named, or of the default, as text or as they are:
        ``make_decoder("dect", options={"lam": "0.5"})``.

    Raises
    ------
    InputError
        If nothing is known under the name, it is no decoder of this kind, it has no such
        parameter, or its parameters are not what they may be.
    """
    many = default is MultiLabel
    kind, names = (MultiLabel, {"multi-label": MultiLabel}) if many else (Decoder, DECODERS)
    if decoder is None:
        return make(default, options or {}, who=f"the default decoder, {default.__name__},")
    if isinstance(decoder, str):
        kind = look_up(decoder, names, parameter="decoder")
        return make(kind, options or {}, who=f"decoder {decoder!r}")
    if options:
        raise InputError("option: give options with the name of a decoder, not with a decoder")
    if isinstance(decoder, kind):
        check_parameters(decoder)
        return clone(decoder)
    if isinstance(decoder, type):
        raise InputError(f"decoder: got the class {decoder.__name__}; pass {decoder.__name__}()")
    if isinstance(decoder, Decoder | MultiLabel):
        raise InputError(
            f"decoder: {type(decoder).__name__} is for {'one' if many else 'several'} labels per "
            f"example, which is {'FewShotClassifier' if many else 'MultiLabelClassifier'}'s"
        )
    raise InputError(
        f"decoder: expected a decoder of fewfit, or its name, one of {sorted(names)}; got a "
        f"{type(decoder).__name__}"
    )
