"""fewfit: adapt a frozen pre-trained model to your task from a handful of labels."""

from fewfit._version import __version__
from fewfit.decoders import DecT, LinearProbe, OffsetLogisticRegression, ZeroShot
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.multi_label import MultiLabelClassifier
from fewfit.estimators.opening import load_model
from fewfit.models import FrozenModel
from fewfit.observations import Observations
from fewfit.prompts import Template, Verbalizer

__all__ = [
    "DecT",
    "FewShotClassifier",
    "FrozenModel",
    "LinearProbe",
    "MultiLabelClassifier",
    "Observations",
    "OffsetLogisticRegression",
    "Template",
    "Verbalizer",
    "ZeroShot",
    "__version__",
    "load_model",
]
