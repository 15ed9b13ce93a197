from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewfit.calibration import ContextualCalibration, NoCalibration
from fewfit.errors import CapabilityError, FewfitWarning, InputError
from fewfit.models import FakeModel
from fewfit.observations import Observations
from fewfit.prompts import Verbalizer
from fewfit.searchers.policy_network import (
    PolicyNetwork,
    piecewise_reward,
    reinforce_prompt,
    z_scores,
)
from fewfit.searchers.prompt_search import (
    PolicyGradient,
    estimate_gradient,
    project_to_simplex,
    search_prompt,
)
from fewfit.searchers.unsupervised import learn_unsupervised

VOCABULARY = ["hm", "please", "magic", "topic", "so", "and"]
TEMPLATE = "{prompt}: {text} It is {mask}."
LABELS = {"cat": "cat", "dog": "dog"}
TEXTS = [f"number {i} {'meow' if i % 3 else 'woof'}" for i in range(60)]
TRUE = np.array(["cat" if i % 3 else "dog" for i in range(60)])


class Oracle(FakeModel):
    """Right about a text with probability 0.6; with the magic word in the prompt, 0.95."""

    def __init__(self, **options):
        super().__init__(**options)
        self.prompts: list[str] = []

    def stream(self, prompts, words):
        for start, prompt in enumerate(prompts):
            self._bill(prompt)
            text = prompt.text("_")
            self.prompts.append(text)
            question = text.split("\n\n")[-1]
            draw = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 1000 / 1000
            right = draw < (0.95 if question.startswith("magic") else 0.6)
            cat = ("meow" in question) == right
            score = np.log([[0.8, 0.1]]) if cat else np.log([[0.1, 0.8]])
            yield (
                np.array([start]),
                Observations(
                    columns=tuple(words),
                    scores=score[:, [["cat", "dog"].index(word) for word in words]],
                    space=self.space,
                    hidden=None,
                    label_mass=np.array([0.9]),
                    n_tokens=np.array([len(text.split())]),
                    status=np.zeros(1),
                    asked=np.ones(1, bool),
                ),
            )


def test_the_estimated_gradient_is_unbiased():
    p = np.array([[0.3, 0.7], [0.6, 0.4]])
    table = np.array([[1.0, 4.0], [2.0, -3.0]])
    joint = p[0][:, None] * p[1]
    mean = (joint * table).sum()
    expected = np.stack([table @ p[1], p[0] @ table]) - mean
    rng = np.random.default_rng(0)
    draws = (rng.random((15_000, 4, 2)) > p[:, 0]).astype(int)
    total = np.mean([estimate_gradient(p, z, table[z[:, 0], z[:, 1]]) for z in draws], axis=0)
    np.testing.assert_allclose(total, expected, atol=0.08)
    shifted = estimate_gradient(p, draws[0], table[draws[0][:, 0], draws[0][:, 1]] + 9)
    np.testing.assert_allclose(
        shifted, estimate_gradient(p, draws[0], table[draws[0][:, 0], draws[0][:, 1]])
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6))
def test_projection_to_the_simplex(values):
    p = project_to_simplex(np.array([values]))
    assert (p >= 0).all()
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(project_to_simplex(p), p, atol=1e-12)
    rng = np.random.default_rng(0)
    others = rng.dirichlet(np.ones(len(values)), 50)
    assert (np.linalg.norm(p - values) <= np.linalg.norm(others - values, axis=1) + 1e-9).all()


def test_projection_in_numbers():
    np.testing.assert_allclose(project_to_simplex(np.array([[1.2, -0.2]])), [[1, 0]])


def test_prompts_are_drawn_from_their_distributions():
    policy = PolicyGradient(3, 2, n_samples=3000)
    policy.p = np.array([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]])
    drawn = policy.ask()
    share = np.bincount(drawn[:, 0], minlength=3) / 3000
    np.testing.assert_allclose(share, policy.p[0], atol=0.03)
    assert (drawn[:, 1] == 1).all()
    with pytest.raises(InputError, match="2 samples"):
        PolicyGradient(3, 2, n_samples=1)


def search(model, max_queries, calibration=None, **options):
    return search_prompt(
        model,
        TEMPLATE,
        VOCABULARY,
        [{"text": text} for text in TEXTS],
        np.array([int(name == "dog") for name in TRUE]),
        Verbalizer(LABELS),
        calibration or NoCalibration(),
        **{"length": 1, "max_queries": max_queries, **options},
    )


