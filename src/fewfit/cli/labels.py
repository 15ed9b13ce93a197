"""Labels of a file, and label words of options."""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from fewfit.choices import did_you_mean
from fewfit.errors import InputError, InputWarning
from fewfit.tables import Table
from fewfit.tables.columns import SEPARATOR, Examples, is_blank
from fewfit.tables.names import find
from fewfit.tables.records import parse_json

_UNUSUAL = (";", "|")
"""What a name has no use for, so that names which share a part are said already."""

_SEPARATORS = (*_UNUSUAL, ",", "/")

_WHOLE = re.compile(r"(-?[0-9]+)\.0+")


def find_labels(table: Table, name: str) -> int:
    """Return where the labels are (InputError)."""
    return find(table.columns, name, f"{table.path}: --label-column")


def one_label(
    table: Table, examples: Examples, name: str, known: Collection[str] | None = None
) -> list[str]:
    """Return the label of each row as text, whatever type the file gives it.

    Parameters
    ----------
    name : str
        The column, for messages.
    known : collection of str, optional
        Classes that there are; see :func:`spellings`.

    Raises
    ------
    InputError
        If a row holds several, or what is no label.
    """
    from fewfit.prompts import read_labels
    from fewfit.prompts.labels import plain_labels

    _refuse_lists(table, examples, name)
    where, column = _where(table, examples.lines), f"{table.path}, column {name!r}"
    values = plain_labels(examples.values, lambda i: f"{column}: the label of {where(i)}")
    texts = [str(value) for value in values]
    read_labels(texts, where=where, name=column)  # says where they look like texts
    ways = spellings(texts, known)
    labels = [ways[text] for text in texts]
    _warn_of_several(table, labels, name)
    return labels


def spellings(labels: Iterable[str], known: Collection[str] | None = None) -> dict[str, str]:
    """Return the class of each label of a file: one, however programs have written it.

    Blanks around a label are none of it; 1.0 is 1, as it is in a sheet, and TRUE is True, where
    both are there.

    Parameters
    ----------
    known : collection of str, optional
        Classes that there are, of an artifact or of label words, which are written as they are; a
        label that is none of them stays.
    """
    there = None if known is None else {*known}
    found: dict[str, set[str]] = defaultdict(set)
    own = {label: label.strip() for label in labels}
    for name in own.values() if there is None else there:
        found[_key(name)].add(name)
    one = {key: next(iter(names)) if len(names) == 1 else key for key, names in found.items()}
    return {
        label: next((way for way in (label, name) if way in (there or ())), None)
        or one.get(_key(name), name)
        for label, name in own.items()
    }


def _key(name: str) -> str:
    """Return what spellings of one class have in common."""
    name = name.strip()
    whole = _WHOLE.fullmatch(name)
    if whole:
        return whole[1]
    return name.capitalize() if name.casefold() in ("true", "false") else name


def check_names(
    table: Table, examples: Examples, y: Sequence[str], name: str, words: dict[str, Any] | None
) -> None:
    """Refuse classes that have no words, or names that the model cannot tell apart (InputError)."""
    from fewfit.prompts.containers import shown

    if words is not None:
        for number, label in zip(examples.lines, y, strict=True):
            if label not in words:
                raise InputError(
                    f"{table.path}, column {name!r}: class {label!r} ({table.where(number)}) has "
                    f"no label words; there are words for {shown(list(words))}"
                    f"{did_you_mean(label, list(words))}"
                )
        return
    if len(set(y)) == 1:
        raise InputError(
            f"{table.path}, column {name!r}: at least two classes are needed, and every label is "
            f"{y[0]!r}; add rows of another, or name all classes there are, --label CLASS=word"
        )
    advice = ", or tell the model how they differ with --label CLASS=word for each class"
    _check_distinct(table, examples.lines, y, name, advice)


