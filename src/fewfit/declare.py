"""What every method declares about itself; `fewfit methods` is made from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


def declare(
    *,
    requires: frozenset[str] = frozenset(),
    labels: str = "none",
    queries: str,
    reference: str,
    smallest_budget: Callable[..., int] | None = None,
) -> Callable[[T], T]:
    """Give a function what methods with a class have as class attributes.

    Parameters
    ----------
    requires : frozenset of str
        What the frozen model must give.
    labels, queries : str
        Labels needed; queries per example.
    reference : str
        Author, year, arXiv id.
    smallest_budget : callable, optional
        Of a searcher: ``smallest_budget(n_rows, n_free, **options)`` is the least `max_queries`
        with which it searches at all, for so many rows and content-free prompts.
    """

    def attach(item: T) -> T:
        declared = {
            "requires": requires,
            "labels_needed": labels,
            "queries_per_example": queries,
            "reference": reference,
            "smallest_budget": smallest_budget,
        }
        for name, value in declared.items():
            setattr(item, name, value)
        return item

    return attach
