"""Labelled examples in front of a text, whose embeddings are trained but for their labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from fewfit.errors import ArtifactError
from fewfit.tuning.adapter import Adapter, Handle, check_names
from fewfit.tuning.choices import Encoded
from fewfit.tuning.packing import ChoiceBatch, Packer, fill_slots
from fewfit.tuning.trunk import Trunk

TEXT, SEPARATOR, TEMPLATE = 0, -1, -2
"""What a token of the context is, if it is not the i-th label's, which has the number i."""


class Context(Adapter):
    """Embeddings of examples, each but the labels' moved by at most a radius.

    Parameters
    ----------
    E : Tensor of shape (V, H)
        The word embeddings.
    ids, label : Tensor of shape (n,), int64
        The context's tokens, and what they are; see :data:`TEXT`.
    radii : (float, float)
        Of a text's tokens and of the template's, in the norm of an embedding.
    """

    def __init__(
        self,
        E: Tensor,
        ids: Tensor,
        label: Tensor,
        *,
        radii: tuple[float, float],
        packer: Packer,
        path: str,
    ) -> None:
        super().__init__()
        self.packer, self.path, self.radii = packer, path, radii
        self._E, self._own = E, dict[tuple[int, ...], list[int]]()
        self._set(ids, label, torch.zeros(int(_free(label).sum()), E.shape[1]))

    def _set(self, ids: Tensor, label: Tensor, delta: Tensor) -> None:
        self.register_buffer("ids", ids)
        self.register_buffer("label", label)
        self._fixed = self._E[ids.cpu()]
        self.delta = nn.Parameter(delta)

    @property
    def free(self) -> Tensor:
        """Which tokens are moved, (n,)."""
        label: Any = self.label
        return _free(label)

    def vectors(self) -> Tensor:
        """E_c + delta, (n, H)."""
        fixed = self._fixed.to(self.delta.device)
        return fixed.index_add(0, self.free.nonzero().flatten(), self.delta)

    def spans(self) -> list[tuple[int, int]]:
        """Return where each example begins, and what stands behind its label begins."""
        label: list[int] = self.label.tolist()  # pyright: ignore[reportCallIssue]
        ends, last = dict[int, int](), 0
        for place, kind in enumerate(label, 1):
            last = kind if kind > 0 else last
            if kind > 0 or kind == SEPARATOR:
                ends[last] = place
        return list(zip([0, *ends.values()], ends.values(), strict=False))

    def act(self, network: nn.Module) -> list[Handle]:
        n = len(self.ids)  # pyright: ignore[reportArgumentType]
        if not n:
            return []
        return [fill_slots(network, self.packer, self.path, lambda _: self.vectors(), n)]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        n = len(self.ids)  # pyright: ignore[reportArgumentType]
        if not n:
            return batch
        wide = self.packer.with_slots(batch, n)
        if not self._own or not torch.is_grad_enabled():
            return wide
        return self._without(wide, [self._own.get(text, []) for text in _texts(batch)])

    @contextmanager
    def blind(self, rows: Sequence[Sequence[Encoded]]) -> Iterator[None]:
        """Hide from each row, in whatever wording, the examples that are made of it.

        That is so in training alone; what is read without gradients sees all examples.
        """
        ids: Any = self.ids
        label: Any = self.label
        shown: dict[tuple[int, ...], list[int]] = {}
        for number, (start, stop) in enumerate(self.spans()):
            text = ids[start:stop][label[start:stop] != SEPARATOR]
            said = label[start:stop] == number + 1
            shown.setdefault(tuple(text[: len(text) - int(said.sum())].tolist()), []).append(number)
        for wordings in rows:
            texts = [tuple(item.before) for item in wordings]
            own = [n for text in texts for n in shown.get(text[self.packer.lead :], [])]
            self._own |= dict.fromkeys(texts, own) if own else {}
        try:
            yield
        finally:
            self._own = {}

    def _without(self, batch: ChoiceBatch, hidden: Sequence[Sequence[int]]) -> ChoiceBatch:
        """As if these examples were not in front of these rows."""
        spans, inputs = self.spans(), dict(batch.inputs)
        for name in ("attention_mask", "position_ids"):
            inputs[name] = inputs[name].clone()
        mask, positions = inputs["attention_mask"], inputs["position_ids"]
        for row, examples in enumerate(hidden):
            for start, stop in (spans[number] for number in set(examples)):
                mask[row, :, stop:, start:stop] = torch.finfo(mask.dtype).min
                positions[row, stop:] -= stop - start
        return replace(batch, inputs=inputs)

    @torch.no_grad()
    def after_step(self) -> None:
        """delta_i <- delta_i min(1, radius_i / |delta_i|)."""
        label: Any = self.label
        template = (label == TEMPLATE)[self.free][:, None]
        one, other = (self.delta.new_tensor(radius) for radius in self.radii)
        norm = self.delta.norm(dim=1, keepdim=True).clamp(min=1e-30)
        radius = torch.where(template, other, one)
        self.delta.mul_((norm.reciprocal() * radius).clamp(max=1.0))

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        check_names(self.state_dict(), tensors)
        ids, label, delta = (tensors[name] for name in ("ids", "label", "delta"))
        sound = (
            ids.ndim == label.ndim == 1
            and len(ids) == len(label)
            and not ids.is_floating_point()
            and not label.is_floating_point()
            and delta.shape == (int(_free(label).sum()), self._E.shape[1])
            and bool(((ids >= 0) & (ids < len(self._E))).all())
        )
        if not sound:
            raise ArtifactError("adapter: the context does not fit together, or is another model's")
        device = self.delta.device
        self._set(*(t.to(device, copy=True) for t in (ids, label, delta)))
        return self


def _free(label: Tensor) -> Tensor:
    return (label == TEXT) | (label == TEMPLATE)


def _texts(batch: ChoiceBatch) -> list[tuple[int, ...]]:
    """The tokens before the slot of each row of a causal model's batch, which has no slots yet."""
    ids, (rows, places) = batch.inputs["input_ids"].tolist(), batch.at.tolist()
    first: dict[int, int] = {}
    for row, place in zip(rows, places, strict=True):
        first.setdefault(row, place)
    return [tuple(row[: first[i] + 1]) for i, row in enumerate(ids)]
