"""A prompt: a rendered row, still in its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Part(NamedTuple):
    """A piece of a prompt. ``kind`` tells the template's own words from the user's."""

    kind: Literal["literal", "field", "mask"]
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
