"""Calibration: estimate a frozen model's prior over labels, and remove it.

One object does both, in a named score space:

* contextual calibration (Zhao et al. 2021, arXiv 2102.09690) divides label *probabilities* by
  those of content-free inputs; here it is the same thing as a subtraction of logarithms,
* domain-context calibration (Fei et al. 2023, arXiv 2305.19148) does so with inputs made of random
  words of the task's own texts,
* batch calibration (Zhou et al. 2024, arXiv 2309.17249) divides by the mean of the very rows that
  are to be decided,
* domain-conditional PMI (Holtzman et al. 2021, arXiv 2104.08315) divides by the probability that
  each answer has after a premise alone,
* DecT's calibration (Cui et al. 2023, arXiv 2212.08408, section 3.2) divides raw *logits*.

Scores are class scores of shape (N, K); the prior has shape (K,), float64, in the space of the
scores. Each template has its own prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewfit.calibration.base import COARSEST, Calibration, NoCalibration, Scores
from fewfit.calibration.batch import BatchCalibration
from fewfit.calibration.contextual import ContextualCalibration, DomainContextCalibration
from fewfit.calibration.pmi import PMICalibration
from fewfit.calibration.ratio import RatioCalibration
from fewfit.errors import InputError
from fewfit.parameters import check_parameters, look_up, make

__all__ = [
    "CALIBRATIONS",
    "COARSEST",
    "BatchCalibration",
    "Calibration",
    "ContextualCalibration",
    "DomainContextCalibration",
    "NoCalibration",
    "PMICalibration",
    "RatioCalibration",
    "Scores",
    "default_calibration",
    "make_calibration",
]

CALIBRATIONS: dict[str, type[Calibration]] = {
    kind.name: kind
    for kind in (
        NoCalibration,
        ContextualCalibration,
        DomainContextCalibration,
        BatchCalibration,
        PMICalibration,
        RatioCalibration,
    )
}


def default_calibration(resolution: float = 0.0) -> Calibration:
    """Return the calibration where none is named: contextual, and none for a few answers in words.

    Parameters
    ----------
    resolution : float
        Smallest step of the probabilities behind the scores.
    """
    return NoCalibration() if resolution > COARSEST else ContextualCalibration()


def make_calibration(
    calibration: str | Calibration, *, options: Mapping[str, Any] | None = None
) -> Calibration:
    """Return the calibration of this name; a calibration is returned as it is.

    Parameters
    ----------
    calibration : str or Calibration
    options : mapping of str to value, optional
        Parameters of the one that is named, as text or as they are.

    Raises
    ------
    InputError
        If nothing is known under this name, or it has no such parameter or value.
    """
    if isinstance(calibration, Calibration):
        if options:
            raise InputError("option: give options with the name of a calibration, not with one")
        check_parameters(calibration)
        return calibration
    kind = look_up(calibration, CALIBRATIONS, parameter="calibration")
    return make(kind, options or {}, who=f"{calibration!r} calibration")
