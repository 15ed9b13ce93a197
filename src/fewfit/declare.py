"""What every method declares about itself; `fewfit methods` is made from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def declare(
    *, requires: frozenset[str] = frozenset(), labels: str = "none", queries: str, reference: str
) -> Callable[[T], T]:
    """Give a function the four attributes that methods with a class have as class attributes.

    Parameters
    ----------
    requires : frozenset of str
        What the frozen model must give.
    labels, queries : str
        Labels needed; queries per example.
    reference : str
        Author, year, arXiv id.
    """

    def attach(item: T) -> T:
        declared = {
            "requires": requires,
            "labels_needed": labels,
            "queries_per_example": queries,
            "reference": reference,
        }
        for name, value in declared.items():
            setattr(item, name, value)
        return item

    return attach
