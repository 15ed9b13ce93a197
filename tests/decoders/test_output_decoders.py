"""Golden numbers and reductions of the decoders beside DecT."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, check_grad
from scipy.special import log_softmax, softmax

from fewfit import FewShotClassifier, LinearProbe, ZeroShot
from fewfit.decoders import (
    IPET,
    MPD,
    PET,
    KNNPrompting,
    NearestMean,
    ParaphraseMean,
    PromptBoosting,
    ProtoVerb,
    SoftVerbalizer,
    mpd,
    prompt_boosting,
    proto_verb,
    soft_verbalizer,
)
from fewfit.decoders.adam import minimise
from fewfit.decoders.ipet import (
    committee,
    distil,
    distillation_loss,
    in_generations,
    pseudo_label,
)
from fewfit.decoders.knn_prompting import divergence
from fewfit.decoders.pet import accuracies, weighted_mean
from fewfit.errors import InputError
from fewfit.models import FakeModel
from tests.conftest import task_arrays


def test_adam_takes_steps_of_its_rate_and_finds_the_minimum():
    def bowl(arrays):
        return float(((arrays[0] - 3) ** 2).sum()), [2 * (arrays[0] - 3)]

    start = np.zeros(2)
    np.testing.assert_allclose(minimise(bowl, [start], lr=0.1, n_steps=1)[0], 0.1)
    np.testing.assert_allclose(minimise(bowl, [start], lr=0.1, n_steps=500)[0], 3, atol=1e-3)
    np.testing.assert_array_equal(start, 0)


# nearest class mean


def test_nearest_mean_at_one_shot_is_the_nearest_neighbour():
    X, y, _ = task_arrays(1)
    new = np.random.default_rng(3).standard_normal((50, 12))
    cosine = (new / np.linalg.norm(new, axis=1)[:, None]) @ (
        X / np.linalg.norm(X, axis=1)[:, None]
    ).T
    np.testing.assert_array_equal(NearestMean().fit(X, y).predict(new), y[cosine.argmax(axis=1)])


def test_nearest_mean_in_numbers():
    X = [[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]]
    decoder = NearestMean().fit(X, ["a", "b", "b"])
    np.testing.assert_allclose(decoder.c_, [[1, 0], [0.3, 0.9]])
    np.testing.assert_allclose(decoder._log_odds(np.array([[2.0, 0.0]]), None), [[0, -1.3]])


# kNN-Prompting

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


# ProtoVerb


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


# PET, RIFF


def test_pets_weighted_mean_in_numbers():
    s = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_allclose(weighted_mean(s, np.array([0.3, 0.9])), [[0.5, 0.75]])
    np.testing.assert_allclose(weighted_mean(s, np.ones(2)), [[1, 0.5]])
    with pytest.raises(InputError, match="2 views, but the decoder was fitted on 3"):
        weighted_mean(s, np.ones(3))


def test_pet_trusts_the_pattern_that_was_right():
    X, y, right = task_arrays()
    wrong = -right
    views = np.stack([5 * np.eye(3)[np.unique(y, return_inverse=True)[1]], wrong], axis=1)
    decoder = PET().fit(X, y, scores=views)
    assert decoder.w_[0] == 1.0 > decoder.w_[1]
    np.testing.assert_array_equal(PET("uniform").fit(X, y, scores=views).w_, [1, 1])
    never = PET().fit(X, y, scores=np.stack([wrong * 0 - np.eye(3)[views[:, 0].argmax(1)]], 1))
    np.testing.assert_array_equal(never.w_, [1])  # all patterns never right
    with pytest.raises(InputError, match="weights"):
        PET("odd").fit(X, y)


@pytest.mark.parametrize("decoder", [PET(), PET("uniform"), ParaphraseMean()])
def test_with_one_view_it_is_zero_shot(decoder):
    X, y, scores = task_arrays()
    zero = ZeroShot().fit(X, y, scores=scores).predict_proba(X, scores=scores)
    np.testing.assert_array_equal(
        decoder.fit(X, y, scores=scores).predict_proba(X, scores=scores), zero
    )


def test_paraphrases_count_half():
    X, y, m = task_arrays()
    views = np.stack([m, m + 1, m[:, ::-1], 2 * m], axis=1)
    expected = 0.5 * m + 0.5 * (m + 1 + m[:, ::-1] + 2 * m) / 3
    decoder = ParaphraseMean().fit(X, y, scores=views)
    np.testing.assert_allclose(
        decoder.predict_proba(X, scores=views), softmax(expected, axis=1), atol=1e-12
    )
    same = np.stack([m] * 4, axis=1)
    np.testing.assert_allclose(
        decoder.predict_proba(X, scores=same), softmax(m, axis=1), atol=1e-12
    )


# iPET


def test_the_distillation_loss_is_zero_for_a_shifted_teacher_and_keeps_its_slope():
    rng = np.random.default_rng(0)
    teacher, student = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    assert distillation_loss(teacher + 7, teacher, 2.0)[0] == pytest.approx(0)

    def at(flat, T):
        return distillation_loss(flat.reshape(5, 3), teacher, T)

    for T in (1.0, 2.0, 8.0):
        error = check_grad(
            lambda f, T=T: at(f, T)[0], lambda f, T=T: at(f, T)[1].ravel(), student.ravel()
        )
        assert error < 1e-6
    small = 0.01 * student
    slopes = [np.abs(distillation_loss(small, 0.01 * teacher, T)[1]).max() for T in (2.0, 4.0)]
    assert slopes[1] == pytest.approx(slopes[0], rel=0.02)  # not a quarter


def test_growth_keeps_the_class_ratio_and_draws_nothing_twice():
    y = np.array([0] * 6 + [1] * 4)
    logits = np.random.default_rng(0).standard_normal((400, 2))
    rows, labels = pseudo_label(logits, y, 40, np.random.RandomState(0))
    assert len(rows) == len(set(rows)) == 40
    assert np.bincount(labels).tolist() == [24, 16]
    np.testing.assert_array_equal(labels, logits[rows].argmax(axis=1))
    short, _ = pseudo_label(logits[:5], y, 40, np.random.RandomState(0))
    assert sorted(short) == [0, 1, 2, 3, 4]


def test_the_confident_are_drawn_more_often():
    logits = np.zeros((3, 2))
    logits[:, 0] = [0.01, np.log(3), 20]  # confidence 0.5, 0.75, 1
    rng = np.random.RandomState(0)
    drawn = [pseudo_label(logits, np.array([0]), 1, rng)[0][0] for _ in range(3000)]
    np.testing.assert_allclose(
        np.bincount(drawn) / 3000, np.array([0.5025, 0.75, 1]) / 2.2525, atol=0.03
    )


def test_no_classifier_is_its_own_teacher():
    rng = np.random.RandomState(0)
    for p in range(5):
        drawn = {tuple(sorted(committee(5, p, 0.5, rng))) for _ in range(50)}
        assert all(p not in chosen and len(chosen) == 2 for chosen in drawn)
        assert len(drawn) > 3
    assert committee(2, 0, 0.25, rng).tolist() == [1]


def test_generations_grow_by_the_factor_and_hear_only_the_others():
    rng = np.random.default_rng(0)
    opinions = rng.standard_normal((3, 400, 2))
    y = np.array([0] * 5 + [1] * 5)
    taught: list[tuple[int, np.ndarray, np.ndarray]] = []

    def teach(p, rows, labels):
        taught.append((p, rows, labels))
        return opinions[p]

    settings = {"generations": 2, "factor": 5, "share": 1.0}
    w = np.array([1.0, 0.5, 0.25])
    logits = in_generations(teach, y, w, **settings, rng=np.random.RandomState(0))
    assert [p for p, _, _ in taught] == [0, 1, 2] * 3
    assert [len(rows) for _, rows, _ in taught[:6]] == [0] * 3 + [40] * 3
    for p, rows, labels in taught[3:]:
        others = [q for q in range(3) if q != p]
        told = np.average(opinions[others], axis=0, weights=w[others])
        np.testing.assert_array_equal(labels, told[rows].argmax(axis=1))
    assert np.bincount(taught[3][2]).tolist() == [20, 20]
    np.testing.assert_array_equal(logits, opinions)
    # the only pattern that is ever right is itself taught, by others that all weigh nothing
    alone = in_generations(
        teach, y, np.array([1.0, 0, 0]), **settings, rng=np.random.RandomState(0)
    )
    np.testing.assert_array_equal(alone, opinions)


def test_without_unlabelled_texts_it_is_the_linear_probe():
    X, y, scores = task_arrays()
    np.testing.assert_array_equal(
        IPET(C=5.0).fit(X, y, scores=scores).predict_proba(X),
        LinearProbe().fit(X, y).predict_proba(X),
    )


def test_the_student_agrees_with_its_teacher_and_unlabelled_texts_help():
    rng = np.random.default_rng(0)
    centres = 1.2 * rng.standard_normal((3, 24))

    def draw(per_class):
        y = np.repeat(np.arange(3), per_class)
        return centres[y] + 1.5 * rng.standard_normal((len(y), 24)), y

    X_pool, _ = draw(150)
    X_test, y_test = draw(200)
    teacher = X_pool @ rng.standard_normal((24, 3))
    x = X_pool / np.linalg.norm(X_pool, axis=1, keepdims=True)
    coef, intercept = distil(x, teacher, temperature=2.0, C=100.0)
    assert ((x @ coef.T + intercept).argmax(1) == teacher.argmax(1)).mean() > 0.95
    gain = []
    for seed in range(8):
        X, y = draw(2)
        alone = IPET().fit(X, y).score(X_test, y_test)
        taught = IPET(n_views=3, random_state=seed).fit(X, y, pool=X_pool)
        gain.append(taught.score(X_test, y_test) - alone)
    assert np.mean(gain) > 0.02
    with pytest.raises(InputError, match="pool"):
        IPET().fit(X, y, pool=X_pool[:, :5])
    for wrong in ({"generations": -1}, {"factor": 0.5}, {"share": 0.0}, {"share": float("nan")}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))}: "):
            IPET(**wrong).fit(X, y, pool=X_pool)


def test_unlabelled_texts_cost_a_query_each_and_only_ipet_takes_them():
    texts, y = ["good", "bad day", "so good", "bad bad"], ["pos", "neg", "pos", "neg"]
    options = {"labels": {"neg": "bad", "pos": "good"}, "store": None}
    model = FakeModel()
    clf = FewShotClassifier(
        model, template=["{text} {mask}", "{mask}: {text}"], decoder=IPET(), **options
    ).fit(texts, y, unlabelled=["good one", "a bad one", "good good"])
    assert clf.n_queries_ == model.queries == 2 * (len(texts) + 1 + 3)
    assert clf.predict_proba(["good"]).shape == (1, 2)
    refused = FakeModel()
    with pytest.raises(InputError, match="ZeroShot does not learn from texts without labels"):
        FewShotClassifier(refused, decoder=ZeroShot(), **options).fit(texts, y, unlabelled=texts)
    assert refused.queries == 0


# PromptBoosting


def test_the_weight_of_a_learner_and_its_error_afterwards():
    assert prompt_boosting.learner_weight(0.3, 2) == pytest.approx(0.847298, abs=1e-6)
    assert prompt_boosting.learner_weight(0.3, 4) == pytest.approx(1.945910, abs=1e-6)
    assert prompt_boosting.learner_weight(0.74, 4) > 0
    w, wrong = np.full(10, 0.1), np.arange(10) < 3
    w = w * np.exp(prompt_boosting.learner_weight(0.3, 2) * wrong)
    assert w[wrong].sum() / w.sum() == pytest.approx(0.5)


def vocabulary_task(per_class: int, seed: int, lean: float = 1.5):
    """Distributions over 30 tokens; in each view token 3 k + 7 leans to class k, noisily."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(3), per_class)
    logits = rng.standard_normal((len(y), 3, 30))
    logits[np.arange(len(y)), :, 3 * y + 7] += lean
    return log_softmax(logits, axis=2).reshape(len(y), -1), y


