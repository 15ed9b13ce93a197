"""From the tokens of texts to one vector of each, as the layout of a checkpoint says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelError
from fewfit.models.local.batching import pad
from fewfit.models.local.layout import Layout
from fewfit.models.local.network import check_ids, padding
from fewfit.models.local.texts import Encoded


class VectorNetwork:
    """A network that makes one vector of a text, as a layout says.

    Attributes
    ----------
    pads : bool
        Whether texts of unequal length may be padded to one batch.
    pad_id : int
    """

    def __init__(
        self, network: Any, layout: Layout, name: str, folders: Sequence[Path] = ()
    ) -> None:
        self.network, self._layout, self._name = network, layout, name
        self.pad_id = padding(network, None)
        dense = zip(folders, layout.dense, strict=True)
        self._dense = [_DenseLayer.load(folder, d.activation, name) for folder, d in dense]
        n = len(network.get_input_embeddings().weight)
        some = [i for i in range(3, 9) if i != self.pad_id and i < n]
        probes = [Encoded(some, 0, False), Encoded(some[:2], 0, False)]
        alone = np.concatenate([self.vectors([item]) for item in probes])
        near = 1e-4 if str(network.dtype) == "torch.float32" else 3e-2
        gap = np.abs(self.vectors(probes) - alone).max()
        self.pads = bool(gap <= near * (np.abs(alone).max() + 1e-6))

    def vectors(self, items: Sequence[Encoded]) -> NDArray[np.float32]:
        """Return one vector of each text, shape (N, H)."""
        import torch

        check_ids(items, len(self.network.get_input_embeddings().weight), self._name)
        ids, mask = pad([item.ids for item in items], self.pad_id)
        device = self.network.device
        with torch.inference_mode():
            return self(ids.to(device), mask.to(device)).cpu().numpy()

    def __call__(self, ids: Any, mask: Any) -> Any:
        """Return one vector of each row, a tensor (N, H), float32, that gradients pass through.

        Parameters
        ----------
        ids, mask : Tensor of shape (N, T), int64
            Padded on the right.
        """
        import torch

        last = self.network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = [pool(mode, last, mask) for mode in self._layout.pooling]
        vectors = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
        for layer in self._dense:
            vectors = layer(vectors)
        if self._layout.normalise:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors


class _DenseLayer(NamedTuple):
    weight: Any
    bias: Any
    function: Any

    @classmethod
    def load(cls, folder: Path, activation: str, name: str) -> _DenseLayer:
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(folder / "model.safetensors")
            weight, bias = tensors["linear.weight"].float(), tensors.get("linear.bias")
        except (OSError, SafetensorError, KeyError) as error:
            raise ModelError(
                f"{name}: the dense layer in {folder.name} has no readable model.safetensors; save "
                "the model again with sentence-transformers"
            ) from error
        return cls(weight, None if bias is None else bias.float(), getattr(torch.nn, activation)())

    def __call__(self, vectors: Any) -> Any:
        import torch

        weight = self.weight.to(vectors.device)
        bias = None if self.bias is None else self.bias.to(vectors.device)
        return self.function(torch.nn.functional.linear(vectors, weight, bias))


def pool(mode: str, last: Any, mask: Any) -> Any:
    """Make one vector of the states of a text's tokens.

    Parameters
    ----------
    mode : str
        One of :data:`fewfit.models.local.layout.POOLINGS`.
    last : Tensor of shape (N, T, H)
    mask : Tensor of shape (N, T), int64
        1 where there is a token; padding is on the right.

    Returns
    -------
    Tensor of shape (N, H)
    """
    import torch

    if mode == "cls":
        return last[:, 0]
    if mode == "lasttoken":
        return last[torch.arange(len(last), device=last.device), mask.sum(dim=1) - 1]
    weight = mask.unsqueeze(-1).to(last.dtype)
    if mode == "max":
        return last.masked_fill(weight == 0, -torch.inf).amax(dim=1)
    if mode == "weightedmean":
        places = torch.arange(1, last.shape[1] + 1, device=last.device, dtype=last.dtype)
        weight = weight * places[None, :, None]
    total, count = (last * weight).sum(dim=1), weight.sum(dim=1)
    return total / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
