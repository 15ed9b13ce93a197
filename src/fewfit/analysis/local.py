"""Analyses of language models of this process: what they write, and what others think of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fewfit.analysis.token_shift import token_shift
from fewfit.errors import InputError
from fewfit.models import FrozenModel, TransformersModel
from fewfit.models.generation import Writing
from fewfit.progress import Progress
from fewfit.prompts import Template

QUESTION = Template("{text}{mask}")


class Answered(NamedTuple):
    """A question, an aligned model's answer, and where its base model ranks each token of it.

    Attributes
    ----------
    question, answer : str
    ranked : list of (str, int)
        The text and the rank, from 1, of each token of the answer.
    """

    question: str
    answer: str
    ranked: list[tuple[str, int]]

    @property
    def ranks(self) -> list[int]:
        """The ranks alone."""
        return [rank for _, rank in self.ranked]


def answer_and_rank(
    base: FrozenModel,
    aligned: FrozenModel,
    questions: Sequence[str],
    *,
    max_tokens: int = 128,
    progress: Progress | None = None,
) -> Iterator[Answered]:
    """Let an aligned model answer, and rank the tokens of each answer under its base model.

    Both read the prompt as the aligned model has it, its chat template included, and the aligned
    model's answer: one forward pass of the base model for each question (:func:`token_shift`).

    Parameters
    ----------
    base, aligned : TransformersModel
        Causal, and with the same vocabulary.
    questions : sequence of str
    max_tokens : int, default=128
        Where an answer is cut.

    Raises
    ------
    InputError
        If a model is another one, or the two write texts in other tokens.
    """
    for name, model in (("base", base), ("aligned", aligned)):
        if not isinstance(model, TransformersModel) or model.checkpoint.kind != "causal":
            raise InputError(f"{name}: {model.spec!r:.80} is no causal model of this process (hf:)")
    first: Any = base
    second: Any = aligned
    if first.vocabulary != second.vocabulary:
        raise InputError(
            f"base, aligned: {first.checkpoint.name} and {second.checkpoint.name} have other "
            "vocabularies, so that a token of one is none of the other"
        )
    how = Writing(max_tokens)
    for question in questions:
        prompt, answer = second.write_tokens(QUESTION.render({"text": question}), how)
        if answer:
            logits = first.next_scores([*prompt, *answer])

            def score(context: Sequence[int], logits: Any = logits) -> Any:
                return logits[len(context) - 1]

            ranks = token_shift(score, prompt, answer).ranks.tolist()
            shown = [second.decode([token]) for token in answer]
            found = list(zip(shown, ranks, strict=True))
            yield Answered(question, second.decode(answer).strip(), found)
        else:
            yield Answered(question, "", [])
        if progress is not None:
            progress(1)


def shares(ranks: Sequence[int]) -> dict[str, float]:
    """Return the shares of ranks 1, 2 to 3, and above; 0 of no ranks."""
    given = np.asarray(ranks)
    n = max(len(given), 1)
    first, near = int((given == 1).sum()), int((given <= 3).sum())
    return {
        "unshifted": first / n,
        "marginal": (near - first) / n,
        "shifted": (len(given) - near) / n,
    }


def shifted_tokens(found: Sequence[Answered]) -> list[tuple[str, int]]:
    """Return the tokens that are shifted, and how often each is, the most frequent first."""
    times = Counter(token.strip() for one in found for token, rank in one.ranked if rank > 3)
    return sorted(times.items(), key=lambda item: (-item[1], item[0]))
