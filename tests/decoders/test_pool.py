"""Texts without labels and the default decoder."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from scipy.special import softmax

from fewfit import FewShotClassifier, OffsetLogisticRegression
from fewfit.decoders import DecT, LinearProbe, ZeroShot
from fewfit.decoders.pool import Labelled, learn_from_pool
from fewfit.errors import CapabilityError, InputError, ModelWarning
from fewfit.estimators.examples import fit_decoder
from fewfit.models import FakeModel

ARRAYS = ("coef_", "intercept_", "strength_")


def planted(M=1000, seed=0, H=30, dtype=float):
    """Two Gaussians; one labelled row of each, whose position says little of the direction."""
    rng = np.random.default_rng(seed)
    apart = np.zeros(H)
    apart[0] = 2.0

    def draw(y):
        X = rng.normal(size=(len(y), H)) + np.where(y[:, None] == 1, apart, -apart)
        return X.astype(dtype), (np.eye(2)[y] + rng.normal(size=(len(y), 2))).astype(dtype)

    y = np.array([0, 1])
    (X, m), (pool, pool_m) = draw(y), draw(rng.integers(0, 2, M))
    y_new = rng.integers(0, 2, 2000)
    return X, y, m, pool, pool_m, *draw(y_new), y_new


def fit(X, y, m, pool, pool_m):
    return OffsetLogisticRegression().fit(X, y, scores=m, pool=pool, pool_scores=pool_m)


def assert_as_without(X, y, m, pool, pool_m):
    before = OffsetLogisticRegression().fit(X, y, scores=m)
    with pytest.warns(ModelWarning, match="texts without labels change nothing"):
        after = fit(X, y, m, pool, pool_m)
    assert not after.pool_used_
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_two_planted_gaussians_are_found(seed, dtype):
    X, y, m, pool, pool_m, X_new, m_new, y_new = planted(seed=seed, dtype=dtype)
    before = OffsetLogisticRegression().fit(X, y, scores=m).predict(X_new, scores=m_new)
    after = fit(X, y, m, pool, pool_m)
    assert after.coef_.dtype == dtype
    assert after.pool_used_
    right = (after.predict(X_new, scores=m_new) == y_new).mean()
    assert (before == y_new).mean() < 0.9
    assert right > 0.95  # the best rule there is has 0.977 on the hidden states
    direction = after.coef_[1] - after.coef_[0]
    assert direction[0] / np.linalg.norm(direction) > 0.9


def test_it_is_surer_than_the_fit_without_but_far_less_than_the_mixture():
    X, y, m, pool, pool_m, *_ = planted()
    before = OffsetLogisticRegression().fit(X, y, scores=m).predict_proba(pool, scores=pool_m)
    after = fit(X, y, m, pool, pool_m).predict_proba(pool, scores=pool_m)
    a, b = before.max(axis=1).mean(), after.max(axis=1).mean()
    assert a < b < (a + 1) / 2


@pytest.mark.parametrize("weight", [None, np.array([1.5, 0.5, 2, 3])])
def test_it_is_the_mixture_that_its_fixed_point_says(weight):
    """Means and covariance of the last assignment, written down as one would on paper."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    pool = rng.normal(size=(400, 5)) + np.outer(2 * y - 1, [2, 0, 0, 0, 0])
    f = 0.5 * np.outer(2 * y - 1, [-1, 1]) + 0.3 * rng.normal(size=(400, 2))
    own = np.array([[-1.0, 0, 1, 0, 0], [-3.0, 0, -1, 0, 0], [-2.0, 0, 0, 0, 0], [2.0, 1, 0, 0, 0]])
    scale, coef, bias = learn_from_pool(pool, f, Labelled(own, np.array([0, 0, 0, 1]), weight))
    z = softmax(f + (pool @ coef.T + bias) / scale, axis=1)
    at = np.stack(
        [np.average(own[:3], axis=0, weights=None if weight is None else weight[:3]), own[3]]
    )
    times = [6, 2] if weight is None else [8, 6]
    rows = np.vstack([pool, np.repeat(at, times, axis=0)])
    z = np.vstack([z, np.repeat(np.eye(2), times, axis=0)])
    mean = z.T @ rows / z.sum(axis=0)[:, None]
    total = np.cov(rows.T, bias=True)
    between = sum(
        n * np.outer(d, d) for n, d in zip(z.sum(axis=0), mean - rows.mean(axis=0), strict=True)
    ) / len(rows)
    sphere = np.trace(total) / 5 * np.eye(5)
    within = (total + sphere) / 2 - between / 2
    step = 0.5 * 400 / (400 + sum(times))
    want = np.linalg.solve(within, (mean[1] - mean[0])) * step * scale
    np.testing.assert_allclose(coef[1] - coef[0], want, rtol=1e-3)