def test_boosting_finds_the_tokens_and_several_prompts_beat_one():
    X, y = vocabulary_task(16, 0)
    X_test, y_test = vocabulary_task(200, 1)
    decoder = PromptBoosting(n_views=3).fit(X, y)
    clear, _ = vocabulary_task(16, 0, lean=4.0)
    found = PromptBoosting(n_views=3).fit(clear, y).tokens_[:3]
    np.testing.assert_array_equal(found, [[7, 10, 13]] * 3)
    one = PromptBoosting().fit(X[:, :30], y).score(X_test[:, :30], y_test)
    three = decoder.score(X_test, y_test)
    assert one > 0.6  # chance is 1/3
    assert three > one + 0.05


def test_a_perfect_learner_ends_the_boosting_without_an_infinity():
    X, y = vocabulary_task(4, 0)
    X = X.reshape(12, 3, 30)
    X[np.arange(12), :, 3 * y + 7] = 5
    decoder = PromptBoosting(n_views=3).fit(X.reshape(12, -1), y)
    assert len(decoder.alpha_) == 3
    assert np.isfinite(decoder.alpha_).all()
    assert decoder.score(X.reshape(12, -1), y) == 1.0
    with pytest.raises(InputError, match="90 columns are not those of 4 views"):
        PromptBoosting(n_views=4).fit(X.reshape(12, -1), y)
    with pytest.raises(InputError, match="n_rounds: "):
        PromptBoosting(n_rounds=0).fit(X.reshape(12, -1), y)


