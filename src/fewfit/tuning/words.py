"""Examples as the frozen model reads label words: what an adapter that changes nothing gives."""

from __future__ import annotations

import copy
from typing import Any, Literal

from fewfit.errors import InputError
from fewfit.models.local import PromptEncoder
from fewfit.tuning.choices import ChoiceExample, Encoded

Reading = Literal["answers", "words"]
"""How choices are read and scored.

``"answers"`` is T-Few's: the end token closes a choice, and its score is the mean over its tokens.
``"words"`` is that of ``hf:``: a choice's tokens as they stand in the slot, and their sum.
"""


class WordEncoder:
    """Turns examples into tokens by the one encoder of this process's models.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerFast
        Copied: the encoder adds a token of its own.
    kind : {"causal", "masked"}
    max_tokens, positions
        See :class:`fewfit.tuning.ChoiceEncoder`.

    Raises
    ------
    InputError
        For an encoder-decoder, which ``hf:`` asks at a gap and no answer.
    """

    def __init__(
        self, tokenizer: Any, kind: str, *, max_tokens: int, positions: int | None = None
    ) -> None:
        if kind not in ("causal", "masked"):
            raise InputError("reading: an encoder-decoder writes answers; take reading='answers'")
        self.limit = max_tokens if positions is None else min(max_tokens, positions)
        name = "the model"
        self._prompts = PromptEncoder(copy.deepcopy(tokenizer), kind, name)

    def encode(self, example: ChoiceExample, *, only_answer: bool = False) -> Encoded:
        """Return an example in tokens; see :meth:`fewfit.tuning.ChoiceEncoder.encode`."""
        item = self._prompts.encode_choices(example.prompt, example.choices, self.limit)
        if len({tuple(choice) for choice in item.choices}) < len(item.choices):
            raise InputError(
                f"choices: two of {list(example.choices)} are the same tokens to this model"
            )
        choices, answer = item.choices, example.answer
        if only_answer:
            choices, answer = [choices[answer]], 0
        return Encoded(item.before, item.after, choices, answer, example.task, item.truncated)
