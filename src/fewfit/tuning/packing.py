"""Encoded examples packed into a batch.

One row of a batch is one example. Its choices stand one after the other in the decoder (or behind
the prompt of a causal model), each blind to the others, so that the prompt is read once per example
and the cross-attention's keys and values are computed once per example, not once per choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from fewfit.errors import InputError
from fewfit.tuning.choices import Encoded


@dataclass(frozen=True)
class ChoiceBatch:
    """What a network is fed for B examples, and where their choices' N tokens are read.

    Attributes
    ----------
    inputs : dict of str to Tensor
        Arguments of the network.
    at : Tensor of shape (2, N), int64
        Row and position of the last hidden layer that predict each token.
    targets, choice : Tensor of shape (N,), int64
        The token, and the choice that it belongs to.
    example, correct : Tensor of shape (C,)
        As in :class:`TokenLogProbs`.
    tasks : Tensor of shape (rows,), int64
        The task of each row of the network's batch.
    slots : tuple of (int, int), default=(0, 0)
        First position, and the one behind the last, of the slots for a prompt's vectors in
        ``inputs["input_ids"]``.
    """

    inputs: dict[str, Tensor]
    at: Tensor
    targets: Tensor
    choice: Tensor
    example: Tensor
    correct: Tensor
    tasks: Tensor
    slots: tuple[int, int] = (0, 0)

    def to(self, device: Any) -> ChoiceBatch:
        """Return the batch on `device`."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, inputs={k: v.to(device) for k, v in self.inputs.items()}, **moved)


@dataclass(frozen=True)
class Packer:
    """Packs encoded examples into a batch for one kind of model.

    Parameters
    ----------
    kind : {"seq2seq", "causal", "masked"}
    pad_id : int
    start_id : int or None
        What the decoder of an encoder-decoder starts with.
    mask_id : int or None
        The mask token of a masked model.
    positions : bool
        Whether the decoder of an encoder-decoder is told each token's position in its own choice;
        one whose positions are relative needs none.
    lead : int, default=0
        How many special tokens open a text of a masked model.
    front : int, default=0
        Slots for a prompt's vectors in each row, see :meth:`with_slots`.
    """

    kind: str
    pad_id: int
    start_id: int | None = None
    mask_id: int | None = None
    positions: bool = False
    lead: int = 0
    front: int = 0

    def __call__(self, examples: Sequence[Encoded]) -> ChoiceBatch:
        """Pack B examples."""
        pack: Callable[[Sequence[Encoded]], tuple[dict[str, Tensor], Any, list[int]]] = {
            "seq2seq": self._seq2seq,
            "causal": self._causal,
            "masked": self._masked,
        }[self.kind]
        inputs, at, tasks = pack(examples)
        flat = [(b, c) for b, item in enumerate(examples) for c in range(len(item.choices))]
        lengths = [len(examples[b].choices[c]) for b, c in flat]
        targets = [token for b, c in flat for token in examples[b].choices[c]]
        batch = ChoiceBatch(
            inputs,
            torch.tensor(at).T,
            torch.tensor(targets),
            torch.repeat_interleave(torch.arange(len(flat)), torch.tensor(lengths)),
            torch.tensor([b for b, _ in flat]),
            torch.tensor([c == examples[b].answer for b, c in flat]),
            torch.tensor(tasks),
        )
        return self.with_slots(batch, self.front) if self.front else batch

    @property
    def first_slot(self) -> int:
        """Where slots begin: behind the special tokens that open a masked model's text, else 0."""
        return self.lead if self.kind == "masked" else 0

    @property
    def slot_id(self) -> int:
        """The token in a slot. It is not the padding token, by which RoBERTa counts positions."""
        return int(self.pad_id == 0)

    def with_slots(self, batch: ChoiceBatch, front: int) -> ChoiceBatch:
        """Return a batch whose rows begin with slots, as if `front` tokens more had been read.

        They stand in front of the prompt: in the encoder of an encoder-decoder, and behind the
        special tokens that open a masked model's text. :func:`fill_slots` writes vectors there.

        Parameters
        ----------
        batch : ChoiceBatch
            Made by this packer, without slots.
        front : int
            At least 1.

        Raises
        ------
        InputError
            If there are slots already, or `front` is below 1.
        """
        if front < 1 or batch.slots != (0, 0):
            raise InputError(
                f"slots: {front} asked for in a batch that has {batch.slots[1] - batch.slots[0]}; "
                "a batch gets them once, and at least one"
            )
        first, inputs, at = self.first_slot, dict(batch.inputs), batch.at.clone()
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        inputs["input_ids"] = _inserted(ids, first, front, self.slot_id)
        if mask.ndim == 2:
            inputs["attention_mask"] = _inserted(mask, first, front, 1)
        else:  # of a causal model: all see the slots, which see those before them
            rows, _, old, _ = mask.shape
            slots = _blind([[0] * front]).expand(rows, 1, -1, -1)
            hidden = mask.new_full((rows, 1, front, old), torch.finfo(mask.dtype).min)
            top = torch.cat([slots.to(mask), hidden], 3)
            inputs["attention_mask"] = torch.cat([top, pad(mask, (front, 0))], 2)
        if "position_ids" in inputs:
            own = torch.arange(front, device=ids.device).expand(len(ids), -1)
            inputs["position_ids"] = torch.cat([own, inputs["position_ids"] + front], 1)
        if self.kind != "seq2seq":
            at[1] += front * (at[1] >= first)
        return replace(batch, inputs=inputs, at=at, slots=(first, first + front))

    def _seq2seq(self, examples: Sequence[Encoded]) -> Any:
        ids, mask = _padded([item.before for item in examples], self.pad_id)
        said: list[list[int]] = []
        segments: list[list[int]] = []
        at: list[tuple[int, int]] = []
        for row, item in enumerate(examples):
            said.append([t for choice in item.choices for t in (self.start_id, *choice[:-1])])  # pyright: ignore[reportArgumentType]
            segments.append([c for c, choice in enumerate(item.choices, 1) for _ in choice])
            at += [(row, position) for position in range(len(said[-1]))]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "decoder_input_ids": _padded(said, self.pad_id)[0],
            "decoder_attention_mask": _blind(segments),
        }
        if self.positions:
            own = [[t for choice in e.choices for t in range(len(choice))] for e in examples]
            inputs["decoder_position_ids"] = _padded(own, 0)[0]
        return inputs, at, [item.task for item in examples]

    def _causal(self, examples: Sequence[Encoded]) -> Any:
        ids: list[list[int]] = []
        segments: list[list[int]] = []
        positions: list[list[int]] = []
        at: list[tuple[int, int]] = []
        for row, item in enumerate(examples):
            line, prompt = list(item.before), len(item.before)
            segment, position = [0] * prompt, list(range(prompt))
            for c, choice in enumerate(item.choices, 1):
                at.append((row, prompt - 1))
                at += [(row, len(line) + t) for t in range(len(choice) - 1)]
                line += choice[:-1]
                segment += [c] * (len(choice) - 1)
                position += range(prompt, prompt + len(choice) - 1)
            ids.append(line)
            segments.append(segment)
            positions.append(position)
        inputs = {
            "input_ids": _padded(ids, self.pad_id)[0],
            "attention_mask": _blind(segments),
            "position_ids": _padded(positions, 0)[0],
        }
        return inputs, at, [item.task for item in examples]

    def _masked(self, examples: Sequence[Encoded]) -> Any:
        """One row for each number of tokens that an example's choices have, with as many masks."""
        ids: list[list[int]] = []
        at: list[tuple[int, int]] = []
        tasks: list[int] = []
        for item in examples:
            rows: dict[int, int] = {}
            for choice in item.choices:
                if len(choice) not in rows:
                    rows[len(choice)] = len(ids)
                    ids.append([*item.before, *[self.mask_id] * len(choice), *item.after])  # pyright: ignore[reportArgumentType]
                    tasks.append(item.task)
                at += [(rows[len(choice)], len(item.before) + t) for t in range(len(choice))]
        padded, mask = _padded(ids, self.pad_id)
        return {"input_ids": padded, "attention_mask": mask}, at, tasks


