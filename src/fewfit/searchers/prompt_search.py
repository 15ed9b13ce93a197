"""Search for prompt words with a query budget: the honest baseline to reading one answer well.

Discrete black-box prompt learning by policy gradient, after BDPL (Diao et al. 2022, arXiv
2201.08531). What is the paper's: independent distributions over words, one per position; the mean
loss of a step's prompts as baseline; the projection back onto the simplex. What is not:

- the estimator. It is the paper's, unbiased up to a constant per position. The released code puts
  ``-1/p`` in place of 0 for the words that were not drawn, and flips the signs of all prompts of a
  step in one shared array,
- the optimiser. It is plain gradient descent; the released code takes AdamW, with the norm of the
  gradient clipped to 3,
- words come from a list of yours; the paper's are n-grams ranked by PMI,
- the budget is yours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils._param_validation import Interval

from fewfit.calibration import Calibration
from fewfit.choices import SEEDS
from fewfit.declare import declare
from fewfit.errors import InputError
from fewfit.models.base import FrozenModel
from fewfit.parameters import checked
from fewfit.prompts import Row, Template, Verbalizer, View
from fewfit.prompts.containers import shown
from fewfit.searchers.trials import cost_of
from fewfit.task import Task

Floats = NDArray[Any]
PROMPT = "{prompt}"


class PolicyGradient:
    """Independent distributions over tokens, one per position; ask for prompts, tell their losses.

    Parameters
    ----------
    n_tokens, length : int
        V candidate tokens at each of m positions.
    n_samples : int, default=10
        I >= 2 prompts per step; their mean loss is the baseline.
    lr : float, default=0.1
    seed : int, default=0

    Attributes
    ----------
    p : ndarray of shape (m, V)
        Probabilities; uniform at the start.
    """

    def __init__(
        self, n_tokens: int, length: int, *, n_samples: int = 10, lr: float = 0.1, seed: int = 0
    ) -> None:
        if n_tokens < 1 or length < 1 or n_samples < 2:
            raise InputError(
                "expected at least 1 token, 1 position and 2 samples per step, got "
                f"{n_tokens}, {length} and {n_samples}"
            )
        self.n_samples = n_samples
        self.lr = lr
        self.p = np.full((length, n_tokens), 1 / n_tokens)
        self._rng = np.random.default_rng(seed)

    def ask(self) -> NDArray[np.intp]:
        """Draw prompts, shape (I, m): positions in the list of tokens."""
        draws = self._rng.random((self.n_samples, len(self.p), 1))
        return (draws > self.p.cumsum(axis=1)).sum(axis=2).clip(max=self.p.shape[1] - 1)

    def tell(self, prompts: NDArray[np.intp], losses: Floats) -> None:
        """Step against the gradient of the expected loss, back onto the simplex."""
        self.p = project_to_simplex(self.p - self.lr * estimate_gradient(self.p, prompts, losses))

    def best(self) -> NDArray[np.intp]:
        """Return the most probable prompt, shape (m,)."""
        return self.p.argmax(axis=1)


def estimate_gradient(p: Floats, prompts: NDArray[np.intp], losses: Floats) -> Floats:
    """Estimate ``E[L | z_i = v] - E[L]``, the gradient of E[L] up to a constant per position.

    ``1 / (I - 1) sum_k (L_k - mean L) d log p(z_k) / dp``, unbiased; the constant is what the
    projection to the simplex ignores.

    Parameters
    ----------
    p : ndarray of shape (m, V)
    prompts : ndarray of shape (I, m)
    losses : ndarray of shape (I,)
    """
    centred = (losses - losses.mean()) / (len(losses) - 1)
    gradient = np.zeros_like(p)
    positions = np.arange(len(p))
    for prompt, weight in zip(prompts, centred, strict=True):
        gradient[positions, prompt] += weight / p[positions, prompt]
    return gradient


def project_to_simplex(p: Floats) -> Floats:
    """Return the nearest rows (m, V) that are not negative and sum to 1."""
    ordered = -np.sort(-p, axis=1)
    excess = ordered.cumsum(axis=1) - 1
    counts = np.arange(1, p.shape[1] + 1)
    last = (ordered - excess / counts > 0).sum(axis=1, keepdims=True) - 1
    return np.maximum(p - np.take_along_axis(excess, last, axis=1) / (last + 1), 0)


@dataclass(frozen=True)
class Found:
    """What a search ended with.

    Attributes
    ----------
    template : str
        The template with the prompt in it that the search settled on.
    probability : float
        Of that prompt's tokens under what was learnt, the mean over positions.
    queries : int
        What the search asked, whether or not a store had it.
    losses : list of float
        Mean loss of each step's prompts.
    """

    template: str
    probability: float
    queries: int
    losses: list[float]


def fill(template: str, words: Sequence[str]) -> str:
    """Put prompt words in the place of ``{prompt}``, as the template's own text."""
    prompt = " ".join(words).replace("{", "{{").replace("}", "}}")
    return template.replace(PROMPT, prompt)


