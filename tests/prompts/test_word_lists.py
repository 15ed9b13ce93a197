from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewfit import FewShotClassifier, Verbalizer, ZeroShot
from fewfit.analysis.token_shift import token_shift
from fewfit.decoders import MultiLabel
from fewfit.decoders.multi_label import best_threshold
from fewfit.errors import InputError
from fewfit.models import FakeModel
from fewfit.prompts import Trie, Urial, drop_improbable, expand_words, retrieve_words
from tests.estimators.test_classifier import TEXTS, Y

# label words with weights (SciPrompt)


def weighted(labels, space="logit"):
    return FewShotClassifier(
        FakeModel(space=space), labels=labels, decoder=ZeroShot(), calibration="none", store=None
    ).fit(TEXTS, Y)


def test_weights_matter():
    verbalizer = Verbalizer({"a": {"x": 1, "y": 0}, "b": {"z": 0.5, "w": 0.5}})
    model = FakeModel(space="logit")
    from fewfit import Template

    answers = model.observe([Template("{t} {mask}").render({"t": "x"})], verbalizer.words)
    by_hand = np.array([[2.0, 0.0, 2.0, 0.0]], dtype=np.float32)
    from dataclasses import replace

    reduced = replace(answers, scores=by_hand).by_class(
        ["a", "b"], verbalizer.word_class, verbalizer.weights
    )
    np.testing.assert_allclose(reduced.scores, [[2, 1]])  # a plain mean has 1 for both


def test_one_weighted_word_per_class_is_that_word(tmp_path):
    plain = weighted({"neg": "bad", "pos": "good"}).predict_proba(TEXTS)
    one = weighted({"neg": {"bad": 0.3}, "pos": "good"})
    np.testing.assert_allclose(one.predict_proba(TEXTS), plain, atol=1e-6)
    rich = weighted({"neg": {"bad": 1.0, "awful": 0.5}, "pos": {"good": 1.0, "fine": 0.25}})
    assert rich.task_.verbalizer.weights == (2 / 3, 1 / 3, 0.8, 0.2)
    rich.save(tmp_path / "task")
    again = FewShotClassifier.load(
        tmp_path / "task", model=FakeModel(space="logit"), store=None, verify=True
    )
    np.testing.assert_array_equal(again.predict_proba(TEXTS), rich.predict_proba(TEXTS))


@pytest.mark.parametrize("weights", [{"x": 0.0}, {"x": -1.0, "y": 2.0}, {"x": float("nan")}])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(InputError, match="weights"):
        Verbalizer({"a": weights, "b": "z"})


def test_the_filter_is_strict_on_both_sides():
    terms = ["keep", "contrast", "far", "neither", "edge", "rim"]
    cosine = np.array([[0.8, 0.8, 0.3, 0.3, 0.5, 0.8], [0] * 6])
    contrast = np.array([[0.2, 0.95, 0.2, 0.95, 0.2, 0.9], [0] * 6])
    found = retrieve_words({"a": "name", "b": "other"}, terms, cosine, contrast)
    assert found == {"a": {"name": 1.0, "keep": 0.8}, "b": {"other": 1.0}}


def test_a_shared_word_goes_to_the_more_similar_class_whatever_the_order():
    cosine = np.array([[0.7, 0.6], [0.9, 0.55]])
    names = {"a": "alpha", "b": "beta"}
    found = retrieve_words(names, ["shared", "mine"], cosine)
    assert found == {"a": {"alpha": 1.0, "mine": 0.6}, "b": {"beta": 1.0, "shared": 0.9}}
    turned = retrieve_words(dict(reversed(names.items())), ["shared", "mine"], cosine[::-1])
    assert turned == found
    assert Verbalizer(found).words == ("alpha", "mine", "beta", "shared")
    above_one = retrieve_words(names, ["x"], np.array([[1.5], [0.0]]))
    assert above_one["a"]["x"] == 1.0
    unlike = np.array([[-0.3, 0.2], [-0.9, 0.0]])  # what label words can weigh is above 0
    assert retrieve_words(names, ["x", "y"], unlike, threshold=-1) == {
        "a": {"alpha": 1.0, "y": 0.2},
        "b": {"beta": 1.0},
    }
    with pytest.raises(InputError, match="expected shape"):
        retrieve_words(names, ["x"], cosine)


def test_expansion_takes_the_nearest_words_of_the_vocabulary():
    vocabulary = ["bad", "awful", "good", "fine", "table"]
    vectors = np.array([[-1, 0], [-2, 0.2], [1, 0], [3, 0.3], [0.1, 1]], dtype=float)
    names = {"neg": "bad", "pos": "Good"}
    found = expand_words(names, vocabulary, vectors, n=2)
    assert found == {"neg": {"bad": 1.0, "awful": 1.0}, "pos": {"Good": 1.0, "fine": 1.0}}
    assert expand_words(names, vocabulary, vectors, n=1) == {
        "neg": {"bad": 1.0},
        "pos": {"Good": 1.0},
    }
    with pytest.raises(InputError, match="'odd' is not in the vocabulary"):
        expand_words({"a": "odd"}, vocabulary, vectors)


