"""DSEE: Chen et al., ACL 2023, arXiv 2111.00160. Read in the authors' code.

A change of the queries' and values' weights of low rank and a few scalars, and a network that is
sparse with it: W' = S_1 (W + (alpha / r) (U V + S_2)). The scalars of S_2 are where W is farthest
from a matrix of low rank. Theirs keeps of the rest what is above 0.01, whatever the scale of the
weights; here so many are kept as S_2 has. S_1 is on W alone in theirs; here nothing grows back.
What is pruned in structures has the smallest norms; theirs trains coefficients for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from fewfit.errors import ArtifactError, InputError
from fewfit.tuning.adapter import Adapter, Handle
from fewfit.tuning.attention import attention_sites
from fewfit.tuning.method import Data, Run, TuningMethod, learn
from fewfit.tuning.selector import Masks, top_k
from fewfit.tuning.site import Site, feature_axis
from fewfit.tuning.sparse.delta import check_index, gaps_of, index_of
from fewfit.tuning.sparse.own import put
from fewfit.tuning.sparse.weights import weights_of
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

ROUNDS = 20
"""Of the decomposition."""

PARTS = ("self.q", "self.v", "cross.q", "cross.v")


@dataclass(frozen=True)
class DSEE(TuningMethod):
    """Low-rank and sparse changes of queries and values, and a share of the weights that is zero.

    Parameters
    ----------
    rank : int, default=8
        r; 16 in the paper.
    alpha : float, default=8
    n : int, default=64
        Scalars of S_2 in each matrix; 0 leaves LoRA.
    prune : float, default=0
        Share of the blocks' matrices that becomes zero after the training, over all of them the
        smallest; what is left is trained again, for as many steps. 0 prunes nothing.
    structured : bool, default=False
        Whether instead that share of each block's heads and hidden features is pruned, whole.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    alpha: Annotated[float, Field(gt=0)] = 8.0
    n: Annotated[int, Field(ge=0)] = 64
    prune: Annotated[float, Field(ge=0, lt=1)] = 0.0
    structured: bool = False

    def build(self, base: Trunk, seed: int) -> Adapter:
        weights_of(base)  # refuses those that are quantised
        g = torch.Generator().manual_seed(seed)
        sites = [s for s in base.sites.sites.values() if s.part in PARTS]
        dual = Dual(base.network, sites, self.rank, self.alpha / self.rank, self.n, g)
        dual.prunes = bool(self.prune)
        return dual

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, loss = self.named(run), self.loss(base, data.rows)
        adapter: Any = self.fresh(base, run)
        if not self.prune:
            learn(base, adapter, data.rows, loss, run, self.recipe)
            return adapter
        learn(base, adapter, data.rows, loss, run.part("dense"), self.recipe)
        weights = weights_of(base)
        now = {n: adapter.weight(n, w) for n, w in weights.items()}
        adapter.pruned = self._pruned(base, now)
        learn(base, adapter, data.rows, loss, run, self.recipe)
        return adapter

    def trainings(self, n_templates: int) -> int:
        return 1 + (self.prune > 0)

    def check(self, base: Trunk, data: Data) -> None:
        super().check(base, data)
        if self.prune:  # whether it is one at all, before the first training
            self._pruned(base, {name: w.float() for name, w in weights_of(base).items()})

    def _pruned(self, base: Trunk, weights: Mapping[str, Tensor]) -> Masks:
        return (whole if self.structured else smallest)(base, weights, self.prune)