def test_too_many_combinations_are_sampled():
    candidates = [np.arange(5), np.arange(5, 10)]
    rng = np.random.RandomState(0)
    whole = prompt_boosting.combinations(candidates, 25, rng)
    assert len({tuple(c) for c in whole}) == 50  # both ways round
    assert {tuple(c[::-1]) for c in whole} == {tuple(c) for c in whole}
    some = prompt_boosting.combinations(candidates, 24, rng)
    assert some.shape == (48, 2)
    assert (some[:24, 0] < 5).all()
    assert (some[:24, 1] >= 5).all()
    three = prompt_boosting.combinations([*candidates, np.array([10])], 25, rng)
    assert len({tuple(c) for c in three}) == len(three) == 25  # of three, one way


def test_the_screening_of_tokens_in_numbers():
    p = np.array([[0.6, 0.3, 0.1, 0.0], [0.2, 0.3, 0.1, 0.4], [0.5, 0.0, 0.2, 0.3]])
    y, w = np.array([0, 0, 1]), np.array([0.25, 0.25, 0.5])
    # eq. 1 for class 0: (.15 + .05 - .25, .075 + .075 - 0, .025 + .025 - .1, 0 + .1 - .15)
    found = prompt_boosting.telling_tokens(p, y, w, 2, 3)
    assert [tokens.tolist() for tokens in found] == [[1], [0, 2, 3]]  # for class 1 they tie
    assert [t.tolist() for t in prompt_boosting.telling_tokens(p, y, w, 2, 1)] == [[1], [0]]
    # No token of its own: the one by which it stands best.
    found = prompt_boosting.telling_tokens(p[[0, 0, 0]], y, np.array([0.4, 0.4, 0.2]), 2, 2)
    assert [tokens.tolist() for tokens in found] == [[0, 1], [3]]


