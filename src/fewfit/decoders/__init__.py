"""Decoders: numbers in, numbers out. One method per file, reading like its paper."""

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
]

DECODERS: dict[str, type[Decoder]] = {
    "dect": DecT,
    "ipet": IPET,
    "knn-prompting": KNNPrompting,
    "linear-probe": LinearProbe,
    "mpd": MPD,
    "nearest-mean": NearestMean,
    "offset-regression": OffsetLogisticRegression,
    "paraphrase-mean": ParaphraseMean,
    "pet": PET,
    "prompt-boosting": PromptBoosting,
    "protoverb": ProtoVerb,
    "soft-verbalizer": SoftVerbalizer,
    "zero-shot": ZeroShot,
}
"""Name -> decoder: the fixed table that artifacts and the command line look names up in."""
