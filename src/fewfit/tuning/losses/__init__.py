"""Losses and rank classification, on the log-probabilities of the choices' tokens.

Three losses are T-Few's (Liu et al., NeurIPS 2022, section 3.2), one is for soft labels. The
log-probabilities are flat: no padding, so none can leak into a loss, and examples may have
different numbers of choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from fewfit.errors import InputError

_CERTAIN = -1e-6
"""log p above which a wrong token's unlikelihood is capped, to keep log(1 - p) finite."""

_CONSTANT = 0.01


@dataclass(frozen=True)
class TokenLogProbs:
    """What a network says about the tokens of every choice of a batch.

    Attributes
    ----------
    log_probs : Tensor of shape (N,), float32
        log p of each token given the input and the tokens before it, end token included, in nats.
    choice : Tensor of shape (N,), int64
        The choice that each token belongs to, 0..C-1.
    example : Tensor of shape (C,), int64
        The example that each choice belongs to, 0..B-1, ascending.
    correct : Tensor of shape (C,), bool
        One choice of each example.
    mean : bool, default=True
        Whether a choice's score is the mean over its tokens, or their sum.
    states : Tensor of shape (B, H), optional
        What the network makes of each example: the last hidden state that predicts the first token
        of the answer, or a sentence encoder's vector.
    """

    log_probs: Tensor
    choice: Tensor
    example: Tensor
    correct: Tensor
    mean: bool = True
    states: Tensor | None = None

    @property
    def n_examples(self) -> int:
        """B."""
        return int(self.example[-1]) + 1

    @property
    def lengths(self) -> Tensor:
        """T, the number of tokens of each choice, shape (C,), int64."""
        return torch.bincount(self.choice, minlength=len(self.example))

    @property
    def beta(self) -> Tensor:
        """Score of each choice, shape (C,): its log-likelihood, nats per token where `mean`."""
        total = self._by_choice(self.log_probs)
        return total / self.lengths if self.mean else total

    def _by_choice(self, values: Tensor) -> Tensor:
        return values.new_zeros(len(self.example)).index_add(0, self.choice, values)

    def _by_example(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.n_examples).index_add(0, self.example, values)

    def grid(self, values: Tensor) -> Tensor:
        """Values of choices as a matrix (B, most choices), -inf where there is no choice."""
        counts = torch.bincount(self.example, minlength=self.n_examples)
        first = counts.cumsum(0) - counts
        column = torch.arange(len(self.example), device=values.device) - first[self.example]
        out = values.new_full((self.n_examples, int(counts.max())), -torch.inf)
        return out.index_put((self.example, column), values)


def language_model_loss(tokens: TokenLogProbs, *, reference: bool = False) -> Tensor:
    """L_LM = -(1/T) sum_t log p(y_t | x, y_<t), mean over examples.

    Parameters
    ----------
    reference : bool
        Whether to average over the tokens of the batch instead, as the authors' code does.
    """
    if not reference:
        return -tokens.beta[tokens.correct].mean()
    return -tokens.log_probs[tokens.correct[tokens.choice]].mean()


def unlikelihood_loss(tokens: TokenLogProbs, *, reference: bool = False) -> Tensor:
    """L_UL = -(sum over the tokens of wrong choices of log(1 - p)) / (their number).

    The mean over examples is taken. An example without a wrong choice counts as zero.

    Parameters
    ----------
    reference : bool
        Whether to compute what the authors' code does: log(1 - p + 0.01), normalised by the wrong
        tokens of the batch, with a constant -log(1.01) for every cell of the padded grid of choices
        and tokens that holds no wrong token. The constant has no gradient.
    """
    wrong = ~tokens.correct[tokens.choice]
    log_p = tokens.log_probs[wrong]
    if reference:
        if not len(log_p):
            return tokens.log_probs.sum() * 0
        n_cells = len(tokens.example) * int(tokens.lengths.max())
        held = torch.log1p(_CONSTANT - log_p.exp()).sum()
        empty = (n_cells - len(log_p)) * torch.log1p(torch.tensor(_CONSTANT))
        return -(held + empty) / len(log_p)
    terms = torch.log(-torch.expm1(log_p.clamp(max=_CERTAIN)))
    of = tokens.example[tokens.choice[wrong]]
    zeros = terms.new_zeros(tokens.n_examples)
    total = zeros.index_add(0, of, terms)
    count = zeros.index_add(0, of, torch.ones_like(terms))
    return -(total / count.clamp(min=1)).mean()


