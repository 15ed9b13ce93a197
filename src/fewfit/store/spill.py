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

from fewfit.errors import StoreError
from fewfit.store.rows import KEY_BYTES
from fewfit.store.tables import Kind, check_width


def spill(path: Path, kind: Kind, rows: Mapping[bytes, bytes]) -> Path:
    """Write the rows beside the store that cannot take them, and return where.

    Raises
    ------
    OSError
        If there is no room there, either.
    """
    target = Path(tempfile.gettempdir()) / f"{_prefix(path)}{secrets.token_hex(8)}.jsonl"
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(json.dumps([kind.digest.hex(), kind.name, kind.width]) + "\n")
            for key, row in rows.items():
                stream.write(base64.b64encode(key + row).decode("ascii") + "\n")
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
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


def read_spilled(file: Path) -> tuple[Kind | None, dict[bytes, bytes]]:
    """Return whose rows a spilled file has, and the rows; what cannot be read is left out."""
    lines = _lines(file)
    kind, rows = None, {}
    with suppress(OSError, ValueError, TypeError, RecursionError):
        digest, name, width = json.loads(next(lines, ""))
        kind = Kind(bytes.fromhex(digest), str(name), check_width(int(width)))
        for line in lines:
            data = base64.b64decode(line, validate=True)
            if len(data) > KEY_BYTES:
                rows[data[:KEY_BYTES]] = data[KEY_BYTES:]
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
