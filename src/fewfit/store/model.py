"""A frozen model with a store of answers in front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import InputError
from fewfit.models.base import FrontModel, FrozenModel
from fewfit.models.optional import takes_soft_prompts
from fewfit.observations import Batch
from fewfit.prompts import Prompt
from fewfit.store.call import Call


class StoredModel(FrontModel):
    """Any frozen model, with a store in front: what it answered once is never asked again.

    The key of an answer is a hash of the model's identity, the rendered prompt in its parts, and
    the label words; no text of a prompt is written. Each row carries a checksum: a damaged row
    counts as not there, is reported with a :class:`StoreWarning`, and is asked and written again.
    Failed answers, and answers with a number that is not finite or with nothing but bounds, are not
    stored. The first answer of a
    model that is stored decides how long its hidden states are; one of another length is another
    model's: it fails, and is not stored.

    Any number of threads may use it, and any number of these on the same file: a prompt that is
    being asked is waited for, not asked again, and asked after all if it came to nothing. Other
    processes are not waited for; once their answers meet, they take the prompts in different
    orders, and pay for little twice.

    Answers are committed before they are handed on, at once or, where they arrive fast, together
    with those of up to a twentieth of a second: that much, and what was under way, a killed process
    loses.

    Parameters
    ----------
    model : FrozenModel
        Who is asked for what the store lacks.
    path : path
        The SQLite file; made, readable by its owner only, where there is none.
    max_bytes : int, optional
        How large the file may get; the rows that were written first make room. By default
        ``$FEWFIT_CACHE_LIMIT``, for example ``2GB``, and without it there is no limit.

    Raises
    ------
    StoreError
        Before any query if the file is not a store, is of a newer version, read-only or locked, or
        if the disk has less room than the answers need; during a run if it can no longer be
        written. What was answered then goes to a file in the folder for temporary files, which
        the next call that asks takes up; the message names it, or says that there was no room.

    Notes
    -----
    Rollback journal with ``synchronous=FULL``; the write-ahead log of SQLite before 3.51.3 can
    lose commits when several processes write.
    """

    def __init__(
        self, model: FrozenModel, path: str | Path, *, max_bytes: int | None = None
    ) -> None:
        if max_bytes is not None and (isinstance(max_bytes, bool) or max_bytes <= 0):
            raise InputError(f"max_bytes: expected a number of bytes, got {max_bytes!r}")
        super().__init__(model)
        self.path = Path(path)
        self.max_bytes = max_bytes

    def stream(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Iterator[Batch]:
        return self._call(prompts, words).run()

    def input_embeddings(self) -> NDArray[np.float32]:
        return takes_soft_prompts(self.model).input_embeddings()

    def with_soft_prompt(self, vectors: NDArray[np.floating]) -> StoredModel:
        model = takes_soft_prompts(self.model).with_soft_prompt(vectors)
        return StoredModel(model, self.path, max_bytes=self.max_bytes)

    def count(self, prompts: Sequence[Prompt], words: Sequence[str]) -> int:
        """Return how many of these distinct prompts need not be asked; nothing is asked."""
        return int(self.stored(prompts, words).sum())

    def stored(self, prompts: Sequence[Prompt], words: Sequence[str]) -> NDArray[np.bool_]:
        there = np.zeros(len(prompts), dtype=bool)
        if self.path.exists():
            for found in self._call(prompts, words).stored():
                there[list(found.positions)] = True
        return there

    def _call(self, prompts: Sequence[Prompt], words: Sequence[str]) -> Call:
        return Call(self.model, self.path, prompts, words, self.max_bytes)
