"""The one progress bar: what ``progress=True`` shows, in a terminal and in a notebook.

What can be shown takes ``progress``: None or False shows nothing, True a bar, and a function is
called with the number of units newly done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fewfit.errors import InputError

Progress = Callable[[int], object]
"""Called with the number of prompts newly answered, or of other units newly done."""


@contextmanager
def bar(phase: str, total: int, unit: str = "prompt", *, always: bool = True) -> Iterator[Progress]:
    """Show a bar on standard error, or below the cell of a notebook.

    Parameters
    ----------
    phase : str
        What is done.
    total : int
    unit : str
    always : bool, default=True
        Else nothing is shown where standard error is no terminal; nothing is where there is none.

    Yields
    ------
    callable
        To be called with the number of units newly done.
    """
    from tqdm.auto import tqdm

    disable = True if sys.stderr is None else False if always else None
    with tqdm(total=total, desc=phase, unit=unit, disable=disable) as shown:
        # What calibrates comes on top; what is stored or asked twice is not asked.
        yield lambda n: shown.update(min(n, total - shown.n))
        shown.n = total
        shown.refresh()


@contextmanager
def showing(
    progress: Progress | bool | None, total: int, phase: str = "asking", unit: str = "prompt"
) -> Iterator[Progress | None]:
    """Yield what to call with the number of units newly done; of True, a bar to `total`."""
    if progress is None or progress is False:
        yield None
    elif progress is True:
        with bar(phase, total, unit) as told:
            yield told
    elif callable(progress):
        yield progress
    else:
        raise InputError(
            "progress: expected True, or a function of the number of prompts newly answered, got "
            f"a {type(progress).__name__}"
        )
