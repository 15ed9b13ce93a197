"""iPET: generations that teach each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from fewfit import FewShotClassifier, LinearProbe, ZeroShot
from fewfit.decoders import (
    IPET,
)
from fewfit.decoders.ipet import (
    committee,
    distil,
    distillation_loss,
    in_generations,
    pseudo_label,
)
from fewfit.errors import InputError
from fewfit.models import FakeModel
from tests.conftest import task_arrays


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
    with pytest.raises(InputError, match="ZeroShot does not learn from texts without labels b"):
        FewShotClassifier(refused, decoder=ZeroShot(), **options).fit(texts, y, unlabelled=texts)
    assert refused.queries == 0