def test_fewer_texts_than_dimensions_are_dealt_with_in_their_span():
    _, _, _, pool, f, *_ = planted(M=120, H=300)
    short = learn_from_pool(pool, f)
    long = learn_from_pool(np.tile(pool, (4, 1)), np.tile(f, (4, 1)))
    assert short is not None
    assert long is not None
    for a, b in zip(short, long, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_mixture_that_gives_labelled_rows_other_classes_is_not_believed():
    X, y, m, pool, pool_m, *_ = planted()
    f = OffsetLogisticRegression().fit(X, y, scores=m)._log_odds(pool, pool_m)
    side = np.repeat([-1.0, 1.0], 5)[:, None] * np.eye(30)[0]  # where the two groups are
    for wrong, believed in ((0, True), (2, True), (3, False)):
        labels = np.repeat([0, 1], 5)
        labels[:wrong] = 1
        assert (learn_from_pool(pool, f, Labelled(side, labels)) is not None) == believed


def test_where_the_rows_are_a_sample_the_shares_stay():
    X, y, m, pool, pool_m, *_ = planted()
    plain = OffsetLogisticRegression(prior="frequencies").fit(X, y, scores=m)
    before = plain.predict_proba(pool, scores=pool_m)
    after = plain.adapt(pool, scores=pool_m).predict_proba(pool, scores=pool_m)
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-3)
    even = fit(X, y, m, pool, pool_m).predict_proba(pool, scores=pool_m)
    assert abs(even.mean(axis=0) - before.mean(axis=0)).max() > 0.02


def test_a_fitted_decoder_adapts_and_stays_as_it_is():
    X, y, m, pool, pool_m, X_new, m_new, y_new = planted(M=300)
    plain = OffsetLogisticRegression().fit(X, y, scores=m)
    kept = {name: getattr(plain, name).copy() for name in ARRAYS}
    told = plain.adapt(pool, scores=pool_m, labelled=(X, y))
    fitted = fit(X, y, m, pool, pool_m)
    restored = OffsetLogisticRegression().restore(kept, plain.classes_)
    alone = restored.adapt(pool, scores=pool_m)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(plain, name), kept[name])
        np.testing.assert_array_equal(getattr(told, name), getattr(fitted, name))
    assert alone.pool_used_
    right = (alone.predict(X_new, scores=m_new) == y_new).mean()
    assert right > (plain.predict(X_new, scores=m_new) == y_new).mean() + 0.05


def test_scores_alone_are_a_start():
    _, _, _, pool, pool_m, X_new, m_new, y_new = planted()
    zero = ZeroShot().fit(np.zeros((2, 30)), [0, 1], scores=np.zeros((2, 2)))
    after = zero.adapt(pool, scores=pool_m)
    right = (after.predict(X_new, scores=m_new) == y_new).mean()
    assert right > (zero.predict(X_new, scores=m_new) == y_new).mean() + 0.1
    with pytest.raises(InputError, match="DecT does not learn from texts without labels once"):
        DecT().fit(X_new, y_new, scores=m_new).adapt(pool)


def test_order_units_and_rotation_do_not_matter():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    rng = np.random.default_rng(1)
    i = rng.permutation(len(pool))
    shuffled = fit(X[::-1], y[::-1], m[::-1], pool[i], pool_m[i])
    np.testing.assert_allclose(shuffled.predict_proba(X_new, scores=m_new), want, atol=1e-8)
    scaled = fit(9 * X, y, m + 5, 9 * pool, pool_m - 3)
    np.testing.assert_allclose(scaled.predict_proba(9 * X_new, scores=m_new), want, atol=1e-8)
    Q = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))[0]
    turned = fit(X @ Q, y, m, pool @ Q, pool_m)
    np.testing.assert_allclose(turned.predict_proba(X_new @ Q, scores=m_new), want, atol=1e-8)


def test_classes_may_be_named_in_any_order():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    names = np.array(["z", "a"])[y]
    other = fit(X, names, m[:, ::-1], pool, pool_m[:, ::-1])
    got = other.predict_proba(X_new, scores=m_new[:, ::-1])
    np.testing.assert_allclose(got[:, ::-1], want, atol=1e-8)


