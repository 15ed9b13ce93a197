"""Tuning a few thousand scalars of a network whose weights are at hand. Needs torch."""

from fewfit.errors import MissingExtraError

try:
    import torch as _torch  # noqa: F401
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise MissingExtraError(f'tuning needs {error.name}: pip install "fewfit[tune]"') from None

from fewfit.tuning.choices import ChoiceEncoder, ChoiceExample
from fewfit.tuning.ia3 import IA3
from fewfit.tuning.lora import add_lora
from fewfit.tuning.losses import (
    Objective,
    TokenLogProbs,
    distillation_loss,
    language_model_loss,
    length_normalised_loss,
    rank,
    unlikelihood_loss,
)
from fewfit.tuning.packing import ChoiceBatch, Packer
from fewfit.tuning.pet import pet
from fewfit.tuning.selector import RandomSelector, Selector
from fewfit.tuning.sites import LAYOUTS, Site, SiteMap, Stack, site_map
from fewfit.tuning.sparse import MaskedUpdate, SparseDelta
from fewfit.tuning.tfew import PRETRAINING, ranked, t_few, tune
from fewfit.tuning.training import Recipe, train
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.tuned import TunedModel
from fewfit.tuning.vectors import load_original, load_start, load_vectors, save_vectors

__all__ = [
    "IA3",
    "LAYOUTS",
    "PRETRAINING",
    "ChoiceBatch",
    "ChoiceEncoder",
    "ChoiceExample",
    "MaskedUpdate",
    "Objective",
    "Packer",
    "RandomSelector",
    "Recipe",
    "Selector",
    "Site",
    "SiteMap",
    "SparseDelta",
    "Stack",
    "TokenLogProbs",
    "Trunk",
    "TunedModel",
    "add_lora",
    "distillation_loss",
    "language_model_loss",
    "length_normalised_loss",
    "load_original",
    "load_start",
    "load_vectors",
    "pet",
    "rank",
    "ranked",
    "save_vectors",
    "site_map",
    "t_few",
    "train",
    "tune",
    "unlikelihood_loss",
]