@pytest.mark.parametrize(("n_classes", "n"), [(2, 50), (3, 10), (4, 10), (5, 5), (6, 5)])
def test_as_many_candidates_as_the_authors_take(n_classes, n, monkeypatch):
    asked = []

    def spy(p, y, w, K, n):
        asked.append(n)
        return telling_tokens(p, y, w, K, n)

    telling_tokens = prompt_boosting.telling_tokens
    monkeypatch.setattr(prompt_boosting, "telling_tokens", spy)
    X = np.random.default_rng(0).standard_normal((2 * n_classes, 90))
    PromptBoosting(n_rounds=1).fit(X, np.arange(2 * n_classes) % n_classes)
    assert asked == [n]
    assert PromptBoosting().n_rounds == 200
    assert PromptBoosting().max_combinations == 20_000


# MPD

S = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("epsilon", "diagonal", "score"),
    [(1.0, 0.334094, 0.617731), (0.1, 0.499544, 0.849362), (0.01, 0.5, 0.85)],
)
def test_transport_in_numbers(epsilon, diagonal, score):
    got, T = mpd.transport_scores(S[None], epsilon, max_iter=5000)
    np.testing.assert_allclose(
        T[0], [[diagonal, 0.5 - diagonal], [0.5 - diagonal, diagonal]], atol=1e-6
    )
    assert got[0] == pytest.approx(score, abs=1e-6)


