"""An artifact and a table, and the answers of one about the other, part by part."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from fewfit.choices import choose
from fewfit.cli.options import store_path
from fewfit.cli.output import note
from fewfit.errors import ArtifactError, BudgetExceededError
from fewfit.tables import Row, Table
from fewfit.tables.columns import Places, has_text, texts_of

if TYPE_CHECKING:
    from fewfit.estimators.base import TextEstimator
    from fewfit.estimators.classifier import FewShotClassifier
    from fewfit.observations import Observations
    from fewfit.progress import Progress

FIRST, LARGEST = 64, 10_000
"""Rows of a part: what is written and kept in memory at once."""

_SECONDS = 5.0  # a part that took less is followed by one of twice as many rows


def load_classifier(
    artifact: Path,
    model: str | None,
    store: str,
    max_queries: int | None,
    errors: str,
    hidden: str | None = None,
) -> TextEstimator:
    """Return the classifier of a folder, whichever kind it holds."""
    from fewfit.estimators.loading import load

    choose("--errors", errors, ("raise", "nan"))
    if not artifact.is_dir():
        what = "is not a folder" if artifact.exists() else "is not there"
        raise ArtifactError(
            f"{artifact} {what}; 'fewfit fit FILE -o {artifact}' makes such an artifact"
        )
    return load(
        artifact,
        model=model,
        hidden=hidden,
        store=store_path(store),
        max_queries=max_queries,
        errors=errors,
    )


@dataclass
class Part:
    """Some rows of a table and what was found out about them.

    Attributes
    ----------
    rows : sequence of Row
    texts : dict of str to list of str
    probabilities : ndarray of shape (n, K)
        NaN for a row that has no text, or that the model gave no answer to.
    has_text : ndarray of shape (n,), bool
    failures : list of str
        Why a row has no probabilities; empty for those that have.
    """

    rows: Sequence[Row]
    texts: Mapping[str, Sequence[str]]
    probabilities: NDArray[np.float64]
    has_text: NDArray[np.bool_]
    failures: Sequence[str]


@dataclass
class Answering:
    """Asks about the rows of a table, part by part.

    Attributes
    ----------
    adapt : bool
        Whether the classifier learns from all rows before it labels any.
    queries : int
        Paid for so far.
    stored : int
        Answers that came from the store so far.
    """

    classifier: TextEstimator
    table: Table
    places: Places
    progress: Progress | None = None
    adapt: bool = False
    queries: int = 0
    stored: int = 0
    _has_store: bool = field(init=False)

    def __post_init__(self) -> None:
        self._has_store = self.classifier.store is not None

    def __iter__(self) -> Iterator[Part]:
        """Yield the rows in order, each part as soon as it is answered."""
        if self.classifier.task_.calibration.row_independent and not self.adapt:
            for rows, texts, there, seen in self._observed():
                proba = self._spread(there, None if seen is None else self.classifier.decode(seen))
                yield Part(rows, texts, proba, there, self._failures(there, seen))
        else:
            yield from self._together()

    def _together(self) -> Iterator[Part]:
        """Answers to all rows are needed to calibrate or to adapt: these are kept."""
        from fewfit.gathering import concatenate

        if self.table.n > LARGEST:
            name = self.classifier.task_.calibration.name
            who = "--adapt" if self.adapt else f"the calibration {name!r}"
            note(
                f"{who} looks at all rows at once: nothing is written before all {self.table.n:,} "
                "are answered"
            )
        seen: list[Observations] = []
        flags: list[NDArray[np.bool_]] = []
        learnt = self.classifier.decoder_.fitted_arrays
        hidden = self.adapt or bool(learnt)  # else nothing reads them
        failures: list[str] = []
        asked: dict[str, list[str]] = {name: [] for name in self.places}
        for _, texts, there, answers in self._observed():
            flags.append(there)
            if self.adapt:
                for name, column in asked.items():
                    column += [t for t, yes in zip(texts[name], there, strict=True) if yes]
            failures += self._failures(there, answers)
            if answers is not None:
                keep = hidden or answers.scores is None
                seen.append(answers if keep else replace(answers, hidden=None))
        there = np.concatenate(flags)
        decoded = None
        if seen:
            together, classifier = concatenate(seen), self.classifier
            if self.adapt:
                classifier = cast("FewShotClassifier", classifier).adapt(asked, answers=together)
            decoded = classifier.decode(together)
        proba = self._spread(there, decoded)
        done = 0
        for rows in self.table.chunks(LARGEST):
            own = slice(done, done + len(rows))
            done += len(rows)
            texts = texts_of(self.table, rows, self.places)
            yield Part(rows, texts, proba[own], there[own], failures[own])

    def _observed(self) -> Iterator[tuple[list[Row], Any, NDArray[np.bool_], Any]]:
        size, reading, done = FIRST, self.table.read(), 0
        while rows := list(islice(reading, size)):
            begun = time.perf_counter()
            texts = texts_of(self.table, rows, self.places)
            there = np.array(has_text(texts), dtype=bool)
            answers, done = None, done + len(rows)
            if there.any():
                asked = {
                    k: [t for t, yes in zip(v, there, strict=True) if yes] for k, v in texts.items()
                }
                try:
                    answers = self.classifier.observe(asked, progress=self.progress)
                except BudgetExceededError as error:
                    if not self.queries and done == self.table.n:
                        raise  # this part is all
                    raise self._of_all(error, self.table.n - done) from error
                self.queries += answers.queries
                if self._has_store:
                    distinct = len(set(zip(*asked.values(), strict=True)))
                    views = len(answers) // int(there.sum())
                    self.stored += max(distinct * views - answers.queries, 0)
            yield rows, texts, there, answers
            if time.perf_counter() - begun < _SECONDS:
                size = min(2 * size, LARGEST)

    def _of_all(self, error: BudgetExceededError, unread: int) -> BudgetExceededError:
        """Return what a part says of the budget as it is of the whole table."""
        budget, answered = self.classifier.max_queries, self.queries + error.answered
        # Rows that come twice or are stored cost nothing, and are not looked for here.
        left = error.left + unread * len(self.classifier.task_.template.views)
        if self._has_store:
            said = (
                f"the budget of {budget} queries is used up: {answered} prompts were answered now "
                f"and are stored, {'at most ' * bool(unread)}{left} are left. Run again to go on "
                "from there"
            )
        else:
            said = (
                f"the budget of {budget} queries does not suffice: {answered} prompts were "
                f"answered, which are lost without a store, and {'at most ' * bool(unread)}{left} "
                "are left; name a store, or a larger budget"
            )
        return BudgetExceededError(said, answered, left)

    def _failures(self, there: NDArray[np.bool_], answers: Observations | None) -> list[str]:
        asked = iter(self.classifier.task_.failures(answers) if answers is not None else ())
        return [next(asked) if yes else "no text" for yes in there]

    def _spread(
        self, there: NDArray[np.bool_], decoded: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        out = np.full((len(there), len(self.classifier.classes_)), np.nan)
        if decoded is not None:
            out[there] = decoded
        return out
