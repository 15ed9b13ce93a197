"""PTEC: Buchner et al., NAACL 2024, arXiv 2309.12075. Read in the authors' code.

A prompt is learnt together with a linear head, one sigmoid for each label. The head of the training
is not kept: behind the prompt the multi-label head is fitted to the end, as on a frozen model.
Hidden states are standardised, for the want of which the paper's own linear baseline failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fewfit.errors import InputError
from fewfit.tuning.adapter import Adapter, Group, Handle
from fewfit.tuning.checkpoint import digest
from fewfit.tuning.choices import Encoded
from fewfit.tuning.losses import TokenLogProbs
from fewfit.tuning.method import Data, Loss, Rows, Run, learn
from fewfit.tuning.packing import ChoiceBatch
from fewfit.tuning.prompts.prompt_tuning import PromptTuning, SoftPrompt, Words
from fewfit.tuning.reading import answers, encode_rows
from fewfit.tuning.training import Recipe
from fewfit.tuning.trunk import Trunk


@dataclass(frozen=True)
class PTEC(PromptTuning):
    """A prompt for texts with none, one or several labels, which a head per label then reads.

    The prompt starts as the words of the labels' names. Rates are measured in the embeddings' root
    mean square, and the prompt's is the recipe's.

    Parameters
    ----------
    m : int, default=20
        Vectors; the paper has 50 to 200.
    head_rate : float, default=0.01
        Rate of the head; one for both fails.
    """

    labels_needed: ClassVar[str] = "both sides of each label"
    recipe: ClassVar[Recipe] = Recipe(steps=300, optimizer="adamw", learning_rate=0.1)
    decoded: ClassVar[bool] = True
    several: ClassVar[bool] = True

    head_rate: Annotated[float, Field(gt=0)] = 0.01

    def fit(self, base: Trunk, data: Data, run: Run) -> Adapter:
        self.check(base, data)
        run, words, sets = self.named(run), Words.of(base), data.labels()
        rows, names = states_only(base, data.rows), data.rows[0][0].choices
        Y = indicator(sets, len(names))
        prompt: Any = self.fresh(base, run)
        if run.start is None:
            self._begin(base, prompt, names, words, run.seed)
        recipe = run.recipe or self.recipe
        rates = (words.unit, self.head_rate / recipe.learning_rate)
        both = Headed(prompt, self._seen(base, prompt, rows), Y.shape[1], rates).to(base.device)
        learn(base, both, rows, bce(both, Y), run, recipe, decides={"sets": digest(sets)})
        return prompt

    def _begin(
        self, base: Trunk, prompt: SoftPrompt, names: Sequence[str], words: Words, seed: int
    ) -> None:
        """Put the embeddings of the names' tokens first, in an order of their own."""
        ids = base.tokenizer(" ".join(names), add_special_tokens=False)["input_ids"]
        order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))[: self.m]
        if len(order):
            prompt.P.data[: len(order)] = words.E[torch.tensor(ids)[order]].to(base.device)

    def _seen(self, base: Trunk, prompt: Adapter, rows: Sequence[Sequence[Encoded]]) -> Tensor:
        """Return the hidden states before any training, (N, H)."""
        with prompt.on(base.network):
            first = [row[0] for row in rows]
            found = [tokens.states for _, tokens in answers(base, first, None, prompt, 32)]
        return torch.cat([states for states in found if states is not None]).float()


class Headed(Adapter):
    """A prompt, and a head on the states that it leads to: sigmoid(W (h - mean) / scale + b).

    Parameters
    ----------
    prompt : Adapter
    states : Tensor of shape (N, H)
        By whose mean and spread each feature is standardised.
    K : int
        Labels. W (K, H) and b (K,) are zero at first, all probabilities 1/2.
    rates : tuple of float
        Of the prompt and of the head, as factors of the recipe's.
    """

    def __init__(
        self, prompt: Adapter, states: Tensor, K: int, rates: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.prompt, self.rates = prompt, rates
        self.W = nn.Parameter(torch.zeros(K, states.shape[1]))
        self.b = nn.Parameter(torch.zeros(K))
        spread = states.std(0, correction=0)
        self.mean, self.scale = states.mean(0), torch.where(spread > 0, spread, 1)

    def act(self, network: nn.Module) -> list[Handle]:
        return self.prompt.act(network)

    def rewrite(self, batch: ChoiceBatch, trunk: Trunk) -> ChoiceBatch:
        return self.prompt.rewrite(batch, trunk)

    def groups(self) -> Sequence[Group]:
        names = tuple(f"prompt.{name}" for name, _ in self.prompt.named_parameters())
        return [Group(names, self.rates[0]), Group(("W", "b"), self.rates[1])]

    def logits(self, states: Tensor) -> Tensor:
        """Log-odds of each label, (B, K)."""
        return ((states.float() - self.mean) / self.scale) @ self.W.T + self.b


def bce(head: Headed, Y: Tensor) -> Loss:
    """Return the mean of the labels' own losses, positives weighing as much as negatives.

    A label that all rows have, or none, has weight 1.
    """
    positive = Y.sum(0)
    weight = torch.where((positive > 0) & (positive < len(Y)), (len(Y) - positive) / positive, 1)

    def loss(tokens: TokenLogProbs, rows: Sequence[int], step: int) -> Tensor:
        assert tokens.states is not None
        z = head.logits(tokens.states)
        return binary_cross_entropy_with_logits(z, Y[list(rows)].to(z), pos_weight=weight.to(z))

    return loss


def indicator(sets: Sequence[Sequence[int]], K: int) -> Tensor:
    """Return Y (N, K), 1 where a row has a label (InputError for a label that there is not)."""
    Y = torch.zeros(len(sets), K)
    for i, own in enumerate(sets):
        if any(not 0 <= k < K for k in own):
            raise InputError(f"sets: row {i} has label {max(own)}, and there are {K}, from 0")
        Y[i, list(own)] = 1
    return Y


def states_only(base: Trunk, rows: Rows) -> list[list[Encoded]]:
    """Turn rows into tokens as the tuned model reads them for their hidden state.

    The slot is that of the first label in every row, whatever the row's own are: in a masked model
    it has as many masks as the word has tokens.
    """
    if len({wording.choices for row in rows for wording in row}) != 1:
        raise InputError("choices: there is one row at least, and the labels are those of all rows")
    same = [[replace(wording, answer=0) for wording in row] for row in rows]
    return encode_rows(base, same, only_answer=True)
