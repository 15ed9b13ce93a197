"""Transforms as data, those among them that a model writes: a language pair."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewfit.errors import InputError, ModelError, ModelWarning
from fewfit.estimators.opening import load_model
from fewfit.models.generation import Writing, writes
from fewfit.prompts import Template, Transform
from fewfit.prompts.transforms import make_transform
from fewfit.store.texts import write_texts

PROMPT = "Translate into {language}. Write the translation and nothing else.\n\n{text}"

_NAMES = {"language", "writer", "from", "prompt"}
_LENGTH = 256


def open_transform(data: str | Mapping[str, Any], store: str | Path | None = None) -> Transform:
    """Return a transform by its name, or of its JSON.

    Parameters
    ----------
    data : str or mapping
        What :func:`fewfit.prompts.transforms.make_transform` knows; or a language pair,
        ``{"language": "French", "writer": SPEC}``, which the model of that spec translates into,
        and back into the language that ``"from"`` names (English). ``"prompt"`` is what it is asked
        then, with ``{language}`` and ``{text}``.
    store : path, optional
        Where translations are kept, so that each is paid for once.

    Raises
    ------
    InputError
        If it is none, or its writer is none.
    """
    if isinstance(data, str) or "language" not in data:
        return make_transform(data)
    texts = all(isinstance(value, str) and value.strip() for value in data.values())
    if not texts or not {"language", "writer"} <= set(data) <= _NAMES:
        raise InputError(
            'transform: expected {"language": "French", "writer": SPEC}, and maybe "from" and '
            '"prompt"'
        )
    pair = _LanguagePair(data, store)
    return Transform(data, pair.there, pair.back, is_exact=False, prepare=pair.prepare)


def read_transform(name: str, store: str | Path | None = None) -> Transform | None:
    """Return the transform that the command line names: none, a name, or a file of JSON."""
    if name == "none":
        return None
    if not name.endswith(".json"):
        return make_transform(name)
    try:
        data = json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"--transform: {name} cannot be read as JSON: {error}") from error
    if not isinstance(data, str | dict):
        raise InputError(f"--transform: {name}: expected a name or an object")
    return open_transform(data, store)


class _LanguagePair:
    """Texts as a model translates them; those without a letter stay as they are."""

    def __init__(self, data: Mapping[str, Any], store: str | Path | None) -> None:
        self._writer = load_model(data["writer"])
        writes(self._writer)
        self._languages = (data["language"], data.get("from", "English"))
        self._store = store
        prompt = data.get("prompt", PROMPT)
        if prompt.count("{text}") != 1:
            raise InputError("transform: prompt: exactly one {text} is needed")
        self._prompt = prompt
        self._known: dict[tuple[str, str], str] = {}

    def there(self, text: str) -> str:
        return self._translated([text], self._languages[0])[0]

    def back(self, text: str) -> str:
        return self._translated([text], self._languages[1])[0]

    def prepare(self, texts: Sequence[str]) -> None:
        self._translated(texts, self._languages[0])

    def _translated(self, texts: Sequence[str], language: str) -> list[str]:
        """Return the translations, with the blanks around each text as they were."""
        bare = [text.strip() for text in texts]
        missing = [
            text
            for text in dict.fromkeys(bare)
            if re.search(r"[^\W\d_]", text) and (language, text) not in self._known
        ]
        if missing:
            template = Template(self._prompt.replace("{language}", language) + "{mask}")
            asked = [template.render({"text": text}) for text in missing]
            how, cut = Writing(_LENGTH), list[str]()
            for where, found in write_texts(self._writer, asked, how, store=self._store):
                for i, one in zip(where.tolist(), found, strict=True):
                    text = one.text.strip()
                    if one.reason or not text:
                        raise ModelError(
                            f"transform: no translation of {missing[i][:60]!r} into {language}: "
                            f"{one.reason or 'the answer is empty'}"
                        )
                    self._known[language, missing[i]] = text
                    cut += [] if one.is_whole else [missing[i]]
            if cut:
                warnings.warn(
                    f"transform: {len(cut)} of {len(missing)} texts have more than {_LENGTH} "
                    f"tokens in {language}, and their translations are cut there, the first of "
                    f"{cut[0][:60]!r}",
                    ModelWarning,
                    stacklevel=2,
                )
        return [
            text.replace(own, self._known.get((language, own), own), 1) if own else text
            for text, own in zip(texts, bare, strict=True)
        ]
