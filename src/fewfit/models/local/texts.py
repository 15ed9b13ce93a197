"""From whole texts to token ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple


class Encoded(NamedTuple):
    """A text or a prompt in tokens.

    `slot` is where the slot's token stands; for a causal model, where the next one would.
    """

    ids: list[int]
    slot: int
    truncated: bool


class TextEncoder:
    """Tokenises texts for one tokenizer; special tokens in a text are plain text.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        Taken over: padding, truncation and special tokens in texts are switched off.
    limit : int, optional
        Longer texts are cut at their end by :meth:`encode_texts`.
    """

    def __init__(self, backend: Any, *, limit: int | None = None) -> None:
        backend.no_padding()
        backend.no_truncation()
        special = [t.content for t in backend.get_added_tokens_decoder().values() if t.special]
        backend.encode_special_tokens = True
        self.backend, self.limit = backend, limit
        self._leaks = self._reachable(special)
        if limit is not None:
            backend.enable_truncation(limit)

    def encode_texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise whole texts, with what the tokenizer puts around them; no slot is in them."""
        encodings = self.backend.encode_batch_fast([self._plain_text(text) for text in texts])
        return [Encoded(item.ids, 0, bool(item.overflowing)) for item in encodings]

    def _plain(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def _plain_text(self, text: str) -> str:
        return text if self._leaks is None else self._leaks.sub(_broken, text)

    def _reachable(self, names: Sequence[str]) -> re.Pattern[str] | None:
        """The special tokens that the vocabulary holds as ordinary pieces too.

        Switching special tokens off does not help against these (SentencePiece's unigram models
        have them): they are broken by a space after their first character.
        """
        found = [
            re.escape(name)
            for name in names
            if len(name) > 1 and self.backend.token_to_id(name) in self._plain(f"a {name}a{name}")
        ]
        return re.compile("|".join(sorted(found, key=len, reverse=True))) if found else None


def _broken(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"
