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
    def turns(self) -> tuple[Prompt, ...]:
        """What each of the two says in turn; the last is the question, with the slot."""
        found: list[list[Part]] = [[]]
        for part in self.parts:
            if part.kind == "turn":
                found.append([])
            else:
                found[-1].append(part)
        return tuple(Prompt(tuple(parts)) for parts in found)

    def asked(self, blank: str = "___") -> str:
        """Return the prompt as one asks somebody who answers in words.

        It ends at the slot where nothing but punctuation follows; else `blank` stands in the slot.
        """
        slot = next((i for i, p in enumerate(self.parts) if p.kind == "mask"), len(self.parts))
        after = self.parts[slot + 1 :]
        if any(p.kind == "field" or any(map(str.isalnum, p.text)) for p in after):
            return self.text(blank)
        return "".join(part.text for part in self.parts[:slot]).rstrip()

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
