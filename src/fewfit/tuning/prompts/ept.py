"""EPT: Lan et al., AAAI 2025, arXiv 2405.11464. A reconstruction: there is no public code.

DePT whose prompt looks at its own offset, and is then seen from several learnt spaces. What is
below is the form in which the paper's figures and equations agree; its sizes are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu

from fewfit.tuning.adapter import Adapter, Group
from fewfit.tuning.prompts.dept import Decomposed, DePT
from fewfit.tuning.trunk import Trunk


class Efficient(Decomposed):
    """P* = sum_k g_k S_k, with D = scale * A B the offset.

    - fusion: P_f = P + softmax(P W_q (D W_k)^T / sqrt(r_f)) D W_v W_o
    - spaces: S_k = P_f + gelu(P_f D_k) U_k
    - gate: g = softmax(W_g mean(P_f))

    With W_o, U_k and W_g zero, as they are at first, P* = P: DePT.
    """

    def __init__(
        self, *, fusion: int, spaces: int, width: int, generator: torch.Generator, **dept: Any
    ) -> None:
        super().__init__(**dept)
        d = self.P.shape[1]

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(d))

        self.W_q, self.W_k, self.W_v = (normal(d, fusion) for _ in range(3))
        self.W_o = nn.Parameter(torch.zeros(fusion, d))
        self.down = normal(spaces, d, width)
        self.U = nn.Parameter(torch.zeros(spaces, width, d))
        self.W_g = nn.Parameter(torch.zeros(d, spaces))

    def groups(self) -> Sequence[Group]:
        own = ("W_q", "W_k", "W_v", "W_o", "down", "U", "W_g")
        return [*super().groups(), Group(own, self.rates[1])]

    def prompt(self) -> Tensor:
        P, D = self.P, self.offset()
        attention = (P @ self.W_q) @ (D @ self.W_k).T / math.sqrt(self.W_q.shape[1])
        P_f = P + attention.softmax(1) @ (D @ self.W_v) @ self.W_o
        # S_k less P_f, (K, m, d)
        moved = gelu(P_f @ self.down) @ self.U
        return P_f + (self.gate(P_f)[:, None, None] * moved).sum(0)

    def gate(self, P_f: Tensor) -> Tensor:
        """Return g, (K,): not negative, and of sum 1."""
        return (P_f.mean(0) @ self.W_g).softmax(0)

    @torch.no_grad()
    def folded(self) -> Decomposed:
        """Return DePT's adapter that does the same, with P* for P: what costs nothing more."""
        return Decomposed(
            self.prompt(), self.A, self.B, packer=self.packer, embeddings=self.embeddings
        )


@dataclass(frozen=True)
class EPT(DePT):
    """DePT with a prompt that is fused with the offset, and mixed of several spaces.

    Parameters
    ----------
    fusion : int, default=8
        r_f, the width of the fusion's attention.
    spaces : int, default=4
        K.
    width : int, default=8
        Of each space's bottleneck.
    """

    fusion: Annotated[int, Field(ge=1, le=1024)] = 8
    spaces: Annotated[int, Field(ge=1, le=64)] = 4
    width: Annotated[int, Field(ge=1, le=1024)] = 8

    def build(self, base: Trunk, seed: int) -> Adapter:
        return Efficient(
            fusion=self.fusion,
            spaces=self.spaces,
            width=self.width,
            generator=torch.Generator().manual_seed(seed + 1),
            **self.drawn(base, seed),
        )
