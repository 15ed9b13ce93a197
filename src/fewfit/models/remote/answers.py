"""What one reply says, and what is said at the end of a run of those that say nothing usable."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SAID = 3
"""How many different reasons a message names."""


class Answer(NamedTuple):
    """What one reply says: scores (W,), censored (W,), hidden (H,), label mass, prompt tokens.

    With a `reason` it says nothing usable, for this reason and, if it differs from row to row, with
    these `details`. A `note` is what the user should know of a usable one.
    """

    scores: NDArray[np.float64] | None = None
    censored: NDArray[np.bool_] | None = None
    hidden: NDArray[np.float32] | None = None
    label_mass: float = float("nan")
    n_tokens: int = -1
    reason: str = ""
    details: str = ""
    note: str = ""


class Tally:
    """The answers of a run that are not usable, and what is to be noted of those that are.

    Attributes
    ----------
    failed : list of (int, str)
        Positions of the prompts without a usable answer, and why.
    """

    def __init__(self) -> None:
        self.failed: list[tuple[int, str]] = []
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._notes: Counter[str] = Counter()

    def usable(self, group: list[tuple[int, Any]]) -> list[tuple[int, Answer]]:
        """Return the usable answers among (position, answer or error), and keep count of all."""
        answered: list[tuple[int, Answer]] = []
        for i, answer in group:
            if isinstance(answer, Answer) and not answer.reason:
                answered.append((i, answer))
                self._notes.update([answer.note] if answer.note else [])
                continue
            own = isinstance(answer, Answer)
            reason, details = (answer.reason, answer.details) if own else (str(answer), "")
            self._reasons[reason] += 1
            self._examples.setdefault(reason, details)
            self.failed.append((i, reason + details))
        return answered

    def messages(self, n: int) -> list[str]:
        """Return what to warn of after a run over `n` prompts."""
        named = "; ".join(
            f"{reason} ({count}){self._examples[reason]}"
            for reason, count in self._reasons.most_common(SAID)
        )
        lost = f"{len(self.failed)} of {n} prompts got no usable answer: {named}"
        notes = self._notes.most_common(SAID)
        return [lost] * bool(self.failed) + [f"in {k} of {n} answers, {note}" for note, k in notes]
