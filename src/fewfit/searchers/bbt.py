"""Black-box tuning (BBT): Sun, Shao, Qian, Huang, Qiu, ICML 2022, arXiv 2201.03514.

Symbols: p prompt vectors (n, H), p0 where they start, A a random projection (n H, d), z what is
searched (d,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils._param_validation import Interval

from fewfit.calibration import Calibration
from fewfit.choices import SEEDS
from fewfit.declare import declare
from fewfit.errors import MissingExtraError
from fewfit.models.base import FrozenModel
from fewfit.models.optional import takes_soft_prompts
from fewfit.parameters import checked
from fewfit.prompts import Row, Verbalizer, View
from fewfit.searchers.trials import Trials
from fewfit.task import Task

Floats = NDArray[Any]
_REQUIRES = frozenset({"scores", "soft_prompts"})


@dataclass(frozen=True, eq=False)
class FoundVectors:
    """What a search for prompt vectors ended with.

    Attributes
    ----------
    model : FrozenModel
        The model with the best vectors in front: what to ask new rows of.
    vectors : ndarray of shape (n, H), float32
    loss, start_loss : float
        Mean loss of the examples with the best vectors, and with p0.
    queries : int
        What the search asked.
    losses : list of float
        Mean loss of each generation that the search learnt from.
    """

    model: FrozenModel
    vectors: NDArray[np.float32]
    loss: float
    start_loss: float
    queries: int
    losses: list[float]


def _smallest_budget(n_rows: int, n_free: int, *, population: int = 20, **_: Any) -> int:
    """The start, and a generation to learn from."""
    return (1 + population) * (n_rows + n_free)


@declare(
    requires=_REQUIRES,
    labels="1 per class",
    queries="1 per prompt tried, up to a budget",
    reference="Sun et al. 2022, arXiv 2201.03514",
    smallest_budget=_smallest_budget,
)
@checked(
    {
        "max_queries": [Interval(Integral, 1, None, closed="left")],
        "length": [Interval(Integral, 1, None, closed="left")],
        "dimension": [Interval(Integral, 2, None, closed="left")],
        "population": [Interval(Integral, 2, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="left"), None],
        "seed": [Interval(Integral, 0, SEEDS - 1, closed="both")],
    }
)
def black_box_tune(
    model: FrozenModel,
    template: View,
    rows: Sequence[Row],
    y: NDArray[np.intp],
    verbalizer: Verbalizer,
    calibration: Calibration,
    *,
    max_queries: int,
    length: int = 50,
    dimension: int = 500,
    population: int = 20,
    sigma: float = 1.0,
    alpha: float = 1.0,
    margin: float | None = None,
    seed: int = 0,
) -> FoundVectors:
    """Learn vectors in front of the prompt without gradients, ``p = A z + p0``, z by CMA-ES.

    All examples are asked with each p that is tried: a call of the paper's interface is N queries
    here, and its 8,000 calls are 8,000 N. p0 itself is tried first; the best p on the examples is
    kept, so that the loss never ends above the start. A last generation that the budget cuts short
    is asked as far as it goes.

    Parameters
    ----------
    model : FrozenModel
        One that takes soft prompts.
    template : View
    rows : sequence of Row, length N
    y : ndarray of shape (N,)
        Positions of the classes.
    verbalizer : Verbalizer
    calibration : Calibration
        The paper has none.
    max_queries : int
        At least that of the start and one generation; never exceeded.
    length : int, default=50
        n; a model that reads few tokens wants fewer.
    dimension : int, default=500
        d >= 2.
    population : int, default=20
        Prompts per generation.
    sigma : float, default=1.0
        Initial step size of CMA-ES.
    alpha : float, default=1.0
        Scale of A.
    margin : float, optional
        If given, the loss is the hinge ``sum_{k != y} max(0, margin + s_k - s_y)`` and not the
        cross-entropy over the label words. The paper takes 2; that the classes are summed is from
        memory.
    seed : int, default=0
        Same seed and answers, same vectors; the global generator is left alone.

    Returns
    -------
    FoundVectors

    Raises
    ------
    CapabilityError
        If the model takes no soft prompts; InputError for a budget below one generation. Both
        before any query.
    MissingExtraError
        Without the package ``cma``.

    Notes
    -----
    The entries of A are normal with standard deviation ``alpha std(E) / (sqrt(d) sigma)``, E the
    model's input embeddings, so that at the start A z varies as much as E: the rule of the authors'
    code. The paper's own text is said to draw A uniformly, which could not be checked. p0 are the
    embeddings of n tokens drawn at random. The paper keeps the prompt that is best on as many
    further labelled examples; here there are none.
    """
    cma = import_cma()
    task = Task(model, template, verbalizer, calibration)
    loss = cross_entropy if margin is None else partial(hinge, margin=margin)
    trials: Trials[Floats] = Trials(
        task,
        rows,
        y,
        loss=loss,
        max_queries=max_queries,
        requires=_REQUIRES,
        who="black_box_tune",
        least=1 + population,
    )
    rng = np.random.default_rng(seed)
    reader = takes_soft_prompts(model)
    E = reader.input_embeddings()
    p0 = E[rng.integers(len(E), size=length)]
    A = random_projection(E, p0.size, dimension, sigma=sigma, alpha=alpha, rng=rng)

    def mean_loss(z: Floats) -> float:
        p = (A @ z).reshape(p0.shape) + p0
        prompted = Task(reader.with_soft_prompt(p), template, verbalizer, calibration)
        return float(trials.ask(prompted, p).mean())

    start, losses = mean_loss(np.zeros(dimension)), []
    search = _search(cma, dimension, population, sigma, rng)
    while trials.left:
        asked = search.ask()
        told = [mean_loss(z) for z in asked[: trials.left]]
        if len(told) == len(asked):
            search.tell(asked, told)
            losses.append(float(np.mean(told)))
    best = trials.best.astype(np.float32)
    return FoundVectors(
        reader.with_soft_prompt(best), best, trials.best_loss, start, trials.queries, losses
    )


def random_projection(
    E: Floats, size: int, d: int, *, sigma: float, alpha: float, rng: np.random.Generator
) -> Floats:
    """Return A, shape (size, d), of standard deviation ``alpha std(E) / (sqrt(d) sigma)``."""
    scale = alpha * float(E.std()) / (np.sqrt(d) * sigma)
    return scale * rng.standard_normal((size, d))


def cross_entropy(scores: Floats, y: NDArray[np.intp]) -> Floats:
    """Return the cross-entropy of each row's class scores (N, K), shape (N,)."""
    return -log_softmax(scores, axis=1)[np.arange(len(y)), y]


def hinge(scores: Floats, y: NDArray[np.intp], *, margin: float) -> Floats:
    """Return ``sum_{k != y} max(0, margin + s_k - s_y)`` of each row, shape (N,)."""
    rows = np.arange(len(y))
    short = np.maximum(margin + scores - scores[rows, y][:, None], 0)
    short[rows, y] = 0
    return short.sum(axis=1)


def _search(cma: Any, d: int, population: int, sigma: float, rng: np.random.Generator) -> Any:
    draw: Callable[..., Floats] = lambda *shape: rng.standard_normal(shape)  # noqa: E731
    options = {
        "popsize": population,
        "randn": draw,
        "seed": np.nan,  # anything else would seed the global generator
        "verbose": -9,
    }
    return cma.CMAEvolutionStrategy(np.zeros(d), sigma, options)


def import_cma() -> Any:
    """Return the package ``cma``, or say how to install it (MissingExtraError)."""
    try:
        import cma
    except ImportError as error:
        raise MissingExtraError('black_box_tune needs cma: pip install "fewfit[search]"') from error
    return cma