def test_exactly_the_lowest_half_of_the_vocabulary_is_dropped():
    vocabulary = [f"w{i}" for i in range(10)]
    mean = np.array([5, 1, 9, 2, 8, 3, 7, 4, 6, 0])  # lowest: w9 w1 w3 w5 w7
    labels = {"a": {"w0": 1.0, "w1": 0.5, "w2": 0.4}, "b": {"w3": 1.0, "w5": 0.2}, "c": {"x": 1.0}}
    kept = drop_improbable(labels, vocabulary, mean)
    assert kept == {"a": {"w0": 1.0, "w2": 0.4}, "b": {"w3": 1.0}, "c": {"x": 1.0}}
    assert drop_improbable(labels, vocabulary, mean, fraction=0.0) == labels


# PTEC's trie

TRIE = Trie([[1, 2], [1, 3], [4]], separator=9, end=0)


@pytest.mark.parametrize(
    ("generated", "allowed"),
    [
        ([], {1, 4}),
        ([1], {2, 3}),
        ([1, 2], {9, 0}),
        ([1, 2, 9], {1, 4}),
        ([1, 2, 9, 1], {3}),
        ([1, 2, 9, 1, 3, 9], {4}),
        ([4], {9, 0}),
        ([1, 2, 9, 1, 3, 9, 4], {0}),  # nothing is left to separate
        ([4, 0], set()),
    ],
)
def test_what_may_follow(generated, allowed):
    assert TRIE.allowed(generated) == allowed


def test_a_label_that_begins_another():
    trie = Trie([[1], [1, 2]], separator=9, end=0)
    assert trie.allowed([1]) == {9, 0, 2}
    assert trie.allowed([1, 9]) == {1}
    assert trie.allowed([1, 9, 1]) == {2}
    assert trie.allowed([1, 2, 9, 1]) == {0}


def test_what_cannot_be_a_trie():
    for labels in ([], [[]], [[1], [1]], [[1, 9]], [[0]]):
        with pytest.raises(InputError):
            Trie(labels, separator=9, end=0)
    with pytest.raises(InputError, match="position 1"):
        TRIE.allowed([1, 4])


@settings(max_examples=60, deadline=None)
@given(
    labels=st.sets(
        st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6
    ),
    seed=st.integers(0, 10**6),
)
def test_whatever_the_model_says_the_answer_is_distinct_labels(labels, seed):
    trie = Trie(sorted(labels), separator=9, end=0)
    asked = []

    def model(prefix):
        asked.append(prefix)
        return np.random.default_rng([seed, *prefix]).standard_normal(10)

    found = trie.decode(model)
    assert 1 <= len(found) == len(set(found)) <= len(labels)
    assert found == trie.decode(model)
    # scores of all labels: one probability, one query per branching
    asked.clear()
    log_p = trie.label_log_probs(model)
    assert np.exp(log_p).sum() == pytest.approx(1)
    assert len(asked) == len(set(asked))
    assert all(len(trie._next(set(labels), prefix) - {9}) > 1 for prefix in asked)


def test_masking_is_renormalisation():
    def model(prefix):
        return np.log(np.array([0.1, 0.3, 0.06, 0.04, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]))

    np.testing.assert_allclose(np.exp(TRIE.label_log_probs(model)), [0.6 * 0.6, 0.6 * 0.4, 0.4])
    assert TRIE.decode(model) == [0]  # 1, 2, then the end is likelier than the separator
    single = Trie([[1, 2, 3]], separator=9, end=0)
    np.testing.assert_array_equal(single.label_log_probs(None), [0])  # no choice, no query


# PTEC's head


@parametrize_with_checks([MultiLabel()])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def topics():
    rng = np.random.default_rng(0)
    Y = (rng.random((60, 3)) < [0.5, 0.4, 0.2]).astype(int)
    X = Y @ (4 * rng.standard_normal((3, 8))) + rng.standard_normal((60, 8))
    return X, Y


def test_a_further_label_changes_no_probability_of_the_others(topics):
    X, Y = topics
    three, two = MultiLabel().fit(X, Y), MultiLabel().fit(X, Y[:, :2])
    np.testing.assert_allclose(three.predict_proba(X)[:, :2], two.predict_proba(X), atol=1e-12)
    assert (three.predict(X) == Y).mean() > 0.95
    order = [2, 0, 1]
    np.testing.assert_allclose(
        MultiLabel().fit(X, Y[:, order]).predict_proba(X), three.predict_proba(X)[:, order]
    )
    np.testing.assert_allclose(three.predict_proba(X[3:5]), three.predict_proba(X)[3:5])


def test_scale_and_shift_of_the_features_do_not_matter(topics):
    X, Y = topics
    scaled = 1000 * X + 7
    np.testing.assert_allclose(
        MultiLabel().fit(scaled, Y).predict_proba(scaled),
        MultiLabel().fit(X, Y).predict_proba(X),
        atol=1e-6,
    )


