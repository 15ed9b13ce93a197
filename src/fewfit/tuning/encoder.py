"""A sentence encoder as a trunk: a text goes in, one vector comes out, and no choice is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from fewfit.errors import InputError
from fewfit.models import KINDS
from fewfit.models.local import SentenceEncoder, pad, parse_spec
from fewfit.models.local.sentences import OPTIONS
from fewfit.models.similarity import is_pair
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.sites import Stack
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading

_TOGETHER = 8  # texts of similar length that a processor reads at once
_FLOAT32 = "embedded-en-float32"
"""The encoder of a package in weights that gradients pass through; where all are, ``embedded``."""


class TextBatch(NamedTuple):
    """Texts in tokens, padded on the right: two tensors (B, T), int64."""

    ids: Tensor
    mask: Tensor

    def to(self, device: Any) -> TextBatch:
        """Return the batch on a device."""
        return TextBatch(self.ids.to(device), self.mask.to(device))


class EncoderTrunk(Trunk):
    """A sentence encoder with its weights frozen, for methods that learn from vectors.

    What such a method sees of a row is ``TokenLogProbs.states``, the texts' vectors; there are no
    choices, and no log-probabilities.

    Parameters
    ----------
    model : SentenceEncoder
        Taken over: an adapter acts in its network.
    layout : sequence of Stack, optional
        Where an unknown architecture keeps its layers.
    """

    def __init__(self, model: SentenceEncoder, *, layout: Sequence[Stack] | None = None) -> None:
        self.model, self.layout = model, layout
        self.network = model.network.network.eval().requires_grad_(False)
        self.identity, self.spec = dict(model.identity), model.spec
        self.kind: str = "encoder"
        self.positions: int | None = None  # the model cuts its texts itself
        self.max_tokens = int(self.identity["max_tokens"])
        self.reading: Reading = "words"
        self.encoder: Any = _Texts(model)
        self.pack: Any = self._pack

    @classmethod
    def open(
        cls,
        spec: str,
        *,
        dtype: str = "float32",
        device: str | None = None,
        max_tokens: int | None = None,
        layout: Sequence[Stack] | None = None,
    ) -> Self:
        """Load the encoder of a spec, whose options go before the arguments.

        Raises
        ------
        InputError
            For a dtype or a length that the encoder of a package does not have.
        """
        kind, _, rest = spec.partition(":")
        if kind != "encoder":
            carried: Any = KINDS[_FLOAT32 if _FLOAT32 in KINDS else "embedded"]
            model = carried.from_spec(rest)
            own = model.identity["max_tokens"]
            if dtype != "float32" or str(max_tokens or own) != own:
                raise InputError(
                    f"model: what {kind!r} carries is float32 and reads {own} tokens; leave out "
                    "dtype and max_tokens, or name a checkpoint, encoder:NAME_OR_PATH"
                )
            return cls(model, layout=layout)
        name, options = parse_spec(rest, OPTIONS)
        given = {"dtype": dtype, "max_tokens": max_tokens, **options}
        model = SentenceEncoder(name, **given, device=device)
        return cls(model, layout=layout)

    def reads(self, reading: Reading) -> Self:
        """Return itself: there is one way to read a text."""
        return self

    @property
    def n_tokens(self) -> int:
        """Tokens that the network has vectors of."""
        return self.network.config.vocab_size

    @property
    def body(self) -> Any:
        """The network itself, which has no head."""
        return self.network

    def read(self, batch: Any) -> tuple[TokenLogProbs, Tensor]:
        """Read each text once, on a processor few of similar length together.

        Returns
        -------
        (TokenLogProbs, Tensor)
            No tokens; and one vector of each text, (B, H), in both.
        """
        batch, network = batch.to(self.device), self.model.network
        lengths = batch.mask.sum(dim=1)
        order = lengths.argsort(stable=True)
        n = _TOGETHER if self.device.type == "cpu" and network.pads else len(order)
        parts = [
            network(batch.ids[rows, : lengths[rows[-1]]], batch.mask[rows, : lengths[rows[-1]]])
            for rows in order.split(n)
        ]
        states = torch.cat(parts)[order.argsort()]
        none = torch.zeros(0, dtype=torch.int64, device=states.device)
        return TokenLogProbs(states.new_zeros(0), none, none, none.bool(), True, states), states

    def _pack(self, items: Sequence[Encoded]) -> TextBatch:
        return TextBatch(*pad([item.before for item in items], self.model.network.pad_id))


class _Texts:
    """Turns the user's text of an example into tokens, and nothing else of it."""

    def __init__(self, model: SentenceEncoder) -> None:
        self._model = model

    def encode(self, example: ChoiceExample, *, only_answer: bool = False) -> Encoded:
        if is_pair(example.prompt):
            raise InputError(
                "template: a sentence encoder embeds two fields one by one, and what is learnt of "
                "one vector does not join them; take a template with one field, or a masked model"
            )
        [item] = self._model.tokens([example.prompt.user_text])
        return Encoded(item.ids, [], [], 0, example.task)  # what is cut is said where it is asked
