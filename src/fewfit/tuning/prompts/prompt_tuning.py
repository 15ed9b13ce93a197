"""Prompt tuning: Lester et al., EMNLP 2021, arXiv 2104.08691."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch, Packer, fill_slots
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Words(NamedTuple):
    """The word embeddings that read a prompt.

    Attributes
    ----------
    path : str
        Of the module.
    E : Tensor of shape (V, H)
        As the network reads them, scaled where it does that (Gemma); float32, on the CPU.
    """

    path: str
    E: Tensor

    @classmethod
    def of(cls, base: Trunk) -> Words:
        """Return those of a network."""
        path = base.sites.select("embeddings")[0].module
        module: Any = base.network.get_submodule(path)
        every = torch.arange(len(module.weight), device=module.weight.device)
        with torch.no_grad():  # not by calling it, whose hooks are an adapter's
            return cls(path, module.forward(every).float().cpu())

    @property
    def unit(self) -> float:
        """Their root mean square: a rate that is measured in it means the same on every network."""
        return float(self.E.square().mean().sqrt())

    def drawn(self, m: int, generator: torch.Generator) -> Tensor:
        """Return the vectors of m words, drawn with replacement, (m, H)."""
        return self.E[torch.randint(len(self.E), (m,), generator=generator)].clone()


class SoftPrompt(Adapter):
    """Vectors (m, H) that every row reads before its text, in slots of the packed batch.

    In an encoder-decoder the encoder reads them, in a masked model they stand behind the special
    tokens that open a text.
    """

    def __init__(self, P: Tensor, packer: Packer, embeddings: str) -> None:
        super().__init__()
        self.P = nn.Parameter(P)
        self.packer, self.embeddings = packer, embeddings

    def act(self, network: nn.Module) -> list[Handle]:
        m = len(self.P)
        return [fill_slots(network, self.packer, self.embeddings, self.P, m)] if m else []

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        return self.packer.with_slots(batch, len(self.P)) if len(self.P) else batch


@dataclass(frozen=True)
class PromptTuning(TuningMethod):
    """m vectors in front of the text, drawn from the word embeddings; m = 0 changes nothing.

    Parameters
    ----------
    m : int, default=20
        Vectors.
    """

    recipe: ClassVar[Recipe] = Recipe(learning_rate=0.3)
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    m: Annotated[int, Field(ge=0, le=4096)] = 20

    def build(self, base: Trunk, seed: int) -> Adapter:
        base.make_room(self.m)
        words = Words.of(base)
        drawn = words.drawn(self.m, torch.Generator().manual_seed(seed))
        return SoftPrompt(drawn, base.pack, words.path)
