"""What every method declares about itself; `fewfit methods` is made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

T = TypeVar("T", bound=Callable[..., Any])


def declare(
    *,
    requires: frozenset[str] = frozenset(),
    labels: str = "none",
    queries: str,
    reference: str,
    constraints: Mapping[str, Any] | None = None,
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
    constraints : mapping of str to list, optional
        What its parameters may be, as :func:`fewfit.parameters.check_values` reads it; they are
        checked before the function is entered (InputError).
    smallest_budget : callable, optional
        Of a searcher: ``smallest_budget(n_rows, n_free, **options)`` is the least `max_queries`
        with which it searches at all, for so many rows and content-free prompts.
    """

    def attach(item: T) -> T:
        called: Any = item
        checks = constraints or {}
        if checks:
            parameters = signature(item)

            @wraps(item)
            def checked(*args: Any, **kwargs: Any) -> Any:
                from fewfit.parameters import check_values

                given = parameters.bind(*args, **kwargs).arguments
                check_values(item.__name__, checks, given)
                return item(*args, **kwargs)

            called = checked
        declared = {
            "requires": requires,
            "labels_needed": labels,
            "queries_per_example": queries,
            "reference": reference,
            "constraints": checks,
            "smallest_budget": smallest_budget,
        }
        for name, value in declared.items():
            setattr(called, name, value)
        return cast(T, called)

    return attach
