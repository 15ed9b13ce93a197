"""CPT: Blau et al. 2024, arXiv 2410.17222. Read in the authors' code, which is peft's.

Labelled examples stand in front of the text, as in in-context learning; the embeddings of all but
their labels are trained, each inside a small ball around where it was. Not to read itself in the
context is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from fewfit.models.local.cutting import joined
from fewfit.prompts import Prompt
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Rows, Run, TuningMethod, learn
from fewfit.tuning.prompts.context import SEPARATOR, TEMPLATE, TEXT, Context
from fewfit.tuning.prompts.prompt_tuning import Words
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


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
    eps_template : float, optional
        Radius of the ball for the template's own tokens. Left out, `eps`.
    leave_one_out : bool, default=False
        Whether, in training, a row does not see the examples that are made of it. The loss on the
        labels in the context stays that of the whole context.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"causal"})
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", learning_rate=1e-3)

    k: Annotated[int, Field(ge=1, le=256)] = 2
    eps: Annotated[float, Field(ge=0)] = 0.1
    decay: Annotated[float, Field(ge=0, le=1)] = 0.95
    eps_template: Annotated[float, Field(ge=0)] | None = None
    leave_one_out: bool = False

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
            adapter: Any = self.fresh(base, run)
        else:
            adapter = self._around(base, *self.context(base, data.rows, run.seed)).to(base.device)
        encoded = encode_rows(base, data.rows, only_answer=True)
        with adapter.blind(encoded) if self.leave_one_out else nullcontext():
            learn(base, adapter, encoded, self._loss(base, adapter), run, self.recipe)
        return adapter

    def context(self, base: Trunk, rows: Rows, seed: int) -> tuple[list[int], list[int]]:
        """Return the tokens of k examples of each class, in a drawn order, and what each is.

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
        ids: list[int] = []
        label: list[int] = []
        separator = base.tokenizer("\n\n", add_special_tokens=False)["input_ids"]
        for number, i in enumerate((i for i in order if i in chosen), 1):
            item = base.encoder.encode(rows[i][0], only_answer=True)
            before, said = item.before[base.pack.lead :], item.choices[0]
            ids += [*before, *said, *separator]
            label += _kinds(base, rows[i][0].prompt, before)
            label += [*[number] * len(said), *[SEPARATOR] * len(separator)]
        base.make_room(len(ids) + 1)
        return ids, label

    def _around(self, base: Trunk, ids: Sequence[int], label: Sequence[int]) -> Adapter:
        words = Words.of(base)
        template = self.eps if self.eps_template is None else self.eps_template
        scale = math.sqrt(words.E.shape[1] / 2048)
        return Context(
            words.E,
            torch.tensor(ids, dtype=torch.long),
            torch.tensor(label, dtype=torch.long),
            radii=(self.eps * scale, template * scale),
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


def _kinds(base: Trunk, prompt: Prompt, ids: Sequence[int]) -> list[int]:
    """Say of the tokens before the slot which are the text's, and which the template's.

    A token of both is the text's. Tokens of a text that was cut are laid along the whole one's.
    """
    parts = prompt.parts[: [part.kind for part in prompt.parts].index("mask")]
    whole = base.tokenizer.backend_tokenizer.encode(joined(parts), add_special_tokens=False)
    ends = np.cumsum([len(part.text) for part in parts]).tolist()
    fields = [
        (end - len(part.text), end)
        for part, end in zip(parts, ends, strict=True)
        if part.kind == "field"
    ]
    own = [
        TEXT if any(a < stop and start < b for start, stop in fields) else TEMPLATE
        for a, b in whole.offsets
    ]
    found = [TEXT] * len(ids)
    same = SequenceMatcher(None, whole.ids, list(ids), autojunk=False)
    for i, j, n in same.get_matching_blocks():
        found[j : j + n] = own[i : i + n]
    return found
