"""A verbalizer: from classes to their label words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fewfit.errors import InputError

Label = str | int


class Verbalizer:
    """Class -> one or several label words.

    Parameters
    ----------
    labels : mapping of class to str or sequence of str
        For example ``{"negative": "bad", "positive": ["great", "good"]}``. Classes are all
        strings or all integers.

    Attributes
    ----------
    classes : tuple
        The K classes, sorted: the order of every array with a class axis.
    words : tuple of str
        The W label words of all classes, class by class.
    word_class : tuple of int
        For each of the W words the position of its class in `classes`.

    Raises
    ------
    InputError
        For fewer than two classes, an empty word, or a word that two classes share (compared
        without case and surrounding space: many models cannot tell such words apart).

    Examples
    --------
    >>> verbalizer = Verbalizer({"positive": ["great", "good"], "negative": "bad"})
    >>> verbalizer.words
    ('bad', 'great', 'good')
    >>> verbalizer.word_class
    (0, 1, 1)
    """

    def __init__(self, labels: Mapping[Any, str | Sequence[str]]) -> None:
        if not isinstance(labels, Mapping):
            raise InputError(
                f"labels: expected a mapping from class to label words, got {type(labels).__name__}"
            )
        self.classes = sort_classes(labels)
        if len(self.classes) < 2:
            raise InputError(f"labels: at least two classes are needed, got {len(self.classes)}")
        words: list[str] = []
        owners: list[int] = []
        seen: dict[str, Label] = {}
        for index, name in enumerate(self.classes):
            for word in _words_of(name, labels[name]):
                folded = word.casefold()
                if folded in seen:
                    raise InputError(
                        f"labels: the word {word!r} stands for {seen[folded]!r} and for {name!r}; "
                        "a label word belongs to one class and is given once"
                    )
                seen[folded] = name
                words.append(word)
                owners.append(index)
        self.words = tuple(words)
        self.word_class = tuple(owners)

    @classmethod
    def from_classes(cls, classes: Iterable[Label]) -> Verbalizer:
        """Let each class be spelled by its own name, underscores read as spaces."""
        return cls({name: str(name).replace("_", " ") for name in classes})

    def to_list(self) -> list[tuple[Label, list[str]]]:
        """Return ``[(class, [word, ...]), ...]``, which :class:`dict` turns back into `labels`."""
        return [
            (
                name,
                [w for w, owner in zip(self.words, self.word_class, strict=True) if owner == k],
            )
            for k, name in enumerate(self.classes)
        ]

    def __repr__(self) -> str:
        return f"Verbalizer({dict(self.to_list())!r})"


def sort_classes(classes: Iterable[object]) -> tuple[Label, ...]:
    """Return the distinct classes sorted, after checking that they are all text or all integers.

    Raises
    ------
    InputError
        For a class that is missing (None, NaN), of another type, or of mixed types.
    """
    distinct: set[Any] = set()
    for name in classes:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise InputError(f"labels: a class is a string or an integer, got {name!r}")
        if name == "":
            raise InputError("labels: the empty string is not a class")
        distinct.add(name)
    if len({isinstance(name, str) for name in distinct}) > 1:
        raise InputError("labels: classes are all strings or all integers, not both")
    return tuple(sorted(distinct))


def _words_of(name: Label, words: str | Sequence[str]) -> list[str]:
    listed = [words] if isinstance(words, str) else list(words)
    if not listed:
        raise InputError(f"labels: class {name!r} has no label word")
    for word in listed:
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"labels: class {name!r} has the label word {word!r}; give a word")
    return [word.strip() for word in listed]
