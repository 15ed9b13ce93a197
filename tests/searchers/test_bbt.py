"""Black-box tuning: what it finds, what it spends, what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from fewfit.calibration import ContextualCalibration, NoCalibration
from fewfit.errors import CapabilityError, InputError, MissingExtraError
from fewfit.models import FakeModel, TransformersModel
from fewfit.observations import Observations
from fewfit.prompts import Template, Verbalizer
from fewfit.searchers.bbt import black_box_tune, cross_entropy, hinge, random_projection
from tests.hf_checkpoints import build
from tests.models.local.test_soft import MASKED, WORDS


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: build(name, root / name) for name in [*MASKED, "gpt2", "t5"]}


ROWS = [{"text": f"{i} {'meow' if i % 3 else 'woof'}"} for i in range(5)]


Y = np.array([int(i % 3 == 0) for i in range(5)])


H = 8


class Sphere(FakeModel):
    """Surer of the right class, the nearer the vectors in front are to a target: f below 2."""

    def __init__(self, vectors=None, log=None):
        super().__init__()
        self.vectors = vectors
        self.asked: list[str] = [] if log is None else log

    @property
    def capabilities(self):
        return replace(super().capabilities, soft_prompts=True)

    def input_embeddings(self):
        return np.random.default_rng(5).normal(0, 0.3, (40, H)).astype(np.float32)

    def with_soft_prompt(self, vectors):
        return Sphere(vectors, self.asked)

    @staticmethod
    def f(vectors):
        return float(((vectors - 0.5) ** 2).sum())

    def stream(self, prompts, words):
        for i, prompt in enumerate(prompts):
            text = prompt.text("_")
            self.asked.append(text)
            right = "cat" if "meow" in text else "dog"
            wrong = self.f(self.vectors) - 2
            yield (
                np.array([i]),
                Observations(
                    columns=tuple(words),
                    scores=np.array([[0.0 if word == right else wrong for word in words]]),
                    space=self.space,
                    hidden=None,
                    label_mass=np.array([np.nan]),
                    n_tokens=np.array([3]),
                    status=np.zeros(1),
                    asked=np.ones(1, bool),
                ),
            )


def tuned(model=None, max_queries=400, *, y=Y, labels=None, calibration=None, **options):
    return black_box_tune(
        model or Sphere(),
        Template("{text} It is a {mask}."),
        ROWS,
        y,
        Verbalizer(labels or {"cat": "cat", "dog": "dog"}),
        calibration or NoCalibration(),
        **{"max_queries": max_queries, "length": 2, "dimension": 6, **options},
    )


def test_it_finds_the_best_vectors_that_the_projection_reaches():
    found = tuned(max_queries=5 * 500, alpha=3)
    rng = np.random.default_rng(0)
    E = Sphere().input_embeddings()
    p0 = E[rng.integers(40, size=2)].ravel()
    A = random_projection(E, 2 * H, 6, sigma=1.0, alpha=3, rng=rng)
    z = np.linalg.lstsq(A, 0.5 - p0, rcond=None)[0]
    lowest, start = (np.logaddexp(0, Sphere.f(p) - 2) for p in (A @ z + p0, p0))
    assert found.start_loss == pytest.approx(start, rel=1e-5)
    assert lowest - 1e-6 <= found.loss < lowest + 1e-3 * (start - lowest)
    assert found.loss == pytest.approx(np.logaddexp(0, Sphere.f(found.vectors) - 2), rel=1e-4)
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("trials", [21, 22, 45])
@pytest.mark.parametrize(("calibration", "cost"), [(None, 5), (ContextualCalibration(), 6)])
def test_the_budget_is_spent_to_the_last_trial_and_no_further(trials, calibration, cost):
    for more in (0, cost - 1):
        model = Sphere()
        found = tuned(model, trials * cost + more, calibration=calibration)
        assert found.queries == len(model.asked) == trials * cost
        assert len(found.losses) == (trials - 1) // 20  # one trial is the start


def test_a_budget_below_the_start_and_one_generation_is_refused():
    model = Sphere()
    for max_queries in (1, 5, 100, 104):
        with pytest.raises(InputError, match="21 prompts at once, of 5 queries each: at least 105"):
            tuned(model, max_queries)
    assert model.asked == []


def test_a_search_that_goes_nowhere_gives_the_start():
    found = tuned(alpha=0)
    assert found.loss == found.start_loss
    E = Sphere().input_embeddings()
    assert all((vector == E).all(axis=1).any() for vector in found.vectors)


@pytest.mark.parametrize("alpha", [0.1, 1, 30])
def test_it_never_ends_above_the_start(alpha):
    for seed in range(4):
        found = tuned(max_queries=5 * 30, alpha=alpha, seed=seed)
        assert found.loss <= found.start_loss


def test_same_seed_same_vectors_and_the_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()
    one, two, other = tuned(seed=5), tuned(seed=5), tuned(seed=6)
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert one.losses == two.losses
    assert one.losses != other.losses
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_the_order_of_the_classes_does_not_matter():
    found = tuned(labels={"b": "cat", "a": "dog"}, y=1 - Y)
    np.testing.assert_array_equal(found.vectors, tuned().vectors)
    wrong = tuned(y=1 - Y)
    assert wrong.start_loss != pytest.approx(found.start_loss)


def test_a_text_that_occurs_twice_is_asked_once():
    model = Sphere()
    found = black_box_tune(
        model,
        Template("{text} It is a {mask}."),
        [*ROWS, ROWS[0]],
        np.append(Y, Y[0]),
        Verbalizer({"cat": "cat", "dog": "dog"}),
        NoCalibration(),
        max_queries=105,
        length=1,
        dimension=2,
    )
    assert found.queries == len(model.asked) == 21 * len(ROWS)


def test_losses_in_numbers():
    scores, y = np.array([[1.0, 3.0, 2.5], [0.0, -4.0, 1.0]]), np.array([1, 0])
    expected = -np.log([np.exp(3) / np.exp(scores[0]).sum(), 1 / np.exp(scores[1]).sum()])
    np.testing.assert_allclose(cross_entropy(scores, y), expected)
    np.testing.assert_allclose(hinge(scores, y, margin=2.0), [0 + 1.5, 0 + 3])
    model = Sphere()
    found = tuned(model, 105, margin=2.0)
    assert found.loss == pytest.approx(Sphere.f(found.vectors), rel=1e-4)  # margin 2, s = f - 2


def test_the_projection_has_the_scale_of_the_rule():
    E = np.random.default_rng(1).normal(0, 0.4, (500, 20))
    A = random_projection(E, 3000, 50, sigma=2.0, alpha=1.5, rng=np.random.default_rng(0))
    assert A.std() == pytest.approx(1.5 * E.std() / (np.sqrt(50) * 2.0), rel=0.01)
    assert abs(A.mean()) < 0.01 * A.std()


def test_what_cannot_be_searched_is_refused_before_any_query(monkeypatch):
    poor = FakeModel()
    with pytest.raises(CapabilityError, match="needs 'soft_prompts'"):
        tuned(poor)
    assert poor.queries == 0
    model = Sphere()
    for options, match in [
        ({"max_queries": 4}, "5 queries each: at least 105 are needed, and 4"),
        ({"length": 0}, "length: "),
        ({"dimension": 1}, "dimension: "),
        ({"y": Y[:2]}, "5 rows and 2 classes"),
    ]:
        with pytest.raises(InputError, match=match):
            tuned(model, **options)
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingExtraError, match=r"fewfit\[search\]"):
        tuned(model)
    assert model.asked == []


def test_on_a_masked_model_the_found_model_has_the_loss_that_was_found(checkpoints):
    model = TransformersModel(checkpoints["bert"])
    labels = {"cat": "great", "dog": "bad"}
    found = tuned(model, 5 * 42, labels=labels, dimension=10)
    assert found.loss < found.start_loss
    answers = found.model.observe(
        [Template("{text} It is a {mask}.").render(row) for row in ROWS], WORDS
    )
    losses = cross_entropy(answers.scores.astype(float), Y)
    assert losses.mean() == pytest.approx(found.loss, rel=1e-4)