def check_words(name: str, words: Sequence[str]) -> None:
    """Refuse a list without a word, or of which one is no text (InputError)."""
    if not len(words) or not all(isinstance(word, str) and word.strip() for word in words):
        raise InputError(f"{name}: expected a list of words, got {shown(words)}")


def _smallest_budget(
    n_rows: int, n_free: int, *, n_samples: int = 10, batch_size: int = 16, **_: Any
) -> int:
    """One step's."""
    return n_samples * (min(batch_size, n_rows) + n_free)


@declare(
    requires=frozenset({"scores"}),
    labels="1 per class",
    queries="samples times steps, up to a budget",
    reference="Diao et al. 2022, arXiv 2201.08531",
    smallest_budget=_smallest_budget,
)
@checked(
    {
        "vocabulary": [list, tuple],
        "length": [Interval(Integral, 1, None, closed="left")],
        "max_queries": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_samples": [Interval(Integral, 2, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "seed": [Interval(Integral, 0, SEEDS - 1, closed="both")],
    }
)
def search_prompt(
    model: FrozenModel,
    template: str,
    vocabulary: Sequence[str],
    rows: Sequence[Row],
    y: NDArray[np.intp],
    verbalizer: Verbalizer,
    calibration: Calibration,
    *,
    length: int = 5,
    max_queries: int,
    batch_size: int = 16,
    n_samples: int = 10,
    lr: float = 0.1,
    seed: int = 0,
    view: Callable[[str], View] = Template,
) -> Found:
    """Learn prompt words that make the model's label scores right on the examples.

    The loss of a prompt is the mean cross-entropy of its calibrated label scores on a random batch.
    A step is only taken if all that it may ask fits the budget, so the search never pays more; a
    prompt that is drawn twice is asked once.

    Parameters
    ----------
    model : FrozenModel
    template : str
        With ``{prompt}`` where the words go, a field and ``{mask}``.
    vocabulary : sequence of str, length V
        Candidate words; a command or a comparison takes the most frequent ones of the examples.
    rows : sequence of Row, length N
    y : ndarray of shape (N,)
        Positions of the classes, known or guessed.
    verbalizer : Verbalizer
    calibration : Calibration
    length : int, default=5
        m, words in the prompt.
    max_queries : int
        At least that of a step, `n_samples` times the batch and what the calibration asks.
    batch_size : int, default=16
        Examples per step.
    n_samples : int, default=10
        Prompts that are drawn per step.
    lr : float, default=0.1
        Step size of :class:`PolicyGradient`.
    seed : int, default=0
    view : callable of str to View, default=Template
        Makes a view of a filled template, for demonstrations in front of it.
    """
    if template.count(PROMPT) != 1:
        raise InputError(f"template: exactly one {PROMPT} is needed in {template!r}")
    check_words("vocabulary", vocabulary)
    policy = PolicyGradient(len(vocabulary), length, n_samples=n_samples, lr=lr, seed=seed)
    rng = np.random.default_rng([seed, 1])
    batch_size = min(batch_size, len(rows))
    queries, losses = 0, []

    def task_of(prompt: NDArray[np.intp]) -> Task:
        source = fill(template, [vocabulary[int(v)] for v in prompt])
        return Task(model, view(source), verbalizer, calibration)

    first = task_of(policy.best())
    first.check(frozenset({"scores"}), who="search_prompt")
    n_free = len(calibration.prompts(first.template.views[0], rows))
    step = n_samples * (batch_size + n_free)
    if max_queries < step:
        raise InputError(
            f"max_queries: search_prompt learns from {n_samples} prompts at once, of "
            f"{batch_size + n_free} queries each: at least {step} are needed, and {max_queries} "
            "are allowed"
        )
    while queries + step <= max_queries:
        prompts = policy.ask()
        batch = rng.choice(len(rows), size=batch_size, replace=False)
        told = np.empty(n_samples)
        known: dict[bytes, float] = {}
        for k, prompt in enumerate(prompts):
            if prompt.tobytes() not in known:
                asked = [rows[i] for i in batch]
                task, answers, _ = task_of(prompt).begin(asked)
                queries += cost_of(task, asked)
                known[prompt.tobytes()] = _loss(task.features(answers)[1], y[batch])
            told[k] = known[prompt.tobytes()]
        policy.tell(prompts, told)
        losses.append(float(told.mean()))
    best = policy.best()
    probability = float(policy.p[np.arange(length), best].mean())
    return Found(fill(template, [vocabulary[int(v)] for v in best]), probability, queries, losses)


def _loss(scores: Floats | None, y: NDArray[np.intp]) -> float:
    if scores is None:
        raise InputError("the model gave no scores")
    return -float(log_softmax(scores.astype(np.float64), axis=1)[np.arange(len(y)), y].mean())
