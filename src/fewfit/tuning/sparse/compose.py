"""Sums of sparse deltas: Ansell et al., ACL 2022, arXiv 2110.07560, section 3.

theta_0 + phi_1 + phi_2: a task's scalars and a language's, or a domain's, learnt apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.artifact import (
    MANIFEST,
    CostEntry,
    check_base,
    load_adapter,
    restore,
    save_adapter,
)
from fewfit.tuning.method import Data, TuningMethod
from fewfit.tuning.sites_file import layout_from
from fewfit.tuning.sparse.delta import SparseDelta
from fewfit.tuning.sparse.own import OwnScalars
from fewfit.tuning.trunk import Trunk
from fewfit.tuning.words import Reading


@dataclass(frozen=True)
class Composed(TuningMethod):
    """What a composed artifact is of; nothing is trained.

    Parameters
    ----------
    of : tuple of str
        sha256 of the tensors of each part.
    """

    reading: ClassVar[Reading] = "words"

    of: tuple[str, ...]

    def build(self, base: Trunk, seed: int) -> Adapter:
        adapter = OwnScalars(base.network, {})
        adapter.flexible = True
        return adapter

    def check(self, base: Trunk, data: Data) -> None:
        raise InputError("composed: it is made of artifacts, by 'fewfit compose', and not trained")


def compose(base: Trunk, folders: Sequence[str | Path], output: str | Path) -> OwnScalars:
    """Add up the changes that artifacts make to a network's own weights, and write an artifact.

    Where two change the same scalar, their changes add up. The task, its template and answers, is
    the first one's.

    Parameters
    ----------
    base : Trunk
        The network that all of them were tuned on.
    folders : sequence of path
        Two or more.
    output : path
        Folder for the sum.

    Returns
    -------
    OwnScalars

    Raises
    ------
    InputError
        If an artifact is no change of weights, or the output is one of them.
    ModelMismatchError
        If one is of another network.
    """
    if len(folders) < 2:
        raise InputError("compose: name two artifacts or more")
    if Path(output).resolve() in {Path(folder).resolve() for folder in folders}:
        raise InputError(f"compose: {output} is one of the artifacts; name another folder")
    read = [load_adapter(folder) for folder in folders]
    theta_0 = dict(base.network.named_parameters())
    total: SparseDelta | None = None
    for folder, (manifest, tensors) in zip(folders, read, strict=True):
        same = base.reads("words" if manifest.base_identity.get("reading") else "answers")
        check_base(manifest, same.identity)
        if manifest.sites is not None:
            same = same.described(layout_from(manifest.sites, str(Path(folder) / MANIFEST)))
        adapter = restore(manifest, tensors, same)
        if not isinstance(adapter, OwnScalars):
            raise InputError(
                f"compose: {folder} ({manifest.method}) is no change of the network's own scalars; "
                "only those add up"
            )
        delta = _delta(adapter, theta_0)
        total = delta if total is None else total + delta
    assert total is not None
    first = read[0][0]
    made = Composed(tuple(next(iter(m.files.values())) for m, _ in read))
    kept = made.build(base, 0).restore(
        {f"index.{n}": index for n, index in total.index.items()}
        | {f"value.{n}": value for n, value in total.value.items()}
    )
    assert isinstance(kept, OwnScalars)
    save_adapter(
        output,
        kept,
        method=made,
        base_spec=first.base_spec,
        base_identity=first.base_identity,
        recipe=first.recipe,
        n_examples=sum(manifest.n_examples for manifest, _ in read),
        task=first.task,
        costs=_together([manifest.costs for manifest, _ in read]),
    )
    return kept


def _together(costs: Sequence[CostEntry | None]) -> CostEntry | None:
    """What all trainings took; None where that of one is not known."""
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None

    def of(name: str, join: Callable[[list[Any]], Any]) -> Any:
        each = [getattr(cost, name) for cost in known]
        return None if None in each else join(each)

    summed = {name: of(name, sum) for name in ("training_flops", "seconds", "steps")}
    largest = {name: of(name, max) for name in ("saved_bytes", "optimizer_bytes")}
    return known[0].model_copy(update=summed | largest)


def _delta(adapter: OwnScalars, theta_0: Mapping[str, Tensor]) -> SparseDelta:
    """What an adapter changes, and what stood there, float32: the sum alone is rounded."""
    index: dict[str, Tensor] = {}
    value: dict[str, Tensor] = {}
    was: dict[str, Tensor] = {}
    for name, new in adapter.value.items():
        flat = theta_0[name].detach().flatten().float().cpu()
        at = adapter.index.get(name)
        old = flat if at is None else flat[at]
        now = new.detach().cpu()
        moved = (now != old).nonzero().flatten()
        if len(moved):
            index[name] = moved if at is None else at[moved]
            value[name], was[name] = now[moved], old[moved]
    return SparseDelta(index, value, was)
