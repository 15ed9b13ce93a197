"""Which label an answer in words names: exactly one of them, or none."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from fewfit.models.remote.verdict import RowError

FIELD = "label"
"""The one field of an answer in JSON."""

_OPENING = "\"'`*_([{<«“\u2018„\u201a"
_CLOSING = "\"'`*_)]}>»”\u2019.,:;!?…"
_THOUGHT = re.compile(
    r"\s*(?:<(think|thinking|thought|reasoning|reflection)>.*?</\1>|\[THINK\].*?\[/THINK\])",
    re.DOTALL | re.IGNORECASE,
)
_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_OPENED = re.compile(
    r"\s*(<(think|thinking|thought|reasoning|reflection)>|\[THINK\])", re.IGNORECASE
)
_FINAL = "<|channel|>final<|message|>"
_FENCE = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


class Unusable(RowError):
    """An answer that is no label; `reason` is the same for all of its kind.

    Attributes
    ----------
    reason, details : str
        The details, such as the answer, differ from row to row.
    """

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(reason + details)
        self.reason = reason
        self.details = details


_REPEATED = 100
"""Words of the text before the slot that an answer may repeat; demonstrations may stand there."""


class Labels:
    """Finds the label word that an answer is.

    An answer names a label if it *is* the label: as it stands, else in another case and with other
    blanks, else without the quotes, brackets and stops around it. A label that is a part of the
    answer is none, and so is an answer that two labels fit equally well.

    Parameters
    ----------
    words : sequence of str, length W
    lead : str
        The template's own text before the slot, whose end an answer may repeat: of "Is it good or
        bad? It is", "It is good" names "good".
    """

    def __init__(self, words: Sequence[str], lead: str = "") -> None:
        told = _folded(lead).split()[-_REPEATED:]
        self._leads = [" ".join(told[i:]) for i in range(len(told))]
        self._forms: list[tuple[Callable[[str], str], dict[str, set[int]]]] = []
        for form in (str.strip, _folded, _bare):
            table: dict[str, set[int]] = {}
            for i, word in enumerate(words):
                table.setdefault(form(word), set()).add(i)
            table.pop("", None)
            self._forms.append((form, table))

    def find(self, answer: str) -> int:
        """Return the position of the label that an answer names.

        Raises
        ------
        Unusable
        """
        text = spoken(answer)
        if not text.strip():
            raise Unusable("the answer is empty")
        named = _of_json(text)
        place = self._place(named if named is not None else text)
        if place is None and named is None:
            start = _folded(text)
            repeated = next((end for end in self._leads if start.startswith(end + " ")), None)
            if repeated is not None:
                place = self._place(start.removeprefix(repeated))
        if place is None:
            raise Unusable("the answer is none of the label words", f": {text.strip()[:60]!r}")
        return place

    def _place(self, text: str) -> int | None:
        for form, table in self._forms:
            found = table.get(form(text), set())
            if found:
                return min(found) if len(found) == 1 else None
        return None


def spoken(answer: str) -> str:
    """Return an answer without the reasoning before it (Unusable if there is no more)."""
    text = answer.rpartition(_FINAL)[2]
    while thought := _THOUGHT.match(text):
        text = text[thought.end() :]
    start, depth = 0, 0
    for tag in _TAG.finditer(text):
        depth += -1 if tag[1] else 1
        if depth < 0:  # the chat template has opened it
            start, depth = tag.end(), 0
    text = text[start:]
    if _OPENED.match(text):
        raise Unusable(CUT_REASONING)
    return text


CUT_REASONING = (
    "the answer ends within the model's reasoning: allow for more tokens (max_tokens, or "
    "max_completion_tokens), or turn reasoning off"
)


def schema_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of an answer that is one of the words."""
    return {
        "type": "object",
        "properties": {FIELD: {"type": "string", "enum": list(words)}},
        "required": [FIELD],
        "additionalProperties": False,
    }


def named_label(answer: Any) -> str:
    """Return the text in the one field of an answer that is an object (Unusable)."""
    if isinstance(answer, dict) and list(answer) == [FIELD]:
        label = answer[FIELD]
        if isinstance(label, str):
            return label
        if isinstance(label, int) and not isinstance(label, bool):  # of classes 1, 2, 3
            return str(label)
    raise Unusable("the answer is not the object that was asked for", f": {str(answer)[:60]!r}")


def _of_json(text: str) -> str | None:
    """Return the label in an answer that is JSON; None where it is not meant to be."""
    text = text.strip()
    if fenced := _FENCE.fullmatch(text):
        text = fenced[1]
    if not text.startswith("{"):
        return None
    try:
        return named_label(json.loads(text, object_pairs_hook=_once))
    except (ValueError, RecursionError):
        raise Unusable("the answer is half-written JSON", f": {text[:60]!r}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise Unusable("the answer names its field twice")
    return dict(pairs)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _bare(text: str) -> str:
    """Take quotes, brackets and stops from both ends."""
    return _folded(text).lstrip(_OPENING + " ").rstrip(_CLOSING + " ")
