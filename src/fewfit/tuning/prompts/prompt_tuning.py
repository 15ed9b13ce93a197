"""Prompt tuning: Lester et al., EMNLP 2021, arXiv 2104.08691."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class SoftPrompt(Adapter):
    """Vectors (m, H) that every row reads before its text.

    In the network of two BERTs and in T5 the encoder reads them.
    """

    def __init__(self, P: Tensor) -> None:
        super().__init__()
        self.P = nn.Parameter(P)

    def act(self, network: nn.Module) -> list[Handle]:
        return [_Nothing()]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        return in_front(batch, trunk, self.P)


class _Nothing:
    """What acts through :meth:`Adapter.rewrite` alone has nothing to undo."""

    def remove(self) -> None:
        return


def in_front(batch: ChoiceBatch, trunk: Trunk, P: Tensor) -> ChoiceBatch:
    """Return a batch whose rows read the vectors P (m, H) before all else."""
    inputs, m = dict(batch.inputs), len(P)
    if not m:
        return batch
    ids = inputs.pop("input_ids")
    words = trunk.network.get_input_embeddings()(ids)
    prefix = P.to(words.dtype).expand(len(ids), -1, -1)
    inputs["inputs_embeds"] = torch.cat([prefix, words], dim=1)
    mask = inputs["attention_mask"]
    if mask.ndim == 2:
        inputs["attention_mask"] = pad(mask, (m, 0), value=1)
    else:  # (rows, 1, T, T): all see the vectors, which see those before them
        wide = pad(mask, (m, 0, m, 0), value=0.0)
        low = torch.finfo(mask.dtype).min
        future = torch.ones(m, wide.shape[-1], dtype=torch.bool, device=mask.device).triu(1)
        wide[:, :, :m, :] = torch.where(future, low, 0.0)
        inputs["attention_mask"] = wide
    if "position_ids" in inputs:
        first = torch.arange(m, device=ids.device).expand(len(ids), -1)
        inputs["position_ids"] = torch.cat([first, inputs["position_ids"] + m], dim=1)
    shift = 0 if trunk.kind == "seq2seq" else m
    return replace(batch, inputs=inputs, at=batch.at + torch.tensor([[0], [shift]]).to(batch.at))


@dataclass(frozen=True)
class PromptTuning(TuningMethod):
    """m vectors in front of the text, drawn from the word embeddings; m = 0 changes nothing.

    Parameters
    ----------
    m : int, default=20
    """

    recipe: ClassVar[Recipe] = Recipe(learning_rate=0.3)
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    m: Annotated[int, Field(ge=0, le=4096)] = 20

    def build(self, base: Trunk, seed: int) -> Adapter:
        E = base.network.get_input_embeddings().weight.detach().float().cpu()
        g = torch.Generator().manual_seed(seed)
        return SoftPrompt(E[torch.randint(len(E), (self.m,), generator=g)].clone())