def test_transport_falls_from_the_best_matching_to_the_mean():
    scores = [mpd.transport_scores(S[None], e)[0][0] for e in (1e-3, 0.05, 0.2, 1, 5, 1e4)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.85)
    assert scores[-1] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("epsilon", [1e-3, 0.3, 1.0])
def test_marginals_of_every_plan(epsilon):
    C = np.random.default_rng(0).uniform(0, 2, (40, 3, 4, 2))
    T = mpd.sinkhorn(C, epsilon, max_iter=10_000 if epsilon > 0.01 else 100)
    assert np.isfinite(T).all()
    np.testing.assert_allclose(T.sum(axis=-2), 1 / 2, atol=1e-6)
    if epsilon > 0.01:  # the smallest one is stopped before its rows are exact
        np.testing.assert_allclose(T.sum(axis=-1), 1 / 4, atol=1e-6)
    alone = mpd.sinkhorn(C[3:4], epsilon, max_iter=10_000 if epsilon > 0.01 else 100)
    np.testing.assert_array_equal(alone[0], T[3])


def test_one_prompt_and_one_prototype_are_a_cosine():
    X, y, _ = task_arrays()
    decoder = MPD(n_prototypes=1, beta=0.0, temperature=1.0, epsilon=0.7).fit(X, y)
    u = X @ decoder.W_.T
    cosine = np.einsum("nd,kd->nk", u, decoder.R_[:, 0]) / np.outer(
        np.linalg.norm(u, axis=1), np.linalg.norm(decoder.R_[:, 0], axis=1)
    )
    np.testing.assert_allclose(decoder._log_odds(X, None), cosine, atol=1e-12)


def test_one_prototype_is_the_mean_cosine_of_the_prompts_whatever_epsilon():
    X, y, _ = task_arrays(H=12)
    for epsilon in (0.01, 3.0):
        decoder = MPD(n_views=3, n_prototypes=1, temperature=1.0, epsilon=epsilon).fit(X, y)
        V = X.reshape(-1, 3, 4) @ decoder.W_.T
        V /= np.linalg.norm(V, axis=-1, keepdims=True)
        R = decoder.R_[:, 0] / np.linalg.norm(decoder.R_[:, 0], axis=1, keepdims=True)
        np.testing.assert_allclose(decoder._log_odds(X, None), (V @ R.T).mean(axis=1), atol=1e-9)


def test_neither_the_order_of_prompts_nor_of_prototypes_matters():
    X, y, _ = task_arrays(H=12)
    decoder = MPD(n_views=3, epsilon=0.05).fit(X, y)
    proba = decoder.predict_proba(X)
    swapped = X.reshape(-1, 3, 4)[:, [2, 0, 1]].reshape(-1, 12)
    np.testing.assert_allclose(decoder.predict_proba(swapped), proba, atol=1e-7)
    decoder.R_ = decoder.R_[:, [1, 2, 0]]
    np.testing.assert_allclose(decoder.predict_proba(X), proba, atol=1e-7)


