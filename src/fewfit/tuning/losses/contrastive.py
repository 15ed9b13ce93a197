"""Supervised contrast between texts, with the label words among them.

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv 2004.11362, equation 2; here
each class's label words are one more example of it.

Symbols: z vector of length 1 of a text or of label words, y its class, tau temperature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from fewfit.errors import InputError
from fewfit.models.similarity import label_sentence
from fewfit.prompts import Part, Prompt
from fewfit.tuning.adapter import Adapter
from fewfit.tuning.choices import ChoiceExample, Encoded
from fewfit.tuning.inner import WithAdapter
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Rows, Run, learn
from fewfit.tuning.reading import encode_rows
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk

_BESIDE = {"steps": 80, "learning_rate": 3e-3}
"""Of adapters that start at zero beside a layer; vectors of factors are quicker and go further."""


@dataclass(frozen=True)
class Contrastive(WithAdapter):
    """Texts of one class are drawn together, and to its label words; those of others apart.

    What is learnt is not read as a ranking of answers, but by the default decoder, which is fitted
    to the same examples behind it. What is contrasted is the vector of a sentence encoder, or the
    hidden state at the slot of a language model.

    Parameters
    ----------
    temperature : float, default=0.1
        tau of the loss, by which cosines are divided.
    names : bool, default=True
        Whether the label words take part. An encoder reads the template with them and without a
        text, a language model the template with them as its text.
    length : int, default=64
        Tokens of a text that an encoder reads while it is trained.
    alpha : float, default=1
        How far to go from the frozen model to what was trained: tensors are interpolated (Wortsman
        et al. 2022, arXiv 2109.01903).
    """

    labels_needed: ClassVar[str] = "1 per class"
    kinds: ClassVar[frozenset[str]] = frozenset({"encoder", "seq2seq", "causal", "masked"})
    decoded: ClassVar[bool] = True
    replaces_loss: ClassVar[bool] = True
    recipe: ClassVar[Recipe] = Recipe(
        steps=20,
        batch_size=24,
        learning_rate=6e-2,
        warmup=0.15,
        optimizer="adamw",
        dropout=False,
    )

    temperature: Annotated[float, Field(gt=0)] = 0.1
    names: bool = True
    length: Annotated[int, Field(ge=3)] = 64
    alpha: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter != "ia3":
            slower = replace(type(self).recipe, **_BESIDE)
            object.__setattr__(self, "recipe", slower)

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        if run.recipe is not None and run.recipe.micro_batch is not None:
            raise InputError("micro_batch: contrast is between all rows of a batch; leave it out")
        run, rows = self.named(run), self._encoded(base, data.rows)
        adapter = self.fresh(base, run)
        start = adapter.tensors()
        loss = self._contrast(base, adapter, data.rows)
        learn(base, adapter, rows, loss, run, self.recipe)
        return adapter.restore(between(start, adapter.tensors(), self.alpha))

    def check(self, base: Trunk, data: Data) -> None:
        super().check(base, data)
        adapter = self.build(base, 0)
        if base.kind == "encoder" and type(adapter).rewrite is not Adapter.rewrite:
            raise InputError(
                f"adapter: {self.adapter} changes what the network reads, which a sentence encoder "
                "cannot be told; name another"
            )

    def _encoded(self, base: Trunk, rows: Rows) -> list[list[Encoded]]:
        encoded = encode_rows(base, rows, only_answer=True)
        if base.kind != "encoder":
            return encoded
        n = self.length - 1
        return [
            [e._replace(before=[*e.before[:n], *e.before[n:][-1:]]) for e in row] for row in encoded
        ]

    def _contrast(self, base: Trunk, adapter: Adapter, rows: Rows) -> Loss:
        y = [row[0].answer for row in rows]
        named = self._named(base, rows) if self.names else []
        packed = base.pack([item for item, _ in named]).to(base.device) if named else None
        own = [k for _, k in named]

        def loss(tokens: TokenLogProbs, batch: Sequence[int], step: int) -> Tensor:
            assert tokens.states is not None
            z, classes = [tokens.states], [y[i] for i in batch]
            if packed is not None:
                z.append(base.read(adapter.rewrite(packed, base))[1])
                classes += own
            return contrast(
                torch.cat(z).float(), torch.tensor(classes, device=base.device), self.temperature
            )

        return loss

    def _named(self, base: Trunk, rows: Rows) -> list[tuple[Encoded, int]]:
        """Return the label words of each class in each template, in tokens, and their class."""
        words = rows[0][0].choices
        if any(example.choices != words for row in rows for example in row):
            raise InputError("choices: contrast is between classes, the same for all rows")
        frames = {example.prompt.skeleton: example.prompt for row in rows for example in row}
        found = []
        for prompt in frames.values():
            for k, word in enumerate(words):
                said = _said(prompt, word, base.kind)
                example = ChoiceExample(said, words, k)
                found.append((base.encoder.encode(example, only_answer=True), k))
        return found


def between(
    start: Mapping[str, Tensor], trained: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """Return an adapter's tensors, `alpha` of the way from where it started to where it ended."""
    return {
        name: tensor.lerp(trained[name], alpha) if tensor.is_floating_point() else trained[name]
        for name, tensor in start.items()
    }


def contrast(z: Tensor, y: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss, the mean over those that have another of their class.

    Parameters
    ----------
    z : Tensor of shape (B, H)
        Of any length; cosines are compared.
    y : Tensor of shape (B,)
    temperature : float
    """
    z = normalize(z, dim=1)
    itself = torch.eye(len(y), dtype=torch.bool, device=y.device)
    s = (z @ z.T / temperature).masked_fill(itself, -1e9)
    same = (y[:, None] == y[None]) & ~itself
    log_p = (s - s.logsumexp(dim=1, keepdim=True)).masked_fill(~same, 0)
    n = same.sum(dim=1)
    each = -log_p.sum(dim=1) / n.clamp(min=1)
    return each.sum() / (n > 0).sum().clamp(min=1)


def _said(prompt: Prompt, word: str, kind: str) -> Prompt:
    """Return what says a label word where a text would stand."""
    if kind == "encoder":
        return Prompt((Part("field", label_sentence(prompt, word)), Part("mask", "")))
    said = (part._replace(text=word) if part.kind == "field" else part for part in prompt.parts)
    return Prompt(tuple(said))
