"""What is suspicious about the examples of a fit, found without a query."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewfit.tables import Table
from fewfit.tables.columns import Examples, count, named

if TYPE_CHECKING:
    from fewfit.estimators.base import TextEstimator
    from fewfit.estimators.expected import ExpectedAccuracy

_FEW = 2
_LISTED = 3
_FOREIGN = 0.5  # of the letters; names and quotations in another script stay well below


def suspicions(
    classifier: TextEstimator, table: Table, examples: Examples, y: Sequence[Any]
) -> list[str]:
    """Return a line for each thing that is likely to be wrong with the examples.

    Parameters
    ----------
    y : sequence, length N
        The class of each example; or a list of labels for each.
    """
    found = [_clashes(table, examples, y), _language(classifier, examples)]
    if y and not isinstance(y[0], list):
        found += [_small(y), _mass(classifier)]
    return [line for line in found if line]


def _clashes(table: Table, examples: Examples, y: Sequence[Any]) -> str:
    seen: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*examples.texts.values(), strict=True)):
        seen.setdefault(key, []).append(i)
    clashing = [own for own in seen.values() if any(y[i] != y[own[0]] for i in own)]
    if not clashing:
        return ""
    where = "; ".join(named(table, [examples.lines[i] for i in own]) for own in clashing[:_LISTED])
    more = f"; and {len(clashing) - _LISTED:,} more" if len(clashing) > _LISTED else ""
    verb = "has" if len(clashing) == 1 else "have"
    return f"{count(len(clashing), 'text')} {verb} more than one label ({where}{more})"


def _small(y: Sequence[Any]) -> str:
    few = [str(name) for name, n in Counter(y).items() if n <= _FEW]
    if not few:
        return ""
    verb = "has" if len(few) == 1 else "have"
    return f"{count(len(few), 'class', 'classes')} {verb} two examples or fewer ({_listed(few)})"


def _mass(classifier: TextEstimator) -> str:
    from fewfit.models.probe import LITTLE_MASS

    mass = None if classifier._training is None else classifier._training.label_mass
    if mass is None or mass >= LITTLE_MASS:
        return ""
    return (
        f"the label words have {mass:.2%} of the probability at the slot; choose words or a "
        "template so that the model would say them"
    )


def _language(classifier: TextEstimator, examples: Examples) -> str:
    """Say what is certain: a script that the vocabulary of an English encoder hardly has."""
    spec = classifier.task_.model.spec
    if spec not in ("embedded-en", "embedded-en-float32"):
        return ""
    letters = [c for own in examples.texts.values() for t in own for c in t if c.isalpha()]
    foreign = sum(not unicodedata.name(c, "LATIN").startswith("LATIN") for c in letters)
    if not letters or foreign / len(letters) <= _FOREIGN:
        return ""
    return (
        f"{foreign / len(letters):.0%} of the letters are of another script than Latin, and "
        f"{spec} reads English; take --model embedded"
    )


def expectation(expected: ExpectedAccuracy, *, several: bool = False) -> list[str]:
    """Return what a person wants to read of an expected accuracy."""
    what = "Rows with all labels right, to expect" if several else "Accuracy to expect"
    if expected.accuracy is None or expected.interval is None:
        return [f"{what}: cannot be estimated ({expected.reason})"]
    low, high = expected.interval
    lines = [
        f"{what}: {expected.accuracy:.0%} (95 % interval {low:.0%} to {high:.0%}, "
        f"Wilson; {count(expected.n, 'row')}, {expected.n_folds}-fold cross-validation)"
    ]
    if not expected.recall:
        return lines
    largest, share = expected.largest
    if low <= share and len(expected.recall) > 1 and not several:
        lines.append(
            f"That may be no better than always saying {largest}, which is right for {share:.0%}"
        )
    right, n = expected.recall[expected.weakest]
    if right < n:
        lines.append(f"Weakest class: {expected.weakest} ({right} of {n} found)")
    if expected.not_estimated:
        names = _listed([str(name) for name in expected.not_estimated])
        lines.append(f"Not estimated, for want of two different texts: {names}")
    return lines


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
