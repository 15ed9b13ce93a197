"""fewfit: adapt a frozen pre-trained model to your task from a handful of labels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fewfit._version import __version__

if TYPE_CHECKING:
    from fewfit.decoders import DecT, LinearProbe, OffsetLogisticRegression, ZeroShot
    from fewfit.estimators import FewShotClassifier, MultiLabelClassifier
    from fewfit.estimators.loading import load
    from fewfit.estimators.opening import load_model
    from fewfit.models import FrozenModel
    from fewfit.observations import Observations
    from fewfit.prompts import Template, Verbalizer

_ROOMS = {
    "DecT": "decoders",
    "FewShotClassifier": "estimators",
    "FrozenModel": "models",
    "LinearProbe": "decoders",
    "MultiLabelClassifier": "estimators",
    "Observations": "observations",
    "OffsetLogisticRegression": "decoders",
    "Template": "prompts",
    "Verbalizer": "prompts",
    "ZeroShot": "decoders",
    "load": "estimators.loading",
    "load_model": "estimators.opening",
}
# A second of imports, most of it scikit-learn's, is for those who use what needs it (PEP 562).

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
    "load",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
