"""The weights: one forward pass in which the head sees the slot and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.local.batching import pad
from fewfit.models.local.files import Kind
from fewfit.models.local.narrowing import Narrowed, no_cache
from fewfit.models.local.plan import Step
from fewfit.models.local.texts import Encoded

_COLUMNS_AT_ONCE = 16_384

Vectors = tuple[int, NDArray[np.float32]]
"""The position at which a soft prompt starts, and its vectors (n, H)."""


class Network:
    """A language model that is read at slots only.

    Two things are put around the model of transformers, whatever its architecture: the hook of
    :class:`Narrowed`, so that the head runs on one position of each prompt; and, for the time of a
    call, a final linear layer that multiplies only the rows of the tokens in question. Before the
    first answer both are compared with an untouched forward pass; a head in which the second does
    not work is computed whole. A model that does not read the way its kind does is refused.

    The head's last product is computed in float32 whatever the dtype of the weights.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        Of :func:`load_network`; an adapter may be on it.
    kind : {"masked", "causal", "seq2seq"}
    name : str
        For messages.
    pad_id : int or None
        The tokenizer's.
    slot_id : int or None
        What stands in the slot; None for a causal model.

    Attributes
    ----------
    lock : threading.Lock
        Held while the head's columns, vectors and the way of writing are those of one call; whoever
        runs :attr:`model` itself takes it first.
    pads : bool
        Whether prompts of unequal length may be padded to one batch: a row then is what it is
        alone.
    """

    def __init__(
        self, network: Any, kind: Kind, name: str, *, pad_id: int | None, slot_id: int | None
    ) -> None:
        import torch

        self.kind, self.name, self.slot_id = kind, name, slot_id
        self.model: Any = network
        self.device = network.device
        self._n_rows = len(network.get_input_embeddings().weight)
        self._pad_id = padding(network, pad_id)
        self._start_id = getattr(network.config, "decoder_start_token_id", None)
        if kind == "seq2seq" and self._start_id is None:
            self._start_id = self._pad_id
        self.lock = threading.Lock()
        self._vectors: Vectors | None = None
        network.get_input_embeddings().register_forward_hook(self._put_vectors)
        self._narrowed, self._no_cache = Narrowed(network), no_cache(network)
        head = network.get_output_embeddings()
        self._head: Any = head if isinstance(head, torch.nn.Linear) else None
        self._check()

    def run(
        self,
        batch: Sequence[Encoded],
        steps: Sequence[Step],
        columns: Sequence[int] | None,
        vectors: Vectors | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Make the forward passes one by one.

        Parameters
        ----------
        batch : sequence of Encoded, length B
        steps : sequence of Step
        columns : sequence of int or None
            The tokens to score; None for the whole vocabulary.
        vectors : Vectors, optional
            What the model reads there instead of the prompts' own tokens; for a masked model.

        Yields
        ------
        (hidden, logits)
            Tensors (B, S, H) and (B, S, V or len(columns)), float32, S = ``step.positions``.
        """
        import torch

        check_ids(batch, self._n_rows, self.name)
        encoder = None
        for step in steps:
            offsets = torch.arange(step.positions)
            if self.kind == "seq2seq":
                ids, mask = pad([item.ids for item in batch], self._pad_id)
                said = [self._start_id, self.slot_id, *step.tokens]
                inputs = {"input_ids": ids, "decoder_input_ids": torch.tensor([said] * len(batch))}
                slots = (1 + offsets).expand(len(batch), -1)
            else:
                rest = 0 if self.kind == "causal" else 1
                ids, mask = pad(
                    [[*i.ids[: i.slot], *step.tokens, *i.ids[i.slot + rest :]] for i in batch],
                    self._pad_id,
                )
                inputs = {"input_ids": ids}
                first = -1 if self.kind == "causal" else 0  # its last token predicts the slot
                slots = torch.tensor([[i.slot + first] for i in batch]) + offsets
            inputs = {name: value.to(self.device) for name, value in inputs.items()}
            inputs["attention_mask"] = mask.to(self.device)
            if encoder is not None:
                del inputs["input_ids"]
                inputs["encoder_outputs"] = encoder
            rows = torch.arange(len(batch), device=self.device).repeat_interleave(step.positions)
            at = (rows, slots.reshape(-1).to(self.device))
            states, scores, encoder = self._read(inputs, at, columns, vectors)
            shape = (len(batch), step.positions, -1)
            yield states.view(shape), scores.view(shape)

    def _read(
        self,
        inputs: dict[str, Any],
        at: tuple[Any, Any],
        columns: Sequence[int] | None,
        vectors: Vectors | None,
    ) -> tuple[Any, Any, Any]:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        wanted = (
            None if columns is None else torch.tensor(columns, dtype=torch.long, device=self.device)
        )
        inputs = {**inputs, **self._no_cache}
        with self.lock, torch.inference_mode():
            self._vectors = vectors
            short = self._head is not None
            if short:
                self._head.forward = lambda states: _project(states, self._head, wanted)
            try:
                out, hidden = self._narrowed(inputs, *at)
            finally:
                if short:
                    del self._head.forward
                self._vectors = None
        logits = out.logits.float()
        if wanted is not None and not short:
            logits = logits[..., wanted]
        encoder = None
        if self.kind == "seq2seq":
            encoder = BaseModelOutput(last_hidden_state=out.encoder_last_hidden_state)
        return hidden.float(), logits, encoder

    def output_rows(self, ids: Sequence[int]) -> Any:
        """Return the rows of the output matrix for some tokens, array (len(ids), H), float32."""
        weight = getattr(self.model.get_output_embeddings(), "weight", None)
        if weight is None:
            raise ModelError(f"{self.name}: this architecture has no output matrix")
        return weight[list(ids)].float().cpu().numpy()

    def _put_vectors(self, module: Any, args: Any, output: Any) -> Any:
        if self._vectors is None:
            return output
        import torch

        start, vectors = self._vectors
        output[:, start : start + len(vectors)] = torch.from_numpy(vectors).to(output)
        return output

    @property
    def input_embeddings(self) -> NDArray[np.float32]:
        """The vectors of the tokens, shape (V, H)."""
        return self.model.get_input_embeddings().weight.float().cpu().numpy()

    def _check(self) -> None:
        """Compare with the untouched model; do without the short head where it is not equal."""
        import torch

        if self.slot_id is not None and self.slot_id >= self._n_rows:
            raise ModelError(f"{self.name}: the weights have no row for the token in the slot")
        some = [i for i in range(3, 11) if i != self._pad_id and i < self._n_rows][:6]
        causal = self.kind == "causal"
        step = Step((self.slot_id or 0,) if self.kind == "masked" else (), 1, ())

        def prompt(before: Sequence[int], after: Sequence[int]) -> Encoded:
            ids = list(before) if causal else [*before, self.slot_id or 0, *after]
            return Encoded(ids, len(before), False)

        def plain(item: Encoded, behind: Sequence[int] = ()) -> Any:
            ids = torch.tensor([[*item.ids, *behind]], device=self.device)
            inputs = {"input_ids": ids}
            if self.kind == "seq2seq":
                said = torch.tensor([[self._start_id, self.slot_id]], device=self.device)
                inputs["decoder_input_ids"] = said
            at = {"masked": item.slot, "causal": item.slot - 1, "seq2seq": 1}[self.kind]
            with torch.inference_mode():
                return self.model(**inputs, **self._no_cache).logits[0, at].float()

        # The second is padded when both are asked together; a network that mixes padding into its
        # states (convolutions, Fourier transforms) is asked about equal lengths only.
        probes = [prompt(some[:3], some[3:]), prompt(some[:2], some[2:3])]
        expected = torch.stack([plain(item) for item in probes])
        near = 1e-4 if self.model.dtype == torch.float32 else 3e-2
        allowed = near * (float(expected.abs().max()) + 1e-6)

        def equal(n: int) -> bool:
            for columns in ([1, 0], None):
                whole = expected[:n] if columns is None else expected[:n, columns]
                try:
                    [(_, logits)] = self.run(probes[:n], [step], columns)
                    if not bool(((logits[:, 0] - whole).abs() <= allowed).all()):
                        return False
                except (AttributeError, RuntimeError, TypeError, IndexError):
                    return False
            return True

        if not equal(1):
            self._head = None
            if not equal(1):
                raise ModelError(
                    f"{self.name}: the architecture {type(self.model).__name__} is not supported; "
                    "its scores at the slot are not those of its ordinary forward pass"
                )
        self.pads = equal(2)
        moved = (plain(probes[1], behind=some[3:]) - expected[1]).abs().max()
        if (causal and moved > allowed) or (self.kind == "masked" and moved == 0):
            raise ModelError(
                f"{self.name}: {type(self.model).__name__} is not supported: as it is configured "
                + (
                    "it reads what comes after a token, so its next word is not that of a causal "
                    "model"
                    if causal
                    else "it does not read what comes after the mask"
                )
            )


