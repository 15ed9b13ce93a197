"""CPT: Blau et al. 2024, arXiv 2410.17222. Read in the authors' code, which is peft's.

Labelled examples stand in front of the text, as in in-context learning; the embeddings of all but
their labels are trained, each inside a small ball around where it was. One radius for texts and
templates, as in the code's defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fewfit.errors import ArtifactError
from fewfit.tuning.adapter import Adapter, Handle, check_names
from fewfit.tuning.choices import Encoded
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Rows, Run, TuningMethod, learn
from fewfit.tuning.packing import ChoiceBatch, Packer, fill_slots
from fewfit.tuning.prompts.prompt_tuning import Words
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


class Context(Adapter):
    """Embeddings of examples, each but the labels' moved by at most a radius.

    Parameters
    ----------
    E : Tensor of shape (V, H)
        The word embeddings.
    ids, label : Tensor of shape (n,), int64
        The context's tokens; 0 for a prompt's and i for the i-th label's.
    radius : float
        Of the ball, in the norm of an embedding.
    """

    def __init__(
        self, E: Tensor, ids: Tensor, label: Tensor, *, radius: float, packer: Packer, path: str
    ) -> None:
        super().__init__()
        self.packer, self.path, self.radius = packer, path, radius
        self._E = E
        self._set(ids, label, torch.zeros(int((label == 0).sum()), E.shape[1]))

    def _set(self, ids: Tensor, label: Tensor, delta: Tensor) -> None:
        self.register_buffer("ids", ids)
        self.register_buffer("label", label)
        self.delta = nn.Parameter(delta)

    def vectors(self) -> Tensor:
        """E_c + delta, (n, H)."""
        ids: Any = self.ids
        label: Any = self.label
        fixed = self._E.to(self.delta.device)[ids]
        return fixed.index_add(0, (label == 0).nonzero().flatten(), self.delta)

    def act(self, network: nn.Module) -> list[Handle]:
        n = len(self.ids)  # pyright: ignore[reportArgumentType]
        if not n:
            return []
        return [fill_slots(network, self.packer, self.path, lambda _: self.vectors(), n)]

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        n = len(self.ids)  # pyright: ignore[reportArgumentType]
        return self.packer.with_slots(batch, n) if n else batch

    @torch.no_grad()
    def after_step(self) -> None:
        """delta_i <- delta_i min(1, radius / |delta_i|)."""
        norm = self.delta.norm(dim=1, keepdim=True)
        self.delta.mul_((self.radius / norm.clamp(min=1e-30)).clamp(max=1.0))

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        check_names(self.state_dict(), tensors)
        ids, label, delta = (tensors[name] for name in ("ids", "label", "delta"))
        sound = (
            ids.ndim == label.ndim == 1
            and len(ids) == len(label)
            and not ids.is_floating_point()
            and not label.is_floating_point()
            and delta.shape == (int((label == 0).sum()), self._E.shape[1])
            and bool(((ids >= 0) & (ids < len(self._E))).all())
        )
        if not sound:
            raise ArtifactError("adapter: the context does not fit together, or is another model's")
        device = self.delta.device
        self._set(ids.to(device), label.to(device), delta.to(device))
        return self


@dataclass(frozen=True)
class CPT(TuningMethod):
    """Examples in front of the text, whose embeddings are trained but for their labels.

    Parameters
    ----------
    k : int, default=2
        Examples of each class, drawn from those that are trained on.
    eps : float, default=0.1
        Radius of the ball, times sqrt(H / 2048). 0 is in-context learning.
    decay : float, default=0.95
        gamma: the loss on the label of an example in the context has the weight gamma^i, if i
        labels come behind it, the text's own among them.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"causal"})
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    k: Annotated[int, Field(ge=1, le=256)] = 2
    eps: Annotated[float, Field(ge=0)] = 0.1
    decay: Annotated[float, Field(ge=0, le=1)] = 0.95

    @property
    def needs_wrong(self) -> bool:
        return False

    def build(self, base: Trunk, seed: int) -> Adapter:
        self.check_kind(base.kind)
        return self._around(base, [], [])

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run = self.named(run)
        if run.start is not None:
            adapter = self.fresh(base, run)
        else:
            adapter = self._around(base, *self.context(base, data.rows, run.seed)).to(base.device)
        encoded = encode_rows(base, data.rows, only_answer=True)
        learn(base, adapter, encoded, self._loss(base, adapter), run, self.recipe)
        return adapter

    def context(self, base: Trunk, rows: Rows, seed: int) -> tuple[list[int], list[int]]:
        """Return the tokens of k examples of each class, in a drawn order, and whose label each is.

        Raises
        ------
        InputError
            If they leave no position for a text.
        """
        by_class: dict[int, list[int]] = {}
        order = np.random.default_rng([seed, len(rows)]).permutation(len(rows)).tolist()
        for i in order:
            by_class.setdefault(rows[i][0].answer, []).append(i)
        chosen = {i for own in by_class.values() for i in own[: self.k]}
        items = [base.encoder.encode(rows[i][0], only_answer=True) for i in order if i in chosen]
        ids: list[int] = []
        label: list[int] = []
        separator = base.tokenizer("\n\n", add_special_tokens=False)["input_ids"]
        for number, item in enumerate(items, 1):
            before, said = _parts(item, base.pack.lead)
            ids += [*before, *said, *separator]
            label += [*[0] * len(before), *[number] * len(said), *[-1] * len(separator)]
        base.make_room(len(ids) + 1)
        return ids, label

    def _around(self, base: Trunk, ids: Sequence[int], label: Sequence[int]) -> Adapter:
        words = Words.of(base)
        return Context(
            words.E,
            torch.tensor(ids, dtype=torch.long),
            torch.tensor(label, dtype=torch.long),
            radius=self.eps * math.sqrt(words.E.shape[1] / 2048),
            packer=base.pack,
            path=words.path,
        )

    def _loss(self, base: Trunk, adapter: Any) -> Loss:
        def loss(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
            own = -tokens.log_probs  # of the answers alone
            each, weights = context_losses(base, adapter, self.decay)
            # Every row reads the same context, which does not see the row.
            n = len(own) + len(rows) * len(each)
            return (own.sum() + len(rows) * (weights * each).sum()) / n

        return loss


def context_losses(base: Trunk, adapter: Context, decay: float) -> tuple[Tensor, Tensor]:
    """Return the losses of the label tokens in the context, and their weights, (tokens,)."""
    ids: Any = adapter.ids
    label: Any = adapter.label
    at = (label > 0).nonzero().flatten()
    at = at[at > 0]
    vectors = adapter.vectors().to(base.network.dtype)
    adapter.detach()  # whose slots this forward pass has not
    try:
        output = base.network(inputs_embeds=vectors[None], use_cache=False)
    finally:
        adapter.attach(base.network)
    logits = output.logits[0, at - 1].float()
    each = cross_entropy(logits, ids[at], reduction="none")
    behind = int(label.max()) + 1 - label[at]
    return each, decay ** behind.to(each)


def _parts(item: Encoded, prefix: int) -> tuple[list[int], list[int]]:
    return list(item.before[prefix:]), list(item.choices[0])
