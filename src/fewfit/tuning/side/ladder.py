"""Ladder side-tuning: Sung et al., NeurIPS 2022, arXiv 2206.06522."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Handle, PerThread
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

_pass = PerThread()
"""What the ladders of this thread's forward pass have read: id -> (mask, states by block)."""


class SideBlock(nn.Module):
    """A block of the side network: attention of one head, then a feed-forward layer, width r."""

    def __init__(self, d: int, r: int, generator: torch.Generator) -> None:
        super().__init__()

        def new(rows: int, columns: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) / columns**0.5)

        self.down, self.gate = new(r, d), nn.Parameter(torch.zeros(()))
        self.qkv, self.o = new(3 * r, r), new(r, r)
        self.inner, self.outer = new(4 * r, r), new(r, 4 * r)

    def forward(self, s: Tensor | None, h: Tensor, mask: Tensor | None) -> Tensor:
        """s, (B, T, r), is what the block below gave, and h, (B, T, d), the backbone's block."""
        mu, below = torch.sigmoid(self.gate), h.float() @ self.down.T
        s = below if s is None else mu * s + (1 - mu) * below
        q, k, v = (_norm(s) @ self.qkv.T).unsqueeze(1).chunk(3, dim=-1)
        seen = scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1)
        s = s + seen @ self.o.T
        return s + torch.relu(_norm(s) @ self.inner.T) @ self.outer.T


class Ladder(Adapter):
    """A side network of as many blocks as the stack beside it; its last state is added at the end.

    The backbone's states are read without their graph, so that no gradient runs through it.
    """

    def __init__(self, blocks: list[str], body: str, d: int, r: int, g: torch.Generator) -> None:
        super().__init__()
        self.paths, self.body = blocks, body
        self.blocks = nn.ModuleList(SideBlock(d, r, g) for _ in blocks)
        self.out = nn.Parameter(torch.zeros(d, r))

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        name = "decoder_attention_mask" if trunk.kind == "seq2seq" else "attention_mask"
        mask = batch.inputs[name]
        # Of shape (rows, T), 1 for a token; or (rows, 1, T, T), added to the scores.
        seen = mask[:, None, None, :].bool() if mask.ndim == 2 else mask.float()
        _pass.kept[id(self)] = seen, {}
        return batch

    def act(self, network: nn.Module) -> list[Handle]:
        def keep(i: int) -> Any:
            def hook(_: Any, __: Any, output: Any) -> None:
                if id(self) in _pass.kept:
                    h = output if isinstance(output, Tensor) else output[0]
                    _pass.kept[id(self)][1][i] = h.detach()

            return hook

        def add(_: Any, __: Any, output: Any) -> Any:
            if id(self) not in _pass.kept:
                raise InputError("ladder: it reads what rewrite() was given; none was")
            mask, states = _pass.kept.pop(id(self))
            last, s = output.last_hidden_state, None
            for i, block in enumerate(self.blocks):
                s = block(s, states[i], mask)
            assert s is not None
            output.last_hidden_state = last.detach() + (_norm(s) @ self.out.T).to(last.dtype)
            return output

        handles = [
            network.get_submodule(path).register_forward_hook(keep(i))
            for i, path in enumerate(self.paths)
        ]
        body = network.get_submodule(self.body)
        # Before the hook that keeps only the positions which are read.
        return [*handles, body.register_forward_hook(add, prepend=True)]


@dataclass(frozen=True)
class LadderSideTuning(TuningMethod):
    """A small transformer beside the last stack, fed by all its blocks.

    No gradient runs through the network itself. Beside an encoder-decoder the ladder stands at the
    decoder. The paper starts the side network from pruned weights of the backbone and may leave
    blocks out; here it is drawn, and whole.

    Parameters
    ----------
    reduction : int, default=8
        The side network is this many times narrower.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    reduction: Annotated[int, Field(ge=1)] = 8

    def build(self, base: Trunk, seed: int) -> Adapter:
        name = next(n for n, m in base.network.named_modules() if m is base.body)
        blocks = [path for path in base.sites.blocks if path.startswith(f"{name}.")]
        if not blocks:
            raise InputError(f"ladder: {type(base.network).__name__} has no stack below its head")
        d = base.sites.select("ffn.out")[-1].size
        g = torch.Generator().manual_seed(seed)
        return Ladder(blocks, name, d, max(1, d // self.reduction), g)


def _norm(s: Tensor) -> Tensor:
    return layer_norm(s, s.shape[-1:])
