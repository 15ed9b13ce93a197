"""A template: text with named fields and exactly one slot for the label word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from fewfit.errors import InputError
from fewfit.prompts.containers import LONE, shown
from fewfit.prompts.prompt import Part, Prompt
from fewfit.prompts.views import View, Views

_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


class Template(View):
    """Text with named fields and exactly one slot, ``{mask}``.

    Parameters
    ----------
    source : str
        For example ``"{text} In summary, it was {mask}."``. A field may appear more than once.
        ``{{`` and ``}}`` stand for literal braces.

    Attributes
    ----------
    fields : tuple of str
        The names of the fields, in order of first appearance.

    Raises
    ------
    InputError
        If there is no slot, more than one, no field, or a brace that belongs to nothing.

    Notes
    -----
    Substitution is one pass over the *template*: what a user's text contains (braces, ``%s``,
    ``{mask}``, another field's name) is never looked at and stays plain text.

    Examples
    --------
    >>> template = Template("{text} In summary, it was {mask}.")
    >>> template.render({"text": "I {loved} it."}).text("great")
    'I {loved} it. In summary, it was great.'
    """

    def __init__(self, source: str) -> None:
        if not isinstance(source, str):
            raise InputError(f"template: expected a string, got {type(source).__name__}")
        if LONE.search(source):
            raise InputError(
                f"template: {shown(source)} holds a character that no text has, and cannot be kept"
            )
        self.source = source
        self._parts = _parse(source)
        names = [part.text for part in self._parts if part.kind == "field"]
        self.fields = tuple(dict.fromkeys(names))
        slots = sum(part.kind == "mask" for part in self._parts)
        if slots != 1:
            raise InputError(
                f"template: exactly one {{mask}} is needed, found {slots} in {source!r}"
            )
        if not names:
            raise InputError(
                f"template: no field for the user's text in {source!r}; write for example "
                "'{text} It was {mask}.'"
            )

    def render(self, row: Mapping[str, str]) -> Prompt:
        """Put the fields of `row` into the template.

        Parameters
        ----------
        row : mapping of str to str
            A value for each of :attr:`fields`; other keys are ignored.

        Raises
        ------
        InputError
            If a field is missing or is not a string.
        """
        return Prompt(
            tuple(
                Part("field", _value(row, part.text)) if part.kind == "field" else part
                for part in self._parts
            )
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"


def make_views(template: str | View | Views | Sequence[str | View]) -> View | Views:
    """Return the view, or the set of views, that `template` spells (InputError if it is none)."""
    if isinstance(template, View | Views):
        return template
    if isinstance(template, list | tuple):
        views = [part if isinstance(part, View) else Template(part) for part in template]
        return views[0] if len(views) == 1 else Views(views)
    return Template(cast(str, template))


def _value(row: Mapping[str, str], name: str) -> str:
    if name not in row:
        raise InputError(f"field {name!r} of the template is missing; the row has {sorted(row)}")
    value = row[name]
    if not isinstance(value, str):
        raise InputError(f"field {name!r}: expected text, got {value!r}")
    return value


def _parse(source: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    literal = ""
    end = 0
    for match in _TOKEN.finditer(source):
        literal += source[end : match.start()]
        end = match.end()
        token, name = match.group(), match.group(1)
        if name is None:
            if len(token) == 1:
                raise InputError(
                    f"template: {token!r} at position {match.start()} of {source!r} belongs to no "
                    "field; write {name} with a plain name, or double the brace to mean it"
                )
            literal += token[0]
            continue
        if literal:
            parts.append(Part("literal", literal))
            literal = ""
        parts.append(Part("mask", "") if name == "mask" else Part("field", name))
    literal += source[end:]
    if literal:
        parts.append(Part("literal", literal))
    return tuple(parts)
