"""A file or a pipe as bytes that can be read from the start as often as needed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from fewfit.errors import InputError

_PACKED: dict[str, tuple[bytes, Any]] = {
    ".gz": (b"\x1f\x8b", gzip.open),
    ".bz2": (b"BZh", bz2.open),
    ".xz": (b"\xfd7zXZ\x00", lzma.open),
}
"""Suffix -> the bytes that such a file begins with, and what opens it."""

SUFFIXES = tuple(_PACKED)


def suffix_of(path: str) -> str:
    """Return what a name says of the format, with that of the packing: ``.csv.gz``."""
    name = Path(path)
    packed = name.suffix if name.suffix.lower() in SUFFIXES else ""
    return Path(path.removesuffix(packed)).suffix + packed


_IN_MEMORY = 64 * 2**20
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Source:
    """Bytes of a file, unpacked; a pipe is kept, in memory or on disk, to be read again.

    Parameters
    ----------
    path : str
        ``-`` is standard input.

    Raises
    ------
    InputError
        If there is no such file, or it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._spool: IO[bytes] | None = None
        with self.reading():
            if path == "-":
                if sys.stdin is None or sys.stdin.closed:
                    raise InputError("standard input is closed; name a file")
                self._keep(sys.stdin.buffer)
            elif Path(path).is_dir():
                raise InputError(f"{path}: is a folder; name a file in it")
            elif not Path(path).is_file():  # a pipe by name, as the shell's <(...); or nothing
                with Path(path).open("rb") as stream:
                    self._keep(stream)
            with self._raw() as stream:
                start = stream.read(8)
        self.name = "standard input" if path == "-" else path
        self.packing = next((s for s in SUFFIXES if start.startswith(_PACKED[s][0])), None)
        suffix = Path(path).suffix.lower()
        if suffix in _PACKED and self.packing != suffix:
            raise InputError(
                f"{path}: cannot be read: it does not begin as a {suffix} file does; copy or pack "
                "it again, or name it without the suffix"
            )

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open the bytes from their start; a file that is cut short or damaged is an InputError."""
        with self.reading(), self._raw() as raw:
            if self.packing is None:
                yield raw
                return
            with _PACKED[self.packing][1](raw, "rb") as stream:
                yield cast("IO[bytes]", stream)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn what goes wrong while bytes are read into an InputError."""
        try:
            yield
        except _DAMAGED as error:
            raise InputError(
                f"{self.path}: is cut short or damaged ({error}); copy or download it again"
            ) from error
        except InputError:
            raise
        except (OSError, ValueError) as error:
            if isinstance(error, UnicodeError):
                raise
            text = getattr(error, "strerror", None) or error
            if self.path.endswith(SUFFIXES) and getattr(error, "errno", None) is None:
                text = f"it is cut short or damaged ({text}); copy or download it again"
            raise InputError(f"{self.path}: cannot be read: {text}") from error

    def _keep(self, stream: IO[bytes]) -> None:
        """Keep what can be read once."""
        self._spool = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._spool.close)
        shutil.copyfileobj(stream, self._spool)

    @contextmanager
    def _raw(self) -> Iterator[IO[bytes]]:
        if self._spool is not None:
            self._spool.seek(0)
            yield self._spool
            return
        with Path(self.path).open("rb") as stream:
            yield stream
