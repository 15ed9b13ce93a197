from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, false_discovery_control

from fewfit.compare.journal import Finished
from fewfit.compare.report.statistics import (
    holm,
    interval,
    paired_p_value,
    resampled_accuracy,
    summarise,
)
from fewfit.compare.report.tables import cost_table
from fewfit.compare.schema import Asked, Cell, Ledger


def test_one_seed_is_the_ordinary_bootstrap():
    correct = np.random.default_rng(0).random((1, 1, 300)) < 0.8
    low, high = interval(resampled_accuracy(correct, n_resamples=9000)[0])
    expected = bootstrap(
        (correct.ravel().astype(float),), np.mean, method="percentile", n_resamples=9000, rng=1
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_seeds_and_rows_are_resampled_independently():
    """Against scipy's bootstrap of two independent samples: positions of seeds and of rows."""
    rng = np.random.default_rng(1)
    skill = rng.random((4, 1)) * 0.5 + 0.4
    correct = rng.random((4, 80)) < skill

    def accuracy(rows, seeds):
        return correct[np.ix_(seeds.astype(int), rows.astype(int))].mean()

    expected = bootstrap(
        (np.arange(80.0), np.arange(4.0)), accuracy, vectorized=False, method="percentile",
        n_resamples=4000, rng=2,
    )  # fmt: skip
    resampled = resampled_accuracy(correct[None], n_resamples=4000)[0]
    low, high = interval(resampled)
    ci = expected.confidence_interval
    assert (low, high) == pytest.approx((ci.low, ci.high), abs=0.015)
    assert resampled.std() == pytest.approx(float(expected.standard_error), rel=0.08)
    rows_only = resampled_accuracy(correct[None, :1], n_resamples=4000)[0]
    assert resampled.std() > 1.2 * rows_only.std()


def test_methods_share_resamples():
    correct = np.random.default_rng(2).random((1, 3, 50)) < 0.7
    twice = resampled_accuracy(np.concatenate([correct, correct, ~correct]))
    np.testing.assert_array_equal(twice[0], twice[1])
    np.testing.assert_allclose(twice[0] + twice[2], 1)
    assert paired_p_value(twice[0], twice[1]) == 1


def test_the_test_keeps_its_level_and_finds_differences():
    """No difference: at most 5 % of p-values below 0.05 (plus noise); a real one: found."""
    rng = np.random.default_rng(3)
    p_null, p_real = [], []
    for _ in range(120):
        hard = rng.random((1, 1, 150))  # rows differ in how hard they are
        level = rng.normal(0, 0.03, (2, 5, 1))  # samples differ in how lucky they are
        for shift, into in ((0.0, p_null), (0.15, p_real)):
            chance = 0.5 + 0.4 * hard - np.array([0, shift])[:, None, None] + level
            both = resampled_accuracy(rng.random((2, 5, 150)) < chance, n_resamples=400)
            into.append(paired_p_value(both[0], both[1]))
    assert np.mean(np.array(p_null) < 0.05) <= 0.09
    assert np.mean(np.array(p_real) < 0.05) > 0.8


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_values):
    """Rejected at level a exactly if it and all smaller ones pass a / (m - rank)."""
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    m, running = len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, p_values[i] * (m - rank))
        assert adjusted[i] == pytest.approx(min(1.0, running))
    # Holm is never less strict than Benjamini and Hochberg.
    assert (np.array(adjusted) >= false_discovery_control(p_values) - 1e-12).all()


def finished(method, seed, predicted, **changes) -> Finished:
    ledger = {
        "queries": 9,
        "tokens": 90,
        "predict_queries": 4,
        "predict_tokens": 40,
        "fit_seconds": 0.1 * (seed + 1),
        "predict_seconds": 0.1,
        "peak_memory": 100 if seed == 0 else None,
        "parameters": 5,
        "artifact_bytes": 50,
    }
    accuracy = float((np.array(predicted) == 0).mean())
    cell = {
        "method": method,
        "model": "m",
        "shots": 4,
        "seed": seed,
        "accuracy": accuracy,
        "macro_f1": 0.5,
        "log_loss": 1.0,
        "ece": 0.1,
    }
    return Finished(
        Cell(**cell, ledger=Ledger(**{**ledger, **changes})),
        np.array(predicted, dtype=np.uint16),
        np.ones(len(predicted), np.float16),
    )


def test_a_pace_is_that_of_a_model_and_not_of_its_store():
    cells, y = [finished("a", 0, [0] * 4)], np.zeros(4, dtype=np.intp)
    few, most = ([Asked(model="m", queries=n, seconds=3.0, prompts=1000)] for n in (1, 600))
    assert summarise(cells, y, asked=few)[0].seconds is None
    assert summarise(cells, y, asked=most)[0].seconds is not None


def test_summaries():
    y = np.zeros(40, dtype=np.intp)
    good = [[0] * 36 + [1] * 4, [0] * 34 + [1] * 6, [0] * 38 + [1] * 2]
    poor = [[0] * 10 + [1] * 30] * 3
    near = [[1] * 2 + [0] * 34 + [1] * 4, [0] * 36 + [1] * 4, [0] * 36 + [1] * 4]
    cells = [
        finished(name, seed, predicted)
        for name, runs in (("poor", poor), ("good", good), ("near", near))
        for seed, predicted in enumerate(runs)
    ]
    found = {
        s.method: s for s in summarise(cells, y, asked=[Asked(model="m", queries=50, seconds=5.0)])
    }
    best = found["good"]
    assert (best.best, best.tied, best.p_value) == (True, True, None)
    assert best.accuracy == pytest.approx(0.9)
    assert best.sd == pytest.approx(0.05)
    assert (best.median, best.q25, best.q75) == pytest.approx((0.9, 0.875, 0.925))
    assert best.low < 0.9 < best.high
    assert found["poor"].p_value < 0.01
    assert not found["poor"].tied
    assert found["near"].tied
    assert best.fit_seconds == pytest.approx(0.2)
    assert best.seconds == pytest.approx(0.2 + 9 * 5.0 / 50)
    assert best.peak_memory == 100
    assert best.cost is None
    unknown = summarise(cells, y, price=2.0)[0]
    assert unknown.seconds is None
    assert unknown.cost == 2.0 * 130
    assert summarise(cells[:1], y)[0].sd is None


def test_tables_at_a_number_of_shots_hold_no_others():
    cells = [finished("a", 0, [0] * 4), finished("b", 0, [0] * 4)]
    more = finished("a", 0, [0] * 4)
    more = replace(more, cell=more.cell.model_copy(update={"shots": 16}))
    found = summarise([*cells, more], np.zeros(4, dtype=np.intp))
    table = cost_table(found)
    assert table.header[0] == "16 shots"
    assert [row[0] for row in table.rows] == ["a"]
