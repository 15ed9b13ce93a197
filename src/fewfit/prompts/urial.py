"""URIAL: Lin et al., ICLR 2024, arXiv 2312.01552: a constant, styled prefix for a base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fewfit.errors import InputError

FENCE, QUERY, ANSWER = "```", "# Query:", "# Answer:"
STOP = ("# Query", "# User")
"""Strings at which generation is to stop."""

Turn = tuple[str, str]


class Urial:
    r"""An instruction and a few answered questions, the same for every query.

    The paper's prefix has about a thousand tokens and three answers in one style: an opening that
    takes the question up, a structured body, a closing remark; one of them politely refuses. The
    prefix never changes, so a server computes it once. For *classification* in front of a template,
    the same idea is :class:`fewfit.prompts.InContext` with constant demonstrations.

    Parameters
    ----------
    instruction : str
    examples : sequence of (question, answer)
        None of them may hold the fence, three backticks.

    Examples
    --------
    >>> urial = Urial("Below are conversations.", [("Hi?", "Hello!")])
    >>> urial.prompt("Why?").count("```")  # four in the example, two for the query, one left open
    7
    >>> urial.answer(" Because.\n```\n\n# Query:")
    'Because.'
    """

    requires: ClassVar[frozenset[str]] = frozenset({"generation"})
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "1"
    reference: ClassVar[str] = "Lin et al. 2024, arXiv 2312.01552"

    def __init__(self, instruction: str, examples: Sequence[Turn]) -> None:
        for text in (instruction, *(part for example in examples for part in example)):
            if FENCE in text:
                raise InputError("examples: a text holds three backticks, which fence the answers")
        self.prefix = f"{instruction}\n\n" + "".join(_turn(*example) for example in examples)

    def prompt(self, query: str, history: Sequence[Turn] = ()) -> str:
        """Return the prefix, the turns so far, and the query with an open answer."""
        turns = "".join(_turn(*turn) for turn in history)
        return f"{self.prefix}{turns}{QUERY}\n{FENCE}\n{query}\n{FENCE}\n\n{ANSWER}\n{FENCE}\n"

    @staticmethod
    def answer(generated: str) -> str:
        """Cut what was generated at the first stop string, and take off the closing fence.

        Fences inside the answer stay (the reference code deletes them all, and code blocks with
        them).
        """
        cut = min([at for stop in STOP if (at := generated.find(stop)) >= 0] or [len(generated)])
        return generated[:cut].strip().removesuffix(FENCE).strip()


def _turn(question: str, answer: str) -> str:
    return f"{QUERY}\n{FENCE}\n{question}\n{FENCE}\n\n{ANSWER}\n{FENCE}\n{answer}\n{FENCE}\n\n"
