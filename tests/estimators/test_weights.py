"""Weights of examples: what they are to each decoder, and what scikit-learn makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, VotingClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import has_fit_parameter

from fewfit import DecT, FewShotClassifier, LinearProbe, MultiLabelClassifier, ZeroShot
from fewfit.decoders import DECODERS, MultiLabel, OffsetLogisticRegression, ridge
from fewfit.errors import InputError
from fewfit.models import FakeModel
from tests.conftest import task_arrays
from tests.estimators.test_classifier import TEXTS, Y, make

WEIGHTED = {name for name, kind in DECODERS.items() if has_fit_parameter(kind(), "sample_weight")}
W = np.array([2, 1, 0, 3, 1, 1, 2, 1, 1, 1, 1, 1])


def test_who_can_weigh_says_so():
    assert {
        "dect", "linear-probe", "nearest-mean", "offset-regression", "soft-verbalizer"
    } == WEIGHTED  # fmt: skip


@pytest.mark.parametrize("name", ["dect", "nearest-mean", "soft-verbalizer", "multi-label"])
def test_a_weight_of_two_is_the_row_twice_and_zero_is_none(name):
    X, y, scores = task_arrays(4)
    options = {"scores": scores}
    if name == "multi-label":
        decoder, options, again = MultiLabel(), {}, {}
        y = np.eye(3, dtype=int)[np.arange(12) % 3]
    else:
        decoder, again = DECODERS[name](), {"scores": np.repeat(scores, W, axis=0)}
    weighted = clone(decoder).fit(X, y, sample_weight=W, **options)
    repeated = clone(decoder).fit(np.repeat(X, W, axis=0), np.repeat(y, W, axis=0), **again)
    atol = {"soft-verbalizer": 1e-4, "multi-label": 1e-3}.get(name, 1e-9)  # L-BFGS stops near
    for array in decoder.fitted_arrays:
        np.testing.assert_allclose(getattr(weighted, array), getattr(repeated, array), atol=atol)


@pytest.mark.parametrize("decoder", [OffsetLogisticRegression(), LinearProbe()])
def test_to_the_default_a_row_of_weight_zero_is_not_there_and_all_ones_are_none(decoder):
    X, y, scores = task_arrays(4)
    kept = W > 0
    zero = clone(decoder).fit(X, y, scores=scores, sample_weight=kept)
    without = clone(decoder).fit(X[kept], y[kept], scores=scores[kept])
    ones = clone(decoder).fit(X, y, scores=scores, sample_weight=np.ones(12))
    plain = clone(decoder).fit(X, y, scores=scores)
    for array in decoder.fitted_arrays:
        for a, b in ((zero, without), (ones, plain)):
            np.testing.assert_allclose(getattr(a, array), getattr(b, array), atol=1e-8)


def test_copies_of_a_row_have_the_mean_of_their_weights():
    X, y, scores = task_arrays(4)
    w = np.arange(1.0, 13.0)
    one = OffsetLogisticRegression().fit(X, y, scores=scores, sample_weight=w)
    rows = np.repeat(np.arange(12), 2)
    twice = np.stack([w - 0.5, w + 0.5], axis=1).ravel()
    two = OffsetLogisticRegression().fit(X[rows], y[rows], scores=scores[rows], sample_weight=twice)
    np.testing.assert_allclose(two.coef_, one.coef_, atol=1e-8)
    np.testing.assert_allclose(two.intercept_, one.intercept_, atol=1e-8)


@pytest.mark.parametrize("weights", [np.repeat([1.0, 20.0], 8), np.linspace(0.05, 3, 16)])
def test_the_fit_is_the_weighted_optimum(weights):
    rng = np.random.default_rng(0)
    X, m = rng.normal(size=(16, 10)) / 3, rng.normal(size=(16, 3))
    y = np.arange(16) % 3
    root = np.sqrt(weights)[:, None]
    Z, d, _ = ridge.basis(root * X, y, 3, 512)
    Z = Z / root
    V = ridge.minimise(Z, d, y, m, 2.0, None, weights)

    def objective(v):
        V = v.reshape(-1, 3)
        p = log_softmax(m + Z @ V, axis=1)
        slope = weights[:, None] * (np.exp(p) - np.eye(3)[y])
        loss = (V**2).sum() / 4 - weights @ p[np.arange(16), y]
        return loss, (Z.T @ slope + V / 2).ravel()

    exact = minimize(objective, np.zeros(V.size), jac=True, tol=1e-10).x.reshape(-1, 3)
    np.testing.assert_allclose(m + Z @ V, m + Z @ exact, atol=0.15)
    # and so a row counts for two that are alike
    rows = np.repeat(np.arange(16), 2)
    twice = ridge.minimise(Z[rows], d, y[rows], m[rows], 2.0, None, weights[rows] / 2)
    np.testing.assert_allclose(twice, V, atol=1e-8)


@pytest.mark.parametrize("answer", [None, np.array([0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9])])
def test_a_row_that_is_left_out_takes_its_weight_of_every_class(answer):
    rng = np.random.default_rng(0)
    Z, m = rng.normal(size=(12, 7)) / 3, rng.normal(size=(12, 3))
    if answer is not None:
        Z, m = Z[np.unique(answer, return_index=True)[1]][answer], m[answer]
    y, a, t = np.arange(12) % 3, rng.uniform(0.2, 1.5, 12), 2.0
    V = rng.normal(size=(7, 3)) / 2
    group = np.arange(12) if answer is None else answer
    F = m + Z @ V
    p = np.exp(log_softmax(F, axis=1))
    slope = a[:, None] * (p - np.eye(3)[y])
    n = np.bincount(y, a)
    worth = np.bincount(group, a)[group]
    curvature = (1 - (p**2).sum(axis=1)) * (1 - worth / n[y]) / 2 * a
    A = (Z.T * curvature) @ Z + np.eye(7) / t
    expected = np.empty_like(F)
    for i in range(12):
        left = np.where(y == y[i], 1.0, 1 - worth[i] / n[y])
        left[group == group[i]] = 0
        G = V / t + Z.T @ (left[:, None] * slope)
        own = curvature[group == group[i]].sum()
        expected[i] = F[i] - Z[i] @ np.linalg.solve(A - own * np.outer(Z[i], Z[i]), G)
    found = ridge.leave_one_out(Z, y, m, t, V, a, answer)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_weights_decide_between_labels_that_contradict_each_other():
    texts = ["so and so", "so or so", "well so", "well and so"] * 2
    y = ["neg"] * 4 + ["pos"] * 4
    for decoder in (None, "dect", "linear-probe"):
        told = []
        for heavy in ("neg", "pos"):
            weight = [9.0 if name == heavy else 1.0 for name in y]
            clf = make("fake", decoder=decoder, calibration="none")
            told.append(clf.fit(texts, y, sample_weight=weight).predict_proba(["well so"])[0])
        assert told[0][0] > told[1][0] + 0.03


def test_a_label_that_stands_nine_times_beside_another_has_nine_times_its_weight():
    texts = ["so and so", "so or so", "well so", "well and so"]
    repeated = [text for text in texts for _ in range(10)]
    weight = [1.8] * 4 + [0.2] * 4  # two copies of each text, of mean weight 1
    for decoder in (None, "linear-probe"):
        clf = make("fake", decoder=decoder, calibration="none")
        copies = clf.fit(repeated, (["neg"] * 9 + ["pos"]) * 4).predict_proba([*texts, "new"])
        shares = clf.fit(texts * 2, ["neg"] * 4 + ["pos"] * 4, sample_weight=weight)
        np.testing.assert_allclose(shares.predict_proba([*texts, "new"]), copies, atol=1e-6)


def test_an_example_of_weight_zero_is_not_asked_about():
    model = FakeModel()
    clf = make(model).fit(TEXTS, Y, sample_weight=[1, 1, 1, 1, 0, 0])
    assert clf.n_queries_ == model.queries == 4 + 1
    assert clf.n_examples_ == 4
    np.testing.assert_allclose(
        clf.predict_proba(TEXTS), make().fit(TEXTS[:4], Y[:4]).predict_proba(TEXTS), atol=1e-6
    )
    assert clf.expected_accuracy().n == 4
    many = MultiLabelClassifier("fake", store=None)
    sets = [[name] for name in Y]
    some = many.fit(TEXTS, sets, sample_weight=[1, 1, 1, 1, 0, 0]).predict_proba(TEXTS)
    np.testing.assert_allclose(some, many.fit(TEXTS[:4], sets[:4]).predict_proba(TEXTS), atol=1e-3)
    assert many.score(TEXTS, [*sets[:-1], ["new"]], sample_weight=[1] * 5 + [5]) == 0.5


@pytest.mark.parametrize(
    ("options", "weight", "message"),
    [
        ({"decoder": "protoverb"}, np.ones(6), "ProtoVerb counts every example alike; take the"),
        ({}, np.ones(5), r"sample_weight: expected shape \(6,\), got \(5,\)"),
        ({}, [1, 1, 1, 1, 1, -1], "finite and not negative"),
        ({}, [1, 1, 1, 1, 1, np.nan], "finite and not negative"),
        ({}, [1, 1, 1, 1, 1, 1e-40], "0 or from 1e-30 to 1e\\+30"),
        ({"decoder": "dect"}, [1e38] * 6, "got 1e\\+38 to 1e\\+38"),
        ({}, np.zeros(6), "one of them is above 0"),
        ({}, ["a"] * 6, "expected a number for each example"),
        ({"decoder": "dect"}, [1, 0, 1, 0, 1, 0], "class 'neg' has label words but no example"),
    ],
)
def test_weights_that_cannot_be_meant_are_refused_unasked(options, weight, message):
    model = FakeModel()
    with pytest.raises(InputError, match=message):
        make(model, **options).fit(TEXTS, Y, sample_weight=weight)
    assert model.queries == 0
    assert make(decoder=ZeroShot()).fit(TEXTS, Y, sample_weight=np.ones(6))  # nothing to weigh
    with pytest.raises(InputError, match=r"sample_weight: expected shape \(0,\), got \(1,\)"):
        make(decoder=ZeroShot()).fit([], [], sample_weight=[1])
    X, y, _ = task_arrays(4)
    with pytest.raises(InputError, match="all rows of class 'ant' weigh 0"):
        DecT().fit(X, y, sample_weight=y != "ant")


def test_they_reach_what_is_learnt_from_texts_without_labels():
    pool = [f"{word} {i} so" for i in range(50) for word in ("good", "bad")]
    told = []
    for weight in (None, np.ones(6), [9.0, 1, 1, 1, 1, 1]):
        clf = make(calibration="none").fit(TEXTS, Y, sample_weight=weight, unlabelled=pool)
        assert clf.decoder_.pool_used_
        told.append(clf.predict_proba(pool))
    np.testing.assert_allclose(told[0], told[1], atol=1e-6)
    assert np.abs(told[0] - told[2]).max() > 1e-3


def test_scikit_learn_hands_them_on():
    clf = FewShotClassifier("fake", labels=["bad", "good"], store=None)
    column = np.array(TEXTS * 2, dtype=object)[:, None]
    weight = np.tile([3.0, 1.0, 1.0, 1.0, 2.0, 1.0], 2)
    y = Y * 2
    for meta, X in (
        (VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft"), TEXTS * 2),
        (CalibratedClassifierCV(clf, cv=2), TEXTS * 2),
        (BaggingClassifier(clf, n_estimators=2, random_state=0), column),
        (AdaBoostClassifier(clf, n_estimators=2), column),
    ):
        fitted = clone(meta).fit(X, y, sample_weight=weight)
        assert fitted.score(X, y) == 1.0
        assert fitted.classes_.tolist() == ["neg", "pos"]
    two = VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft")
    np.testing.assert_allclose(
        two.fit(TEXTS * 2, y, sample_weight=weight).predict_proba(TEXTS),
        clone(clf).fit(TEXTS * 2, y, sample_weight=weight).predict_proba(TEXTS),
    )


def test_metadata_is_routed_where_it_is_asked_for():
    seen = []

    class Watched(OffsetLogisticRegression):
        def fit(self, X, y, *, scores=None, sample_weight=None):
            seen.append(sample_weight)
            return super().fit(X, y, scores=scores, sample_weight=sample_weight)

    with sklearn.config_context(enable_metadata_routing=True):
        clf = make("fake", decoder=Watched()).set_fit_request(sample_weight=True)
        pipe = make_pipeline(FunctionTransformer(), clf)
        params = {"sample_weight": np.arange(1.0, 13.0)}
        scoring = make_scorer(accuracy_score).set_score_request(sample_weight=True)
        how = {"cv": 2, "params": params, "scoring": scoring, "error_score": "raise"}
        cross_validate(pipe, TEXTS * 2, Y * 2, **how)
        assert sorted(np.concatenate(seen)) == list(range(1, 13))
        silent = make_pipeline(FunctionTransformer(), make("fake"))
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            cross_validate(silent, TEXTS * 2, Y * 2, **how)


def test_a_classifier_has_no_set_output():
    """It is of transformers alone: there is no ``transform`` whose columns could be named."""
    assert not hasattr(make(), "set_output")
    assert not hasattr(LogisticRegression(), "set_output")
