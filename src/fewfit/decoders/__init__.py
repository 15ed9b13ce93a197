"""Decoders: numbers in, numbers out. One method per file, reading like its paper."""

from fewfit.decoders.base import Decoder
from fewfit.decoders.dect import DecT
from fewfit.decoders.linear_probe import LinearProbe
from fewfit.decoders.offset_regression import OffsetLogisticRegression
from fewfit.decoders.zero_shot import ZeroShot

__all__ = [
    "DECODERS",
    "DecT",
    "Decoder",
    "LinearProbe",
    "OffsetLogisticRegression",
    "ZeroShot",
]

DECODERS: dict[str, type[Decoder]] = {
    "dect": DecT,
    "linear-probe": LinearProbe,
    "offset-regression": OffsetLogisticRegression,
    "zero-shot": ZeroShot,
}
"""Name -> decoder: the fixed table that artifacts and the command line look names up in."""
