"""The weights: one forward pass in which the head sees the slot and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.hf.encoding import Encoded
from fewfit.models.hf.files import Kind
from fewfit.models.hf.plan import Step
from fewfit.models.local import no_progress_bar, pad

CLASSES: dict[Kind, str] = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}
_COLUMNS_AT_ONCE = 16_384

Vectors = tuple[int, NDArray[np.float32]]
"""The position at which a soft prompt starts, and its vectors (n, H)."""


class Network:
    """A language model that is read at slots only.

    Two things are put around the model of transformers, whatever its architecture: a hook that
    takes the slots out of the last hidden layer before the model's own head sees it, so that the
    head (its dense layer, scaling, soft cap and all) runs on one position of each prompt; and, for
    the time of a call, a final linear layer that multiplies only the rows of the tokens in
    question. When the weights are loaded both are compared with an untouched forward pass; a head
    in which the second does not work is computed whole.

    The head's last product is computed in float32 whatever the dtype of the weights.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        name: str,
        *,
        dtype: str,
        device: str,
        pad_id: int | None,
        slot_id: int | None,
    ) -> None:
        import torch
        import transformers

        loader = getattr(transformers, CLASSES[kind])
        try:
            with no_progress_bar():
                model, report = loader.from_pretrained(
                    folder,
                    dtype=getattr(torch, dtype),
                    use_safetensors=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            model = model.to(device).eval().requires_grad_(False)
        except Exception as error:  # whatever a broken file makes it raise
            raise ModelError(f"{name}: the weights cannot be loaded: {error}") from error
        if report["missing_keys"]:
            raise ModelError(
                f"{name}: the file lacks {min(report['missing_keys'])!r}, which would be random "
                f"numbers; take a checkpoint that was saved with its language model's head"
            )
        self.kind, self.name, self.device, self.slot_id = kind, name, device, slot_id
        self._model: Any = model
        configured = getattr(model.config, "pad_token_id", None)
        self._pad_id = next((i for i in (configured, pad_id) if isinstance(i, int) and i >= 0), 0)
        self._start_id = getattr(model.config, "decoder_start_token_id", None)
        if kind == "seq2seq" and self._start_id is None:
            self._start_id = self._pad_id
        self._lock = threading.Lock()  # slots and columns are those of one call
        self._slots: Any = None
        self._taken: Any = None
        self._vectors: Vectors | None = None
        model.get_input_embeddings().register_forward_hook(self._put_vectors)
        self._body: Any = model.get_decoder() if kind == "seq2seq" else model.base_model
        self._body.register_forward_hook(self._take_slots)
        head = model.get_output_embeddings()
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
            hidden, logits, encoder = self._read(inputs, slots.to(self.device), columns, vectors)
            yield hidden, logits

    def _read(
        self,
        inputs: dict[str, Any],
        slots: Any,
        columns: Sequence[int] | None,
        vectors: Vectors | None,
    ) -> tuple[Any, Any, Any]:
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        wanted = (
            None if columns is None else torch.tensor(columns, dtype=torch.long, device=self.device)
        )
        with self._lock, torch.inference_mode():
            self._slots, self._vectors = slots, vectors
            narrowed = self._head is not None
            if narrowed:
                self._head.forward = lambda states: _project(states, self._head, wanted)
            try:
                out = self._model(**inputs, **({} if self.kind == "masked" else _NO_CACHE))
                hidden = self._taken
            finally:
                if narrowed:
                    del self._head.forward
                self._slots = self._taken = self._vectors = None
        logits = out.logits.float()
        if wanted is not None and not narrowed:
            logits = logits[..., wanted]
        encoder = None
        if self.kind == "seq2seq":
            encoder = BaseModelOutput(last_hidden_state=out.encoder_last_hidden_state)
        return hidden.float(), logits, encoder

    def output_rows(self, ids: Sequence[int]) -> Any:
        """Return the rows of the output matrix for some tokens, array (len(ids), H), float32."""
        weight = getattr(self._model.get_output_embeddings(), "weight", None)
        if weight is None:
            raise ModelError(f"{self.name}: this architecture has no output matrix")
        return weight[list(ids)].float().cpu().numpy()

    def _take_slots(self, module: Any, args: Any, output: Any) -> Any:
        if self._slots is None:
            return output
        last = output.last_hidden_state
        index = self._slots.unsqueeze(-1).expand(-1, -1, last.shape[-1])
        self._taken = output.last_hidden_state = last.gather(1, index)
        return output

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
        return self._model.get_input_embeddings().weight.float().cpu().numpy()

    def _check(self) -> None:
        """Compare with the untouched model; do without the narrow head where it is not equal."""
        import torch

        some = [i for i in range(3, 8) if i != self._pad_id]
        ids = some if self.kind == "causal" else [*some[:2], self.slot_id or 0, *some[2:]]
        slot = len(ids) if self.kind == "causal" else 2
        step = Step((self.slot_id or 0,) if self.kind == "masked" else (), 1, ())
        probe = [Encoded(ids, slot, False)]
        inputs: dict[str, Any] = {"input_ids": torch.tensor([ids], device=self.device)}
        if self.kind == "seq2seq":
            said = [[self._start_id, self.slot_id]]
            inputs["decoder_input_ids"] = torch.tensor(said, device=self.device)
        at = {"masked": slot, "causal": slot - 1, "seq2seq": 1}[self.kind]
        with torch.inference_mode():
            plain = self._model(**inputs).logits[0, at].float()
        near = 1e-4 if self._model.dtype == torch.float32 else 3e-2
        scale = float(plain.abs().max()) + 1e-6

        def equal(columns: list[int] | None) -> bool:
            try:
                [(_, logits)] = self.run(probe, [step], columns)
            except (AttributeError, RuntimeError, TypeError):
                return False
            expected = plain if columns is None else plain[columns]
            return logits[0, 0].shape == expected.shape and bool(
                ((logits[0, 0] - expected).abs() <= near * scale).all()
            )

        if not (equal([5, 3]) and equal(None)):
            self._head = None
            if not (equal([5, 3]) and equal(None)):
                raise ModelError(
                    f"{self.name}: the architecture {type(self._model).__name__} is not supported; "
                    "its scores at the slot are not those of its ordinary forward pass"
                )


_NO_CACHE = {"use_cache": False}


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
