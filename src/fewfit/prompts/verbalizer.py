"""A verbalizer: from classes to their label words."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, Set
from functools import cached_property
from typing import Any, ClassVar

from fewfit.errors import InputError, InputWarning, LabelWordWarning
from fewfit.prompts.containers import as_py, is_iterable, shown
from fewfit.prompts.labels import BROKEN, Label, check_distinct, plain_labels, sort_classes

Words = str | Sequence[str] | Mapping[str, float]
"""The label words of a class: one, several, or several with weights."""


class Verbalizer:
    """Class -> one or several label words.

    Parameters
    ----------
    labels : mapping of class to str, sequence of str, or mapping of str to float
        For example ``{"negative": "bad", "positive": ["great", "good"]}``. Classes are all
        strings, all integers or all booleans. Words with weights,
        ``{"physics": 1.0, "quantum": 0.8}``, make the score of every class the weighted mean of
        its words' scores (SciPrompt, You et al. 2024, arXiv 2410.01946) and not their maximum.
    classes : sequence, optional
        The same classes, in the order of every array with a class axis; sorted if left out.

    Attributes
    ----------
    classes : tuple
        The K classes: the order of every array with a class axis.
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

    def __init__(
        self,
        labels: Mapping[Any, Words],
        *,
        classes: Sequence[Label] | None = None,
    ) -> None:
        if not isinstance(labels, Mapping):
            raise InputError(
                f"labels: expected a mapping from class to label words, got {type(labels).__name__}"
            )
        names = sort_classes(labels)
        if len(names) < len(labels):
            raise InputError(f"labels: two keys are the same class, of {shown(list(labels))}")
        labels = dict(zip(plain_labels(labels, str), labels.values(), strict=True))
        self.classes = names if classes is None else tuple(classes)
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
        """Let each class be spelled by its own name, underscores read as spaces.

        Raises
        ------
        InputError
            For classes whose names differ in case, blanks or underscores only.
        """
        names = list(classes)
        check_distinct(names)
        return cls({name: str(name).replace("_", " ") for name in names})

    @classmethod
    def for_examples(cls, labels: Any, y: Sequence[Label]) -> Verbalizer:
        """Return the verbalizer that `labels` spells for examples of the classes `y`.

        Parameters
        ----------
        labels : mapping, list or None
            A mapping as for :class:`Verbalizer`; None for classes that are spelled by their names;
            a list for the words of the sorted classes, in this order, however the classes are
            coded: scikit-learn's meta-estimators (:class:`~sklearn.ensemble.VotingClassifier`,
            :class:`~sklearn.ensemble.StackingClassifier`, ``cross_val_predict``) number them.
        y : sequence of str or of int
            As :func:`fewfit.prompts.read_labels` returned them.

        Raises
        ------
        InputError
            If the list has another length than there are classes, or names a class in the place of
            another; see also :class:`Verbalizer`.

        Warns
        -----
        InputWarning
            If `labels` is a mapping from strings and `y` holds the integers 0 to K - 1, all of
            them: they are read as numbers of the sorted classes, and stay the classes.
        """
        if labels is None:
            return cls.from_classes(y)
        seen = sorted(set(y))
        if isinstance(labels, list | tuple):
            return cls(dict(zip(seen, _in_order(labels, seen), strict=True)))
        named = cls(labels)
        numbers = seen == list(range(len(named.classes))) and not isinstance(seen[0], bool)
        if not numbers or not isinstance(named.classes[0], str):
            return named
        pairs = ", ".join(f"{k} is {shown(name)}" for k, name in enumerate(named.classes[:20]))
        warnings.warn(
            f"y: {seen[0]} to {seen[-1]} are read as numbers of the sorted classes of labels: "
            f"{pairs}. If that is meant, give labels as a list of words in this order; if not, "
            "give labels with the integers as keys",
            InputWarning,
            stacklevel=4,
        )
        return cls({k: labels_of for k, (_, labels_of) in enumerate(_plain(named.to_list()))})

    @property
    def labels(self) -> dict[Label, Any]:
        """What makes this verbalizer again."""
        return dict(_plain(self.to_list()))

    @cached_property
    def first(self) -> tuple[str, ...]:
        """The first label word of each class."""
        own = dict(zip(reversed(self.word_class), reversed(self.words), strict=True))
        return tuple(own[k] for k in range(len(self.classes)))

    def to_list(self) -> list[tuple[Label, list[str] | list[tuple[str, float]]]]:
        """Return ``[(class, [word, ...]), ...]``, or pairs of word and weight for the words."""
        words: Sequence[Any] = self.words
        if self.weights is not None:
            words = list(zip(self.words, self.weights, strict=True))
        own: list[list[Any]] = [[] for _ in self.classes]
        for word, k in zip(words, self.word_class, strict=True):
            own[k].append(word)
        return list(zip(self.classes, own, strict=True))

    @classmethod
    def from_list(
        cls, items: Iterable[tuple[Label, list[str] | list[tuple[str, float]]]]
    ) -> Verbalizer:
        """Make again what :meth:`to_list` returned, classes in its order."""
        labels = dict(_plain(items))
        return cls(labels, classes=list(labels))

    def __repr__(self) -> str:
        return f"Verbalizer({self.labels!r})"


