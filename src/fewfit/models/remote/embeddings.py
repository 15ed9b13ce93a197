"""Servers that only embed text: OpenAI's ``/v1/embeddings``, and text-embeddings-inference."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fewfit.models.base import Capabilities, Check
from fewfit.models.remote.answers import Answer
from fewfit.models.remote.base import RemoteModel
from fewfit.models.remote.replies import field, items, vector
from fewfit.models.remote.transport import Session
from fewfit.models.remote.verdict import RowError
from fewfit.models.similarity import LabelSentences, is_pair, read_pair, show_texts, texts_of
from fewfit.observations import ScoreSpace
from fewfit.prompts import Prompt

SCORE_SCALE = 20.0
_CHUNK = 32


class _Embeddings(RemoteModel):
    """The vector of the user's text is the hidden state; scores are its cosines to label sentences.

    Two fields are a pair of texts, sent in one request; see :func:`read_pair`. More are joined to
    one text. Label sentences (see :class:`LabelSentences`) are embedded in one further request per
    template, which is not a query; a run whose answers are all stored makes none. An empty
    text is sent as one space, because these servers refuse it. The scores' scale is 20, the usual
    inverse temperature of contrastive sentence encoders; the server does not tell its own.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._known: dict[str, NDArray[np.float32]] = {}

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            scores=ScoreSpace.SIMILARITY, hidden=True, score_scale=SCORE_SCALE, pairs=True
        )

    @property
    def identity(self) -> Mapping[str, str]:
        return {**super().identity, "hidden": "the vector; of two fields u, v, |u-v|, sqrt(H)uv"}

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        labels = LabelSentences(words, lambda texts: self._all(session, texts), self._known)
        labels.prepare(prompts)

        def ask(prompt: Prompt) -> Answer:
            texts = texts_of(prompt)
            found = [self._checked(row)[None] for row in self._embedded(session, texts)]
            hidden, vector = read_pair(*found) if is_pair(prompt) else (found[0], found[0])
            return Answer(labels.scores([prompt], vector)[0], None, hidden[0])

        return ask

    def show(self, prompt: Prompt, words: Sequence[str]) -> str:
        return show_texts(prompt, words)

    def _all(self, session: Session, texts: Sequence[str]) -> NDArray[np.float32]:
        chunks = [texts[i : i + _CHUNK] for i in range(0, len(texts), _CHUNK)]
        rows = [row for chunk in chunks for row in self._embedded(session, chunk)]
        return np.stack([self._checked(row) for row in rows])

    @abstractmethod
    def _embedded(self, session: Session, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """Ask for the vectors of at most 32 texts, in one request."""


class OpenAIEmbeddings(_Embeddings):
    """``embeddings:URL?model=NAME``: ``/v1/embeddings``."""

    scheme = "embeddings"

    def _embedded(self, session: Session, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        body = {
            "model": self.options.model,
            "input": [text or " " for text in texts],
            "encoding_format": "float",
        }
        reply = self.send(session, "/v1/embeddings", body)
        self.check_name(reply)
        data = items(field(reply, "data"), len(texts), "data")
        return [vector(field(item, "embedding")) for item in data]


class TextEmbeddingsInference(_Embeddings):
    """``tei:URL``: ``/embed`` of Hugging Face's text-embeddings-inference.

    Vectors are asked for without normalisation. A text that is too long is refused by the server
    and its row fails; with ``truncate=true`` the server cuts it, which nobody is then told.
    """

    scheme = "tei"
    has: ClassVar[frozenset[str]] = frozenset({"truncate"})
    needs_model = False

    def _asking(
        self, session: Session, prompts: Sequence[Prompt], words: Sequence[str]
    ) -> Callable[[Prompt], Answer]:
        info = session.get("/info")
        self.check_name({"model": field(info, "model_id")})
        self.same("model_sha", info.get("model_sha"), mark=True)
        return super()._asking(session, prompts, words)

    def _embedded(self, session: Session, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        body = {
            "inputs": [text or " " for text in texts],
            "normalize": False,
            "truncate": self.options.truncate,
        }
        rows = self.send(session, "/embed", body)
        if not isinstance(rows, list) or len(rows) != len(texts):
            raise RowError(f"/embed: expected {len(texts)} vectors in the reply")
        return [vector(row) for row in rows]

    def _check_fields(self, session: Session, prompt: Prompt, words: Sequence[str]) -> list[Check]:
        norm = float(np.linalg.norm(self._embedded(session, [prompt.user_text])[0]))
        unit = abs(norm - 1) < 1e-3
        return [
            Check(
                "normalize",
                "ignored, or the model does it" if unit else "honoured",
                f"asked for false; the vector's length is {norm:.3f}",
            )
        ]
