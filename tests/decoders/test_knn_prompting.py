"""kNN-Prompting against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from fewfit.decoders import (
    KNNPrompting,
)
from fewfit.decoders.knn_prompting import divergence
from fewfit.errors import InputError

ANCHORS = np.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])


def test_divergence_in_numbers():
    distance = divergence(np.log(ANCHORS), np.log([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(distance, [[0.085123, 0.634897, 0.083465]], atol=1e-6)
    np.testing.assert_allclose(np.diag(divergence(np.log(ANCHORS), np.log(ANCHORS))), 0, atol=1e-15)


def test_the_direction_of_the_divergence_is_anchor_to_query():
    anchors = np.array([[0.02, 0.52, 0.46], [0.0303, 0.9293, 0.0404]])
    query = np.log([[0.91, 0.02, 0.07]])
    np.testing.assert_allclose(divergence(np.log(anchors), query), [[2.4839, 3.4420]], atol=1e-4)
    other_way = divergence(query, np.log(anchors)).T
    np.testing.assert_allclose(other_way, [[3.2772, 3.0577]], atol=1e-4)
    assert KNNPrompting(k=1).fit(np.log(anchors), [0, 1]).predict(query) == [0]


def test_votes_ties_and_the_cap_on_neighbours():
    y = np.array(["a", "b", "b"])
    assert KNNPrompting(k=1).fit(np.log(ANCHORS), y).predict(np.log(ANCHORS)).tolist() == list(y)
    # the smallest class has one anchor, and so one votes
    three = KNNPrompting(k=3).fit(np.log(ANCHORS), y)
    assert three.predict(np.log(ANCHORS)).tolist() == list(y)
    four = np.vstack([ANCHORS, [[0.6, 0.3, 0.1]]])
    tie = KNNPrompting(k=2).fit(np.log(four), ["b", "a", "a", "b"])
    query = np.log([[0.45, 0.35, 0.2]])  # nearest: one of each class
    np.testing.assert_allclose(tie.predict_proba(query), [[0.5, 0.5]])
    assert tie.predict(query) == ["a"]
    with pytest.raises(InputError, match="k: "):
        KNNPrompting(k=0).fit(np.log(ANCHORS), y)


def test_the_order_of_the_vocabulary_does_not_matter_and_zero_is_no_nan():
    rng = np.random.default_rng(0)
    log_p = log_softmax(4 * rng.standard_normal((12, 30)), axis=1)
    log_p[:, 3] = -np.inf
    with np.errstate(invalid="ignore"):
        assert np.isfinite(divergence(log_p[:6], log_p[6:])).all()
    order = rng.permutation(30)
    finite = np.maximum(log_p, -700)
    y = np.arange(6) % 2
    one = KNNPrompting().fit(finite[:6], y).predict_proba(finite[6:])
    two = KNNPrompting().fit(finite[:6, order], y).predict_proba(finite[6:, order])
    np.testing.assert_array_equal(one, two)


def test_near_distributions_are_told_apart_in_float32():
    rng = np.random.default_rng(0)
    log_p = log_softmax(rng.normal(size=(4, 50_000)), axis=1).astype(np.float32)
    near = log_softmax(log_p + 1e-3 * rng.normal(size=log_p.shape), axis=1).astype(np.float32)
    p, wide = np.exp(log_p.astype(float)), near.astype(float)
    exact = (p[:, None] * (log_p.astype(float)[:, None] - wide)).sum(axis=2)
    np.testing.assert_allclose(divergence(log_p, near), exact.T, rtol=1e-3, atol=1e-9)
    assert np.abs(np.diag(divergence(log_p, log_p))).max() < 1e-12
