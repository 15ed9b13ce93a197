"""A verbalizer: from classes to their label words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from fewfit.errors import InputError

Label = str | int


class Verbalizer:
    """Class -> one or several label words.

    Parameters
    ----------
    labels : mapping of class to str, sequence of str, or mapping of str to float
        For example ``{"negative": "bad", "positive": ["great", "good"]}``. Classes are all
        strings or all integers. Words with weights, ``{"physics": 1.0, "quantum": 0.8}``, make the
        score of every class the weighted mean of its words' scores (SciPrompt, You et al. 2024,
        arXiv 2410.01946) and not their maximum.

    Attributes
    ----------
    classes : tuple
        The K classes, sorted: the order of every array with a class axis.
    words : tuple of str
        The W label words of all classes, class by class.
    word_class : tuple of int
        For each of the W words the position of its class in `classes`.
    weights : tuple of float, or None
        For each word its share of its class's score; None if the maximum counts.

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

    requires: ClassVar[frozenset[str]] = frozenset({"scores"})
    labels_needed: ClassVar[str] = "none"
    queries_per_example: ClassVar[str] = "0"
    reference: ClassVar[str] = ""

    def __init__(self, labels: Mapping[Any, str | Sequence[str] | Mapping[str, float]]) -> None:
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
        self.weights = _weights([labels[name] for name in self.classes])

    @classmethod
    def from_classes(cls, classes: Iterable[Label]) -> Verbalizer:
        """Let each class be spelled by its own name, underscores read as spaces."""
        return cls({name: str(name).replace("_", " ") for name in classes})

    @property
    def labels(self) -> dict[Label, Any]:
        """What makes this verbalizer again."""
        return dict(_plain(self.to_list()))

    @property
    def first(self) -> list[str]:
        """The first label word of each class."""
        return [self.words[self.word_class.index(k)] for k in range(len(self.classes))]

    def to_list(self) -> list[tuple[Label, list[str] | list[tuple[str, float]]]]:
        """Return ``[(class, [word, ...]), ...]``, or pairs of word and weight for the words."""
        weights = self.weights or [0.0] * len(self.words)
        items = list(zip(self.words, weights, self.word_class, strict=True))
        return [
            (
                name,
                [(w, weight) for w, weight, owner in items if owner == k]
                if self.weights
                else [w for w, _, owner in items if owner == k],
            )
            for k, name in enumerate(self.classes)
        ]

    @classmethod
    def from_list(
        cls, items: Iterable[tuple[Label, list[str] | list[tuple[str, float]]]]
    ) -> Verbalizer:
        """Make again what :meth:`to_list` returned."""
        return cls(dict(_plain(items)))

    def __repr__(self) -> str:
        return f"Verbalizer({self.labels!r})"


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


def _plain(
    items: Iterable[tuple[Label, list[str] | list[tuple[str, float]]]],
) -> Iterator[tuple[Label, Any]]:
    for name, words in items:
        weighted = bool(words) and not isinstance(words[0], str)
        yield name, {pair[0]: pair[1] for pair in words} if weighted else words


def _weights(given: Sequence[Any]) -> tuple[float, ...] | None:
    """Shares of the words, class by class; a class without weights counts its words equally."""
    if not any(isinstance(words, Mapping) for words in given):
        return None
    shares: list[float] = []
    for words in given:
        if not isinstance(words, Mapping):
            words = dict.fromkeys([words] if isinstance(words, str) else words, 1.0)
        values = [float(weight) for weight in words.values()]
        if not all(0 <= weight < float("inf") for weight in values) or not sum(values):
            raise InputError(
                f"labels: the weights {values} are not numbers from 0 with one above it"
            )
        shares += [weight / sum(values) for weight in values]
    return tuple(shares)


def _words_of(name: Label, words: str | Iterable[str]) -> list[str]:
    listed = [words] if isinstance(words, str) else list(words)
    if not listed:
        raise InputError(f"labels: class {name!r} has no label word")
    for word in listed:
        if not isinstance(word, str) or not word.strip():
            raise InputError(f"labels: class {name!r} has the label word {word!r}; give a word")
    return [word.strip() for word in listed]