def test_copies_of_a_text_count_once():
    X, y, m, pool, pool_m, *_ = planted(M=300)
    once = fit(X, y, m, pool, pool_m)
    for copies in (np.tile(np.arange(300), 2), np.append(np.arange(300), [0] * 900)):
        more = fit(X, y, m, pool[copies], pool_m[copies])
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(more, name), getattr(once, name))


def test_every_labelled_row_twice_says_the_same():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    twice = fit(np.tile(X, (2, 1)), np.tile(y, 2), np.tile(m, (2, 1)), pool, pool_m)
    np.testing.assert_allclose(twice.predict_proba(X_new, scores=m_new), want, atol=1e-8)


def test_a_row_that_counts_for_next_to_nothing_is_as_good_as_not_there():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    wrong = (np.vstack([X, X_new[:2]]), np.append(y, [0, 1]), np.vstack([m, m_new[:2]]))
    given = {"pool": pool, "pool_scores": pool_m}
    for little in (1e-9, 0.0):
        found = OffsetLogisticRegression().fit(
            *wrong[:2], scores=wrong[2], sample_weight=[1, 1, little, little], **given
        )
        told = found.predict_proba(X_new, scores=m_new)
        np.testing.assert_allclose(told, want, atol=1e-6)
    heavy = OffsetLogisticRegression().fit(
        *wrong[:2], scores=wrong[2], sample_weight=[1, 1, 90, 90], **given
    )
    assert np.abs(heavy.predict_proba(X_new, scores=m_new) - want).max() > 0.05


@pytest.mark.parametrize("M", [1, 3, 99])
def test_few_texts_change_nothing(M):
    X, y, m, pool, pool_m, *_ = planted()
    assert_as_without(X, y, m, pool[:M], pool_m[:M])


