"""Texts that a model wrote, kept in the same file as its other answers, and paid for once."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from fewfit.errors import BudgetExceededError, StoreError
from fewfit.models.base import FrozenModel
from fewfit.models.generation import Texts, Writing, Written, writes
from fewfit.models.streams import rest
from fewfit.prompts import Prompt
from fewfit.store import file, tables, upkeep
from fewfit.store.rows import CHECKSUM_BYTES, Keys, checksum, is_whole, model_digest
from fewfit.store.sizes import check_room, default_limit
from fewfit.store.spill import read_spilled, stranded
from fewfit.store.tables import Kind

_HEADER = struct.Struct("<i?")  # tokens, whether the text is whole
_KEPT = 0.9
_BYTES = 4  # of a token, about


def write_texts(
    model: FrozenModel,
    prompts: Sequence[Prompt],
    how: Writing,
    *,
    store: str | Path | None,
    max_queries: int | None = None,
) -> Iterator[Texts]:
    """Have a model write a text for each of some prompts; what it wrote once is not asked again.

    The key of a text is a hash of the model's identity, of how it is written, and of the prompt in
    its parts. The text is stored as it was written, beside a checksum; a damaged one counts as not
    there. A prompt that occurs twice is asked once.

    Parameters
    ----------
    model : FrozenModel
        That writes, with or without a store or a budget in front, which are not asked.
    prompts : sequence of Prompt, length N
    how : Writing
    store : path or None
        The SQLite file.
    max_queries : int, optional
        How many prompts may be paid for.

    Yields
    ------
    (positions, list of Written)

    Raises
    ------
    CapabilityError
        If the model writes no texts.
    BudgetExceededError
        When all that the budget allows was written and stored; without a store before anything is.
    """
    writer = writes(model)
    path = None if store is None else file.default_path() if store == "default" else Path(store)
    where: dict[Prompt, list[int]] = {}
    for i, prompt in enumerate(prompts):
        where.setdefault(prompt, []).append(i)
    distinct = list(where)
    identity = {**model.identity, "writes": f"{how.max_tokens} {list(how.stop)!r}"}
    keys = Keys(identity, how.stop)
    kind = Kind(model_digest(identity), f"{model.spec or type(model).__name__}, texts", 0)
    places = [keys(prompt) for prompt in distinct]
    stored = {} if path is None else _read(path, places)

    def spread(some: Sequence[tuple[int, Written]]) -> Texts:
        rows = [
            (i, text._replace(was_asked=text.was_asked and i == where[distinct[j]][0]))
            for j, text in some
            for i in where[distinct[j]]
        ]
        return np.array([i for i, _ in rows], dtype=np.intp), [text for _, text in rows]

    known = [(j, stored[key]) for j, key in enumerate(places) if key in stored]
    if known:
        yield spread(known)
    missing = [j for j, key in enumerate(places) if key not in stored]
    allowed = len(missing) if max_queries is None else min(max_queries, len(missing))
    if allowed < len(missing) and path is None:
        raise BudgetExceededError(
            f"{len(missing)} queries are needed and {max_queries} are allowed. Nothing was asked, "
            "since without a store the texts would be lost; name a store, or a larger budget"
        )
    limit = default_limit()
    if path is not None and missing:
        _prepare(path)
        check_room(path, allowed, _BYTES * how.max_tokens, limit)
    if not missing:
        return
    asking: Any = writer.write([distinct[j] for j in missing[:allowed]], how)
    found: list[tuple[int, Written]] = []

    def kept(batch: Texts) -> None:
        found[:] = [(missing[int(p)], text) for p, text in zip(*batch, strict=True)]
        if path is not None:
            _write(path, kind, {places[j]: t for j, t in found if not t.reason}, limit)

    with closing(asking):
        for batch in asking:
            try:
                kept(batch)
            except KeyboardInterrupt:  # while texts were written down, more came
                for one in (batch, *rest(asking)):
                    kept(one)
                raise
            yield spread(found)
    if allowed < len(missing):
        raise BudgetExceededError(
            f"the budget of {max_queries} queries is used up: {allowed} texts were written now and "
            f"are stored, {len(missing) - allowed} are left. Run again to go on from there"
        )


def _prepare(path: Path) -> None:
    """Prove that the store can be written, before anything is paid for, and write what waits."""
    spills = read_spilled(path)
    with file.writing(path) as connection:
        for one in spills:
            if one.kind is not None:
                tables.write(connection, one.kind, one.rows, instead=one.rows)
    for one in spills:
        one.place.unlink(missing_ok=True)


def _read(path: Path, keys: Sequence[bytes]) -> dict[bytes, Written]:
    found: dict[bytes, Written] = {}
    with file.opened(path) as connection:
        if "answers" not in tables.tables_of(connection):
            return {}
        for chunk in tables.chunks(keys):
            for key, row in tables.read(connection, chunk).items():
                if (text := _unpack(key, row)) is not None:
                    found[key] = text
    return found


def _write(path: Path, kind: Kind, texts: dict[bytes, Written], limit: int | None) -> None:
    if not texts:
        return
    rows = {key: _pack(key, text) for key, text in texts.items()}
    try:
        with file.writing(path) as connection:
            tables.write(connection, kind, rows, instead=list(rows))
            if limit is not None and upkeep.used_bytes(connection) > limit:
                upkeep.shrink(connection, int(_KEPT * limit))
    except StoreError as error:
        raise stranded(error, path, kind, rows) from error


def _pack(key: bytes, text: Written) -> bytes:
    body = _HEADER.pack(text.n_tokens, text.is_whole) + text.text.encode("utf-8")
    return body + checksum(key, body)


def _unpack(key: bytes, row: bytes) -> Written | None:
    """Return the text of a row; None if it is damaged."""
    body = row[:-CHECKSUM_BYTES]
    if len(body) < _HEADER.size or not is_whole(key, row):
        return None
    n_tokens, whole = _HEADER.unpack_from(body)
    text = body[_HEADER.size :].decode("utf-8", "replace")
    return Written(text, n_tokens, whole, was_asked=False)
