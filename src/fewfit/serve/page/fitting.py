"""One fit of a task of the page: an artifact, and what a person wants to know about it."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewfit.artifacts.schema import ColumnsEntry
from fewfit.errors import FewfitWarning, InputError
from fewfit.estimators.classifier import FewShotClassifier
from fewfit.estimators.expected import ExpectedAccuracy, expectation
from fewfit.models import FrozenModel
from fewfit.serve.page.records import Kept
from fewfit.tables.columns import listed

POOL = 1000
"""Texts without a label that are looked at: learnt from, and suggested."""

SUGGESTED = 10
_FEW = 2

Examples = Sequence[tuple[int, str, str]]
Pool = Sequence[tuple[int, str]]


def fit(
    task: Kept,
    examples: Examples,
    pool: Pool,
    folder: Path,
    *,
    model: str | FrozenModel,
    store: str | Path | None,
    progress: Callable[[int], object],
) -> dict[str, Any]:
    """Fit a task on its rows, write the artifact, and return what the page shows of it.

    Parameters
    ----------
    examples : sequence of (place, text, label)
        Fewer than two classes are not learnt from; the model's own scores are believed then.
    pool : sequence of (place, text)
        Rows without a label.
    folder : path
        Of the artifact.
    progress : callable
        Called with the number of texts newly answered. What it raises ends the fit.
    """
    if len(task.words) < 2:
        raise InputError("words: a classifier tells two classes or more apart; add another class")
    begun = time.perf_counter()
    texts, labels = [text for _, text, _ in examples], [label for *_, label in examples]
    learns = len(set(labels)) > 1
    others = [text for _, text in pool]
    clf = FewShotClassifier(model, labels=task.words, store=store)
    with warnings.catch_warnings():
        # What they say of classes without examples, and of too few texts, the page shows anyway.
        warnings.simplefilter("ignore", FewfitWarning)
        clf.fit(
            texts if learns else [],
            labels if learns else [],
            unlabelled=others or None,
            progress=progress,
        )
        known = (texts, labels) if texts else None
        found = (
            clf.suggest(others, SUGGESTED, labelled=known, progress=lambda _: progress(0))
            if pool
            else []
        )
        expected = clf.expected_accuracy() if learns else None
    clf.columns_ = ColumnsEntry(
        fields={"text": task.text_columns}, label=task.label_column, separator=None
    )
    progress(0)  # the last chance to be cancelled
    clf.save(folder)
    return {
        "revision": task.revision,
        "examples": len(examples),
        "classes": clf.classes_.tolist(),
        "queries": clf.n_queries_,
        "seconds": round(time.perf_counter() - begun, 3),
        "bytes": sum(file.stat().st_size for file in folder.iterdir()),
        "learnt": learns,
        "expected": None if expected is None else expected.to_dict(),
        "sentences": _sentences(task, labels, expected),
        "confusion": None if expected is None else confusion(labels, expected, list(task.words)),
        "doubts": [] if expected is None else _doubts(examples, expected),
        "suggestions": [
            {"place": pool[item.index][0], "text": item.row["text"], "reason": item.reason}
            for item in found
        ],
    }


def confusion(
    labels: Sequence[str], expected: ExpectedAccuracy, classes: Sequence[str]
) -> dict[str, Any] | None:
    """Count what held-out examples were given: rows are their labels, columns what was said."""
    told = [(true, own) for true, own in zip(labels, expected.held_out, strict=False) if own]
    if not told:
        return None
    names = sorted(classes)
    place = {name: k for k, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for true, own in told:
        counts[place[true], place[own]] += 1
    return {"classes": names, "counts": counts.tolist()}


def _doubts(examples: Examples, expected: ExpectedAccuracy) -> list[dict[str, Any]]:
    """Return the rows that the others would have given another label."""
    return [
        {"place": place, "told": told}
        for (place, _, label), told in zip(examples, expected.held_out, strict=False)
        if told is not None and told != label
    ]


def _sentences(task: Kept, labels: Sequence[str], expected: ExpectedAccuracy | None) -> list[str]:
    if expected is None:
        return [
            "The accuracy cannot be estimated before two classes have labels; so far the label "
            "words speak for themselves"
        ]
    counts = Counter(labels)
    few = sorted(name for name in task.words if counts[name] <= _FEW)
    more = []
    if few:
        more = [f"Two examples or fewer: {listed(few)}"]
    return [*expectation(expected), *more]
