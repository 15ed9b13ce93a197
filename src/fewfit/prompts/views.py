"""Views: the ways in which one example is put to a frozen model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from fewfit.errors import InputError
from fewfit.prompts.prompt import Prompt


class View(ABC):
    """One way to turn a row into a prompt; a :class:`fewfit.Template` is the simplest.

    Attributes
    ----------
    fields : tuple of str
        The fields of a row that it reads.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "1"
    reference: ClassVar[str] = ""

    stop: ClassVar[tuple[str, ...]] = ()
    """Texts at which a model that goes on writing has come to the end of its answer."""

    fields: tuple[str, ...]

    @abstractmethod
    def render(self, row: Mapping[str, str]) -> Prompt:
        """Put a row into a prompt (InputError if a field is missing)."""

    def learn(self, rows: Sequence[Mapping[str, str]], words: Sequence[str]) -> View:
        """Return this view with what it keeps of the labelled examples; most keep nothing.

        Parameters
        ----------
        rows : sequence of Row, length N
        words : sequence of str, length N
            The first label word of each row's class.
        """
        return self

    @property
    def learns(self) -> bool:
        """Whether it may keep something of the labelled examples."""
        return type(self).learn is not View.learn

    def spell(self, word: str) -> str:
        """Return a label word as this view's prompts ask for it."""
        return word

    def prepare(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Do at once what rendering these rows takes, where that is faster; most do nothing."""
        return

    def read(self, written: str) -> str:
        """Return the answer in what a model wrote from the slot on."""
        return written.strip()

    @property
    def views(self) -> tuple[View, ...]:
        """The views of the set that this one is."""
        return (self,)


class Views:
    """Several views, asked about the same example: one query each.

    Parameters
    ----------
    views : sequence of View, length P >= 1

    Attributes
    ----------
    fields : tuple of str
        The fields that any of the views reads.
    """

    def __init__(self, views: Sequence[View]) -> None:
        if not views:
            raise InputError("template: an empty list; give at least one template")
        self.views = tuple(part for view in views for part in view.views)
        self.fields = tuple(dict.fromkeys(name for view in self.views for name in view.fields))

    def learn(self, rows: Sequence[Mapping[str, str]], words: Sequence[str]) -> Views:
        """Return the set with what each view keeps of the labelled examples."""
        return Views([view.learn(rows, words) for view in self.views])

    def __repr__(self) -> str:
        return f"Views({list(self.views)!r})"
