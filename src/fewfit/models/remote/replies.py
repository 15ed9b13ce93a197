"""Reading replies without trusting them: every number is checked before it is believed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.models.remote.verdict import RowError

SUM_TOLERANCE = 1e-2
"""How far above 1 listed probabilities may sum: servers compute them in bfloat16."""

UNLISTED = -1000.0
"""Some servers write -9999 for 'not at all'; such an entry counts as not listed."""

_LEAST_REST = 1e-6

HUGE, TINY = 1e15, 1e-15
"""What the largest number of a vector lies between: beyond, its length is none in float32."""


def field(reply: Any, *path: str | int) -> Any:
    """Return ``reply[path[0]][path[1]]...``, or say which part is missing (RowError).

    Text is a name in an object, a number a place in a list, and nothing else has parts.
    """
    for depth, step in enumerate(path):
        kind = dict if isinstance(step, str) else list
        try:
            if not isinstance(reply, kind):
                raise LookupError
            reply = reply[step]  # pyright: ignore[reportArgumentType, reportCallIssue]
        except LookupError:
            where = ".".join(map(str, path[: depth + 1]))
            raise RowError(f"the reply lacks {where}") from None
        if reply is None:
            raise RowError(f"{'.'.join(map(str, path[: depth + 1]))} is null in the reply")
    return reply


def items(values: Any, n: int, name: str) -> list[Any]:
    """Return `n` items in the order of their ``index``, each index occurring once.

    Raises
    ------
    RowError
        For more or fewer items, or a missing, doubled or unknown index.
    """
    if not isinstance(values, list) or len(values) != n:
        found = len(values) if isinstance(values, list) else type(values).__name__
        raise RowError(f"{name}: expected {n} in the reply, got {found}")
    if not all(isinstance(value, dict) for value in values):
        raise RowError(f"{name}: not objects")
    order = [value.get("index", 0 if n == 1 else None) for value in values]
    if any(type(i) is not int for i in order) or sorted(order) != list(range(n)):
        raise RowError(f"{name}: the reply's indices are {order[:9]}, expected 0 to {n - 1}")
    return sorted(values, key=lambda value: value.get("index", 0))


def count(value: Any) -> int:
    """Return a number of tokens, or -1 where the server does not say one."""
    return value if type(value) is int and 0 <= value < 2**31 else -1


def token_ids(reply: Any) -> list[int]:
    """Return what a ``/tokenize`` route says, checked."""
    tokens = field(reply, "tokens")
    if not isinstance(tokens, list) or not all(type(t) is int and 0 <= t < 2**31 for t in tokens):
        raise RowError("/tokenize did not reply with token ids")
    return tokens


def vector(values: Any, name: str = "the vector") -> NDArray[np.float32]:
    """Return a vector of finite numbers, float32.

    Raises
    ------
    RowError
        If it is no flat list of numbers, they are all the same, or the largest is so large or small
        that the vector's length is not a number of float32.
    """
    if isinstance(values, str):
        raise RowError(f"{name} is text (base64?), numbers were asked for")
    if not isinstance(values, list) or not values:
        raise RowError(f"{name} is not a list of numbers")
    kinds = set(map(type, values))
    if kinds == {list}:
        raise RowError(f"{name} is one for each token; start the server so that it pools them")
    if not kinds <= {int, float}:
        raise RowError(f"{name} is not a list of numbers")
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise RowError(f"{name} has a number that is not finite")
    largest = float(np.abs(numbers).max())
    if largest > HUGE:
        raise RowError(f"{name} has numbers up to {largest:g}, too large for float32")
    vector = numbers.astype(np.float32)
    if vector.size > 1 and (vector == vector[0]).all():
        raise RowError(f"{name} is constant: all its {vector.size} numbers are {vector[0]:g}")
    if largest < TINY:
        raise RowError(f"{name} has no number above {largest:g}, too small for float32")
    return vector


def last_vector(values: Any, name: str = "the hidden state") -> NDArray[np.float32]:
    """Return a vector, or the last of several: servers that do not pool give one for each token."""
    while isinstance(values, list) and values and isinstance(values[0], list):
        values = values[-1]
    return vector(values, name)


def log_probabilities(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[Any, float]]:
    """Check (token, log-probability) pairs; entries that mean 'not at all' are left out.

    Raises
    ------
    RowError
        If there are none, one is not a number or not finite or positive, or the probabilities
        sum to more than 1.
    """
    listed: list[tuple[Any, float]] = []
    for token, value in pairs:
        if type(token) not in (str, int):
            raise RowError(f"a listed token is neither text nor an id, but {str(token)[:40]}")
        if type(value) not in (int, float):
            raise RowError(f"the log-probability of {token!r} is {str(value)[:40]!r}, not a number")
        if not math.isfinite(value) or value > 1e-3:
            raise RowError(f"the log-probability of {token!r} is {value:.6g}")
        if value > UNLISTED:
            listed.append((token, min(float(value), 0.0)))
    if not listed:
        raise RowError("the reply lists no token with a probability")
    total = sum(math.exp(value) for _, value in listed)
    if total > 1 + SUM_TOLERANCE:
        raise RowError(f"the listed probabilities sum to {total:.3f}: they are not probabilities")
    return listed


def label_scores(
    listed: Sequence[tuple[Any, float]], targets: Sequence[Iterable[Any]], top_k: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Find the label words among the most probable tokens.

    A word that several listed tokens spell has the sum of their probabilities. For a word that is
    not listed there is only a bound, and that is its score: it is not more probable than the last
    of the `top_k` tokens, nor than what the listed ones leave over (at least 1e-6, since servers
    round).

    Parameters
    ----------
    listed : sequence of (token, log-probability)
    targets : sequence of length W
        For each label word the tokens that spell it.
    top_k : int
        How many tokens were asked for; a server may add the one that it chose.

    Returns
    -------
    (scores, censored, label_mass)
        Shapes (W,) and (W,), and the probability of the listed label words together.
    """
    ordered = sorted((value for _, value in listed), reverse=True)
    rest = 1.0 - sum(map(math.exp, ordered))
    bound = min(ordered[min(top_k, len(ordered)) - 1], math.log(max(rest, _LEAST_REST)))
    found = [
        sum(math.exp(value) for token, value in listed if token in spellings)
        for spellings in targets
    ]
    scores = np.array([min(math.log(p), 0.0) if p > 0 else bound for p in found])
    return scores, np.array([p == 0 for p in found]), sum(found)
