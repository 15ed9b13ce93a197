"""Prompt words by a policy network: after RLPrompt, Deng et al., EMNLP 2022, arXiv 2205.12548.

What is the paper's: a small network on frozen features of the words so far writes the prompt word
by word; the piecewise reward; its z-scores, input by input. What is not:

- the z-scores. The paper's are of each input over the prompts, which is done here; the released
  code standardises the prompts' mean rewards,
- the features are those of a random recurrent network, where the paper has a frozen distilGPT-2,
- the words come from a list of yours, not from that model's vocabulary,
- the policy learns by plain policy gradient, not by soft Q-learning,
- each prompt is asked about all examples, not a batch,
- the best prompt is chosen on the examples themselves, since there are no further labels,
- the budget is yours, where the paper takes 12,000 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.utils._param_validation import Interval

from fewfit.calibration import Calibration
from fewfit.choices import SEEDS
from fewfit.declare import declare
from fewfit.errors import InputError
from fewfit.models.base import FrozenModel
from fewfit.parameters import checked
from fewfit.prompts import Row, Template, Verbalizer
from fewfit.searchers.prompt_search import PROMPT, Found, check_words, fill
from fewfit.searchers.trials import Trials
from fewfit.task import Task

Floats = NDArray[Any]
_REQUIRES = frozenset({"scores"})
_WRONG, _RIGHT = 180.0, 200.0


class PolicyNetwork:
    """A distribution over prompts, word by word; ask for prompts, tell their rewards.

    With frozen random U and token vectors e, ``h_0`` random and ``h_i = tanh(U h_{i-1} + e_i)``,
    the next token's logits are ``W2 tanh(W1 h_i + b1) + b2``; W and b are learnt. At the start
    all tokens are equally probable.

    Parameters
    ----------
    n_tokens, length : int
        V candidate tokens at each of m positions.
    n_samples : int, default=16
        I >= 2 prompts per step.
    width : int, default=32
        Units of both layers.
    lr : float, default=0.1
    seed : int, default=0
    """

    def __init__(
        self,
        n_tokens: int,
        length: int,
        *,
        n_samples: int = 16,
        width: int = 32,
        lr: float = 0.1,
        seed: int = 0,
    ) -> None:
        if n_tokens < 1 or length < 1 or n_samples < 2 or width < 1:
            raise InputError(
                "expected at least 1 token, 1 position, 2 samples per step and width 1, got "
                f"{n_tokens}, {length}, {n_samples} and {width}"
            )
        self.length, self.n_samples, self.lr = length, n_samples, lr
        self._rng = rng = np.random.default_rng(seed)
        self._e = rng.standard_normal((n_tokens, width))
        self._U = rng.standard_normal((width, width)) / np.sqrt(width)
        self._h0 = np.tanh(rng.standard_normal(width))
        self.W1 = rng.standard_normal((width, width)) / np.sqrt(width)
        self.b1 = np.zeros(width)
        self.W2 = np.zeros((n_tokens, width))
        self.b2 = np.zeros(n_tokens)

    def ask(self) -> NDArray[np.intp]:
        """Draw prompts, shape (I, m): positions in the list of tokens."""
        draws = self._rng.gumbel(size=(self.n_samples, self.length, len(self._e)))
        return self._write(draws)

    def best(self) -> NDArray[np.intp]:
        """Return the prompt of the most probable token at each step, shape (m,)."""
        return self._write(np.zeros((1, self.length, len(self._e))))[0]

    def tell(self, prompts: NDArray[np.intp], rewards: Floats) -> None:
        """Step along the gradient of the expected normalised reward.

        Parameters
        ----------
        prompts : ndarray of shape (I, m)
        rewards : ndarray of shape (I, N)
            Of each prompt for each input.
        """
        gradients = self.gradients(prompts, z_scores(rewards).mean(axis=1))
        for parameter, gradient in zip(
            (self.W1, self.b1, self.W2, self.b2), gradients, strict=True
        ):
            parameter += self.lr * gradient

    def log_probs(self, prompts: NDArray[np.intp]) -> Floats:
        """Return the log-probability of each token of the prompts (I, m) after those before it."""
        _, logits = self._hidden(self._states(prompts))
        return np.take_along_axis(log_softmax(logits, axis=2), prompts[..., None], axis=2)[..., 0]

    def gradients(self, prompts: NDArray[np.intp], weights: Floats) -> tuple[Floats, ...]:
        """Return those of ``mean_k w_k log p(prompt_k)`` by W1, b1, W2 and b2."""
        states = self._states(prompts)
        hidden, logits = self._hidden(states)
        out = -softmax(logits, axis=2)
        np.put_along_axis(
            out,
            prompts[..., None],
            np.take_along_axis(out, prompts[..., None], axis=2) + 1,
            axis=2,
        )
        out *= weights[:, None, None] / len(prompts)
        inner = (out @ self.W2) * (1 - hidden**2)
        return (
            np.einsum("kih,kij->hj", inner, states),
            inner.sum(axis=(0, 1)),
            np.einsum("kiv,kih->vh", out, hidden),
            out.sum(axis=(0, 1)),
        )

    def _write(self, noise: Floats) -> NDArray[np.intp]:
        state = np.tile(self._h0, (len(noise), 1))
        written = []
        for i in range(self.length):
            written.append((self._hidden(state)[1] + noise[:, i]).argmax(axis=1))
            state = np.tanh(state @ self._U.T + self._e[written[-1]])
        return np.stack(written, axis=1)

    def _states(self, prompts: NDArray[np.intp]) -> Floats:
        states = [np.tile(self._h0, (len(prompts), 1))]
        for i in range(self.length - 1):
            states.append(np.tanh(states[-1] @ self._U.T + self._e[prompts[:, i]]))
        return np.stack(states, axis=1)

    def _hidden(self, states: Floats) -> tuple[Floats, Floats]:
        hidden = np.tanh(states @ self.W1.T + self.b1)
        return hidden, hidden @ self.W2.T + self.b2


def piecewise_reward(scores: Floats, y: NDArray[np.intp]) -> Floats:
    """Return 200 times the gap of each row where the right class leads, else 180 times, shape (N,).

    The gap is the probability of the right class less that of the best other (paper, section 3.3).
    """
    p = softmax(scores, axis=1)
    rows = np.arange(len(y))
    right = p[rows, y]
    p[rows, y] = -np.inf
    gap = right - p.max(axis=1)
    return np.where(gap > 0, _RIGHT, _WRONG) * gap


def z_scores(rewards: Floats) -> Floats:
    """Return the rewards (I, N) standardised over the prompts, input by input; 0 if all equal."""
    centred = rewards - rewards.mean(axis=0)
    spread = rewards.std(axis=0)
    return centred / np.where(spread > 1e-9, spread, np.inf)


def _smallest_budget(n_rows: int, n_free: int, *, n_samples: int = 16, **_: Any) -> int:
    """One step's."""
    return n_samples * (n_rows + n_free)


