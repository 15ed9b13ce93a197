"""One site of a network: an activation that can be read or changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from torch import Tensor


class Site(NamedTuple):
    """An activation: one side of a module, or some features of it.

    Attributes
    ----------
    name : str
        ``"<stack>.<block>.<part>"``, the same for every architecture; the parts are

        - ``self.in``: what the queries are made of; ``self.q``, ``self.k``, ``self.v``,
          ``self.o``: what these linear layers write; ``self.context``: what ``o`` reads, the
          heads' sums of values; ``self.sublayer``: what is added to the residual stream, behind a
          norm where there is one. The same with ``cross``.
        - ``ffn.in``, ``ffn.hidden``, ``ffn.out``: what the feed-forward reads, its hidden
          activation, and what its last layer writes; ``ffn.sublayer`` as above.
        - ``block``: what the block writes. ``norm.0``, ``norm.1``, ...: what its norms of the
          residual stream's width write.

        Without a block there is ``"<stack>.embeddings"``: the token embeddings that the stack
        reads.
    module : str
        Path of the module: a linear layer, but for the last line of the list, ``embeddings``, and
        ``sublayer`` behind a norm or of experts.
    side : {"input", "output"}
    start, size : int
        Where the features of that side begin, and how many there are.
    run, every : int, default=0
        Where a fused layer computes the parts head by head: so many features together, again so
        many features after the last time. 0: all together.
    """

    name: str
    module: str
    side: Literal["input", "output"]
    start: int
    size: int
    run: int = 0
    every: int = 0

    @property
    def part(self) -> str:
        """The name without stack and block."""
        return self.name.split(".", 2)[-1]

    @property
    def where(self) -> slice | list[int]:
        """Which features: ``x[..., site.where]`` for an activation or bias."""
        if not self.run:
            return slice(self.start, self.start + self.size)
        heads = range(self.start, self.start + self.size // self.run * self.every, self.every)
        return [first + i for first in heads for i in range(self.run)]


def hook(network: Any, site: Site, change: Callable[[Tensor], Tensor | None]) -> Any:
    """Call `change` with the site's features whenever they are computed, until ``remove()``.

    Parameters
    ----------
    network : torch.nn.Module
    site : Site
    change : callable
        From features of shape (..., site.size) to what takes their place, or to None, which leaves
        them as they are.

    Returns
    -------
    torch.utils.hooks.RemovableHandle
    """
    module = network.get_submodule(site.module)

    def changed(x: Tensor) -> Tensor | None:
        if x.shape[-1] == site.size:
            return change(x)
        new = change(x[..., site.where])
        if new is None:
            return None
        x = x.clone()
        x[..., site.where] = new.to(x.dtype)
        return x

    def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if args:
            new = changed(args[0])
            return None if new is None else ((new, *args[1:]), named)
        first = next(iter(named))
        new = changed(named[first])
        return None if new is None else (args, {**named, first: new})

    def after(_: Any, __: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return changed(output)
        new = changed(output[0])
        return None if new is None else (new, *output[1:])

    if site.side == "output":
        return module.register_forward_hook(after)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def features(layer: Any, side: Literal["input", "output"]) -> int:
    """Return how many features a linear layer reads or writes."""
    return layer.weight.shape[feature_axis(layer, side)]


def feature_axis(layer: Any, side: Literal["input", "output"]) -> int:
    """Return the axis of the layer's weight that belongs to its input or output.

    GPT-2's ``Conv1D`` keeps its weight transposed.
    """
    transposed = type(layer).__name__ == "Conv1D"
    return int((side == "input") != transposed)
