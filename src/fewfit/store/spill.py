"""Where paid answers go that their store cannot take: files in the folder for temporary files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fewfit.errors import StoreError
from fewfit.store.rows import KEY_BYTES, is_whole
from fewfit.store.tables import Kind, check_width


def spill(path: Path, kind: Kind, rows: Mapping[bytes, bytes]) -> Path:
    """Write the rows beside the store that cannot take them, and return where.

    Raises
    ------
    OSError
        If there is no room there, either.
    """
    target = Path(tempfile.gettempdir()) / f"{_prefix(path)}{secrets.token_hex(8)}.jsonl"
    part = target.with_suffix(".part")  # under its own name it is whole: others read and delete it
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(json.dumps([kind.digest.hex(), kind.name, kind.width]) + "\n")
            for key, row in rows.items():
                stream.write(base64.b64encode(key + row).decode("ascii") + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        part.rename(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def stranded(error: StoreError, path: Path, kind: Kind, rows: Mapping[bytes, bytes]) -> StoreError:
    """Put rows elsewhere that the store cannot take, and say where, or that it was in vain."""
    what = f"What was paid for and not written, {len(rows)} answers,"
    try:
        place = spill(path, kind, rows)
    except OSError as second:
        return StoreError(
            f"{error}. {what} could be written nowhere ({second}): it is kept in memory and "
            "written by this process's next call, but lost when it ends. All that was answered "
            "before is stored"
        )
    return StoreError(
        f"{error}. {what} is in {place} and goes into the store when it is asked again: "
        "nothing that was answered is paid for twice"
    )


def spilled(path: Path) -> list[Path]:
    """Return the files that were spilled for this store, by this user."""
    with suppress(OSError):
        return [
            file
            for file in sorted(Path(tempfile.gettempdir()).glob(f"{_prefix(path)}*.jsonl"))
            if not file.is_symlink() and _is_ours(file)
        ]
    return []


class Spilled(NamedTuple):
    """A spilled file: where it is, whose rows it has (None if that cannot be told), and the rows.

    Only whole rows are among them.
    """

    place: Path
    kind: Kind | None
    rows: dict[bytes, bytes]


def read_spilled(path: Path) -> list[Spilled]:
    """Return what was spilled for a store; a file that cannot be opened now is left for later."""
    found = []
    for place in spilled(path):
        with suppress(OSError):
            found.append(Spilled(place, *_read(place)))
    return found


def _read(file: Path) -> tuple[Kind | None, dict[bytes, bytes]]:
    lines = _lines(file)
    kind, rows = None, {}
    with suppress(ValueError, TypeError, RecursionError):
        digest, name, width = json.loads(next(lines, ""))
        kind = Kind(bytes.fromhex(digest), str(name), check_width(int(width)))
        for line in lines:
            data = base64.b64decode(line, validate=True)
            key, row = data[:KEY_BYTES], data[KEY_BYTES:]
            if is_whole(key, row):
                rows[key] = row
    return kind, rows


def _lines(file: Path) -> Iterator[str]:
    with file.open(encoding="ascii") as stream:
        for line in stream:
            yield line.rstrip("\n")


def _prefix(path: Path) -> str:
    name = os.path.realpath(path).encode("utf-8", "surrogateescape")
    return f"fewfit-{hashlib.blake2b(name, digest_size=12).hexdigest()}-"


def _is_ours(file: Path) -> bool:
    return not hasattr(os, "getuid") or file.stat().st_uid == os.getuid()