class Dual(Adapter):
    """W' = S_1 (W + scale (U V + S_2)) for some of a network's matrices, W is left as it is.

    Parameters
    ----------
    network : Module
    sites : sequence of Site
        Outputs of linear layers, each with a U (out, r), which is 0 at first, and a V (r, in).
    r : int
    scale : float
    n : int
        Scalars of S_2 for each, 0 at first.
    generator : torch.Generator

    Attributes
    ----------
    index : dict of str to Tensor of shape (n,)
        Omega: where S_2 is, in the flattened (out, in) of a site.
    pruned : dict of str to Tensor
        1 - S_1, for some of the network's parameters; empty at first.
    prunes : bool
        Whether :meth:`restore` wants some.
    """

    mergeable = True

    def __init__(
        self,
        network: nn.Module,
        sites: list[Site],
        r: int,
        scale: float,
        n: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.scale, self.prunes = scale, False
        self.sites = {site.name: site for site in sites}
        self.layers: dict[str, Any] = {s.module: network.get_submodule(s.module) for s in sites}
        self._shapes = {name: p.shape for name, p in network.named_parameters()}
        self.U, self.V, self.S = nn.ParameterDict(), nn.ParameterDict(), nn.ParameterDict()
        self.index: dict[str, Tensor] = {}
        self.pruned: Masks = {}
        self._kept: dict[str, tuple[nn.Parameter, Tensor]] = {}
        for site in sites:
            W = self._own(site, self.layers[site.module].weight.detach()).float().cpu()
            rank = min(r, *W.shape)
            V = torch.randn(rank, W.shape[1], generator=generator)
            self.U[_key(site.name)] = nn.Parameter(torch.zeros(len(W), rank))
            self.V[_key(site.name)] = nn.Parameter(0.02 * V)
            if n:
                self.index[site.name] = farthest(W, V, min(n, W.numel()))
                self.S[_key(site.name)] = nn.Parameter(torch.zeros(len(self.index[site.name])))

    def _own(self, site: Site, weight: Tensor) -> Tensor:
        """Return a site's part of its layer's weight, or of its gradient, as (out, in)."""
        transposed = feature_axis(self.layers[site.module], "output") == 1
        return (weight.T if transposed else weight)[site.where]

    def change(self, name: str) -> Tensor:
        """Return U V + S_2 of a site, times the scale, (out, in)."""
        delta = self.U[_key(name)] @ self.V[_key(name)]
        if name in self.index:
            at = self.index[name].to(delta.device)
            delta = delta.flatten().index_add(0, at, self.S[_key(name)]).view(delta.shape)
        return self.scale * delta

    @torch.no_grad()
    def weight(self, parameter: str, W: Tensor) -> Tensor:
        """Return W' of one of the network's parameters, float32."""
        new = W.detach().float().clone()
        for name, site in self.sites.items():
            if parameter == f"{site.module}.weight":
                turned = new.T if feature_axis(self.layers[site.module], "output") == 1 else new
                turned[site.where] += self.change(name).to(new.device)
        if parameter in self.pruned:
            new[self.pruned[parameter].to(new.device)] = 0
        return new

    def act(self, network: nn.Module) -> list[Handle]:
        changed = {f"{site.module}.weight" for site in self.sites.values()}
        named = dict(network.named_parameters())
        names = [name for name in named if name in changed or name in self.pruned]
        self._kept = {name: (named[name], named[name].detach().clone()) for name in names}
        self.after_step()
        handles: list[Any] = [_Back(self._kept)]
        for name in names:
            if name in changed:
                named[name].requires_grad_(True)
                handles.append(named[name].register_post_accumulate_grad_hook(self._take(name)))
        return handles

    def after_step(self) -> None:
        for name, (parameter, W) in self._kept.items():
            put({name: parameter}, {}, {name: self.weight(name, W)})

    def merge(self, network: nn.Module) -> None:
        for name, parameter in network.named_parameters():
            if name in self.pruned or any(
                name == f"{s.module}.weight" for s in self.sites.values()
            ):
                put({name: parameter}, {}, {name: self.weight(name, parameter)})

    def _take(self, parameter: str) -> Any:
        def take(weight: nn.Parameter) -> None:
            """Hand the gradient on to U, V and S_2; of what is pruned there is none."""
            assert weight.grad is not None
            grad = weight.grad.float()
            if parameter in self.pruned:
                grad = grad.masked_fill(self.pruned[parameter].to(grad.device), 0)
            weight.grad = None
            for name, site in self.sites.items():
                if parameter == f"{site.module}.weight":
                    with torch.enable_grad():  # off inside a backward pass
                        change = self.change(name)
                    torch.autograd.backward(change, self._own(site, grad))

        return take

    def tensors(self) -> dict[str, Tensor]:
        gaps = {f"gaps.{name}": gaps_of(at) for name, at in self.index.items()}
        flat = {n: mask.flatten().nonzero().flatten().cpu() for n, mask in self.pruned.items()}
        return super().tensors() | gaps | {f"pruned.{n}": gaps_of(at) for n, at in flat.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        pruned = {n[7:]: index_of(t) for n, t in tensors.items() if n.startswith("pruned.")}
        gaps = {n[5:]: index_of(t) for n, t in tensors.items() if n.startswith("gaps.")}
        rest = {n: t for n, t in tensors.items() if not n.startswith(("pruned.", "gaps."))}
        strange = [*(pruned.keys() - self._shapes.keys()), *(gaps.keys() ^ self.index.keys())]
        if self.pruned:  # restored once already
            strange += pruned.keys() ^ self.pruned.keys()
        if strange or (self.prunes and not pruned):
            raise ArtifactError(
                f"adapter: {strange[0]!r} is of another model or other options"
                if strange
                else "adapter: these options prune, and what is pruned is not there"
            )
        super().restore(rest)
        for name, at in gaps.items():
            check_index(name, at, self.S[_key(name)], self._sizes(name))
        for name, at in pruned.items():
            check_index(name, at, torch.zeros(at.shape), math.prod(self._shapes[name]))
        self.index = gaps
        self.pruned = {n: _mask(self._shapes[n], at) for n, at in pruned.items()}
        return self

    def _sizes(self, name: str) -> int:
        return len(self.U[_key(name)]) * self.V[_key(name)].shape[1]


class _Back:
    """Puts the weights back, bit for bit, and freezes them."""

    def __init__(self, kept: dict[str, tuple[nn.Parameter, Tensor]]) -> None:
        self.kept = kept

    def remove(self) -> None:
        for name, (parameter, W) in self.kept.items():
            put({name: parameter}, {}, {name: W})
            parameter.requires_grad_(False)
            parameter.grad = None
        self.kept.clear()


def farthest(W: Tensor, V: Tensor, n: int) -> Tensor:
    """Return where the n scalars are by which W is farthest from low rank, ascending.

    W = U V + S + rest in turns: U spans what V sees of W - S, V is what U sees of it, and S is the
    n largest of W - U V (Zhou & Tao, ICML 2011).

    Parameters
    ----------
    W : Tensor of shape (out, in)
    V : Tensor of shape (r, in)
        To begin with.
    n : int
    """
    S = torch.zeros_like(W)
    at = torch.zeros(0, dtype=torch.int64)
    for _ in range(ROUNDS):
        U = torch.linalg.qr((W - S) @ V.T).Q
        V = U.T @ (W - S)
        rest = (W - U @ V).flatten()
        at = rest.abs().topk(n).indices.sort().values
        S = torch.zeros_like(rest).index_copy(0, at, rest[at]).view(W.shape)
    return at


def smallest(base: Trunk, weights: Mapping[str, Tensor], share: float) -> Masks:
    """Return the share of all scalars with the smallest absolute values, over all parameters."""
    total = sum(w.numel() for w in weights.values())
    if share * total < 1:
        raise InputError(f"prune: {share} of {total:,} scalars is not one")
    return top_k({n: -w.abs().cpu() for n, w in weights.items()}, round(share * total))


def whole(base: Trunk, weights: Mapping[str, Tensor], share: float) -> Masks:
    """Return what heads and hidden features write, the share of each block with the least norm.

    A head or feature of which nothing is read may as well not be there: :func:`slim` takes it out.
    """
    found: Masks = {}
    sizes = {name: site.size for name, site in attention_sites(base.network, base.sites).items()}
    parts = ("self.context", "cross.context", "ffn.hidden")
    sites = [site for part in parts for site in base.sites.sites.values() if site.part == part]
    base.sites.select("ffn.hidden")  # says why, where there is none
    for site in sites:
        layer, name = base.network.get_submodule(site.module), f"{site.module}.weight"
        each = sizes.get(site.name.removesuffix(".context"), 1)
        axis = feature_axis(layer, "input")
        W = weights[name].movedim(axis, 0).cpu()
        norms = W.reshape(len(W) // each, -1).norm(dim=1)
        least = norms.argsort(stable=True)[: int(share * len(norms))]
        gone = torch.zeros(len(norms), dtype=torch.bool).index_fill(0, least, True)
        mask = gone.repeat_interleave(each)[:, None].expand(W.shape).movedim(0, axis)
        if gone.any():
            found[name] = mask.clone()
    if not found:
        raise InputError(f"prune: {share} of a block's heads, or hidden features, is not one")
    return found


def _mask(shape: torch.Size, at: Tensor) -> Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask.view(-1)[at] = True
    return mask


def _key(name: str) -> str:
    return name.replace(".", "/")
