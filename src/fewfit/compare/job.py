"""Who is asked, and one job for each cell of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fewfit.calibration import Calibration
from fewfit.compare.data import Data
from fewfit.compare.methods import Method
from fewfit.compare.splits import Sample
from fewfit.prompts import Row, View
from fewfit.task import Query, Task


class Source(NamedTuple):
    """Who is asked: a model, or a model for its distributions over the vocabulary; or nobody."""

    model: str | None
    task: Task | None


NOBODY = Source(None, None)


@dataclass(frozen=True, eq=False)
class Job:
    """One cell to compute.

    Attributes
    ----------
    source : str or None
        Who is asked, of :attr:`Plan.sources`.
    name : str
        Of the method.
    data : Data
        Its rows have the fields of the method's own template, or of the comparison's, and no
        others: what another method asks about is not told to this one.
    views : tuple of View, length P
        How it asks about a row.
    rows : list of Row
        Those of the sample, if the method or its calibration looks at them.
    pool : list of Row
        Texts without labels that it is given, where they are asked about for all.
    free : list of tuple of Query
        The content-free prompts of its calibration, P each.
    max_queries : int
        What a searcher may ask to be fitted; 0 for other methods.
    key : str
        A hash of everything that decides the result.
    traced : bool
        Whether its memory is traced.
    """

    source: str | None
    name: str
    data: Data
    method: Method
    calibration: Calibration
    views: tuple[View, ...]
    sample: Sample
    rows: list[Row]
    pool: list[Row]
    free: list[tuple[Query, ...]]
    max_queries: int
    key: str
    traced: bool

    @property
    def way(self) -> tuple[int, ...]:
        """The same for jobs that ask alike."""
        return tuple(map(id, self.views))
