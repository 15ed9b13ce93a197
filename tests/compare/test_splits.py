from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from fewfit.compare import expected_calibration_error, measure, sample_shots
from fewfit.compare.splits import usual_shots
from fewfit.datasets import load_support_desk
from fewfit.errors import InputError


def test_the_sample_is_dects():
    """RandomState(seed); classes by first appearance; shuffle, take; shuffle once more."""
    y = ["b", "a", "b", "a", "c", "c", "b", "a", "c"]
    rng = np.random.RandomState(7)
    groups = [np.array([0, 2, 6]), np.array([1, 3, 7]), np.array([4, 5, 8])]
    for group in groups:
        rng.shuffle(group)
    expected = np.concatenate([group[:2] for group in groups])
    rng.shuffle(expected)
    np.testing.assert_array_equal(sample_shots(y, 2, seed=7), expected)


@given(st.integers(1, 5), st.integers(0, 99))
def test_samples_are_balanced_and_without_repeats(shots, seed):
    y = np.array(list("abcab" * 5))
    rows = sample_shots(y, shots, seed=seed)
    assert len(set(rows.tolist())) == 3 * shots
    assert np.unique(y[rows], return_counts=True)[1].tolist() == [shots] * 3


def test_too_few_examples_are_refused():
    with pytest.raises(
        InputError, match="class 'b' has 1 example, fewer than 2 shots; up to 1 per"
    ):
        sample_shots(["a", "b", "a"], 2, seed=0)
    with pytest.raises(InputError, match="at least 1"):
        sample_shots(["a", "b"], 0, seed=0)


def test_measure():
    classes = np.array(["a", "b"])
    y = np.array(["a", "a", "b", "b"])
    proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    metrics = measure(y, proba, classes)
    assert metrics.accuracy == 0.75
    assert metrics.log_loss == pytest.approx(log_loss(y, proba))
    assert metrics.accuracy_low < 0.75 < metrics.accuracy_high
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    unknown = measure(np.array(["a", "z"]), proba[:2], classes)
    assert unknown.accuracy == 0.5
    assert unknown.log_loss > 10


def test_macro_f1_is_over_the_same_classes_whatever_is_predicted():
    classes, y = np.array(["a", "b", "c", "d"]), np.repeat(["a", "b"], 50)
    proba = np.eye(4)[np.repeat([0, 1], 50)]
    one_off, absent = proba.copy(), proba.copy()
    one_off[0], absent[0] = np.eye(4)[1], np.eye(4)[2]
    assert measure(y, one_off, classes).macro_f1 == pytest.approx((98 / 99 + 100 / 101) / 2)
    assert measure(y, absent, classes).macro_f1 == pytest.approx((98 / 99 + 1) / 2)
    y[0] = "z"  # an error, and no class of the task's
    assert measure(y, one_off, classes).macro_f1 == pytest.approx((1 + 100 / 101) / 2)
    assert measure(np.array(["z"]), proba[:1], classes).macro_f1 == 0


def test_calibration_error():
    assert expected_calibration_error(np.full(4, 0.75), np.array([1, 1, 1, 0], bool)) == 0
    assert expected_calibration_error(np.full(4, 1.0), np.zeros(4, bool)) == 1
    # two bins: (0.6, 0.6) half right, (0.9) right: 2/3 * 0.1 + 1/3 * 0.1
    value = expected_calibration_error(np.array([0.6, 0.6, 0.9]), np.array([1, 0, 1], bool))
    assert value == pytest.approx(0.1)


def test_the_support_desk_is_what_the_issue_of_few_labels_looks_like():
    texts, labels = load_support_desk()
    counts = np.unique(labels, return_counts=True)[1]
    assert len(counts) == 10
    assert counts.min() >= 40
    assert len({text.casefold() for text in texts}) == len(texts)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 4
    assert max(lengths) >= 50
    from importlib.resources import files

    assert len((files("fewfit.datasets") / "support_desk.csv").read_bytes()) < 100_000


@pytest.mark.parametrize(
    ("smallest", "shots"), [(1, [1]), (3, [1, 3]), (4, [1, 4]), (9, [1, 4, 9]), (99, [1, 4, 16])]
)
def test_the_usual_shots_end_with_the_smallest_class(smallest, shots):
    y = np.array(["a"] * 120 + ["b"] * smallest)
    assert usual_shots(y) == shots
