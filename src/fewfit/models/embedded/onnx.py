"""A network written as ONNX, for onnxruntime to run: messages of Protocol Buffers, by field number.

The numbers are those of ``onnx.proto``. The package onnx writes the same and is as large again as
onnxruntime.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_TYPES = {"float32": 1, "int8": 3, "int64": 7}

Value = int | float | str | bytes
Shape = Sequence[int | str]


class Graph:
    """Nodes and constants, in the order in which they are added."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []

    def constant(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        dims = [(1, n) for n in values.shape]
        kind = _TYPES[values.dtype.name]
        self._constants.append(_message(*dims, (2, kind), (8, name), (9, values.tobytes())))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], *outputs: str, domain: str = "", **options: Value
    ) -> None:
        """Add a node; an input "" is left out."""
        self._nodes.append(
            _message(
                *((1, name) for name in inputs),
                *((2, name) for name in outputs),
                (4, kind),
                *((5, _attribute(name, value)) for name, value in options.items()),
                (7, domain),
            )
        )

    def to_bytes(self, given: tuple[str, Shape], found: tuple[str, Shape]) -> bytes:
        """Return the model, from one float32 array to another; a dimension may be a name."""
        graph = _message(
            *((1, node) for node in self._nodes),
            (2, "encoder"),
            *((5, constant) for constant in self._constants),
            (11, _value(*given)),
            (12, _value(*found)),
        )
        sets = [_message((1, ""), (2, 17)), _message((1, "com.microsoft"), (2, 1))]
        return _message((1, 8), (7, graph), *((8, item) for item in sets))


def _attribute(name: str, value: Value) -> bytes:
    field, kind = (2, 1) if isinstance(value, float) else (3, 2)
    return _message((1, name), (field, value), (20, kind))


def _value(name: str, shape: Shape) -> bytes:
    dims = [(1, _message((2 if isinstance(n, str) else 1, n))) for n in shape]
    tensor = _message((1, _TYPES["float32"]), (2, _message(*dims)))
    return _message((1, name), (2, _message((1, tensor))))


def _message(*fields: tuple[int, Value]) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Value) -> bytes:
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(n: int) -> bytes:
    n &= 2**64 - 1
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes([*out, n])
