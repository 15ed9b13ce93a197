"""The embedded models: sentence encoders that packages on the registry carry, offline.

They make the whole library work five minutes after ``pip install fewfit``: no hub, no server, no
key. ``embedded`` reads some hundred languages and needs no extra; ``embedded-en`` reads English,
and so does ``embedded-en-float32``, which was ``embedded`` up to version 0.1 and needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping

from fewfit.models.embedded.encoders import EmbeddedEncoder, EnglishEncoder
from fewfit.models.embedded.minilm import Float32Encoder

__all__ = ["EmbeddedEncoder", "EnglishEncoder", "Float32Encoder", "renamed"]


def renamed(spec: str, identity: Mapping[str, str]) -> str:
    """Return what a model that was saved as ``embedded`` is called now, by its identity.

    Parameters
    ----------
    spec : str
        From an artifact, or from who opens it.
    identity : mapping of str to str
        That the artifact is bound to.
    """
    if spec == "embedded" and dict(identity) == dict(Float32Encoder().identity):
        return Float32Encoder.name
    return spec