def label_sets(
    table: Table,
    examples: Examples,
    separator: str,
    name: str,
    known: Collection[str] | None = None,
) -> list[list[str]]:
    """Return the labels of each row: of a list its items, of text what the separator parts.

    Parameters
    ----------
    name : str
        The column, for messages.
    known : collection of str, optional
        Classes that there are; see :func:`spellings`. Without them they are still to be learnt,
        and have to be such that what is predicted can be read again.

    Raises
    ------
    InputError
    """
    from fewfit.prompts.labels import plain_label

    sets: list[list[str]] = []
    for number, value in zip(examples.lines, examples.values, strict=True):
        if isinstance(value, list | tuple):
            items: list[Any] = list(value)
        elif is_blank(value):
            items = []
        elif isinstance(value, str):
            items = [item.strip() for item in value.split(separator) if item.strip()]
        else:
            items = [value]
        try:
            sets.append([str(plain_label(item)) for item in items])
        except ValueError as error:
            raise InputError(f"{table.path}: a label of {table.where(number)} {error}") from None
    if not any(sets):
        raise InputError(f"{table.path}: no row has a label")
    ways = spellings((label for own in sets for label in own), known)
    sets = [list(dict.fromkeys(ways[label] for label in own)) for own in sets]
    flat = [label for own in sets for label in own]
    if known is None:
        lines = [n for n, own in zip(examples.lines, sets, strict=True) for _ in own]
        for number, label in zip(lines, flat, strict=True):
            if separator in label:
                raise InputError(
                    f"{table.path}, column {name!r}: the label {label!r} of {table.where(number)} "
                    f"holds {separator!r}, which parts the labels of a row; name another with "
                    "--label-separator"
                )
        _check_distinct(table, lines, flat, name)
    _warn_of_several(table, flat, name, separator)
    return sets


def check_classes(
    table: Table, examples: Examples, own: Sequence[Sequence[str]], classes: Sequence[str]
) -> None:
    """Refuse labels that an artifact has not learnt (InputError)."""
    from fewfit.prompts.containers import shown

    known = set(classes)
    for number, labels in zip(examples.lines, own, strict=True):
        for name in labels:
            if name not in known:
                raise InputError(
                    f"{table.path}: {table.where(number)}: class {name!r} is not one of "
                    f"{shown(list(classes))}{did_you_mean(name, list(classes))}"
                )


def read_separator(multi_label: bool, given: str | None) -> str | None:
    """Return what parts the labels of a row, None where a row has one."""
    if given is not None and not multi_label:
        raise InputError("--label-separator: goes with --multi-label, which is not given")
    if given == "":
        raise InputError("--label-separator: expected a character or more, got nothing")
    return (given or SEPARATOR) if multi_label else None


def read_label_words(inline: list[str] | None, path: Path | None) -> dict[str, Any] | None:
    """Return the label words that the user gave, None if there are none."""
    if inline and path is not None:
        raise InputError("--label and --labels say the same thing; give one of them")
    if path is not None:
        return _read_words(path)
    if not inline:
        return None
    words: dict[str, Any] = {}
    for item in inline:
        name, equals, listed = item.partition("=")
        name = name.strip()
        if not equals or name in words:
            raise InputError(f"--label: expected CLASS=word[,word] once per class, got {item!r}")
        words[name] = listed.split(",")
    return words


def read_taxonomy(
    path: Path | None, model: str, words: dict[str, Any] | None
) -> tuple[str, dict[str, Any] | None]:
    """Return the model that scores the labels of a taxonomy as a trie, and their words.

    Parameters
    ----------
    path : Path or None
        One label to a line, which may be a path such as ``Food > Fruit``; or, after a tab, the
        words that stand for it. Without one the model and the words are returned as they are.
    model : str
    words : dict or None
        What other options say of the words.

    Raises
    ------
    InputError
    """
    if path is None:
        return model, words
    if words is not None:
        raise InputError("--taxonomy names the labels and their words; leave out --label, --labels")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--taxonomy: {path} cannot be read: {error}") from error
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        label, _, word = (part.strip() for part in line.strip().partition("\t"))
        if not label:
            continue
        if label in found:
            raise InputError(f"--taxonomy: {path}, line {number}: {label!r} stands there twice")
        found[label] = word or label
    if len(found) < 2:
        raise InputError(f"--taxonomy: {path}: {len(found)} labels, and two are the least")
    scheme = model.partition(":")[0]
    if scheme not in TRIES:
        raise InputError(
            f"--taxonomy: {scheme!r} gives no probabilities of tokens, by which labels of several "
            f"are scored; {', '.join(TRIES)} do"
        )
    if "multi_token=" in model:
        raise InputError("--taxonomy: scores labels with multi_token=trie; leave multi_token out")
    return f"{model}{'&' if '?' in model else '?'}multi_token=trie", found


