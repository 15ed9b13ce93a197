"""ProtoVerb: its loss, its gradient, its votes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import log_softmax

from fewfit.decoders import (
    KNNPrompting,
    ProtoVerb,
    proto_verb,
)
from fewfit.decoders.pet import accuracies
from tests.conftest import task_arrays


def test_protoverbs_gradient_is_the_derivative_of_its_loss():
    X, _, _ = task_arrays()
    y = np.arange(len(X)) % 3
    rng = np.random.default_rng(1)

    def at(flat):
        return proto_verb.loss_and_gradient(X, y, flat[:60].reshape(5, 12), flat[60:].reshape(3, 5))

    start = rng.standard_normal(75)
    gradient = lambda flat: np.concatenate([g.ravel() for g in at(flat)[1]])  # noqa: E731
    assert check_grad(lambda flat: at(flat)[0], gradient, start) < 1e-5


def test_protoverbs_loss_by_hand():
    X, y, eye = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([0, 1]), np.eye(2)
    loss, _ = proto_verb.loss_and_gradient(X, y, eye, eye)
    # each contrast: log((e + 1) / e), its own pair at cosine 1 and one at cosine 0
    assert loss == pytest.approx(2 * np.log(1 + np.exp(-1)))


def test_protoverbs_prototypes_move_and_follow_the_classes():
    X, y, _ = task_arrays()
    before, after = ProtoVerb(n_steps=0).fit(X, y), ProtoVerb().fit(X, y)
    assert np.abs(before.c_ - after.c_).max() > 0.05
    assert after.score(X, y) == 1.0


def test_z_scores_ignore_scale_and_two_classes_only_vote():
    scores = np.array([[3.0, 1.0, -1.0], [5.0, 5.0, 5.0]])
    z = proto_verb.z_score(scores)
    np.testing.assert_allclose(z, [[1, 0, -1], [0, 0, 0]])
    np.testing.assert_allclose(proto_verb.z_score(7 * scores - 2), z)
    X, y, m = task_arrays(n_classes=2)
    decoder = ProtoVerb().fit(X, y, scores=m)
    S = decoder._log_odds(X, None)
    for against in (-10 * S, -0.1 * S, -3.7 * S + 1e6):  # the opposite of the prototypes
        found = decoder.predict_proba(X, scores=against)
        np.testing.assert_array_equal(found, decoder.predict_proba(X))  # they decide alone
    agreed = np.sign(S - S[:, ::-1]) * np.sqrt(0.5)
    for scale in (10, 0.1, 3.7):
        np.testing.assert_allclose(decoder._log_odds(X, scale * S), agreed)
    alone = ProtoVerb(ensemble=False).fit(X, y, scores=m)
    np.testing.assert_array_equal(alone.predict_proba(X, scores=m), decoder.predict_proba(X))


@pytest.mark.parametrize("value", [5.1, 0.1, -1e-3, 7e8])
@pytest.mark.parametrize("n_classes", [2, 3, 6, 7, 49])
def test_equal_scores_are_no_opinion_whatever_rounding_leaves_of_them(value, n_classes):
    for dtype in (np.float64, np.float32):
        row = np.full((1, n_classes), value, dtype)
        np.testing.assert_array_equal(proto_verb.z_score(row), 0)


def test_a_pattern_that_cannot_tell_is_right_as_often_as_a_guess():
    bound = np.full((4, 1, 2), -12.5)  # all that a server with few tokens says
    y = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(accuracies(bound, y), 0.5)
    np.testing.assert_allclose(accuracies(bound, 1 - y), 0.5)


def test_one_text_with_several_labels_votes_for_the_first_in_any_order():
    rng = np.random.default_rng(0)
    text, other = log_softmax(rng.standard_normal((2, 997)), axis=1)
    for y in (["b", "a", "b", "a"], ["a", "b", "a", "b"], ["b", "b", "a", "a"]):
        decoder = KNNPrompting(k=1).fit([text, text, other, other], y)
        assert decoder.predict([text, other, 3 * text]).tolist() == (
            ["a", "a", "a"] if y[0] != y[1] else [y[0], y[2], y[0]]
        )


S = np.array([[0.9, 0.1], [0.2, 0.8]])
