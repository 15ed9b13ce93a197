"""From prompts to token ids with a known slot, and from label words to token ids."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from fewfit.errors import InputError, ModelError
from fewfit.models.local.cutting import Frame, frame_of, joined, shortened
from fewfit.models.local.files import Kind
from fewfit.models.local.texts import Encoded, TextEncoder
from fewfit.prompts import Part, Prompt

SENTINEL = "<extra_id_0>"

_NAMES = {"masked": "a masked", "causal": "a causal", "seq2seq": "an encoder-decoder"}


class Choices(NamedTuple):
    """A prompt and the choices for its slot in tokens.

    `before` and `after` are the prompt's tokens on both sides of the slot; `after` is empty but for
    a masked model.
    """

    before: list[int]
    after: list[int]
    choices: list[list[int]]
    truncated: bool


class PromptEncoder(TextEncoder):
    """Tokenises prompts and label words for one checkpoint.

    A prompt is tokenised in one piece, exactly as the tokenizer itself would do it, so that merges
    across the borders of its parts come out as in training. The slot is a token of our own, with
    the flags of the mask (or sentinel) token that it stands for and a name that no text can hold;
    the tokenizer's own special tokens are switched off, so that ``[MASK]`` or ``</s>`` in a user's
    text is just text.

    `front` is how many special tokens (``[CLS]``, ``<s>``) stand before all text.

    One space directly before the slot belongs to the word in the slot: " great" is one token of a
    byte-level tokenizer, and "great" is another.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    kind : {"masked", "causal", "seq2seq"}
    name : str
        For messages.
    chat : bool, default=False
        Whether prompts bring the special tokens in front of them, as :meth:`stand_ins` writes them.
    answers : bool, default=False
        Whether an encoder-decoder reads the prompt up to the slot and answers from its start token
        on, as it learned from tasks, and not at a sentinel in the slot, as it learned from gaps.
    """

    def __init__(
        self,
        tokenizer: Any,
        kind: Kind,
        name: str,
        *,
        chat: bool = False,
        answers: bool = False,
    ) -> None:
        from tokenizers import AddedToken

        wrapper, backend = tokenizer, tokenizer.backend_tokenizer
        super().__init__(backend)
        self.name, self.kind = name, kind
        self.pad_id: int | None = wrapper.pad_token_id
        self._unknown_id: int | None = wrapper.unk_token_id
        self._first_id = wrapper.bos_token_id
        if self._first_id is None:
            self._first_id = wrapper.eos_token_id
        self.end_id: int | None = wrapper.eos_token_id
        self.slot_id: int | None = None
        self._ends = kind == "causal" or (kind == "seq2seq" and answers)
        if not self._ends:
            token = wrapper.mask_token if kind == "masked" else SENTINEL
            self.slot_id = None if token is None else backend.token_to_id(str(token))
            if self.slot_id is None:
                needed = "mask token" if kind == "masked" else f"token {SENTINEL!r} (T5's family)"
                raise ModelError(f"{name}: the tokenizer has no {needed} to stand in the slot")
            known = backend.get_added_tokens_decoder().get(self.slot_id)
            self._stand_in = f"\ue000{secrets.token_hex(16)}\ue000"
            backend.add_tokens(
                [
                    AddedToken(
                        self._stand_in,
                        special=False,
                        normalized=False,
                        lstrip=known is not None and known.lstrip,
                        rstrip=known is not None and known.rstrip,
                    )
                ]
            )
            self._stand_in_id = backend.token_to_id(self._stand_in)
        self._adds = not chat
        self._special: dict[int, int] = {}
        marks = backend.encode("a", add_special_tokens=self._adds).special_tokens_mask
        self._suffix = len(list(takewhile(bool, reversed(marks))))
        self.front = len(list(takewhile(bool, marks)))

    def stand_ins(self) -> dict[str, str]:
        """Return what a prompt has to hold where a special token is meant; nobody can guess it."""
        from tokenizers import AddedToken

        found: dict[str, str] = {}
        for i, token in self.backend.get_added_tokens_decoder().items():
            if token.special:
                name = found[token.content] = f"\ue000{secrets.token_hex(16)}\ue000"
                like = {"lstrip": token.lstrip, "rstrip": token.rstrip, "normalized": False}
                self.backend.add_tokens([AddedToken(name, special=False, **like)])
                self._special[self.backend.token_to_id(name)] = i
        return found

    def check(self, frame: Frame, limit: int) -> None:
        """Refuse a template that this model cannot read (InputError)."""
        slot = [part.kind for part in frame].index("mask")
        after = frame[slot + 1 :]
        if self._ends:
            if any(part.kind == "field" for part in after):
                raise InputError(
                    f"template: {_NAMES[self.kind]} model reads only what stands before {{mask}}, "
                    "and a field comes after it; move {mask} to the end"
                )
            lost = "".join(part.text for part in after)
            if any(unicodedata.category(c)[0] not in "PZC" for c in lost):
                raise InputError(
                    f"template: {_NAMES[self.kind]} model would never read {lost.strip()!r} after "
                    "{mask}, where it writes its answer; move {mask} to the end"
                )
        length = len(self._spelled(self._prepared(frame))[0])
        if length > limit:
            raise InputError(
                f"template: {length} tokens without any text, but {self.name} reads {limit}; "
                "shorten the template, the examples that it shows, or the label words"
            )

    def encode(self, prompts: Sequence[Prompt], limit: int, *, room: int = 0) -> list[Encoded]:
        """Tokenise prompts to at most `limit` tokens each.

        The template stays whole; the user's text is cut, the longest field first and from its end.
        For a masked model, slot tokens are put in where `room` vectors will stand: not padding, by
        which some networks count positions.
        """
        prepared = [self._prepared(prompt.parts) for prompt in prompts]
        texts = [joined(parts) for parts in prepared]
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=self._adds)
        out: list[Encoded] = []
        for parts, encoding in zip(prepared, encodings, strict=True):
            ids = self._ids(encoding)
            truncated = len(ids) > limit
            if truncated:
                ids = shortened(parts, limit, self._spelled)
            if self._ends:
                out.append(Encoded(ids, len(ids), truncated))
            else:
                slot = ids.index(self._stand_in_id)
                ids[slot] = self.slot_id  # pyright: ignore[reportCallIssue, reportArgumentType]
                ids[self.front : self.front] = [ids[slot]] * room
                out.append(Encoded(ids, slot + room, truncated))
        return out

    def encode_choices(
        self, prompt: Prompt, choices: Sequence[str], limit: int, *, end: bool = False
    ) -> Choices:
        """Tokenise a prompt and several choices for its slot, so that each fits behind it.

        The prompt is cut as in :meth:`encode`, and a choice is spelled as in :meth:`word_ids`: its
        summed log-probability is the score that :class:`TransformersModel` gives it.

        Parameters
        ----------
        limit : int
            Of the positions that the model has for prompt and choice together; of the prompt alone
            in an encoder-decoder.
        end : bool, default=False
            Whether the end token closes each choice. It is then part of what is scored.

        Raises
        ------
        InputError
            If the template or a choice cannot be read by this model, or does not fit.
        """
        frame = frame_of(prompt)
        ids = [list(tokens) for tokens in self.word_ids(frame, choices)]
        if end and self.end_id is not None:
            ids = [[*tokens, self.end_id] for tokens in ids]
        room = 0 if self.kind == "seq2seq" else max(map(len, ids)) - 1
        self.check(frame, limit - room)
        [item] = self.encode([prompt], limit - room)
        after = [] if self._ends else item.ids[item.slot + 1 :]
        return Choices(item.ids[: item.slot], after, ids, item.truncated)

    def word_ids(self, frame: Frame, words: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the tokens of each word as they are after this template's text.

        Raises
        ------
        InputError
            If a word has no token of its own in this vocabulary.
        """
        slot = [part.kind for part in frame].index("mask")
        before = frame[slot - 1] if slot else Part("literal", "")
        context = before.text if before.kind == "literal" else ""
        if self.kind == "seq2seq" and self._ends:
            frame, context = (), ""  # the answer stands alone
        if any(part.kind == "field" for part in frame[:slot]):
            context = "a" + context  # any text: a word is spelled otherwise at the very start
        gap = " " if context.endswith(" ") else ""
        found = []
        for word in words:
            # Where the word would merge with the text before it, it is spelled as on a new line.
            for start in (context.removesuffix(" "), "\n"):
                head = self._plain(start)
                whole = self._plain(start + gap + word)
                ids = tuple(whole[len(head) :])
                if ids and whole[: len(head)] == head:
                    break
            else:
                raise InputError(
                    f"labels: the word {word!r} cannot be told apart from the template's text "
                    "before {mask}; put a space before {mask}"
                )
            if self._unknown_id in ids:
                raise InputError(
                    f"labels: the word {word!r} is not in the vocabulary of {self.name}"
                )
            found.append(ids)
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return self.backend.decode(list(ids), skip_special_tokens=True)

    def whole_words(self) -> dict[str, int]:
        """Return the words of letters that are one token after a space, and that token."""
        tokens = (self.backend.decode([i]) for i in self.backend.get_vocab().values())
        decoded = {token.replace("\u2581", " ").strip() for token in tokens}
        words = sorted(word for word in decoded if word.isalpha())
        head = self._plain("a")
        asked = [f"a {word}" for word in words]
        encoded = self.backend.encode_batch_fast(asked, add_special_tokens=False)
        found: dict[str, int] = {}
        for word, encoding in zip(words, encoded, strict=True):
            if encoding.ids[:-1] == head and encoding.ids[-1] != self._unknown_id:
                found[word] = encoding.ids[-1]
        return found

    def _prepared(self, parts: Sequence[Part]) -> list[Part]:
        """Take one space before the slot away, and all behind it where nobody reads it."""
        out: list[Part] = []
        for part in parts:
            if part.kind != "mask":
                text = self._plain_text(part.text)
                out.append(part if text is part.text else Part(part.kind, text))
                continue
            if out and out[-1].kind == "literal":
                out[-1] = Part("literal", out[-1].text.removesuffix(" "))
            if self._ends:
                break
            out.append(Part("mask", self._stand_in))
        return out

    def _ids(self, encoding: Any) -> list[int]:
        ids: list[int] = encoding.ids
        if self.kind != "causal":
            return ids
        if self._special:
            ids = [self._special.get(i, i) for i in ids]
        ids = ids[: len(ids) - self._suffix]  # an end-of-text token would come before the slot
        if ids:
            return ids
        if self._first_id is None:
            raise InputError(
                f"template: an empty text leaves {self.name} nothing to read; write something "
                "before {mask}"
            )
        return [self._first_id]

    def _spelled(self, parts: Sequence[Part]) -> tuple[list[int], int, list[tuple[int, int]]]:
        encoding = self.backend.encode(joined(parts), add_special_tokens=self._adds)
        ids = self._ids(encoding)
        return ids, len(ids), encoding.offsets
