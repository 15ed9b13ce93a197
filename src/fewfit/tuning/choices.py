"""Examples with answer choices: checked, and turned into tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fewfit.errors import InputError
from fewfit.models.local import TextEncoder
from fewfit.models.local.cutting import joined, shortened
from fewfit.prompts import Part, Prompt

Sides = tuple[list[int], list[int]]


@dataclass(frozen=True)
class ChoiceExample:
    """A prompt, its answer choices, and which of them is right.

    Attributes
    ----------
    prompt : Prompt
        The slot is where the answer goes.
    choices : tuple of str
        At least two different ones.
    answer : int
        Position in `choices`.
    task : int
        Whose vectors the row uses in a mixed-task batch.

    Raises
    ------
    InputError
        If choices are missing, empty or equal, or the answer is not among them.
    """

    prompt: Prompt
    choices: tuple[str, ...]
    answer: int
    task: int = 0

    def __post_init__(self) -> None:
        where = f"the example {self.prompt.user_text[:40]!r}"
        if isinstance(self.choices, str) or len(self.choices) < 2:
            raise InputError(f"choices: {where} has {self.choices!r}; at least two are needed")
        seen: set[str] = set()
        for choice in self.choices:
            if not isinstance(choice, str) or not choice.strip():
                raise InputError(f"choices: {where} has the empty choice {choice!r}")
            if choice.strip() in seen:
                raise InputError(
                    f"choices: {where} has {choice!r} twice; nothing can tell them apart"
                )
            seen.add(choice.strip())
        if not 0 <= self.answer < len(self.choices):
            raise InputError(
                f"choices: the answer of {where} is number {self.answer}, but it has "
                f"{len(self.choices)} choices, counted from 0"
            )

    @classmethod
    def of(
        cls, prompt: Prompt, choices: Sequence[str], answer: str, task: int = 0
    ) -> ChoiceExample:
        """Make an example whose answer is given as text."""
        if answer not in choices:
            raise InputError(
                f"choices: the answer {answer!r} of {prompt.user_text[:40]!r} is not one of "
                f"{list(choices)}"
            )
        return cls(prompt, tuple(choices), list(choices).index(answer), task)


class Encoded(NamedTuple):
    """An example in tokens.

    `before` and `after` are the prompt's tokens on both sides of the slot; `after` is empty but for
    a masked model.
    """

    before: list[int]
    after: list[int]
    choices: list[list[int]]
    answer: int
    task: int
    truncated: bool = False


class ChoiceEncoder(TextEncoder):
    """Turns examples into tokens for one tokenizer and kind of model, spelled as T-Few has them.

    The user's text is cut as for any model of this process where the prompt has more than
    `max_tokens` tokens. The spelling is not that of :class:`fewfit.models.local.PromptEncoder`, and
    cannot be: artifacts are trained on it, and predict what they did. Here both sides of the slot
    are tokens for themselves, no space is left before it, every choice is spelled as behind a
    letter and a space whatever the template says, and the end token closes it.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
    kind : {"seq2seq", "causal", "masked"}
    max_tokens : int
        Of the prompt.
    positions : int, optional
        Of prompt and choice together, in a model that has no more.

    Attributes
    ----------
    prefix : list of int
        The special tokens that open a text.
    """

    def __init__(
        self, tokenizer: Any, kind: str, *, max_tokens: int, positions: int | None = None
    ) -> None:
        super().__init__(tokenizer.backend_tokenizer)
        self.kind, self.max_tokens, self.positions = kind, max_tokens, positions
        self._end_id = tokenizer.eos_token_id
        self._choices: dict[str, list[int]] = {}
        around = self.backend.encode("a")
        marks = around.special_tokens_mask
        first, last = marks.index(0), len(marks) - marks[::-1].index(0)
        self.prefix, self._suffix = around.ids[:first], around.ids[last:]
        if not self.prefix and kind == "causal" and tokenizer.bos_token_id is not None:
            self._begin = [tokenizer.bos_token_id]  # only where a prompt would be empty
        else:
            self._begin = []

    def encode(self, example: ChoiceExample, *, only_answer: bool = False) -> Encoded:
        """Return an example in tokens.

        Parameters
        ----------
        only_answer : bool
            Whether the wrong choices are left out: the language-model loss does not need them.

        Raises
        ------
        InputError
            If the slot is not where this kind of model can answer, or two choices have the same
            tokens.
        """
        choices = example.choices[example.answer :][:1] if only_answer else example.choices
        ids = [self._choice_ids(choice) for choice in choices]
        if len({tuple(choice) for choice in ids}) < len(ids):
            raise InputError(f"choices: two of {list(choices)} are the same tokens to this model")
        limit = self.max_tokens
        if self.positions is not None:
            longest = max(map(len, ids)) - (self.kind == "causal")  # its last token is not read
            limit = min(limit, self.positions - longest)
        before, after, cut = self._prompt_ids(example.prompt, limit)
        answer = 0 if only_answer else example.answer
        return Encoded(before, after, ids, answer, example.task, cut)

    def _choice_ids(self, text: str) -> list[int]:
        """Tokens of a choice as it stands behind some text, and the end token if there is one."""
        if text not in self._choices:
            word = text.strip()
            if self.kind == "seq2seq":
                ids = self._plain(word)
            else:
                head, whole = self._plain("a"), self._plain(f"a {word}")
                ids = whole[len(head) :] if whole[: len(head)] == head else self._plain(word)
            if self.kind != "masked" and self._end_id is not None:
                ids = [*ids, self._end_id]
            if not ids:
                raise InputError(f"choices: {text!r} has no token in this model's vocabulary")
            self._choices[text] = ids
        return self._choices[text]

    def _prompt_ids(self, prompt: Prompt, limit: int) -> tuple[list[int], list[int], bool]:
        parts = [Part(part.kind, self._plain_text(part.text)) for part in prompt.parts]
        (before, after), whole, _ = self._spelled(parts)
        if whole <= limit:
            return before, after, False
        before, after = shortened(parts, limit, self._spelled)
        if len(before) + len(after) > limit:
            raise InputError(
                f"template: {len(before) + len(after)} tokens without any text, but the limit "
                f"is {limit}; shorten it"
            )
        return before, after, True

    def _spelled(self, parts: Sequence[Part]) -> tuple[Sides, int, list[tuple[int, int]]]:
        slot = next(i for i, part in enumerate(parts) if part.kind == "mask")
        left, right = joined(parts[:slot]), joined(parts[slot + 1 :])
        here = self.backend.encode(left.rstrip(), add_special_tokens=False)
        before, after, offsets = [*self.prefix, *here.ids], list[int](), here.offsets
        if self.kind == "masked":
            there = self.backend.encode(right, add_special_tokens=False)
            start = len(left) + len(parts[slot].text)
            offsets = [*offsets, *((a + start, b + start) for a, b in there.offsets)]
            after = [*there.ids, *self._suffix]
        elif any(part.kind == "field" for part in parts[slot + 1 :]) or any(
            unicodedata.category(c)[0] not in "PZC" for c in right
        ):
            raise InputError(
                f"template: {right.strip()!r} stands behind {{mask}}, where this model writes its "
                "answer; move {mask} to the end"
            )
        elif self.kind == "seq2seq":
            before = [*before, *self._suffix]
        elif not (before := before or self._begin):
            raise InputError("template: an empty text leaves nothing to read; write text before it")
        return (before, after), len(before) + len(after), offsets
