"""From a network's numbers at the slot to observations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import ModelWarning
from fewfit.models.local.network import Network, Vectors
from fewfit.models.local.plan import Plan
from fewfit.models.local.texts import Encoded
from fewfit.observations import Observations, ScoreSpace, Status
from fewfit.prompts.trie import REST


def observe(
    network: Network,
    batch: Sequence[Encoded],
    plan: Plan,
    words: tuple[str, ...],
    space: ScoreSpace,
    vectors: Vectors | None = None,
) -> Observations:
    """Answer one batch of prompts of one template.

    A word's log-probability is the sum over its tokens; in the space ``logit`` the log-normaliser
    of the slot is added, which leaves a word of one token with its logit. With a trie it is the
    probability among the label words, token by token, in both spaces. A row that is not finite
    counts as not answered.
    """
    import torch

    hidden: Any = None
    normaliser: Any = None
    scores: Any = torch.empty((len(batch), len(words)))
    mass: Any = torch.full((len(batch),), torch.nan)
    ways = {} if plan.trie is None else plan.trie.branchings
    given: dict[tuple[int, ...], Any] = {}
    runs = network.run(batch, plan.steps, plan.columns, vectors)
    for step, (states, logits) in zip(plan.steps, runs, strict=True):
        hidden = states[:, 0] if hidden is None else hidden
        if plan.columns is not None:
            scores = logits[:, 0]
            continue
        total = logits.logsumexp(-1)
        normaliser = total[:, 0] if normaliser is None else normaliser
        scores = scores.to(logits.device)
        for w in step.words:
            token = torch.tensor(plan.ids[w], device=logits.device)
            at = torch.arange(len(token), device=logits.device)
            scores[:, w] = (logits[:, at, token] - total[:, at]).sum(-1)
        for n in range(step.positions):
            if (tokens := ways.get(step.tokens[:n])) and step.tokens[:n] not in given:
                named = [token for token in tokens if token != REST]
                log_p = logits[:, n, named] - total[:, n, None]
                given[step.tokens[:n]] = log_p.cpu().numpy()
    if space is ScoreSpace.LOGPROB and plan.mass:
        mass = scores[:, list(plan.mass)].exp().sum(-1)
    if plan.trie is not None:
        scores = torch.from_numpy(plan.trie.combine(given).astype(np.float32))
        scores = scores.expand(len(batch), -1)
    elif space is ScoreSpace.LOGIT and normaliser is not None:
        scores = scores + normaliser[:, None]
    return finish(batch, words, space, *(x.cpu().numpy() for x in (scores, hidden, mass)))


class Read(Protocol):
    """What was read for one prompt: its tokens, and whether its text was cut."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def truncated(self) -> bool: ...


def finish(
    batch: Sequence[Read],
    words: tuple[str, ...],
    space: ScoreSpace,
    scores: NDArray[np.float32],
    hidden: NDArray[np.float32],
    mass: NDArray[np.float32] | None = None,
) -> Observations:
    """Make observations of one batch; a row that is not finite counts as not answered."""
    n = len(batch)
    mass = np.full(n, np.nan, dtype=np.float32) if mass is None else mass
    status = np.where([item.truncated for item in batch], Status.TRUNCATED, Status.OK)
    broken = ~(np.isfinite(scores).all(axis=1) & np.isfinite(hidden).all(axis=1))
    if broken.any():
        warnings.warn(
            "prompts got no answer: the model's numbers for them are not finite (NaN or infinite); "
            "a wider dtype may help",
            ModelWarning,
            stacklevel=2,
        )
        scores, hidden, mass = scores.copy(), hidden.copy(), mass.copy()
        scores[broken] = hidden[broken] = np.nan
        mass[broken] = np.nan
        status = np.where(broken, Status.FAILED, status)
    return Observations(
        columns=words,
        scores=scores,
        space=space,
        hidden=hidden,
        label_mass=mass,
        n_tokens=np.array([len(item.ids) for item in batch]),
        status=status,
        asked=np.ones(n, dtype=bool),
    )
