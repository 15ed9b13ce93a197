"""The answers of frozen models that several sources of one comparison ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from fewfit.models.base import FrontModel, FrozenModel
from fewfit.models.paired import PairedModel, halves
from fewfit.observations import Batch, Observations, Status
from fewfit.prompts import Prompt
from fewfit.store import StoredModel

Known = dict[tuple[Prompt, tuple[str, ...]], tuple[Observations, int]]


class RememberingModel(FrontModel):
    """A frozen model in front of another, that asks nothing again which `known` has an answer to.

    Parameters
    ----------
    model : FrozenModel
    known : dict
        The answer to each prompt and label words: a batch, and the row in it.
    """

    def __init__(self, model: FrozenModel, known: Known) -> None:
        super().__init__(model)
        self.known = known

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        keys = [(prompt, tuple(words)) for prompt in prompts]
        groups: dict[int, tuple[Observations, list[int], list[int]]] = {}
        for i, key in enumerate(keys):
            if key in self.known:
                batch, row = self.known[key]
                _, positions, rows = groups.setdefault(id(batch), (batch, [], []))
                positions.append(i)
                rows.append(row)
        for batch, positions, rows in groups.values():
            free = np.zeros(len(rows), dtype=bool)
            yield np.array(positions), replace(batch[np.array(rows)], asked=free)
        new = np.array([i for i, key in enumerate(keys) if key not in self.known], dtype=np.intp)
        if not len(new):
            return
        asking: Any = self.model.stream([prompts[i] for i in new], words)
        with closing(asking):
            for local, batch in asking:
                for row, i in enumerate(new[local].tolist()):
                    if batch.status[row] != Status.FAILED:
                        self.known[keys[i]] = batch, row
                yield new[local], batch


class Remembered:
    """What the models of a run said, as far as more than one of its sources asks them.

    Parameters
    ----------
    models : sequence of FrozenModel
        Of all sources.
    """

    def __init__(self, models: Sequence[FrozenModel]) -> None:
        counts = Counter(identity_of(half) for model in models for half in halves(model))
        self._known: dict[Any, Known] = {who: {} for who, n in counts.items() if n > 1}

    def __call__(self, model: FrozenModel) -> FrozenModel:
        """Return a model that asks nothing which was answered to another source."""
        if isinstance(model, PairedModel):
            return PairedModel(*(self(half) for half in halves(model)))
        if isinstance(model, StoredModel):  # which remembers by itself
            return model
        known = self._known.get(identity_of(model))
        return model if known is None else RememberingModel(model, known)


def identity_of(model: FrozenModel) -> frozenset[tuple[str, str]]:
    """Return the identity of a model as the key of a dictionary."""
    identity: Mapping[str, str] = model.identity
    return frozenset(identity.items())
