"""The chat template of a checkpoint: prompts as an instruct model was taught to read them."""

from __future__ import annotations

import datetime
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, ModelError
from fewfit.models.local.files import read_json
from fewfit.prompts import Part, Prompt

FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
_NOW = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_DAY = datetime.datetime(2024, 7, 26)  # some templates name today, and would give a model a date


def read_template(folder: Path, name: str) -> str | None:
    """Return the source of a checkpoint's chat template; None where there is none."""
    try:
        source: Any = (folder / FILES[0]).read_text(encoding="utf-8")
    except (OSError, ValueError):
        found = (read_json(folder / file, name) or {} for file in FILES[1:])
        source = next((own["chat_template"] for own in found if own.get("chat_template")), None)
    if isinstance(source, list):  # several, by name
        named = {own.get("name"): own.get("template") for own in source if isinstance(own, dict)}
        source = named.get("default")
    return source if isinstance(source, str) and source else None


class ChatTemplate:
    """Puts a prompt into the turns of a chat, with the slot where the model begins to speak.

    The user's turn is the prompt up to its slot, or all of it with a gap in the slot where text
    follows that. The template's own special tokens are tokens; what looks like one in a user's text
    stays text, since the two are put together as parts and not as one string.

    Parameters
    ----------
    tokenizer : transformers.PreTrainedTokenizerBase
        It renders the template, in the sandbox that transformers has for it.
    source : str
        Of the template.
    name : str
        For messages.
    system : str, optional
        The system's message; left out, what the template has for that.
    prefix : str, optional
        What the model has said already, before the slot.
    """

    def __init__(
        self,
        tokenizer: Any,
        source: str,
        name: str,
        *,
        system: str | None = None,
        prefix: str | None = None,
    ) -> None:
        self._tokenizer, self._name = tokenizer, name
        self._source = _NOW.sub(lambda found: repr(_DAY.strftime(found[2])), source)
        self._system, self._prefix = system, prefix
        self._frames: dict[int, list[str]] = {}

    def wrap(self, prompt: Prompt, stand_ins: Mapping[str, str]) -> Prompt:
        """Return the prompt as the model reads it, ready for its tokenizer.

        Parameters
        ----------
        prompt : Prompt
        stand_ins : mapping of str to str
            What is written in the place of each special token.
        """
        turns = prompt.turns
        if len(turns) not in self._frames:
            frame = self._render(len(turns))
            self._frames[len(turns)] = [_put(text, stand_ins) for text in frame]
        frame = self._frames[len(turns)]
        parts: list[Part] = []
        for before, turn in zip(frame, turns, strict=False):
            parts += [Part("literal", before), *turn.question()]
        last = frame[-1] + (f"{self._prefix.rstrip()} " if self._prefix else "")
        return Prompt((*parts, Part("literal", last), Part("mask", "")))

    def _render(self, n: int) -> list[str]:
        """Return what the template has around the contents of n turns, n + 1 texts."""
        marks = [secrets.token_hex(16) for _ in range(n)]
        roles = ("user", "assistant")
        said = [{"role": roles[i % 2], "content": mark} for i, mark in enumerate(marks)]
        if self._system is not None:
            said.insert(0, {"role": "system", "content": self._system})
        try:
            text = self._tokenizer.apply_chat_template(
                said,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
        except Exception as error:  # whatever a template raises
            raise InputError(
                f"model: the chat template of {self._name} does not take this: "
                f"{str(error).splitlines()[0][:200]}"
            ) from error
        pieces = re.split("|".join(marks), text)
        if len(pieces) != n + 1:
            raise ModelError(f"{self._name}: the chat template leaves out what is said")
        return pieces


def template_digest(source: str) -> str:
    """Return the hash by which a template is known."""
    return hashlib.sha256(source.encode()).hexdigest()


def _put(text: str, stand_ins: Mapping[str, str]) -> str:
    if not stand_ins:
        return text
    names: Sequence[str] = sorted(stand_ins, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), lambda found: stand_ins[found[0]], text)