def test_a_positive_weight_is_that_many_copies(topics):
    X, Y = topics
    y = Y[:, :1]
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    copies = np.concatenate([np.arange(60), np.flatnonzero(y), np.flatnonzero(y)])
    heavy, _ = MultiLabel(pos_weight=3.0)._head(X, y[:, 0])
    copied, _ = MultiLabel(pos_weight=1.0)._head(X[copies], y[copies, 0])
    np.testing.assert_allclose(heavy, copied, atol=1e-3)
    with pytest.raises(InputError, match="pos_weight"):
        MultiLabel(pos_weight="heavy").fit(X, Y)


def test_thresholds():
    y, p = np.array([0, 0, 1, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.8, 0.9])
    f1 = {t: 2 * ((p > t) & (y == 1)).sum() / ((p > t).sum() + 3) for t in np.linspace(0, 0.89, 90)}
    chosen = best_threshold(y, p)
    assert chosen == pytest.approx(0.25)
    assert 2 * ((p > chosen) & (y == 1)).sum() / ((p > chosen).sum() + 3) == max(f1.values())


def test_a_rare_label_keeps_one_half_and_a_constant_one_its_answer(topics):
    X, Y = topics
    Y = Y.copy()
    Y[:, 2] = 0
    Y[:2, 2] = 1
    always = np.hstack([Y, np.ones((60, 1), int), np.zeros((60, 1), int)])
    decoder = MultiLabel(threshold="f1").fit(X, always)
    assert decoder.threshold_[2:].tolist() == [0.5, 0.5, 0.5]
    assert decoder.predict(X)[:, 3:].mean(axis=0).tolist() == [1, 0]
    assert MultiLabel(threshold=0.7).fit(X, Y).threshold_.tolist() == [0.7] * 3
    tuned = MultiLabel(threshold="f1").fit(X, Y).threshold_
    assert (tuned[:2] != 0.5).all()
    with pytest.raises(InputError, match="expected 0 and 1"):
        MultiLabel().fit(X, 2 * Y)
    with pytest.raises(InputError, match="threshold"):
        MultiLabel(threshold="best").fit(X, Y)


# URIAL

EXAMPLES = [("How?", "So."), ("Who?", "She."), ("Harm?", "I would rather not.")]


def test_the_prompt_to_the_letter_and_its_open_fence():
    one = Urial("Talk.", EXAMPLES[:1]).prompt("Why?")
    assert one == (
        "Talk.\n\n# Query:\n```\nHow?\n```\n\n# Answer:\n```\nSo.\n```\n\n"
        "# Query:\n```\nWhy?\n```\n\n# Answer:\n```\n"
    )
    assert Urial("Talk.", EXAMPLES).prompt("Why?").count("```") == 15


def test_the_prefix_is_constant_and_turns_come_in_order():
    urial = Urial("Talk.", EXAMPLES)
    one, two = urial.prompt("Why?"), urial.prompt("When, then?")
    assert one.startswith(urial.prefix)
    assert two.startswith(urial.prefix)
    again = urial.prompt("And?", [("Why?", "Because.")])
    assert again.index("Why?") < again.index("Because.") < again.index("And?")
    assert again.startswith(one + "Because.\n```\n\n")
    with pytest.raises(InputError, match="backticks"):
        Urial("Talk.", [("How?", "```x```")])


@pytest.mark.parametrize(
    ("generated", "answer"),
    [
        ("Hello```\n\n# Query:\n```Next", "Hello"),
        ("Hello\n```\n\n# User: x", "Hello"),
        ("Hello", "Hello"),
        ("Do:\n```\ncode\n```\nDone.\n```\n# Query", "Do:\n```\ncode\n```\nDone."),
        ("# Query:", ""),
    ],
)
def test_answers_are_cut_at_the_stop_string(generated, answer):
    assert Urial.answer(generated) == answer


def test_ranks_of_an_aligned_answer_and_its_own_prefix():
    contexts = []
    tables = iter([[0.4, 0.3, 0.2, 0.1]] * 4)

    def base(context):
        contexts.append(context)
        return np.array(next(tables))

    shift = token_shift(base, [7, 8], [0, 1, 2, 3])
    assert shift.ranks.tolist() == [1, 2, 3, 4]
    assert (shift.unshifted, shift.marginal, shift.shifted) == (0.25, 0.5, 0.25)
    assert contexts == [(7, 8), (7, 8, 0), (7, 8, 0, 1), (7, 8, 0, 1, 2)]
    flat = token_shift(lambda context: np.zeros(5), [], [3, 4])
    assert flat.unshifted == 1.0  # a tie counts in the token's favour
    with pytest.raises(InputError, match="no tokens"):
        token_shift(base, [1], [])


def test_a_model_is_unshifted_from_itself():
    def model(context):
        return np.random.default_rng(list(context)).standard_normal(20)

    answer: list[int] = []
    for _ in range(12):
        answer.append(int(model((3, *answer)).argmax()))
    assert token_shift(model, [3], answer).unshifted == 1.0