def test_a_pool_counts_for_less_the_more_labelled_rows_there_are():
    """The mixture's part of the result is 1/2 M/(M + 2 N) of its log-odds, and f keeps its own."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 2
    pool = rng.normal(size=(300, 5)) + np.outer(2 * y - 1, [3, 0, 0, 0, 0])
    f = 0.5 * np.outer(2 * y - 1, [-1, 1])
    sizes = []
    for N in (2, 150, 1500):
        at = np.arange(N) % 2  # at the means, where they move neither mean nor covariance much
        rows = np.outer(2 * at - 1, [3.0, 0, 0, 0, 0])
        scale, coef, _ = learn_from_pool(pool, f, Labelled(rows, at))
        sizes.append(np.linalg.norm(coef[1] - coef[0]) / scale)
    steps = [300 / (300 + 2 * N) for N in (2, 150, 1500)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] / sizes[0] < 2 * steps[2] / steps[0]


def test_a_mixture_that_claims_much_more_than_the_fit_is_not_believed():
    """Two topics a hundred widths apart, of which the classifier is sure at 55 in 100."""
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 2, 500)
    pool = 0.01 * rng.normal(size=(500, 30))
    pool[:, 1] += 2 * topic - 1
    weak = 0.1 * np.outer(2 * topic - 1, [-1, 1])
    assert learn_from_pool(pool, weak) is None
    assert learn_from_pool(pool, 20 * weak) is not None


def test_the_same_text_many_times_does_no_harm():
    X, y, m, pool, pool_m, *_ = planted()
    for n in (1, 99):
        copies = np.arange(200) % n
        assert_as_without(X, y, m, pool[copies], pool_m[copies])
    assert_as_without(np.tile(X[:1], (2, 1)), y, m, np.tile(X[:1], (50, 1)), pool_m[:50])


def test_it_is_said_why_texts_change_nothing():
    X, y, m, pool, pool_m, *_ = planted(M=300)
    copies = np.arange(200) % 99
    few = "the 200 texts without labels change nothing: for 2 classes there have to be 100 differ"
    with pytest.warns(ModelWarning, match=few):
        fit(X, y, m, pool[copies], pool_m[copies])
    arrays = {"coef_": np.zeros((2, 30)), "intercept_": np.zeros(2), "strength_": np.array(0.1)}
    apart = np.sign(pool[:, :1]) * np.eye(30)[0] + 0.01 * pool  # clear, of which f knows little
    plain = OffsetLogisticRegression().restore(arrays, np.arange(2))
    with pytest.warns(ModelWarning, match="the 300 texts .* nothing: they fall into groups"):
        plain.adapt(apart, scores=apart[:, :1] * [-1, 1])
    with pytest.warns(ModelWarning, match="the 300 texts .* nothing: the model gives no hidden"):
        fit(X[:, :0], y, m, pool[:, :0], pool_m)


def test_without_scores_and_without_hidden_states():
    X, y, m, pool, pool_m, X_new, *_ = planted()
    probe = fit(X, y, None, pool, None)
    assert probe.strength_ == 0
    assert probe.predict_proba(X_new).shape == (2000, 2)
    assert_as_without(X[:, :0], y, m, pool[:, :0], pool_m)


def test_scores_of_several_views_are_averaged():
    X, y, m, pool, pool_m, X_new, m_new, _ = planted(M=300)
    want = fit(X, y, m, pool, pool_m).predict_proba(X_new, scores=m_new)
    views = [np.stack([s - 1, s + 1], axis=1) for s in (m, pool_m)]
    got = fit(X, y, views[0], pool, views[1]).predict_proba(X_new, scores=m_new)
    np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool_scores": None}, "both or none"),
        ({"pool": None}, "they need the hidden states"),
        ({"pool": np.ones((50, 3))}, r"pool: expected shape \(M, 30\)"),
        ({"pool_scores": np.ones((300, 5))}, "scores: expected shape"),
        ({"pool": np.full((300, 30), np.nan)}, "pool contains NaN"),
        ({"pool": np.empty((0, 30)), "pool_scores": np.empty((0, 2))}, "0 sample"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    X, y, m, pool, pool_m, *_ = planted(M=300)
    given = {"pool": pool, "pool_scores": pool_m, **change}
    with pytest.raises(ValueError, match=said) as caught:
        OffsetLogisticRegression().fit(X, y, scores=m, **given)
    assert isinstance(caught.value, InputError) or said in ("pool contains NaN", "0 sample")


def test_a_thousand_texts_take_no_time():
    rng = np.random.default_rng(0)
    X, pool = rng.normal(size=(4, 384)), rng.normal(size=(1000, 384))
    m, pool_m = np.eye(4), rng.normal(size=(1000, 4))
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        fit(X, np.arange(4), m, pool, pool_m)
    assert time.process_time() - start < 1.0  # about 0.1 s


def test_a_class_without_an_example_is_found_among_the_texts():
    """Three Gaussians; of one there is a word, which the scores know a little, and no example."""
    rng = np.random.default_rng(0)
    centre = 3 * np.eye(3, 20)

    def draw(y):
        return rng.normal(size=(len(y), 20)) + centre[y], np.eye(3)[y] + rng.normal(
            size=(len(y), 3)
        )

    y, y_new = np.array([0, 1] * 4), rng.integers(0, 3, 900)
    (X, m), (pool, pool_m), (X_new, m_new) = draw(y), draw(rng.integers(0, 3, 900)), draw(y_new)
    recall = []
    for further in ({}, {"pool": pool, "pool_scores": pool_m}):
        found = fit_decoder(OffsetLogisticRegression(), y, X, m, ["a", "b", "c"], further)
        p = found.predict_proba(X_new, scores=m_new)
        assert found.classes_.tolist() == ["a", "b", "c"]
        recall.append(float((p.argmax(axis=1) == 2)[y_new == 2].mean()))
    assert recall[1] > max(recall[0], 0.8)


def test_rows_that_are_a_sample_say_how_frequent_a_class_is():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [9, 1])
    X, m = rng.normal(size=(10, 5)), rng.normal(size=(10, 2))  # which say nothing
    X_new, m_new = rng.normal(size=(500, 5)), rng.normal(size=(500, 2))
    share = [
        OffsetLogisticRegression(prior=prior)
        .fit(X, y, scores=m)
        .predict_proba(X_new, scores=m_new)
        .mean(axis=0)[1]
        for prior in ("balanced", "frequencies")
    ]
    assert share[1] == pytest.approx(2 / 12, abs=0.06)
    assert share[0] > share[1] + 0.03
    one = [
        OffsetLogisticRegression(prior=prior).fit(X[[0, 9]], [0, 1], scores=m[[0, 9]])
        for prior in ("balanced", "frequencies")
    ]
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(one[0], name), getattr(one[1], name))
    with pytest.raises(ValueError, match="prior"):
        OffsetLogisticRegression(prior="even").fit(X, y, scores=m)


def test_a_class_without_an_example_is_rare_where_the_rows_are_a_sample():
    y, scores = np.repeat([0, 1], [9, 9]), np.tile(np.eye(3)[:2], (9, 1))
    X = np.random.default_rng(0).normal(size=(18, 4))
    proba = [
        fit_decoder(OffsetLogisticRegression(prior=prior), y, X, scores, [0, 1, 2], {})
        .predict_proba(X, scores=np.zeros((18, 3)))
        .mean(axis=0)
        for prior in ("balanced", "frequencies")
    ]
    assert proba[1][2] < 0.7 * proba[0][2]


def test_no_label_some_labels_and_a_loaded_artifact_learn_from_texts(tmp_path):
    labels = {"neg": "bad", "pos": "good"}
    pool = [f"{w} {i}" for i in range(60) for w in ("so good", "quite bad")]
    model = FakeModel()
    with pytest.warns(ModelWarning, match="texts without labels are all there is"):
        zero = FewShotClassifier(model, labels=labels, store=None).fit([], [], unlabelled=pool)
    assert zero.n_queries_ == model.queries == 121  # the empty text, for the calibration
    assert zero.decoder_.pool_used_
    with pytest.raises(InputError, match="DecT"):
        FewShotClassifier(model, labels=labels, decoder="dect", store=None).fit(
            [], [], unlabelled=pool
        )

    rows = [f"{w} day {i}" for i in range(8) for w in ("good", "bad")]
    clf = FewShotClassifier(model, labels=labels, store=None).fit(rows, ["pos", "neg"] * 8)
    clf.save(tmp_path / "a")
    loaded = FewShotClassifier.load(tmp_path / "a", model=model, store=None)
    asked = model.queries
    adapted = loaded.adapt(pool)
    assert adapted.n_queries_ == model.queries - asked == 121
    want = clf.adapt(pool, answers=clf.observe(pool)).predict_proba(pool)
    np.testing.assert_allclose(adapted.predict_proba(pool), want, atol=1e-6)
    with pytest.raises(InputError, match="answers: expected 120, of X in each view, got 60"):
        clf.adapt(pool, answers=clf.observe(pool[:60]))
    before = loaded.predict_proba(pool)
    assert not np.allclose(before, want)
    np.testing.assert_array_equal(before, clf.predict_proba(pool))
    adapted.save(tmp_path / "b")
    again = FewShotClassifier.load(tmp_path / "b", model=model, store=None, verify=True)
    np.testing.assert_allclose(again.predict_proba(pool), want, atol=1e-6)


def test_what_cannot_adapt_is_refused_before_anything_is_asked():
    model = FakeModel()
    clf = FewShotClassifier(model, decoder="nearest-mean", store=None)
    clf = clf.fit(["good", "bad"], ["pos", "neg"])
    asked = model.queries
    with pytest.raises(InputError, match="adapt: NearestMean"):
        clf.adapt(["so"])
    with pytest.raises(InputError, match="X: no examples"):
        FewShotClassifier(model, store=None).fit(["good", "bad"], ["pos", "neg"]).adapt([])
    assert model.queries - asked <= 3


def test_without_hidden_states_texts_without_labels_are_refused_before_anything_is_asked():
    model, labels = FakeModel(hidden_size=0), {"neg": "bad", "pos": "good"}
    clf = FewShotClassifier(model, labels=labels, store=None)
    said = "learning from texts without labels needs 'hidden'"
    for rows, y in ((["good", "bad"], ["pos", "neg"]), ([], [])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            with pytest.raises(CapabilityError, match=said):
                clf.fit(rows, y, unlabelled=["so"] * 200)
    assert model.queries == 0
    clf.fit(["good", "bad"], ["pos", "neg"])
    asked = model.queries
    with pytest.raises(CapabilityError, match=said):
        clf.adapt(["so"])
    assert model.queries == asked


def test_a_linear_probe_refuses_a_pool():
    X = np.eye(2, 4)
    with pytest.raises(InputError, match="LinearProbe does not learn from texts without labels"):
        LinearProbe().fit(X, ["a", "b"], pool=np.ones((200, 4)))


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_a_class_of_which_the_pool_has_no_text_does_no_harm(noise):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 384)).astype(np.float32)

    def draw(y):
        return centres[y] + noise * rng.normal(size=(len(y), 384)).astype(np.float32)

    y = np.repeat([0, 1, 2], 4)
    clf = OffsetLogisticRegression().fit(draw(y), y)
    there = np.repeat([0, 1], 150)
    pool = draw(there)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)  # that it is of no use
        adapted = clf.adapt(pool)
    proba = adapted.predict_proba(pool)
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == there).mean() > 0.99
