"""A prompt: a rendered row, still in its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Part(NamedTuple):
    """A piece of a prompt. ``kind`` tells the template's own words from the user's.

    A "turn" is where the other one speaks in a chat, which the asking side begins; its text is what
    stands there for a model that reads one text.
    """

    kind: Literal["literal", "field", "mask", "turn"]
    text: str


@dataclass(frozen=True)
class Prompt:
    """A rendered template, still in parts.

    The parts stay apart so that a frozen model can cut a long user text without touching the
    template, and can keep special-token strings inside user text as plain text.
    """

    parts: tuple[Part, ...]

    def text(self, mask: str) -> str:
        """Return the whole prompt with `mask` in the slot."""
        return "".join(mask if part.kind == "mask" else part.text for part in self.parts)

    @property
    def lead(self) -> str:
        """The template's own text just before the slot, the same for every row."""
        slot = next((i for i, part in enumerate(self.parts) if part.kind == "mask"), 0)
        return self.parts[slot - 1].text if slot and self.parts[slot - 1].kind == "literal" else ""

    @property
    def turns(self) -> tuple[Prompt, ...]:
        """What each of the two says in turn; the last is the question, with the slot."""
        found: list[list[Part]] = [[]]
        for part in self.parts:
            if part.kind == "turn":
                found.append([])
            else:
                found[-1].append(part)
        return tuple(Prompt(tuple(parts)) for parts in found)

    def question(self, blank: str = "___") -> tuple[Part, ...]:
        """Return the prompt as one asks somebody who answers in words, without a slot.

        It ends at the slot where nothing but punctuation follows; else `blank` stands in the slot.
        """
        slot = next((i for i, p in enumerate(self.parts) if p.kind == "mask"), len(self.parts))
        before, after = self.parts[:slot], self.parts[slot + 1 :]
        if any(p.kind == "field" or any(map(str.isalnum, p.text)) for p in after):
            return (*before, Part("literal", blank), *after)
        if before and before[-1].kind == "literal":
            before = (*before[:-1], Part("literal", before[-1].text.rstrip()))
        return before

    def asked(self) -> str:
        """Return the text of :meth:`question`."""
        return "".join(part.text for part in self.question())

    @property
    def fields(self) -> tuple[str, ...]:
        """The values of the fields alone, in the template's order."""
        return tuple(part.text for part in self.parts if part.kind == "field")

    @property
    def user_text(self) -> str:
        """The values of the fields, joined by a space."""
        return " ".join(self.fields).strip()

    @property
    def skeleton(self) -> tuple[Part, ...]:
        """The template's own parts, without the user's."""
        return tuple(part for part in self.parts if part.kind != "field")