@declare(
    requires=_REQUIRES,
    labels="1 per class",
    queries="1 per prompt tried, up to a budget",
    reference="Deng et al. 2022, arXiv 2205.12548",
    smallest_budget=_smallest_budget,
)
@checked(
    {
        "vocabulary": [list, tuple],
        "max_queries": [Interval(Integral, 1, None, closed="left")],
        "length": [Interval(Integral, 1, None, closed="left")],
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "seed": [Interval(Integral, 0, SEEDS - 1, closed="both")],
    }
)
def reinforce_prompt(
    model: FrozenModel,
    template: str,
    vocabulary: Sequence[str],
    rows: Sequence[Row],
    y: NDArray[np.intp],
    verbalizer: Verbalizer,
    calibration: Calibration,
    *,
    max_queries: int,
    length: int = 5,
    n_samples: int = 16,
    width: int = 32,
    lr: float = 0.1,
    seed: int = 0,
) -> Found:
    """Learn prompt words with a policy network, rewarded for the lead of the right class.

    A prompt that is drawn twice in a step is asked once. Of all prompts that were asked, the one
    with the highest mean reward is kept. A last step that the budget cuts short is asked as far
    as it goes.

    Parameters
    ----------
    model : FrozenModel
    template : str
        With ``{prompt}`` where the words go, a field and ``{mask}``.
    vocabulary : sequence of str, length V
        Candidate words; a command or a comparison takes the most frequent ones of the examples.
    rows : sequence of Row, length N
    y : ndarray of shape (N,)
        Positions of the classes.
    verbalizer : Verbalizer
    calibration : Calibration
        The paper has none.
    max_queries : int
        At least that of a step, `n_samples` times N and what the calibration asks; never exceeded.
    length : int, default=5
        m, words in the prompt.
    n_samples : int, default=16
        Prompts that are drawn per step.
    width : int, default=32
        Units of each layer of :class:`PolicyNetwork`.
    lr : float, default=0.1
        Step size of its optimiser.
    seed : int, default=0

    Returns
    -------
    Found
        `losses` are the negative mean rewards of the steps.
    """
    if template.count(PROMPT) != 1:
        raise InputError(f"template: exactly one {PROMPT} is needed in {template!r}")
    check_words("vocabulary", vocabulary)
    policy = PolicyNetwork(
        len(vocabulary), length, n_samples=n_samples, width=width, lr=lr, seed=seed
    )

    def words(prompt: NDArray[np.intp]) -> str:
        return fill(template, [vocabulary[int(v)] for v in prompt])

    def task_of(prompt: NDArray[np.intp]) -> Task:
        return Task(model, Template(words(prompt)), verbalizer, calibration)

    trials: Trials[NDArray[np.intp]] = Trials(
        task_of(policy.best()),
        rows,
        y,
        loss=lambda scores, y: -piecewise_reward(scores, y),
        max_queries=max_queries,
        requires=_REQUIRES,
        who="reinforce_prompt",
        least=n_samples,
    )
    losses: list[float] = []
    while trials.left:
        prompts = policy.ask()
        known: dict[bytes, Floats] = {}
        for prompt in prompts:
            if prompt.tobytes() not in known and trials.left:
                known[prompt.tobytes()] = trials.ask(task_of(prompt), prompt)
        if all(prompt.tobytes() in known for prompt in prompts):
            told = np.stack([known[prompt.tobytes()] for prompt in prompts])
            policy.tell(prompts, -told)
            losses.append(float(told.mean()))
    probability = float(np.exp(policy.log_probs(trials.best[None])).mean())
    return Found(words(trials.best), probability, trials.queries, losses)