def test_the_search_finds_the_word_that_matters_within_its_budget():
    model = Oracle()
    found = search(model, 6000, lr=0.02)
    assert found.template == "magic: {text} It is {mask}."
    assert found.probability > 0.9
    assert found.queries == model.queries <= 6000
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("max_queries", [170, 479, 500])
def test_the_budget_is_never_exceeded_and_counted_exactly(max_queries):
    for calibration, cost in ((None, 160), (ContextualCalibration(), 170)):
        model = Oracle()
        found = search(model, max_queries, calibration)
        assert found.queries == model.queries <= max_queries
        assert 1 <= len(found.losses) <= found.queries / (cost / 10)


@pytest.mark.parametrize("max_queries", [1, 2, 9, 159])
def test_a_budget_below_one_step_is_refused_before_any_query(max_queries):
    model = Oracle()  # one step is 10 prompts of 16 texts
    with pytest.raises(InputError, match="at least 160 are needed, and"):
        search(model, max_queries)
    with pytest.raises(InputError, match="at least 170 are needed"):
        search(model, 169, ContextualCalibration())
    assert model.queries == 0
    assert search(model, 160).losses


def test_same_seed_same_search_and_braces_are_text():
    one, two = search(Oracle(), 2000, seed=5), search(Oracle(), 2000, seed=5)
    assert one == two
    assert search(Oracle(), 2000, seed=6).losses != one.losses
    with pytest.raises(InputError, match="exactly one"):
        search_prompt(
            Oracle(),
            "{text} {mask}",
            VOCABULARY,
            [],
            np.array([]),
            Verbalizer(LABELS),
            NoCalibration(),
            max_queries=1,
        )
    poor = Oracle(space=None)
    with pytest.raises(CapabilityError, match="search_prompt needs 'scores'"):
        search(poor, 500)
    assert poor.queries == 0


# unsupervised


def learn(model, **options):
    options = {"start": ["hm"], "max_queries": 6000, "lr": 0.02, **options}
    return learn_unsupervised(model, TEMPLATE, VOCABULARY, TEXTS, LABELS, **options)


def test_unsupervised_learning_counts_its_queries_and_asks_as_it_will_be_asked():
    model = Oracle()
    learnt = learn(model, max_queries=2000)
    assert learnt.queries == model.queries <= 2000
    assert set(learnt.pseudo_labels) == {"cat", "dog"}
    assert learnt.confidence.shape == (60,)
    assert len(learnt.view.demonstrations) == 5  # four, and one to spare
    # the last pass asks every text in the form that new texts are asked in
    assert model.prompts[-60:] == [learnt.view.render({"text": text}).text("_") for text in TEXTS]
    # in the search, the demonstrations stand in front of every prompt, and only the words differ
    shown = learnt.view.render({"text": "new"}).text("_").split("\n\n")[:-1]
    tails = [
        [part.split(": ", 1)[1] for part in text.split("\n\n")[:-1]]
        for text in model.prompts[60:-60]
    ]
    assert all(tail == [part.split(": ", 1)[1] for part in shown] for tail in tails)


def test_a_budget_for_the_passes_alone_is_refused_before_any_query():
    model = Oracle()
    with pytest.raises(InputError, match="a step of the search need 280, got 279"):
        learn(model, max_queries=279)
    assert model.queries == 0
    learnt = learn(model, max_queries=280)
    assert 120 <= learnt.queries == model.queries <= 280
    with pytest.raises(InputError, match="quantile"):
        learn(Oracle(), quantile=1.0)


def test_a_collapse_is_reported():
    class Stubborn(FakeModel):
        def _states(self, batch):
            return np.tile(self._vector("cat"), (len(batch), 1))

    with pytest.warns(FewfitWarning, match="100% of the texts got one class"):
        learn(Stubborn(hidden_size=0), max_queries=280)


def test_every_pair_of_demonstration_and_word_is_right_on_an_easy_model():
    learnt = learn(Oracle(), start=["magic"], max_queries=280)
    names = dict(zip(TEXTS, TRUE, strict=True))
    shown = [(names[row["text"]], word) for row, word in learnt.view.demonstrations]
    assert sum(a == b for a, b in shown) >= len(shown) - 1
    for (_, one), (_, two) in itertools.pairwise(learnt.view.demonstrations):
        assert one != two  # the classes in turn


# RLPrompt-like


def reinforce(model, max_queries, calibration=None, *, y=None, labels=None, **options):
    return reinforce_prompt(
        model,
        TEMPLATE,
        VOCABULARY,
        [{"text": text} for text in TEXTS],
        np.array([int(name == "dog") for name in TRUE]) if y is None else y,
        Verbalizer(labels or LABELS),
        calibration or NoCalibration(),
        **{"length": 1, "max_queries": max_queries, **options},
    )


