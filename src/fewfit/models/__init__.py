"""Frozen models: one contract, one file per way of asking."""

from __future__ import annotations

from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.embedded import EmbeddedEncoder, EnglishEncoder, Float32Encoder
from fewfit.models.fake import FakeModel
from fewfit.models.local import SentenceEncoder, TransformersModel
from fewfit.models.remote import DIALECTS
from fewfit.registry import Registry

__all__ = [
    "Capabilities",
    "EmbeddedEncoder",
    "EnglishEncoder",
    "FakeModel",
    "Float32Encoder",
    "FrozenModel",
    "SentenceEncoder",
    "TransformersModel",
]


KINDS = Registry(
    "fewfit.models",
    {
        "embedded": "embedded:EmbeddedEncoder",
        "embedded-en": "embedded:EnglishEncoder",
        "embedded-en-float32": "embedded:Float32Encoder",
        "encoder": "local:SentenceEncoder",
        "fake": "fake:FakeModel",
        "hf": "local:TransformersModel",
        **{scheme: f"remote:{kind.__name__}" for scheme, kind in DIALECTS.items()},
    },
)
"""What comes before the colon of a spec -> the kind of model; a new kind is one line here."""


def named_model(spec: str) -> FrozenModel:
    """Return the frozen model that a spec of :data:`KINDS` names (KeyError if none has its name).

    It keeps the spec, by which it is saved, pickled and opened again.
    """
    name, _, rest = spec.partition(":")
    model = KINDS[name].from_spec(rest)
    if type(model).spec is None:  # it makes none of its own
        model.spec = spec
    return model
