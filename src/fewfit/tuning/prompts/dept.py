"""DePT: Shi & Lipani, ICLR 2024, arXiv 2309.05173. Read in the authors' code.

A short prompt, and for what it was shortened by an offset of low rank on the embeddings of the
text, the same for every row. Theirs is added to padding too; here tokens behind S, and the
choices, have none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Group, Handle, PerThread
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.packing import ChoiceBatch, Packer, fill_slots
from fewfit.tuning.prompts.prompt_tuning import Words
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

ALPHA = 8.0
"""scale = alpha / sqrt(r)."""


class Decomposed(Adapter):
    """P (m, H) in front of the text, and scale * A B on its first S tokens, by position.

    Parameters
    ----------
    P : Tensor of shape (m, H)
    A, B : Tensor of shape (S, r) and (r, H)
    rates : tuple of float
        Of P, and of A and B, as factors of the recipe's.
    """

    def __init__(
        self,
        P: Tensor,
        A: Tensor,
        B: Tensor,
        *,
        packer: Packer,
        embeddings: str,
        rates: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        self.P, self.A, self.B = nn.Parameter(P), nn.Parameter(A), nn.Parameter(B)
        self.packer, self.embeddings, self.rates = packer, embeddings, rates
        self.scale = ALPHA / math.sqrt(A.shape[1])
        self._row = PerThread()

    def groups(self) -> Sequence[Group]:
        return [Group(("P",), self.rates[0]), Group(("A", "B"), self.rates[1])]

    def prompt(self) -> Tensor:
        """What stands in front, (m, H)."""
        return self.P

    def offset(self) -> Tensor:
        """What is added to the embeddings of the text's tokens, (S, H)."""
        return self.scale * self.A @ self.B

    def act(self, network: nn.Module) -> list[Handle]:
        m, handles = len(self.P), []
        if m:
            handles.append(
                fill_slots(network, self.packer, self.embeddings, lambda _: self.prompt(), m)
            )
        embeddings = network.get_submodule(self.embeddings)
        return [*handles, embeddings.register_forward_hook(self._add)]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        m, first = len(self.P), self.packer.first_slot
        numbers = numbered(batch, self.packer.kind)
        self._row.kept[id(self)] = torch.cat(
            [numbers[:, :first], numbers.new_full((len(numbers), m), -1), numbers[:, first:]], 1
        )
        return self.packer.with_slots(batch, m) if m else batch

    def _add(self, _: Any, args: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        ids = args[0]
        if ids.shape[1] == 1:  # a token that is generated behind the prompt
            return None
        numbers = self._row.kept.get(id(self))
        if numbers is None or numbers.shape != ids.shape:
            raise InputError("offset: the network reads rows that were not numbered for it")
        D = self.offset()
        known = (numbers >= 0) & (numbers < len(D))
        # Row 0 is of no offset.
        added = pad(D, (0, 0, 1, 0))[torch.where(known, numbers + 1, 0)]
        return embedded + added.to(embedded.dtype)


def numbered(batch: ChoiceBatch, kind: str) -> Tensor:
    """Number the prompt's tokens in each row, (rows, T); -1 is a choice's token or padding."""
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    place = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    rows, at = batch.at
    if kind == "causal":  # the last token of the prompt is where every choice begins
        last = torch.full((len(ids),), ids.shape[1], device=ids.device)
        last = last.scatter_reduce(0, rows, at, "amin")
        return torch.where(place <= last[:, None], place, -1)
    own = mask.bool()
    if kind == "masked":
        own = own.clone()
        own[rows, at] = False
    return torch.where(own, own.long().cumsum(1) - 1, -1)


@dataclass(frozen=True)
class DePT(TuningMethod):
    """A prompt of m vectors and an offset of rank r; at first the offset is zero.

    Rates are measured in the embeddings' root mean square, and P's is the recipe's.

    Parameters
    ----------
    m : int, default=10
    r : int, default=8
        m H + r (S + H) values, S being the most tokens of a text; the paper holds this at those of
        a prompt of 100 vectors, with m of 40 to 80.
    offset_rate : float, default=0.01
        Rate of A and B, as a share of P's. One rate for both fails.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=0.3)
    neutral: ClassVar[Mapping[str, Any]] = {"m": 0}

    m: Annotated[int, Field(ge=0, le=4096)] = 10
    r: Annotated[int, Field(ge=1, le=4096)] = 8
    offset_rate: Annotated[float, Field(ge=0, le=10)] = 0.01

    def build(self, base: Trunk, seed: int) -> Adapter:
        return Decomposed(**self.drawn(base, seed))

    def drawn(self, base: Trunk, seed: int) -> dict[str, Any]:
        """Return P from the vocabulary, A from U(-1/sqrt(r), 1/sqrt(r)), and B = 0."""
        base.make_room(self.m)
        words, g = Words.of(base), torch.Generator().manual_seed(seed)
        P = words.drawn(self.m, g)
        A = (2 * torch.rand(base.max_tokens, self.r, generator=g) - 1) / math.sqrt(self.r)
        return {
            "P": P,
            "A": A,
            "B": torch.zeros(self.r, P.shape[1]),
            "packer": base.pack,
            "embeddings": words.path,
            "rates": (words.unit, words.unit * self.offset_rate),
        }
