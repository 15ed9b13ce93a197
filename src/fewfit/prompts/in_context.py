"""In-context learning: labelled examples in front of the question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain, zip_longest
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from fewfit.errors import InputError
from fewfit.parameters import check_parameters
from fewfit.prompts.containers import LONE, shown
from fewfit.prompts.prompt import Part, Prompt
from fewfit.prompts.rows import Row
from fewfit.prompts.template import Template
from fewfit.prompts.views import View

CHOICES = ("balanced", "random", "nearest")

Demonstration = tuple[Row, str]
"""A row, and the label word in its slot."""


class InContext(View):
    r"""A template with answered examples in front of it (Brown et al. 2020).

    Each demonstration is the template with its label word in the slot; the examples that `fit` is
    given are where they are drawn from. No example is ever its own demonstration: where one is
    asked about, the next in line takes its place, so that every label serves both as a
    demonstration and as a training example, with one query each.

    Parameters
    ----------
    template : str
        As for :class:`fewfit.Template`.
    n : int, default=4
        Demonstrations in all, not per class. 0 is the template itself.
    choose : {"balanced", "random", "nearest"}, default="balanced"
        "balanced" takes the classes in turn and a random example of each; "random" looks at no
        label; "nearest" takes for each row the examples with the most similar words (cosine of
        tf-idf), the nearest last (after Liu et al. 2022, arXiv 2101.06804, whose similarity is
        that of a sentence encoder).
    separator : str, default="\n\n"
        What follows each demonstration.
    max_words : int, optional
        Budget for all demonstrations together, in words: those that do not fit are left out, the
        last chosen first. A frozen model cuts the user's text where a prompt is too long, never
        a demonstration.
    seed : int, default=0
    turns : bool, default=False
        Whether each demonstration is a turn of either side for a model that chats: the question,
        and the label word as its answer. Punctuation after the template's slot is left out; where
        words stand there, ``___`` stands in the slot.
    demonstrations : sequence of (row, word), optional
        Use these, in this order of preference, instead of drawing from the examples.

    Raises
    ------
    InputError
        For an unknown choice or a negative number.

    Examples
    --------
    >>> view = InContext("{text} It was {mask}.", n=1, demonstrations=[({"text": "Fun."}, "good")])
    >>> view.render({"text": "Dull."}).text("...")
    'Fun. It was good.\n\nDull. It was ....'
    """

    labels_needed: ClassVar[str] = "n in all"
    reference: ClassVar[str] = "Brown et al. 2020, arXiv 2005.14165"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "template": [str],
        "n": [Interval(Integral, 0, None, closed="left")],
        "choose": [StrOptions(set(CHOICES))],
        "separator": [str],
        "max_words": [Interval(Integral, 0, None, closed="left"), None],
        "seed": [Interval(Integral, 0, None, closed="left")],
        "turns": ["boolean"],
        "demonstrations": [list, tuple, None],
    }

    def __init__(
        self,
        template: str,
        *,
        n: int = 4,
        choose: str = "balanced",
        separator: str = "\n\n",
        max_words: int | None = None,
        seed: int = 0,
        turns: bool = False,
        demonstrations: Sequence[Demonstration] | None = None,
    ) -> None:
        self.template = template
        self.n = n
        self.choose = choose
        self.separator = separator
        self.max_words = max_words
        self.seed = seed
        self.turns = turns
        self.demonstrations = demonstrations
        check_parameters(self)
        self._template = Template(template)
        self.fields = self._template.fields
        told = [self.separator, *(w for row, word in self._given for w in (*row.values(), word))]
        for text in told:
            if not isinstance(text, str) or LONE.search(text):
                raise InputError(
                    f"separator, demonstrations: expected text, got {shown(text)}, which cannot be "
                    "kept"
                )

    def learn(self, rows: Sequence[Row], words: Sequence[str]) -> InContext:
        if self.demonstrations is not None:
            return self
        known: dict[tuple[str, ...], Demonstration] = {}
        for row, word in zip(rows, words, strict=True):
            kept = {name: row[name] for name in self.fields}
            known.setdefault(tuple(kept.values()), (kept, word))
        pool = list(known.values())
        order = np.random.default_rng(self.seed).permutation(len(pool))
        drawn = [pool[i] for i in order]
        if self.choose == "balanced":
            groups = [[item for item in drawn if item[1] == word] for word in sorted(set(words))]
            turns = chain.from_iterable(zip_longest(*groups))
            drawn = [item for item in turns if item is not None]
        # One to spare, where an example would meet itself.
        drawn = pool if self.choose == "nearest" else drawn[: self.n + 1]
        return InContext(self.template, **{**self.options(), "demonstrations": drawn})

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that make this view again from its template."""
        return {
            "n": int(self.n),
            "choose": self.choose,
            "separator": self.separator,
            "max_words": None if self.max_words is None else int(self.max_words),
            "seed": int(self.seed),
            "turns": bool(self.turns),
            "demonstrations": None if self.demonstrations is None else list(self._given),
        }

    @cached_property
    def _given(self) -> list[Demonstration]:
        """Return the demonstrations as they are shown: the template's fields alone (InputError)."""
        try:
            return [
                ({name: row[name] for name in self.fields}, word)
                for row, word in self.demonstrations or ()
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"demonstrations: each is a row with {list(self.fields)}, and its label word"
            ) from error

    def render(self, row: Mapping[str, str]) -> Prompt:
        if self.demonstrations is None and self.n:
            raise InputError("demonstrations: none were chosen yet; fit draws them, or give some")
        question = self._template.render(row)
        shown = self._shown({name: row[name] for name in self.fields})
        if self.turns:
            told = [part for item in shown for part in self._turns(*item)]
            return Prompt((*told, *question.parts))
        text = "".join(
            self._template.render(demonstration).text(word) + self.separator
            for demonstration, word in shown
        )
        if not text:
            return question
        first = question.parts[0]
        if first.kind != "literal":
            return Prompt((Part("literal", text), *question.parts))
        return Prompt((Part("literal", text + first.text), *question.parts[1:]))

    def _turns(self, row: Row, word: str) -> tuple[Part, ...]:
        asked = self._template.render(row).asked()
        return (
            Part("literal", asked),
            Part("turn", " "),
            Part("literal", word),
            Part("turn", self.separator),
        )

    def _shown(self, row: Row) -> list[Demonstration]:
        ranked = self._given
        if self.choose == "nearest" and self.n and ranked:
            similarity = (self._index[1] @ self._index[0].transform([_joined(row)]).T).toarray()
            ranked = [ranked[i] for i in np.argsort(-similarity[:, 0], kind="stable")]
        fitting: list[Demonstration] = []
        used = 0
        for demonstration in [item for item in ranked if item[0] != row][: self.n]:
            used += len(self._template.render(demonstration[0]).text(demonstration[1]).split())
            if self.max_words is not None and used > self.max_words:
                break
            fitting.append(demonstration)
        return fitting[::-1] if self.choose == "nearest" else fitting

    @cached_property
    def _index(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(token_pattern=r"(?u)\S+")
        texts = [_joined(row) for row, _ in self._given]
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError as error:  # every example is empty
            raise InputError("choose='nearest': the examples hold no words") from error

    def __repr__(self) -> str:
        return f"InContext({self.template!r}, n={self.n}, choose={self.choose!r})"


def _joined(row: Row) -> str:
    return " ".join(row.values())