def check_ids(batch: Sequence[Encoded], n_rows: int, name: str) -> None:
    """Refuse tokens that have no row: the tokenizer was extended, the weights were not."""
    highest = max(max(item.ids, default=0) for item in batch)
    if highest >= n_rows:
        raise ModelError(
            f"{name}: the tokenizer writes a text with token {highest}, but the weights have "
            f"{n_rows} tokens; take the tokenizer that belongs to the weights"
        )


def padding(network: Any, pad_id: int | None) -> int:
    """Return a token to pad with that has a row in the embeddings; the mask hides it.

    Some networks count positions by the padding token of their config, so that it goes first.
    """
    rows = len(network.get_input_embeddings().weight)
    configured = getattr(network.config.get_text_config(), "pad_token_id", None)
    given = (i for i in (configured, pad_id) if isinstance(i, int) and 0 <= i < rows)
    return next(given, 0)


def _project(states: Any, head: Any, columns: Any) -> Any:
    """The last linear layer in float32, for some rows or for all."""
    import torch
    from torch.nn.functional import linear

    weight, bias = head.weight, head.bias
    if columns is not None:
        weight = weight[columns]
        bias = None if bias is None else bias[columns]
    states = states.float()
    bias = None if bias is None else bias.float()
    if weight.dtype == torch.float32:
        return linear(states, weight, bias)
    parts = [linear(states, rows.float()) for rows in weight.split(_COLUMNS_AT_ONCE)]
    scores = torch.cat(parts, dim=-1)
    return scores if bias is None else scores + bias