def test_mpds_gradient_is_that_of_a_constant_plan():
    X, _, m = task_arrays(H=8)
    y, h = np.arange(len(X)) % 3, X.reshape(-1, 2, 4)
    rng = np.random.default_rng(1)
    start = rng.standard_normal(5 * 4 + 3 * 2 * 5)
    options = {"epsilon": 0.1, "temperature": 0.3}

    def arrays(flat):
        return flat[:20].reshape(5, 4), flat[20:].reshape(3, 2, 5)

    def unit(u):
        return u / np.linalg.norm(u, axis=-1, keepdims=True)

    W, R = arrays(start)
    T = mpd.sinkhorn(1 - mpd.cosines(unit(h @ W.T), unit(R)), 0.1)

    def loss(flat):
        W, R = arrays(flat)
        s = (T * mpd.cosines(unit(h @ W.T), unit(R))).sum(axis=(2, 3))
        return -log_softmax(s / 0.3 + m, axis=1)[np.arange(len(y)), y].mean()

    def gradient(flat):
        _, grads = mpd.loss_and_gradient(h, y, m, *arrays(flat), **options)
        return np.concatenate([g.ravel() for g in grads])

    assert check_grad(loss, gradient, start) < 1e-5
    assert mpd.loss_and_gradient(h, y, m, W, R, **options)[0] == pytest.approx(loss(start))


def test_mpd_learns_as_many_numbers_as_the_paper_says():
    X, y, _ = task_arrays(1, n_classes=2, H=3 * 1024)
    decoder = MPD(n_views=3, n_steps=1).fit(X, y)
    assert decoder.W_.size + decoder.R_.size == 131_840


