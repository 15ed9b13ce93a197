from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewfit.errors import InputError
from fewfit.gathering import concatenate, gather
from fewfit.observations import Observations, ScoreSpace


def make(n: int, *, W: int = 3, H: int = 2, offset: float = 0.0) -> Observations:
    return Observations(
        columns=tuple("abc"[:W]),
        scores=offset + np.arange(n * W, dtype=np.float32).reshape(n, W),
        space=ScoreSpace.LOGPROB,
        hidden=offset + np.arange(n * H, dtype=np.float32).reshape(n, H),
        label_mass=np.full(n, 0.5),
        n_tokens=np.arange(n),
        status=np.zeros(n),
        asked=np.ones(n, dtype=bool),
    )


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_concatenating_slices_gives_the_whole(sizes):
    whole = make(sum(sizes))
    ends = np.cumsum(sizes)
    parts = [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    again = concatenate(parts)
    for name in ("scores", "hidden", "n_tokens", "status", "asked", "label_mass"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert again.columns == whole.columns


@given(st.permutations(range(6)))
def test_gather_undoes_any_order(order):
    whole = make(6)
    batches = [(np.array(rows), whole[np.array(rows)]) for rows in (order[:4], order[4:])]
    np.testing.assert_array_equal(gather(batches, 6).scores, whole.scores)


def test_gather_wants_every_row_once():
    whole = make(3)
    with pytest.raises(InputError, match="row 2 was not filled once"):
        gather([(np.array([0, 1]), whole[:2])], 3)
    with pytest.raises(InputError, match="row 1 was not filled once"):
        gather([(np.array([0, 1]), whole[:2]), (np.array([1, 2]), whole[:2])], 3)


def test_parts_must_be_alike():
    for other in (make(2, W=2), make(2, H=3), replace(make(2), space=ScoreSpace.LOGIT)):
        with pytest.raises(InputError, match="parts differ"):
            concatenate([make(2), other])
    with pytest.raises(InputError, match="nothing to gather"):
        concatenate([])


def test_shapes_are_checked_and_arrays_are_read_only():
    observations = make(2)
    with pytest.raises(InputError, match="scores has shape"):
        replace(observations, columns=("a",))
    with pytest.raises(InputError, match="n_tokens has shape"):
        replace(observations, n_tokens=np.zeros(3))
    with pytest.raises(InputError, match="scores and space"):
        replace(observations, space=None)
    with pytest.raises(InputError, match="neither scores nor hidden"):
        replace(observations, scores=None, space=None, hidden=None)
    with pytest.raises(ValueError, match="read-only"):
        observations.scores[0, 0] = 1
    mine = np.zeros((2, 3), dtype=np.float32)
    replace(observations, scores=mine)
    mine[0, 0] = 1  # the caller's own array stays writable


def test_one_row_is_asked_for_with_a_slice():
    with pytest.raises(InputError, match="slice or an array"):
        make(3)[1]
    assert len(make(3)[1:2]) == 1


def test_class_score_is_the_best_of_its_words():
    observations = replace(make(2), scores=np.array([[1, 5, 2], [9, 0, 3]]))
    by_class = observations.by_class(["x", "y"], [1, 0, 1])
    np.testing.assert_array_equal(by_class.scores, [[5, 2], [0, 9]])
    assert by_class.columns == ("x", "y")
