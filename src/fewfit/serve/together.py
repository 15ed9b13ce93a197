"""Texts of several tasks, asked of their frozen model in one go."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import BudgetExceededError, ModelError, StoreError
from fewfit.estimators.base import TextEstimator
from fewfit.gathering import gather
from fewfit.models import FrozenModel
from fewfit.models.optional import mixture_of, scores_apart
from fewfit.observations import Observations, Status
from fewfit.prompts import Prompt
from fewfit.task import Query

Words = tuple[str, ...]

DOWN = (ModelError, BudgetExceededError, StoreError)
"""Errors that are not of one prompt: none would be answered."""


class Asked(NamedTuple):
    """Some rows that a task is asked about.

    Attributes
    ----------
    estimator : TextEstimator
    queries : sequence of Query
        Those of the rows, the views of a row side by side.
    """

    estimator: TextEstimator
    queries: Sequence[Query]


class Answered(NamedTuple):
    """What a task says of N rows.

    Attributes
    ----------
    probabilities : ndarray of shape (N, K)
        NaN where the model gave no usable answer.
    reasons : list of str
        Why it gave none; empty for the other rows.
    cut : ndarray of shape (N,), bool
        Where the text was longer than the model reads.
    tokens : ndarray of shape (N,), int
        Of the prompts, in the model's tokens; -1 where it does not say.
    queries : int
        Paid for. A prompt of several tasks counts for the first of them.
    """

    probabilities: NDArray[np.float64]
    reasons: list[str]
    cut: NDArray[np.bool_]
    tokens: NDArray[np.int64]
    queries: int


def asked_once(model: FrozenModel, query: Query) -> Hashable:
    """Return what two queries of a model have in common that are asked as one."""
    return id(model), query.prompt, None if scores_apart(model) else query.words


def answer(parts: Sequence[Asked]) -> list[Answered | Exception]:
    """Answer parts that are asked in one go, each prompt once.

    Where one of them cannot be asked for what is in it, the others are asked without it; where the
    model fails, they all do. What has been answered is not asked again because one is not decoded.

    Parameters
    ----------
    parts : sequence of Asked
        All on the same frozen model, or on models that share a network.

    Returns
    -------
    list of Answered or Exception
        One of each part.
    """
    try:
        found = observe(parts)
    except DOWN as error:
        return [error for _ in parts]
    except Exception as error:  # whose it is shows when each is asked alone
        if len(parts) == 1:
            return [error]
        return [one for part in parts for one in answer([part])]
    return [_decoded(part, seen) for part, seen in zip(parts, found, strict=True)]


def observe(parts: Sequence[Asked]) -> list[Observations]:
    """Ask what several tasks want to know of a frozen model; columns are the tasks' classes.

    A prompt that two tasks share is asked once where they spell the same label words, or where the
    model scores each word for itself.
    """
    asking: dict[int, _Asking] = {}
    for estimator, queries in parts:
        model = estimator.task_.model
        asking.setdefault(id(model), _Asking(model)).add(queries)
    _ask_all(list(asking.values()))
    return [_of(part, asking[id(part.estimator.task_.model)]) for part in parts]


class _Asking:
    """What one frozen model is asked: prompts by the words that go with them, and the answers."""

    def __init__(self, model: FrozenModel) -> None:
        self.model = model
        self._apart = scores_apart(model)
        self._words: dict[Prompt, dict[str, None]] = {}
        self._queries: list[Query] = []
        self.prompts: dict[Words, dict[Prompt, int]] = {}
        self.answers: dict[Words, Observations] = {}
        self.spent: set[tuple[Words, Prompt]] = set()

    def add(self, queries: Sequence[Query]) -> None:
        self._queries += queries
        if self._apart:
            for query in queries:
                self._words.setdefault(query.prompt, {}).update(dict.fromkeys(query.words))

    def group(self) -> None:
        for query in self._queries:
            prompts = self.prompts.setdefault(self.key(query), {})
            prompts.setdefault(query.prompt, len(prompts))

    def key(self, query: Query) -> Words:
        """Return the words that a query is asked with."""
        return tuple(self._words[query.prompt]) if self._apart else query.words


def _ask_all(asking: Sequence[_Asking]) -> None:
    """Ask, rows of several models in one batch where they have a mixture."""
    mixtures: dict[str, list[_Asking]] = {}
    for one in asking:
        one.group()
        mixture = mixture_of(one.model) if len(asking) > 1 else None
        if mixture is not None:
            mixtures.setdefault(mixture, []).append(one)
    mixed: set[int] = set()
    for some in mixtures.values():
        if len(some) > 1:
            groups = [(one, words) for one in some for words in one.prompts]
            model: Any = some[0].model
            found = model.mixed([(one.model, list(one.prompts[w]), w) for one, w in groups])
            for (one, words), answers in zip(groups, found, strict=True):
                one.answers[words] = answers
            mixed.update(map(id, some))
    for one in asking:
        if id(one) not in mixed:
            for words, prompts in one.prompts.items():
                one.answers[words] = one.model.observe(list(prompts), words)


def _of(part: Asked, asking: _Asking) -> Observations:
    """Return a part's own rows and columns of what was answered."""
    verbalizer = part.estimator.task_.verbalizer
    names = [str(name) for name in verbalizer.classes]
    votes = asking.model.capabilities.resolution > 0
    groups: dict[tuple[Words, Words], list[int]] = {}
    for i, query in enumerate(part.queries):
        groups.setdefault((asking.key(query), query.words), []).append(i)
    batches = []
    for (own, words), where in groups.items():
        place, fresh = asking.prompts[own], []
        for i in where:
            known = (own, part.queries[i].prompt)
            fresh.append(known not in asking.spent)
            asking.spent.add(known)
        seen = asking.answers[own][np.array([place[part.queries[i].prompt] for i in where])]
        mine = _columns(replace(seen, asked=seen.asked & np.array(fresh)), own, words)
        owners, weights = verbalizer.word_class, verbalizer.weights
        batches.append((np.array(where), mine.by_class(names, owners, weights, votes=votes)))
    return gather(batches, len(part.queries))


def _columns(seen: Observations, own: Sequence[str], words: Sequence[str]) -> Observations:
    if tuple(own) == tuple(words) or seen.scores is None:
        return replace(seen, columns=tuple(words))
    place = {word: i for i, word in enumerate(own)}
    some = [place[word] for word in words]
    changed: dict[str, Any] = {"scores": seen.scores[:, some]}
    if seen.censored is not None:
        changed["censored"] = seen.censored[:, some]
    unknown = np.full(len(seen), np.nan, dtype=np.float32)  # it was that of more words
    return replace(seen, columns=tuple(words), label_mass=unknown, **changed)


def _decoded(part: Asked, seen: Observations) -> Answered | Exception:
    try:
        return _answered(part, seen)
    except Exception as error:  # is this part's own
        return error


def _answered(part: Asked, seen: Observations) -> Answered:
    task = part.estimator.task_
    views = len(task.template.views)
    tokens = seen.n_tokens.reshape(-1, views).astype(np.int64)
    return Answered(
        part.estimator.decode(seen),
        task.failures(seen),
        (seen.status.reshape(-1, views) == Status.TRUNCATED).any(axis=1),
        np.where((tokens < 0).any(axis=1), -1, tokens.sum(axis=1)),
        seen.queries,
    )
