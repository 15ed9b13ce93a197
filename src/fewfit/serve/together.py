"""Texts of several tasks, asked of their frozen model in one go."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewfit.errors import FewfitError, ModelWarning, TruncationWarning
from fewfit.estimators.base import TextEstimator
from fewfit.gathering import gather
from fewfit.models.optional import scores_apart
from fewfit.observations import Observations, Status
from fewfit.prompts import Prompt, Row
from fewfit.task import Query


class Asked(NamedTuple):
    """Some rows that a task is asked about."""

    estimator: TextEstimator
    rows: Sequence[Row]


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
    queries : int
        Paid for. A prompt of several tasks counts for the first of them.
    """

    probabilities: NDArray[np.float64]
    reasons: list[str]
    cut: NDArray[np.bool_]
    queries: int


def answer(parts: Sequence[Asked]) -> list[Answered | Exception]:
    """Answer parts that are asked of one frozen model, each prompt once.

    Where one of them fails for what is in it, the others are asked without it.

    Parameters
    ----------
    parts : sequence of Asked
        All on the same frozen model.

    Returns
    -------
    list of Answered or Exception
        One of each part.
    """
    try:
        with warnings.catch_warnings():
            # Said of each row in the reply, and of nothing else.
            warnings.simplefilter("ignore", TruncationWarning)
            warnings.simplefilter("ignore", ModelWarning)
            found = observe(parts)
            return [_decoded(part, seen) for part, seen in zip(parts, found, strict=True)]
    except Exception as error:  # whose it is shows when each is asked alone
        if len(parts) == 1:
            return [error]
        return [one for part in parts for one in answer([part])]


def observe(parts: Sequence[Asked]) -> list[Observations]:
    """Ask a frozen model what several tasks want to know of it; columns are the tasks' classes.

    A prompt that two tasks share is asked once where they spell the same label words, or where the
    model scores each word for itself.
    """
    queries = [part.estimator.task_.queries(part.rows) for part in parts]
    model = parts[0].estimator.task_.model
    words: dict[Prompt, dict[str, None]] = {}
    apart = scores_apart(model)
    if apart:
        for query in (query for part in queries for query in part):
            words.setdefault(query.prompt, {}).update(dict.fromkeys(query.words))
    together: dict[tuple[str, ...], dict[Prompt, int]] = {}

    def key(query: Query) -> tuple[str, ...]:
        return tuple(words[query.prompt]) if apart else query.words

    for query in (query for part in queries for query in part):
        prompts = together.setdefault(key(query), {})
        prompts.setdefault(query.prompt, len(prompts))
    answers = {own: model.observe(list(prompts), own) for own, prompts in together.items()}
    spent: set[tuple[tuple[str, ...], Prompt]] = set()
    return [
        _of(part, own, [key(query) for query in own], together, answers, spent)
        for part, own in zip(parts, queries, strict=True)
    ]


def _of(
    part: Asked,
    queries: Sequence[Query],
    keys: Sequence[tuple[str, ...]],
    together: dict[tuple[str, ...], dict[Prompt, int]],
    answers: dict[tuple[str, ...], Observations],
    spent: set[tuple[tuple[str, ...], Prompt]],
) -> Observations:
    """Return a part's own rows and columns of what was answered."""
    verbalizer = part.estimator.task_.verbalizer
    names = [str(name) for name in verbalizer.classes]
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for i, (query, own) in enumerate(zip(queries, keys, strict=True)):
        groups.setdefault((own, query.words), []).append(i)
    batches = []
    for (own, words), where in groups.items():
        prompts = [queries[i].prompt for i in where]
        seen = answers[own][np.array([together[own][prompt] for prompt in prompts])]
        fresh = []
        for prompt in prompts:
            fresh.append((own, prompt) not in spent)
            spent.add((own, prompt))
        mine = _columns(replace(seen, asked=seen.asked & np.array(fresh)), own, words)
        batches.append(
            (np.array(where), mine.by_class(names, verbalizer.word_class, verbalizer.weights))
        )
    return gather(batches, len(queries))


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


def _decoded(part: Asked, seen: Observations) -> Answered:
    task = part.estimator.task_
    status = seen.status.reshape(len(part.rows), -1)
    return Answered(
        part.estimator.decode(seen),
        task.failures(seen),
        (status == Status.TRUNCATED).any(axis=1),
        seen.queries,
    )


def is_ours(error: BaseException) -> bool:
    """Whether an error says something to whom it is shown."""
    return isinstance(error, FewfitError)
