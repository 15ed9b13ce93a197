"""(IA)^3: learned vectors that scale keys, values and the feed-forward's hidden activation.

Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", NeurIPS 2022, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.method import TuningMethod
from fewfit.tuning.sites import Site, SiteMap, feature_axis, features
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading

PARTS = ("self.k", "self.v", "cross.k", "cross.v", "ffn.hidden")


class IA3(Adapter):
    """The vectors l_k, l_v and l_ff of one or several tasks.

    attention: softmax(Q (l_k * K)^T) (l_v * V); feed-forward: (l_ff * act(W_1 x)) W_2.

    l_ff sits on the input of W_2, hence after the activation, gated or not. For a gated layer this
    equals the original code, which scales the linear branch.

    Parameters
    ----------
    sites : SiteMap
        Of the network that the vectors are for.
    n_tasks : int, default=1
        How many sets of vectors there are. All start at one, which leaves the network as it is, bit
        for bit.

    Attributes
    ----------
    sites : tuple of Site
        Where the vectors sit: 3 for each block, 5 for a block with cross-attention.

    Examples
    --------
    >>> from transformers import T5Config, T5ForConditionalGeneration
    >>> from fewfit.tuning import IA3, site_map
    >>> config = T5Config(num_layers=1, num_heads=2, d_kv=4, d_ff=16, d_model=8, vocab_size=9)
    >>> IA3(site_map(T5ForConditionalGeneration(config))).count  # 3 x 8 + 3 x 8 + 2 x 16 - 2 x 4
    80
    """

    mergeable = True

    def __init__(self, sites: SiteMap, *, n_tasks: int = 1) -> None:
        super().__init__()
        if n_tasks < 1:
            raise InputError(f"n_tasks is at least 1, not {n_tasks}")
        self.sites = sites.select(*PARTS)
        self.n_tasks = n_tasks
        self.vectors = nn.ParameterList(
            nn.Parameter(torch.ones(site.size)) for _ in range(n_tasks) for site in self.sites
        )
        self._rows: list[Tensor] | None = None
        self._n_rows = 0

    @property
    def count(self) -> int:
        """Number of values of one task."""
        return sum(site.size for site in self.sites)

    def parts(self, network: nn.Module) -> dict[str, nn.Parameter]:
        return self.of()

    def tensors(self) -> dict[str, Tensor]:
        return {name: v.detach().to("cpu", copy=True).contiguous() for name, v in self.of().items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        try:
            self.set(tensors)
        except InputError as error:
            raise ArtifactError(str(error)) from error
        return self

    def of(self, task: int = 0) -> dict[str, nn.Parameter]:
        """Return the vectors of one task by the name of their site, each of shape (site.size,)."""
        first = task * len(self.sites)
        return {site.name: self.vectors[first + i] for i, site in enumerate(self.sites)}

    @torch.no_grad()
    def set(self, vectors: Mapping[str, Tensor], task: int = 0) -> None:
        """Copy vectors into one task.

        Raises
        ------
        InputError
            If the names or sizes are not those of :attr:`sites`.
        """
        mine = self.of(task)
        missing, strange = sorted(mine.keys() - vectors.keys()), sorted(vectors.keys() - mine)
        if missing or strange:
            raise InputError(
                f"vectors: these are for another model: {len(missing)} of its {len(mine)} sites "
                f"have none (first {missing[:1]}), {len(strange)} have no site (first "
                f"{strange[:1]})"
            )
        for name, parameter in mine.items():
            if vectors[name].shape != parameter.shape:
                raise InputError(
                    f"vectors: {name} has shape {tuple(vectors[name].shape)}, but this model needs "
                    f"{tuple(parameter.shape)}; these are for another model"
                )
            parameter.copy_(vectors[name])

    def act(self, network: nn.Module) -> list[Handle]:
        handles: list[Handle] = []
        by_layer: dict[tuple[str, str], list[int]] = {}
        for i, site in enumerate(self.sites):
            by_layer.setdefault((site.module, site.side), []).append(i)
        for (path, side), members in by_layer.items():
            layer = network.get_submodule(path)
            whole = features(layer, side)  # pyright: ignore[reportArgumentType]
            if side == "output":

                def after(_: Any, __: Any, y: Tensor, members: Any = members, whole: Any = whole):
                    return y * self._scale(members, whole, y)

                handles.append(layer.register_forward_hook(after))
            else:

                def before(_: Any, args: Any, members: Any = members, whole: Any = whole):
                    return (args[0] * self._scale(members, whole, args[0]), *args[1:])

                handles.append(layer.register_forward_pre_hook(before))
        return handles

    @contextmanager
    def rows(self, tasks: Sequence[int] | Tensor) -> Iterator[None]:
        """Let row b of the batches inside the block use the vectors of task ``tasks[b]``.

        Outside, every row uses those of task 0.

        Raises
        ------
        InputError
            For a task that does not exist, or a batch of another number of rows.
        """
        index = torch.as_tensor(tasks, dtype=torch.long)
        if index.ndim != 1 or not len(index):
            raise InputError("tasks: one task per row of the batch is needed")
        if int(index.min()) < 0 or int(index.max()) >= self.n_tasks:
            raise InputError(f"tasks: {index.tolist()} are not all below n_tasks = {self.n_tasks}")
        n = len(self.sites)
        index = index.to(self.vectors[0].device)
        every = torch.cat([*self.vectors]).view(self.n_tasks, self.count)
        parts = every[index].split([site.size for site in self.sites], dim=1)
        before = self._rows, self._n_rows
        self._rows, self._n_rows = [part.unsqueeze(1) for part in parts[:n]], len(index)
        try:
            yield
        finally:
            self._rows, self._n_rows = before

    @torch.no_grad()
    def merge(self, network: nn.Module, task: int = 0) -> None:
        """Multiply the vectors into the network's own weights and biases, for good.

        l * (W x + b) = (diag(l) W) x + l * b on the output of a layer, W (l * x) = (W diag(l)) x on
        its input. The vectors must not be attached at the same time.
        """
        if self.attached:
            raise InputError(
                "merge: the vectors are attached; detach them first, or they act twice"
            )
        for site, vector in zip(self.sites, self.of(task).values(), strict=True):
            layer: Any = network.get_submodule(site.module)
            axis = feature_axis(layer, site.side)
            scale = vector.to(layer.weight.device, layer.weight.dtype)
            layer.weight[(slice(None),) * axis + (site.where,)] *= scale.unsqueeze(1 - axis)
            if site.side == "output" and layer.bias is not None:
                layer.bias[site.where] *= scale

    def _scale(self, members: Sequence[int], whole: int, x: Tensor) -> Tensor:
        """The factors of all features of one side of a layer, ones where no vector sits."""
        if self._rows is None:
            parts = [self.vectors[i] for i in members]
        else:
            if x.shape[0] != self._n_rows:
                raise InputError(
                    f"tasks: {self._n_rows} were given for a batch of {x.shape[0]} rows"
                )
            parts = [self._rows[i] for i in members]
        if len(parts) == 1 and parts[0].shape[-1] == whole:
            return parts[0].to(x.dtype)
        return _filled([self.sites[i] for i in members], parts, whole).to(x.dtype)


@dataclass(frozen=True)
class ScaledActivations(TuningMethod):
    """(IA)^3: vectors on keys, values and the feed-forward's hidden activation, all ones at first.

    Trained with the losses of T-Few.
    """

    reading: ClassVar[Reading] = "answers"

    def build(self, base: Trunk, seed: int) -> IA3:
        return IA3(base.sites)


def _filled(sites: Sequence[Site], parts: Sequence[Tensor], whole: int) -> Tensor:
    every = parts[0].new_ones(*parts[0].shape[:-1], whole)
    for site, part in zip(sites, parts, strict=True):
        every[..., site.where] = part
    return every
