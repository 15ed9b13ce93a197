"""Sentence encoders as frozen models: one vector of a text, held against label sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.models.base import Check
from fewfit.models.local.base import LocalModel
from fewfit.models.local.batching import read_in_batches
from fewfit.models.local.layout import EncoderCheckpoint, Layout
from fewfit.models.local.loading import load_network, load_tokenizer
from fewfit.models.local.reading import TextVectors
from fewfit.models.local.specs import parse_spec
from fewfit.models.local.texts import Encoded, TextEncoder
from fewfit.models.local.vectors import VectorNetwork
from fewfit.prompts import Prompt

OPTIONS = ("dtype", "max_tokens")


class SentenceEncoder(TextVectors, LocalModel):
    """An encoder of texts in the layout of sentence-transformers, run in this process.

    Hidden state
        The vector of the user's text alone, made as the checkpoint's own files say: pooling,
        dense layers, length. A bare encoder, whose files say nothing, gives the mean over the
        tokens of its last layer. Two fields are a pair of texts, each embedded by itself; see
        :func:`~fewfit.models.similarity.read_pair`. Three and more are joined by a space.
    Score of a label word, space ``similarity``
        Cosine between the text, or the mean direction of both, and the label sentence; see
        :class:`~fewfit.models.similarity.LabelSentences`.

    The scores' scale is 20, the inverse temperature of the contrastive loss that
    sentence-transformers trains with, so that scaled differences read as log-odds.

    Parameters
    ----------
    name : str
        A folder, or a name on the hub. Only safetensors are read, and no code of a checkpoint.
    revision : str, optional
        Branch, tag or commit on the hub; it is resolved to a commit, once.
    dtype : {"float32", "bfloat16", "float16", "auto"}, optional
        Of the weights; left out, bfloat16 on a CUDA device that has it, else float32. "auto" is
        bfloat16 also on a processor that multiplies it. What it came to is part of the identity and
        of :attr:`spec`.
    max_tokens : int, optional
        Longer texts are cut at their end; left out, what the checkpoint declares.
    device : str, optional
        Left out, "cuda" or "mps" where there is one, else "cpu". Not part of the identity.

    Raises
    ------
    InputError
        For arguments that are not as above.
    MissingExtraError, ModelError
        When first asked: torch is missing, or the checkpoint cannot be had, read or understood.
    """

    checkpoint: EncoderCheckpoint

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        dtype: str | None = None,
        max_tokens: int | None = None,
        device: str | None = None,
    ) -> None:
        point = EncoderCheckpoint(str(name), revision)
        super().__init__(point, dtype=dtype, max_tokens=max_tokens, device=device)

    @classmethod
    def from_spec(cls, rest: str) -> SentenceEncoder:
        """Make the model of ``encoder:NAME_OR_PATH[@REVISION][?option=value&...]``.

        Options are `dtype` and `max_tokens`.
        """
        name, options = parse_spec(rest, OPTIONS)
        return cls(name, **options)

    @property
    def spec(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The string that makes this model again, pinned to the commit and the dtype."""
        at = "" if self.checkpoint.local else f"@{self.checkpoint.commit}"
        options = {"dtype": self.dtype}
        if self._max_tokens is not None:
            options["max_tokens"] = str(self._max_tokens)
        return f"encoder:{self.checkpoint.name}{at}?{urlencode(options)}"

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": "sentence-encoder",
            "architecture": self.checkpoint.architecture,
            **self.checkpoint.fingerprint,
            "hidden": f"{self._layout.text}; of two fields u, v, |u-v|, sqrt(H)uv",
            "dtype": self.dtype,
            "max_tokens": str(self.max_tokens),
        }

    def check_fields(self, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        """Say how a vector is made of a text."""
        detail = self._layout.text
        if not self._layout.declared:
            detail += ": there is no modules.json that says how a text becomes one vector"
        return [Check("pooling", "ok" if self._layout.declared else "note", detail)]

    def _embedded(self, texts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        """Yield (positions, (tokens, vectors)), longest texts first."""
        network = self.network

        def encode(window: NDArray[np.intp]) -> list[Encoded]:
            return self.tokens([texts[int(i)] for i in window])

        def ask(items: Sequence[Encoded]) -> tuple[Sequence[Encoded], NDArray[np.float32]]:
            return items, network.vectors(items)

        sizes = [len(text) for text in texts]
        yield from read_in_batches(sizes, encode, ask, self._budget, pads=network.pads)

    def tokens(self, texts: Sequence[str]) -> list[Encoded]:
        """Return texts as the network reads them."""
        some = [f"{self._layout.prefix}{text}" for text in texts]
        lower = self._layout.lower
        return self._encoder.encode_texts([text.lower() for text in some] if lower else some)

    @property
    def _layout(self) -> Layout:
        return self.checkpoint.layout

    @property
    def _encoder(self) -> TextEncoder:
        return self._once("encoder", self._load_encoder)

    def _load_encoder(self) -> TextEncoder:
        point = self.checkpoint
        words = load_tokenizer(point.description, point.name)
        encoder = TextEncoder(words.backend_tokenizer, limit=self.max_tokens)
        [around] = encoder.encode_texts([self._layout.prefix])
        if len(around.ids) >= self.max_tokens:
            raise InputError(
                f"model: max_tokens={self.max_tokens} leaves no room for a text: {point.name} puts "
                f"{len(around.ids)} tokens around it"
            )
        return encoder

    @property
    def network(self) -> VectorNetwork:
        """The network, loaded when first asked for."""
        return self._once("network", self._load_network)

    def _load_network(self) -> VectorNetwork:
        point = self.checkpoint
        network = load_network(point, "encoder", dtype=self.dtype, device=self.device)
        folders = [point.root / layer.folder for layer in self._layout.dense]
        return VectorNetwork(network, self._layout, point.name, folders)
