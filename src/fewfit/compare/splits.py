"""Few-shot samples, drawn as DecT's experiments draw them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewfit.choices import SEEDS
from fewfit.errors import InputError
from fewfit.prompts.containers import shown

SHOTS = (1, 4, 16)
_DIGITS = 20
_MOST_SEEDS = 100_000


@dataclass(frozen=True, eq=False)
class Sample:
    """Which rows of the training pool a few-shot classifier sees."""

    shots: int
    seed: int
    rows: NDArray[np.intp]


def usual_shots(y: NDArray[np.generic]) -> list[int]:
    """Return 1, 4 and 16 as far as the smallest class goes, and its size where that is less."""
    smallest = min(Counter(np.asarray(y).tolist()).values())
    return sorted({*(n for n in SHOTS if n <= smallest), min(smallest, SHOTS[-1])})


def draw_samples(
    y: NDArray[np.generic], *, shots: Sequence[int], seeds: Sequence[int]
) -> list[Sample]:
    """Draw one sample per number of shots and seed; see :func:`sample_shots`.

    Raises
    ------
    InputError
        If a class has too few examples for any of the numbers of shots.
    """
    _check_enough(Counter(np.asarray(y).tolist()), max(shots))
    return [Sample(n, seed, sample_shots(y, n, seed=seed)) for n in shots for seed in seeds]


def sample_shots(
    y: Sequence[object] | NDArray[np.generic], shots: int, *, seed: int
) -> NDArray[np.intp]:
    """Draw `shots` examples of each class.

    The draw of OpenPrompt's sampler, which DecT's experiments use: a ``RandomState(seed)``;
    classes in order of first appearance; the rows of each class shuffled and the first `shots`
    taken; the sample shuffled once more.

    Parameters
    ----------
    y : sequence of length N
        Labels.
    shots : int
        Examples per class.
    seed : int

    Returns
    -------
    ndarray of shape (K * shots,), int
        Positions in `y`.

    Raises
    ------
    InputError
        If a class has fewer than `shots` examples (the original silently takes what there is).

    Examples
    --------
    >>> sample_shots(["a", "b", "a", "b", "a"], 1, seed=0)
    array([1, 4])
    """
    if shots < 1:
        raise InputError(f"shots: at least 1 is needed, got {shots}")
    rows: dict[object, list[int]] = {}
    for i, label in enumerate(np.asarray(y).tolist()):
        rows.setdefault(label, []).append(i)
    rng = np.random.RandomState(seed)
    chosen: list[NDArray[np.intp]] = []
    _check_enough({label: len(where) for label, where in rows.items()}, shots)
    for where in rows.values():
        positions = np.array(where, dtype=np.intp)
        rng.shuffle(positions)
        chosen.append(positions[:shots])
    sample = np.concatenate(chosen)
    rng.shuffle(sample)
    return sample


def _check_enough(counts: Mapping[Any, int], shots: int) -> None:
    """Refuse classes with fewer examples than shots, and say how many shots are possible."""
    short = {label: n for label, n in counts.items() if n < shots}
    if not short:
        return
    few = min(short, key=lambda label: short[label])
    n = short[few]
    others = f" ({len(short)} of {len(counts)} classes have too few)" if len(short) > 1 else ""
    raise InputError(
        f"shots: class {shown(few)} has {n} example{'s' * (n != 1)}, fewer than {brief(shots)} "
        f"shots{others}; up to {n} per class are possible (shots=[{n}], --shots {n}), or leave "
        f"{'these classes' if len(short) > 1 else 'this class'} out"
    )


def brief(number: int) -> str:
    """Return a number for a message; of one that is absurdly long its first digits."""
    if number.bit_length() > 2**13:  # more than Python puts into digits
        return f"a number of {number.bit_length()} bits"
    digits = str(number)
    return digits if len(digits) <= _DIGITS else f"{digits[:_DIGITS]}..."


def same_samples(samples: Sequence[Sample]) -> list[int]:
    """Return the numbers of shots for which all of several samples hold the same rows."""
    drawn: dict[int, list[bytes]] = {}
    for sample in samples:
        drawn.setdefault(sample.shots, []).append(np.sort(sample.rows).tobytes())
    return [shots for shots, rows in drawn.items() if len(rows) > 1 and len(set(rows)) == 1]


def overlap(
    train: Sequence[Mapping[str, str]],
    test: Sequence[Mapping[str, str]],
    *,
    drop: bool,
    where: tuple[Callable[[int], str], Callable[[int], str]] | None = None,
) -> NDArray[np.intp]:
    """Return the positions of the training rows whose text is not in the test set.

    Texts are the same if they differ in nothing but case and white space.

    Parameters
    ----------
    drop : bool
        Whether other rows are left out; if not, they are an error.
    where : pair of callables, optional
        Name a row of `train` and one of `test` in a message; left out, they count from 0.

    Raises
    ------
    InputError
        Naming the first training row that is in the test set, unless `drop`; or if none is left.
    """
    seen = {_folded(row): i for i, row in reversed(list(enumerate(test)))}
    shared = {i: seen[key] for i, row in enumerate(train) if (key := _folded(row)) in seen}
    if shared and not drop:
        name, other = where or ("train row {}".format, "test row {}".format)
        first = min(shared)
        raise InputError(
            f"{name(first)} has the text of {other(shared[first])}, and {len(shared)} of "
            f"{len(train)} train rows are in the test set; leave them out with drop_overlap=True "
            "(--drop-overlap), or split again"
        )
    kept = [i for i in range(len(train)) if i not in shared]
    if not kept:
        raise InputError("every train row is in the test set")
    return np.array(kept, dtype=np.intp)


def check_classes(classes: Sequence[object], y_train: Any, y_test: Any) -> None:
    """Refuse labels that do not go with the classes (InputError)."""
    known = set(classes)
    for where, y in (("train", y_train), ("test", y_test)):
        strange = set(y.tolist()) - known
        if strange:
            raise InputError(
                f"{where}: class {min(strange, key=str)!r} is not one of {list(classes)}"
            )
    absent = known - set(y_train.tolist())
    if absent:
        raise InputError(
            f"train: class {min(absent, key=str)!r} has label words but no example; give it some "
            "or leave it out"
        )


def check_left(classes: Sequence[object], y: Any) -> None:
    """Refuse a class whose training rows were all left out for their texts (InputError)."""
    gone = set(classes) - set(y.tolist())
    if gone:
        raise InputError(
            f"train: every row of class {min(gone, key=str)!r} has the text of a test row, and is "
            "left out; give the class others, or split again"
        )


def _folded(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(" ".join(row[name].split()).casefold() for name in sorted(row))


def read_seeds(seeds: Any) -> list[int]:
    """Return seeds: those that are given, or the first so many (InputError)."""
    if isinstance(seeds, Integral) and not isinstance(seeds, bool):
        n = int(seeds)
        if not 1 <= n <= _MOST_SEEDS:
            raise InputError(f"seeds: expected 1 to {_MOST_SEEDS:,} samples, got {brief(n)}")
        return list(range(n))
    numbers = whole_numbers("seeds", seeds, least=0)
    if max(numbers) >= SEEDS:
        raise InputError(f"seeds: below 2**32 is needed, got {brief(max(numbers))}")
    return numbers


def whole_numbers(name: str, values: Any, *, least: int = 1) -> list[int]:
    """Return whole numbers from `least` on, each once (InputError)."""
    numbers: list[int] = []
    for value in values if isinstance(values, Iterable) and not isinstance(values, str) else [None]:
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InputError(f"{name}: expected a list of whole numbers, got {values!r:.50}")
        number = int(value)
        if number < least:
            raise InputError(f"{name}: at least {least} is needed, got {brief(number)}")
        numbers.append(number)
    if not numbers or len(set(numbers)) != len(numbers):
        raise InputError(f"{name}: give at least one number, each once, got {numbers}")
    return numbers
