"""Sizes of files: as people write them, and what the disk has left."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from fewfit.errors import InputError, StoreError

_RESERVE_BYTES = 1 << 18  # SQLite's journal
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)


def read_size(text: str) -> int:
    """Return the number of bytes that a text such as ``500MB``, ``2 GiB`` or ``100000`` spells.

    Raises
    ------
    InputError
        If it spells none.
    """
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    if found is None or (found[3] and not unit):
        raise InputError(f"{text!r} is not a size; write for example 500MB or 2GiB")
    return int(float(found[1]) * (_BINARY[unit] if found[3] else _UNITS[unit]))


def default_limit() -> int | None:
    """Return how large a store may get as ``$FEWFIT_CACHE_LIMIT`` says; None for no limit.

    Raises
    ------
    InputError
        If it is no size above 0.
    """
    text = os.environ.get("FEWFIT_CACHE_LIMIT", "").strip()
    if not text:
        return None
    try:
        limit = read_size(text)
    except InputError as error:
        raise InputError(f"FEWFIT_CACHE_LIMIT: {error}") from error
    if not limit:
        raise InputError("FEWFIT_CACHE_LIMIT: 0 keeps nothing; use store=None, --store none")
    return limit


def check_room(path: Path, n: int, row: int, limit: int | None) -> None:
    """Refuse to ask for what the disk has no room for (StoreError).

    Parameters
    ----------
    path : Path
        Of the store.
    n : int
        How many answers are to be stored.
    row : int
        Bytes of each.
    limit : int or None
        How large the store may get.
    """
    needed = n * row
    if limit is not None:
        needed = min(needed, limit)
    needed += _RESERVE_BYTES
    try:
        disk = shutil.disk_usage(path.parent)
    except OSError:  # the folder is gone: what follows makes it again, or says why not
        return
    if disk.total and disk.free < needed:
        raise StoreError(
            f"the store {path} needs about {needed / 1e6:,.1f} MB for "
            f"{n:,} answers, and the disk has {disk.free / 1e6:,.1f} MB left. "
            "Make room, name a file elsewhere, or set FEWFIT_CACHE_LIMIT; nothing was asked"
        )
