"""BERT with 8-bit matrix products, in operators of onnxruntime, from 4-bit weights read as data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewfit.models.embedded.onnx import Graph
from fewfit.models.embedded.packed import Packed, unpacked

MICROSOFT = "com.microsoft"
_EPSILON = 1e-12
_LARGEST = 63
"""Of a weight. Processors without VNNI add two products of 8 and 8 bits in 16, which would
saturate; with 7 bits every processor multiplies the same."""


def encoder(packed: Packed) -> bytes:
    """Return the layers of the network as ONNX: embeddings (1, T, H) in, states (1, T, H) out.

    A matrix product takes the weights with one scale per output and the states with one scale for
    the whole text (onnxruntime's ``DynamicQuantizeMatMul``), so texts are read one by one: in a
    batch each would change the others.
    """
    graph, width = Graph(), packed.width

    def dense(given: str, names: Sequence[str], columns: int, found: str) -> str:
        rows = np.concatenate([unpacked(packed.blocks(f"{name}.w", columns)) for name in names])
        scale = np.abs(rows).max(axis=1) / _LARGEST
        bias = np.concatenate(
            [packed.floats(f"{name}.b", len(rows) // len(names)) for name in names]
        )
        inputs = [
            given,
            graph.constant(f"{found}.w", np.rint(rows / scale[:, None]).astype(np.int8).T),
            graph.constant(f"{found}.scale", scale.astype(np.float32)),
            "",
            graph.constant(f"{found}.b", bias),
        ]
        graph.node("DynamicQuantizeMatMul", inputs, found, domain=MICROSOFT)
        return found

    def norm(given: str, name: str, found: str) -> str:
        inputs = [
            given,
            *(graph.constant(f"{name}.{x}", packed.floats(f"{name}.{x}", width)) for x in "wb"),
        ]
        graph.node("LayerNormalization", inputs, found, axis=-1, epsilon=_EPSILON)
        return found

    def added(first: str, second: str, found: str) -> str:
        graph.node("Add", [first, second], found)
        return found

    x = norm("embeddings", "emb.ln", "x")
    graph.constant("thirds", np.full(3, width, dtype=np.int64))
    for i in range(packed.n_layers):
        at = f"l{i}"
        qkv = dense(x, [f"{at}.{name}" for name in "qkv"], width, f"{at}.qkv")
        heads = [f"{at}.query", f"{at}.key", f"{at}.value"]
        graph.node("Split", [qkv, "thirds"], *heads, axis=-1)
        graph.node(
            *("MultiHeadAttention", heads, f"{at}.heads"),
            domain=MICROSOFT,
            num_heads=packed.n_heads,
        )
        attention = dense(f"{at}.heads", [f"{at}.ao"], width, f"{at}.attention")
        x = norm(added(attention, x, f"{at}.between"), f"{at}.aln", f"{at}.x")
        inner = dense(x, [f"{at}.fi"], width, f"{at}.inner")
        graph.node("Gelu", [inner], f"{at}.gelu", domain=MICROSOFT)
        outer = dense(f"{at}.gelu", [f"{at}.fo"], packed.inner, f"{at}.outer")
        x = norm(added(outer, x, f"{at}.behind"), f"{at}.oln", f"{at}.states")
    shape = (1, "T", width)
    return graph.to_bytes(("embeddings", shape), (x, shape))