def test_the_reward_in_numbers():
    scores = np.log([[0.7, 0.3], [0.7, 0.3], [0.5, 0.5]])
    np.testing.assert_allclose(piecewise_reward(scores, np.array([0, 1, 0])), [80, -72, 0])
    three = np.log([[0.2, 0.5, 0.3]])
    np.testing.assert_allclose(piecewise_reward(three, np.array([2])), [180 * -0.2])
    z = z_scores(np.array([[1.0, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(z, [[-1, 0], [1, 0]])


def test_the_policy_starts_without_a_preference_and_samples_what_it_says():
    policy = PolicyNetwork(3, 2, n_samples=4000, seed=1)
    pairs = np.array(list(itertools.product(range(3), repeat=2)))
    np.testing.assert_allclose(policy.log_probs(pairs), -np.log(3))
    rng = np.random.default_rng(0)
    policy.W2 += rng.normal(0, 0.3, policy.W2.shape)
    policy.b2 += rng.normal(0, 0.3, 3)
    p = np.exp(policy.log_probs(pairs).sum(axis=1))
    assert p.sum() == pytest.approx(1)
    given = np.exp(policy.log_probs(pairs))[:, 1].reshape(3, 3)
    assert np.abs(given[0] - given[1]).max() > 0.01  # a word depends on the one before
    share = np.bincount(policy.ask() @ [3, 1], minlength=9) / 4000
    np.testing.assert_allclose(share, p, atol=0.03)
    first = policy.log_probs(policy.best()[None])[0, 0]
    assert first == pytest.approx(policy.log_probs(pairs)[:, 0].max())


def test_the_gradient_is_that_of_the_log_probability():
    policy = PolicyNetwork(4, 3, width=5, seed=2)
    rng = np.random.default_rng(0)
    policy.W2 += rng.normal(0, 0.5, policy.W2.shape)
    prompts, weights = rng.integers(4, size=(6, 3)), rng.standard_normal(6)

    def value():
        return float((weights * policy.log_probs(prompts).sum(axis=1)).mean())

    found = policy.gradients(prompts, weights)
    for parameter, gradient in zip(
        (policy.W1, policy.b1, policy.W2, policy.b2), found, strict=True
    ):
        where = tuple(rng.integers(size) for size in parameter.shape)
        parameter[where] += 1e-5
        above = value()
        parameter[where] -= 2e-5
        below = value()
        parameter[where] += 1e-5
        assert (above - below) / 2e-5 == pytest.approx(gradient[where], abs=1e-7)


def test_the_network_learns_the_word_that_matters():
    model = Oracle()
    found = reinforce(model, 60 * 160, n_samples=8)
    assert found.template == "magic: {text} It is {mask}."
    assert found.probability > 0.9
    assert found.queries == model.queries <= 60 * 160
    assert found.losses[-1] < found.losses[0]


@pytest.mark.parametrize("trials", [16, 17, 31, 40])
@pytest.mark.parametrize(("calibration", "cost"), [(None, 60), (ContextualCalibration(), 61)])
def test_the_network_spends_its_budget_to_the_last_trial(trials, calibration, cost):
    model = Oracle()
    found = reinforce(model, trials * cost + cost - 1, calibration)
    assert found.queries == model.queries == trials * cost


def test_a_budget_below_one_step_of_the_network_is_refused_before_any_query():
    model = Oracle()
    for max_queries in (1, 59, 60, 959):
        with pytest.raises(
            InputError, match="16 prompts at once, of 60 queries each: at least 960"
        ):
            reinforce(model, max_queries)
    assert model.queries == 0
    with pytest.raises(CapabilityError, match="reinforce_prompt needs 'scores'"):
        reinforce(Oracle(space=None), 60)
    with pytest.raises(InputError, match="2 samples"):
        PolicyNetwork(3, 1, n_samples=1)


def test_the_network_is_deterministic_and_the_order_of_the_classes_does_not_matter():
    one, two = reinforce(Oracle(), 1200, seed=3), reinforce(Oracle(), 1200, seed=3)
    assert one == two
    assert reinforce(Oracle(), 1200, seed=4).losses != one.losses
    y = np.array([int(name != "dog") for name in TRUE])
    assert reinforce(Oracle(), 1200, seed=3, y=y, labels={"a": "dog", "b": "cat"}) == one