def fill_slots(
    network: Any,
    packer: Packer,
    embeddings: str,
    vectors: Tensor | Callable[[Tensor], Tensor],
    front: int,
) -> Any:
    """Write vectors into the slots of whatever the network reads, until ``remove()``.

    Parameters
    ----------
    network : torch.nn.Module
    packer : Packer
        That makes its batches.
    embeddings : str
        Path of the token embeddings of the stack that reads the prompt: the module of the first
        site ``embeddings``. It is not always ``get_input_embeddings()``: T5's encoder has its own.
    vectors : Tensor of shape (front, H) or (B, front, H), or callable
        A callable is given the embedded tokens, (B, T, H), and returns such a tensor.
    front : int
        Number of slots.

    Returns
    -------
    torch.utils.hooks.RemovableHandle

    Raises
    ------
    InputError
        In the forward pass, if the rows have no slots.
    """
    first, behind = packer.first_slot, packer.first_slot + front

    def write(_: Any, args: tuple[Any, ...], embedded: Tensor) -> Tensor | None:
        ids = args[0]
        if ids.shape[1] == 1:  # a token that is generated behind the prompt
            return None
        if ids.shape[1] < behind or not bool((ids[:, first:behind] == packer.slot_id).all()):
            raise InputError(f"slots: the network reads rows that do not have {front} of them")
        new = vectors if isinstance(vectors, Tensor) else vectors(embedded)
        new = new.to(embedded.dtype).expand(len(embedded), -1, -1)
        return torch.cat([embedded[:, :first], new, embedded[:, behind:]], 1)

    return network.get_submodule(embeddings).register_forward_hook(write)


def _inserted(rows: Tensor, first: int, count: int, value: int) -> Tensor:
    new = rows.new_full((len(rows), count), value)
    return torch.cat([rows[:, :first], new, rows[:, first:]], 1)


def _padded(sequences: Sequence[Sequence[int]], value: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, (rows, longest), padded on the right."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), value)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask


def _blind(segments: Sequence[Sequence[int]]) -> Tensor:
    """What may see what: (rows, 1, T, T), float32, 0 or the smallest number, added to the scores.

    A token sees those before it in its own segment and in segment 0, the prompt. Padding is a
    segment of its own, so that no row of the mask is empty.
    """
    of = _padded(segments, -1)[0]
    same = (of[:, :, None] == of[:, None, :]) | (of[:, None, :] == 0)
    seen = same & torch.ones(of.shape[1], of.shape[1], dtype=torch.bool).tril()
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min).unsqueeze(1)
