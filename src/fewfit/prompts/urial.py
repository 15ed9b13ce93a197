"""URIAL: Lin et al., ICLR 2024, arXiv 2312.01552: a constant, styled prefix for a base model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from fewfit.errors import InputError
from fewfit.prompts.prompt import Part, Prompt
from fewfit.prompts.template import Template
from fewfit.prompts.urial_prompt import EXAMPLES, INSTRUCTION
from fewfit.prompts.views import View

FENCE, QUERY, ANSWER = "```", "# Query:", "# Answer:"
STOP = ("# Query", "# User")
"""Strings at which generation is to stop."""

Turn = tuple[str, str]


class Urial(View):
    r"""An instruction and a few answered questions, the same for every query.

    The paper's prefix has about a thousand tokens and three answers in one style: an opening that
    takes the question up, a structured body, a closing remark; one of them politely refuses. The
    prefix never changes, so a server computes it once. For *classification* in front of a template,
    the same idea is :class:`fewfit.prompts.InContext` with constant demonstrations.

    Parameters
    ----------
    instruction : str, optional
    examples : sequence of (question, answer), optional
        None of them may hold the fence, three backticks. Left out, both are those that are
        shipped, which were written for this project.
    query : str, default="{text}"
        The question, with fields of a row.

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

    stop: ClassVar[tuple[str, ...]] = STOP

    def __init__(
        self,
        instruction: str = INSTRUCTION,
        examples: Sequence[Turn] = EXAMPLES,
        *,
        query: str = "{text}",
    ) -> None:
        for text in (instruction, *(part for example in examples for part in example)):
            if FENCE in text:
                raise InputError("examples: a text holds three backticks, which fence the answers")
        self.instruction = instruction
        self.examples = tuple((question, answer) for question, answer in examples)
        self.prefix = f"{instruction}\n\n" + "".join(_turn(*example) for example in examples)
        self.query = query
        self._template = Template(f"{query}{{mask}}")
        self.fields = self._template.fields

    @classmethod
    def from_file(cls, path: str | Path, *, query: str = "{text}") -> Self:
        """Read a file of JSON with ``instruction`` and ``examples``, as above (InputError)."""
        try:
            content: Any = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as JSON: {error}") from error
        given = content if isinstance(content, dict) else {}
        examples = given.get("examples")
        pairs = isinstance(examples, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(t, str) for t in pair)
            for pair in examples
        )
        if set(given) != {"instruction", "examples"} or not pairs:
            raise InputError(
                f'{path}: expected {{"instruction": "...", "examples": [["question", "answer"], '
                "...]}, and nothing else"
            )
        return cls(str(given["instruction"]), given["examples"], query=query)

    def render(self, row: Mapping[str, str]) -> Prompt:
        question = self._template.render(row).parts[:-1]
        before = Part("literal", f"{self.prefix}{QUERY}\n{FENCE}\n")
        after = Part("literal", f"\n{FENCE}\n\n{ANSWER}\n{FENCE}\n")
        return Prompt((before, *question, after, Part("mask", "")))

    def read(self, written: str) -> str:
        return self.answer(written)

    def __repr__(self) -> str:
        return f"Urial({self.instruction!r:.40}, {len(self.examples)} examples)"

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