def length_normalised_loss(tokens: TokenLogProbs) -> Tensor:
    """L_LN = -log softmax over an example's choices of beta, at the correct one, mean over them."""
    return cross_entropy(tokens.grid(tokens.beta), _answers(tokens))


def distillation_loss(
    tokens: TokenLogProbs,
    teacher: Tensor,
    *,
    temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(beta / T)) over the choices, mean over examples.

    Zero where beta is the teacher plus a constant of the example. The factor T^2 keeps the size of
    the gradient whatever T (Hinton et al. 2015, arXiv 1503.02531).

    Parameters
    ----------
    teacher : Tensor of shape (B, K)
        Logits of soft labels; every example of the batch has K choices.
    temperature : float
        T.
    weights : Tensor of shape (B,), optional
        Of the examples, in place of 1 / B each.

    Raises
    ------
    InputError
        If the examples do not have K choices each.
    """
    student = tokens.grid(tokens.beta)
    if teacher.shape != student.shape or teacher.numel() != len(tokens.example):
        raise InputError(
            f"losses: soft labels of shape {tuple(teacher.shape)} for {tokens.n_examples} examples "
            f"with {len(tokens.example)} choices in all"
        )
    p, q = ((logits / temperature).log_softmax(dim=1) for logits in (teacher, student))
    if weights is None:
        return temperature**2 * kl_div(q, p, reduction="batchmean", log_target=True)
    each = kl_div(q, p, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (weights * each).sum()


def rank(tokens: TokenLogProbs, *, normalise: bool = True) -> Tensor:
    """Rank classification: the position of the choice with the largest score, shape (B,), int64.

    Parameters
    ----------
    normalise : bool
        Whether the score is beta (T-Few) or the plain log-likelihood (T0).
    """
    scores = tokens.beta if normalise or not tokens.mean else tokens.beta * tokens.lengths
    return tokens.grid(scores).argmax(dim=1)


@dataclass(frozen=True)
class Objective:
    """The sum of the losses that are switched on, with unit weights: all three are T-Few.

    Parameters
    ----------
    unlikelihood, length_normalised : bool
        Whether L_UL and L_LN are added to L_LM.
    reference : bool
        Whether to normalise over the batch, as the authors' code does. The result then depends on
        how a batch is cut into micro-batches or spread over processes.
    """

    unlikelihood: bool = True
    length_normalised: bool = True
    reference: bool = False

    @property
    def needs_wrong(self) -> bool:
        """Whether wrong choices matter; if not, they need not be computed."""
        return self.unlikelihood or self.length_normalised

    def __call__(self, tokens: TokenLogProbs) -> Tensor:
        loss = language_model_loss(tokens, reference=self.reference)
        if self.unlikelihood:
            loss = loss + unlikelihood_loss(tokens, reference=self.reference)
        if self.length_normalised:
            loss = loss + length_normalised_loss(tokens)
        return loss


def _answers(tokens: TokenLogProbs) -> Tensor:
    if int(tokens.correct.sum()) != tokens.n_examples:
        raise InputError("losses: each example needs exactly one correct choice")
    zero = torch.zeros_like(tokens.beta)
    marked = torch.where(tokens.correct, zero, zero - torch.inf)
    return tokens.grid(marked.detach()).argmax(dim=1)
