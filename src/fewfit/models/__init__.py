"""Frozen models: one contract, one file per way of asking."""

from __future__ import annotations

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.embedded import EmbeddedEncoder
from fewfit.models.fake import FakeModel
from fewfit.models.hf import TransformersModel

__all__ = [
    "Capabilities",
    "EmbeddedEncoder",
    "FakeModel",
    "FrozenModel",
    "TransformersModel",
    "load_model",
]


def load_model(spec: str | FrozenModel) -> FrozenModel:
    """Return the frozen model that `spec` names; a frozen model is returned as it is.

    Parameters
    ----------
    spec : str or FrozenModel
        ``"embedded"``, the sentence encoder that needs no network;
        ``"hf:NAME_OR_PATH[@REVISION][?option=value&...]"``, a language model of transformers, from
        a folder or the hub (:meth:`TransformersModel.from_spec`); or ``"fake"``, the toy model for
        tests.

    Returns
    -------
    FrozenModel
        Its weights are loaded when it is first asked, not here.

    Raises
    ------
    InputError
        If nothing is known under this name.
    """
    if isinstance(spec, FrozenModel):
        return spec
    if spec == "embedded":
        return EmbeddedEncoder()
    if spec == "fake":
        model = FakeModel()
        model.spec = "fake"
        return model
    if spec.startswith("hf:"):
        return TransformersModel.from_spec(spec)
    raise InputError(
        f"model: {spec!r} is not known; choose 'embedded', 'hf:NAME_OR_PATH' or 'fake'"
    )