TRIES = ("hf", "llamacpp", "vllm", "sglang")
"""Kinds of models that score label words of several tokens as a trie."""


def _read_words(path: Path) -> dict[str, Any]:
    from fewfit.tables.encoding import find_encoding
    from fewfit.tables.source import Source

    source = Source(str(path))
    encoding = find_encoding(source, None)
    with source.open() as stream:
        text = stream.read().decode(encoding).removeprefix("\ufeff")
    content = parse_json(text, f"--labels: {path}")
    if not isinstance(content, dict) or not content:
        raise InputError(
            f'--labels: {path} is not a JSON object {{"class": "word" or ["word", ...], ...}}'
        )
    for name, words in content.items():
        weighted = isinstance(words, dict) and all(
            isinstance(w, int | float) and not isinstance(w, bool) for w in words.values()
        )
        listed = [words] if isinstance(words, str) else words
        plain = isinstance(listed, list) and all(isinstance(word, str) for word in listed)
        if not (listed and (plain or weighted)):
            raise InputError(
                f"--labels: {path}: class {name!r} has no label words: expected text, a list of "
                "texts, or an object of texts and weights"
            )
    named = {name.strip(): words for name, words in content.items()}
    if len(named) < len(content):
        raise InputError(f"--labels: {path}: each class once; two differ in blanks around them")
    return named


def _refuse_lists(table: Table, examples: Examples, name: str) -> None:
    for number, value in zip(examples.lines, examples.values, strict=True):
        if isinstance(value, list | tuple | dict):
            kind = "an object" if isinstance(value, dict) else "a list"
            raise InputError(
                f"{table.path}, column {name!r}: the label of {table.where(number)} is {kind}; "
                "where rows have several labels, 'fewfit fit --multi-label' learns them"
            )


def _where(table: Table, lines: Sequence[int]) -> Callable[[int], str]:
    return lambda i: table.where(lines[i])


def _check_distinct(
    table: Table, lines: Sequence[int], labels: Sequence[str], name: str, advice: str = ""
) -> None:
    """Refuse names that a model cannot tell apart, with the advice that is right here."""
    from fewfit.prompts.labels import check_distinct

    try:
        column = f"{table.path}, column {name!r}"
        check_distinct(labels, where=_where(table, lines), name=column)
    except InputError as error:
        what = str(error).partition(", or tell the model")[0]
        raise InputError(f"{what}{advice}") from None


def _warn_of_several(
    table: Table, labels: Sequence[str], name: str, parted: str | None = None
) -> None:
    """Warn of classes that look like several joined: their parts are classes too.

    `parted` is the separator of rows with several labels.
    """
    classes = set(labels)
    for separator in _SEPARATORS:
        if separator == parted:
            continue
        own = separator in _UNUSUAL
        joined = {c: {p.strip() for p in c.split(separator)} for c in classes if separator in c}
        times = Counter(part for parts in joined.values() for part in parts)
        for label in sorted(joined):
            shared = [p for p in sorted(joined[label]) if p in classes or (own and times[p] > 1)]
            part = next(iter(shared), None)
            if part and len(joined[label]) > 1:
                option = f'--label-separator "{separator}"'
                # Not every command has the option, and that of fit is what all others follow.
                advice = f"'fewfit fit --multi-label {option}' learns them"
                warnings.warn(
                    f"{table.path}, column {name!r}: {label!r} is taken as one class, though "
                    f"{part!r} stands elsewhere too; where rows have several labels, "
                    + (advice if parted is None else f"add {option}"),
                    InputWarning,
                    stacklevel=2,
                )
                return