def test_a_bad_prompt_does_little_harm():
    """Three views of 16 numbers, one of them noise; the noise alone is at chance."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.standard_normal((4, 2, 16))

    def draw(per_class):
        y = np.repeat(np.arange(4), per_class)
        good = centres[y] + rng.standard_normal((len(y), 2, 16))
        return good.reshape(len(y), -1), rng.standard_normal((len(y), 16)), y

    good, noise, y = draw(16)
    good_test, noise_test, y_test = draw(100)
    two = MPD(n_views=2).fit(good, y).score(good_test, y_test)
    three = MPD(n_views=3).fit(np.hstack([good, noise]), y)
    with_noise = three.score(np.hstack([good_test, noise_test]), y_test)
    alone = MPD(n_views=1).fit(noise, y).score(noise_test, y_test)
    assert two > 0.95
    assert with_noise > two - 0.05
    assert alone < 0.4


def test_beta_obeys_or_ignores_the_model_and_the_loss_may_hold_it():
    X, y, m = task_arrays()
    obedient = MPD(beta=1e6).fit(X, y, scores=m)
    np.testing.assert_array_equal(
        obedient.predict_proba(X, scores=-m).argmax(axis=1), (-m).argmax(axis=1)
    )
    deaf = MPD(beta=0.0).fit(X, y, scores=m)
    np.testing.assert_array_equal(deaf.predict_proba(X, scores=m), MPD().fit(X, y).predict_proba(X))
    apart, joint = MPD().fit(X, y, scores=m), MPD(joint_loss=True).fit(X, y, scores=m)
    assert np.abs(apart.W_ - joint.W_).max() > 1e-4
    np.testing.assert_array_equal(apart.W_, deaf.W_)
    assert apart.beta_ == 0.25


def test_mpd_refuses_what_does_not_divide_into_views():
    X, y, m = task_arrays()
    with pytest.raises(InputError, match="12 columns are not the hidden states of 5 views"):
        MPD(n_views=5).fit(X, y)
    with pytest.raises(InputError, match="beta"):
        MPD(beta="2/n").fit(X, y)
    with pytest.raises(InputError, match="epsilon: "):
        MPD(epsilon=0.0).fit(X, y)
    two = MPD().fit(X, y, scores=np.stack([m, m], axis=1))
    assert two.n_views_ == 2
    assert two.W_.shape == (128, 6)


# SciPrompt's soft verbalizer

WEIGHTED = {"neg": {"bad": 1.0, "awful": 0.5}, "pos": {"good": 1.0, "fine": 0.8, "fun": 0.2}}


def test_a_soft_verbalizers_gradient_and_minimum():
    rng = np.random.default_rng(0)
    x, m, y = rng.standard_normal((9, 4)), rng.standard_normal((9, 3)), np.arange(9) % 3

    def part(i):
        return lambda d: soft_verbalizer.loss_and_gradient(d.reshape(4, 3), x, m, y, 0.7)[i]

    assert check_grad(part(0), part(1), rng.standard_normal(12)) < 1e-5
    found = soft_verbalizer.correct(x, m, y, spread=0.7)
    np.testing.assert_allclose(part(1)(found.ravel()), 0, atol=1e-3)
    # Two rows, one word, no class scores: one class has d = 2 t^2 / (1 + e^2d), the other -d.
    t = 0.5 * 2 / 1
    d = brentq(lambda d: d - t**2 * 2 / (1 + np.exp(2 * d)), 0, 10)
    decoder = SoftVerbalizer(spread=0.5).fit([[3.0], [1.0]], ["a", "b"], scores=np.zeros((2, 2)))
    np.testing.assert_allclose(decoder.coef_, [[d], [-d]], rtol=1e-4)
    np.testing.assert_allclose(decoder.intercept_, [-2 * d, 2 * d], rtol=1e-4)
    with pytest.raises(InputError, match="spread"):
        SoftVerbalizer(spread=0.0).fit([[3.0], [1.0]], ["a", "b"])


def test_a_soft_verbalizer_starts_at_the_semantic_weights():
    model = FakeModel()
    texts, y = ["so good", "quite fun", "so bad", "awful taste"], ["pos", "pos", "neg", "neg"]
    new = ["a fine one", "so awful", "dull"]

    def fit(decoder, **options):
        clf = FewShotClassifier(
            model, labels=WEIGHTED, decoder=decoder, store=None, calibration="none", **options
        )
        return clf.fit(texts, y)

    start, plain = fit(SoftVerbalizer(spread=1e-4)), fit(ZeroShot())
    np.testing.assert_allclose(start.predict_proba(new), plain.predict_proba(new), atol=1e-5)
    assert start.n_queries_ == plain.n_queries_ == 4 + 1
    soft = fit(SoftVerbalizer())
    assert soft.decoder_.coef_.shape == (2, 5)
    words = soft.task_.features(soft.observe(texts))[0]
    asked = model.observe(
        [soft.task_.template.render({"text": text}) for text in texts], soft.task_.verbalizer.words
    ).scores
    np.testing.assert_allclose(words, asked - asked.mean(axis=1, keepdims=True), rtol=1e-6)
    two = fit(SoftVerbalizer(), template=["{text} It was {mask}.", "{mask}: {text}"])
    assert two.decoder_.coef_.shape == (2, 10)


def test_a_soft_verbalizer_learns_that_a_word_misleads():
    """The word "fine" speaks for the wrong class; its weight has to turn."""
    rng = np.random.default_rng(1)
    y = np.arange(40) % 2
    words = rng.standard_normal((40, 4))
    words[:, 3] -= 3 * (y - 0.5)
    scores = np.stack([words[:, :2].mean(axis=1), words[:, 2:].mean(axis=1)], axis=1)
    decoder = SoftVerbalizer(spread=2.0).fit(words[:20], y[:20], scores=scores[:20])
    assert (scores[20:].argmax(axis=1) == y[20:]).mean() < 0.4
    right = decoder.predict(words[20:], scores=scores[20:]) == y[20:]
    assert right.mean() > 0.8
    assert decoder.coef_[1, 3] < -0.5


def test_a_soft_verbalizer_is_saved_and_compared(tmp_path):
    from tests.compare.test_experiment import TEST, TRAIN, make

    clf = FewShotClassifier(
        FakeModel(), labels=WEIGHTED, decoder=SoftVerbalizer(), store=tmp_path / "s"
    ).fit(TRAIN[0][:8], TRAIN[1][:8])
    clf.save(tmp_path / "saved")
    again = FewShotClassifier.load(
        tmp_path / "saved", model=FakeModel(), store=tmp_path / "s", verify=True
    )
    np.testing.assert_array_equal(again.predict_proba(TEST[0]), clf.predict_proba(TEST[0]))
    model = FakeModel()
    found = make(model, methods=["zero-shot", "dect", "soft-verbalizer"], shots=[8], seeds=[0])
    planned = found.cost()[0].queries
    cells = {cell.method: cell for cell in found.run().cells}
    assert model.queries == planned == 16 + 40 + 1  # the words cost no query of their own
    assert cells["soft-verbalizer"].ledger.parameters == 2 * 3 + 2
