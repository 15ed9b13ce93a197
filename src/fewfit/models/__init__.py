"""Frozen models: one contract, one file per way of asking."""

from __future__ import annotations

from collections.abc import Callable

from fewfit.errors import InputError
from fewfit.models.base import Capabilities, FrozenModel
from fewfit.models.embedded import EmbeddedEncoder
from fewfit.models.fake import FakeModel
from fewfit.models.hf import TransformersModel
from fewfit.models.remote import DIALECTS

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
        a folder or the hub (:meth:`TransformersModel.from_spec`); ``"fake"``, the toy model for
        tests; or a server, as ``DIALECT:URL?OPTION=VALUE&...``, for example
        ``"vllm:http://localhost:8000?model=Qwen3-8B"``. Dialects: ``openai`` (completions),
        ``openai-chat``, ``vllm``, ``sglang``, ``llamacpp``, ``ollama``, ``embeddings``, ``tei``.
        Options: :class:`fewfit.models.remote.options.Options`. A key is never part of it.

    Returns
    -------
    FrozenModel
        Weights are loaded, and a server is spoken to, when it is first asked, not here.

    Raises
    ------
    InputError
        If nothing is known under this name, or an address holds a key.
    """
    if isinstance(spec, FrozenModel):
        return spec
    name, _, rest = spec.partition(":")
    if name not in KINDS:
        raise InputError(f"model: {name!r} is not known; choose one of {', '.join(KINDS)}")
    return KINDS[name](rest)


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
    "fake": _fake,
    "hf": TransformersModel.from_spec,
    **{scheme: kind.from_spec for scheme, kind in DIALECTS.items()},
}
"""What comes before the colon of a spec -> how the model is made from what comes after it."""
