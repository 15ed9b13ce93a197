"""Frozen models: one contract, one file per way of asking."""

from __future__ import annotations

from collections.abc import Callable

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.embedded import EmbeddedEncoder
from fewfit.models.fake import FakeModel
from fewfit.models.local import SentenceEncoder, TransformersModel
from fewfit.models.remote import DIALECTS

__all__ = [
    "Capabilities",
    "EmbeddedEncoder",
    "FakeModel",
    "FrozenModel",
    "SentenceEncoder",
    "TransformersModel",
]


def _embedded(rest: str) -> FrozenModel:
    _nothing(rest, "embedded")
    return EmbeddedEncoder()


def _fake(rest: str) -> FrozenModel:
    _nothing(rest, "fake")
    model = FakeModel()
    model.spec = "fake"
    return model


def _nothing(rest: str, name: str) -> None:
    if rest:
        raise InputError(f"model: {name!r} takes no options, got {rest!r}")


KINDS: dict[str, Callable[[str], FrozenModel]] = {
    "embedded": _embedded,
    "encoder": SentenceEncoder.from_spec,
    "fake": _fake,
    "hf": TransformersModel.from_spec,
    **{scheme: kind.from_spec for scheme, kind in DIALECTS.items()},
}
"""What comes before the colon of a spec -> how the model is made from what comes after it."""
