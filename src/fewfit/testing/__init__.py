"""Checks for what you add yourself, as scikit-learn ships ``check_estimator``.

Each raises AssertionError at the first promise that is not kept. They are the checks that run over
everything in the house.
"""

from fewfit.testing.decoders import DECODER_CHECKS, check_decoder
from fewfit.testing.models import FROZEN_MODEL_CHECKS, check_frozen_model
from fewfit.testing.tuning import TUNING_CHECKS, check_tuning_method

__all__ = [
    "DECODER_CHECKS",
    "FROZEN_MODEL_CHECKS",
    "TUNING_CHECKS",
    "check_decoder",
    "check_frozen_model",
    "check_tuning_method",
]