def warn_of_numbers(classes: Sequence[Label]) -> None:
    """Warn where all that the model is told of the classes are bare numbers, or true and false."""
    if all(_says_nothing(str(name).strip()) for name in classes):
        warnings.warn(
            f"labels: the model is asked about the words {shown([str(n) for n in classes])}, which "
            "tell it nothing of what the classes mean; say it with labels={class: word} "
            "(--label CLASS=word)",
            LabelWordWarning,
            stacklevel=3,
        )


def _says_nothing(name: str) -> bool:
    return name.removeprefix("-").isdecimal() or name.casefold() in ("true", "false")


def _in_order(words: Sequence[Any], classes: Sequence[Label]) -> Sequence[Any]:
    """Check that words given in the order of the sorted classes can be meant so."""
    if len(words) != len(classes):
        raise InputError(
            f"labels: a list holds the words of the sorted classes, {len(words)} are given and y "
            f"has {len(classes)} classes: {shown(list(classes))}"
        )
    place = {str(name).casefold(): k for k, name in enumerate(classes)}
    for k, word in enumerate(words):
        if isinstance(word, str) and place.get(word.strip().casefold(), k) != k:
            raise InputError(
                f"labels: a list holds the words of the sorted classes {shown(list(classes))}, and "
                f"{shown(word)} stands in the place of {shown(classes[k])}; give a mapping from "
                "class to words"
            )
    return words


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
        listed = [as_py(weight) for weight in words.values()]
        numbers = all(
            isinstance(w, int | float) and not isinstance(w, bool) and 0 <= w < float("inf")
            for w in listed
        )
        values = [float(weight) for weight in listed] if numbers else [0.0]
        if not 0 < sum(values) < float("inf"):
            raise InputError(
                f"labels: the weights {shown(listed)} are not numbers from 0 with one above it"
            )
        shares += [weight / sum(values) for weight in values]
    return tuple(shares)


def _words_of(name: Label, words: str | Iterable[str]) -> list[str]:
    if isinstance(words, Set) and not isinstance(words, KeysView):
        raise InputError(
            f"labels: class {name!r} has a set of words, which has no order, and the first is the "
            "one that is shown; give a list"
        )
    if not isinstance(words, str | bytes) and is_iterable(words):
        listed = [as_py(word) for word in words]
    else:
        listed = [as_py(words)]
    if not listed:
        raise InputError(f"labels: class {name!r} has no label word")
    for word in listed:
        if not isinstance(word, str) or not word.strip() or BROKEN.search(word):
            raise InputError(
                f"labels: class {name!r} has the label word {shown(word)}; give a word"
            )
    return [str.__str__(word).strip() for word in listed]
