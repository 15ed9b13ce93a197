"""What is suspicious about the examples of a fit, found without a query."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fewfit.cli.languages import other_language
from fewfit.tables import Table
from fewfit.tables.columns import LISTED, Examples, count, listed, named

if TYPE_CHECKING:
    from fewfit.estimators.base import TextEstimator

_FEW = 2
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
    several = bool(y) and isinstance(y[0], list)
    labels = [frozenset(own) for own in y] if several else y
    clashing = [own for own in seen.values() if any(labels[i] != labels[own[0]] for i in own)]
    if not clashing:
        return ""
    where = "; ".join(named(table, [examples.lines[i] for i in own]) for own in clashing[:LISTED])
    more = f"; and {len(clashing) - LISTED:,} more" if len(clashing) > LISTED else ""
    verb = "has" if len(clashing) == 1 else "have"
    what = "set of labels" if several else "label"
    return f"{count(len(clashing), 'text')} {verb} more than one {what} ({where}{more})"


def _small(y: Sequence[Any]) -> str:
    few = [str(name) for name, n in Counter(y).items() if n <= _FEW]
    if not few:
        return ""
    verb = "has" if len(few) == 1 else "have"
    return f"{count(len(few), 'class', 'classes')} {verb} two examples or fewer ({listed(few)})"


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
    """Say where an English encoder is given texts in another script, or another language."""
    spec = classifier.task_.model.spec
    if spec not in ("embedded-en", "embedded-en-float32"):
        return ""
    texts = [text for own in examples.texts.values() for text in own]
    letters = [c for text in texts for c in text if c.isalpha()]
    foreign = sum(not unicodedata.name(c, "LATIN").startswith("LATIN") for c in letters)
    guess = other_language(texts)
    if letters and foreign / len(letters) > _FOREIGN:
        what = f"{foreign / len(letters):.0%} of the letters are of another script than Latin"
    elif guess is not None:
        what = (
            f"{guess.share:.0%} of the small words look {guess.language} ({', '.join(guess.words)})"
        )
    else:
        return ""
    return f"{what}, and {spec} reads English; take --model embedded"
