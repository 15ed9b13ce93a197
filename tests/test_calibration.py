from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from fewfit import FewShotClassifier, ZeroShot
from fewfit.calibration import (
    CALIBRATIONS,
    BatchCalibration,
    ContextualCalibration,
    DomainContextCalibration,
    NoCalibration,
    PMICalibration,
    RatioCalibration,
    make_calibration,
)
from fewfit.errors import CalibrationError, CapabilityError, InputError
from fewfit.models import FakeModel
from fewfit.observations import ScoreSpace
from fewfit.prompts import Template
from fewfit.prompts.content_free import pseudo_documents

LOGPROB, LOGIT, SIMILARITY = ScoreSpace.LOGPROB, ScoreSpace.LOGIT, ScoreSpace.SIMILARITY


def test_contextual_equals_the_papers_division():
    # Zhao et al. 2021: p=(.7,.3), p_cf=(.8,.2) gives q=(.875,1.5), normalised (.368421,.631579).
    calibration = ContextualCalibration()
    prior = calibration.prior(np.log([[0.8, 0.2]]), LOGPROB)
    removed = calibration.remove(np.log([[0.7, 0.3]]), prior)
    np.testing.assert_allclose(np.exp(removed), [[0.875, 1.5]])
    np.testing.assert_allclose(softmax(removed), [[0.368421, 0.631579]], atol=1e-6)


def test_contextual_averages_probabilities_not_logarithms():
    calibration = ContextualCalibration(("N/A", ""))
    prior = calibration.prior(np.log([[0.9, 0.1], [0.5, 0.5]]), LOGPROB)
    np.testing.assert_allclose(np.exp(prior), [0.7, 0.3])


@pytest.mark.parametrize("kind", [ContextualCalibration, DomainContextCalibration])
def test_probabilities_are_averaged_before_they_are_normalised_as_by_the_authors(kind):
    p = np.array([[0.09, 0.01], [0.0005, 0.0005]])  # the second hardly says a label word at all
    prior = kind().prior(np.log(p), LOGPROB)
    np.testing.assert_allclose(np.exp(prior), np.array([0.0905, 0.0105]) / 0.101)
    # Of logits nothing but the ratio is known: both count the same.
    np.testing.assert_allclose(np.exp(kind().prior(np.log(p), LOGIT)), [0.7, 0.3])
    # One text, as by default: the same in both.
    one, two = (kind().prior(np.log(p[:1]), space) for space in (LOGPROB, LOGIT))
    np.testing.assert_array_equal(one, two)


def test_contextual_ignores_what_softmax_ignores():
    calibration = ContextualCalibration()
    scores = np.array([[1.0, 2.0, 0.5]])
    for space in (LOGPROB, LOGIT):
        prior = calibration.prior(scores, space)
        np.testing.assert_allclose(calibration.prior(scores - 7, space), prior)
        same = calibration.remove(scores + 3, prior)
        np.testing.assert_allclose(softmax(same), np.full((1, 3), 1 / 3))


def test_contextual_subtracts_similarities():
    calibration = ContextualCalibration()
    prior = calibration.prior(np.array([[0.1, 0.3]]), SIMILARITY)
    np.testing.assert_allclose(calibration.remove(np.array([[0.2, 0.2]]), prior), [[0.1, -0.1]])


def test_ratio_is_dects_division_of_logits():
    calibration = RatioCalibration()
    prior = calibration.prior(np.array([[4.0, 2.0, 6.0]]), LOGIT)
    scores = np.array([[8.0, 4.0, 12.0], [5.0, 5.0, 5.0]])
    before = scores.copy()
    expected = [[8, 8, 8], [5, 10, 10 / 3]]
    np.testing.assert_allclose(calibration.remove(scores, prior), expected)
    np.testing.assert_allclose(calibration.remove(scores, prior), expected)  # nothing in place
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("content_free", [(2, -1, 5), (0, 1, 2), (-1, -2, -3), (1, -1, 0)])
def test_ratio_refuses_a_prior_that_explodes_or_flips(content_free):
    with pytest.raises(CalibrationError, match="contextual"):
        RatioCalibration().prior(np.array([content_free], dtype=float), LOGIT)


def test_ratio_is_for_logits_only():
    RatioCalibration().check(LOGIT)
    for space in (LOGPROB, SIMILARITY):
        with pytest.raises(CapabilityError, match=space.value):
            RatioCalibration().check(space)


def test_none_changes_nothing_and_names_are_looked_up():
    scores = np.array([[1.0, 2.0]])
    none = make_calibration("none")
    assert isinstance(none, NoCalibration)
    assert none.content_free == ()
    np.testing.assert_array_equal(none.remove(scores, none.prior(scores[:0], LOGPROB)), scores)
    assert make_calibration(none) is none
    with pytest.raises(InputError, match="'magic' is not one of"):
        make_calibration("magic")


P = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.8, 0.2]])


def test_batch_divides_by_the_mean_probability_of_the_batch():
    # An arithmetic mean; the geometric one would be (.7416, .2213).
    calibration = BatchCalibration()
    prior = calibration.prior(np.log(P), LOGPROB)
    np.testing.assert_allclose(np.exp(prior), [0.75, 0.25])
    ratios = np.exp(calibration.remove(np.log(P), prior))
    np.testing.assert_allclose(ratios, [[1.2, 0.4], [14 / 15, 1.2], [0.8, 1.6], [16 / 15, 0.8]])
    assert ratios.argmax(axis=1).tolist() == [0, 1, 1, 0]
    assert P.argmax(axis=1).tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(calibration.prior(np.log([*P, *P]), LOGPROB), prior)
    alone = calibration.remove(np.log(P[:1]), calibration.prior(np.log(P[:1]), LOGPROB))
    np.testing.assert_allclose(np.exp(alone), 1)


def test_batch_strength_interpolates_and_is_chosen_from_labels():
    scores = np.log(P)
    none = BatchCalibration(strength=0.0)
    np.testing.assert_array_equal(none.remove(scores, none.prior(scores, LOGPROB)), scores)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    # log p = evidence + a bias of 2 toward class 1: all of it has to go
    told = (np.eye(2)[y] * 2 + rng.standard_normal((200, 2)) + [0, 2])[:, None]
    fitted = BatchCalibration(strength="labels").fitted(told, y, LOGPROB)
    grid = np.linspace(-5, 5, 2001)
    prior = fitted.prior(told[:, 0], LOGPROB)

    def loss(gamma):
        return -np.log(softmax(told[:, 0] - gamma * prior, axis=1)[np.arange(200), y]).mean()

    assert fitted.strength == pytest.approx(grid[np.argmin([loss(g) for g in grid])], abs=0.01)
    assert 0.5 < fitted.strength < 2
    with pytest.raises(CalibrationError, match="chosen by fit"):
        BatchCalibration(strength="labels").remove(scores, scores[0])
    with pytest.raises(InputError, match="strength"):
        BatchCalibration(strength="some")


def test_pmi_is_the_difference_of_log_probabilities():
    # cross-entropies (2, 3) after the text and (1, 4) after the premise: likelihood picks 0
    calibration = PMICalibration()
    prior = calibration.prior(np.array([[-1.0, -4.0]]), LOGPROB)
    np.testing.assert_allclose(calibration.remove(np.array([[-2.0, -3.0]]), prior), [[-1, 1]])
    rare = np.array([[0.0, -6.0]])  # a rarer spelling, under both contexts
    again = calibration.prior(np.array([[-1.0, -4.0]]) + rare, LOGPROB)
    np.testing.assert_allclose(
        calibration.remove(np.array([[-2.0, -3.0]]) + rare, again), [[-1, 1]]
    )
    allowed = "defined for scores in 'logit' and 'logprob', but .* gives 'similarity' scores"
    with pytest.raises(CapabilityError, match=allowed):
        calibration.check(SIMILARITY)


def test_prompts_of_each_calibration():
    template = Template("Text: {text} Topic: {mask}")
    rows = [{"text": "Goal goal"}, {"text": "goal GOAL goal goal"}]

    def asked(calibration):
        return [prompt.text("_") for prompt in calibration.prompts(template, rows)]

    assert asked(NoCalibration()) == asked(BatchCalibration()) == []
    assert asked(ContextualCalibration(("N/A", ""))) == ["Text: N/A Topic: _", "Text:  Topic: _"]
    assert asked(PMICalibration()) == ["Text:  Topic: _"]
    assert asked(PMICalibration(premise="Topic is {mask}!")) == ["Topic is _!"]
    with pytest.raises(InputError, match="premise"):
        PMICalibration(premise="no slot")
    with pytest.raises(InputError, match="leave one of the two out"):
        PMICalibration(premise="Topic is {mask}!", content_free=("N/A",))
    # of one repeated word, one longer than the mean
    assert asked(DomainContextCalibration(n_documents=2)) == 2 * [
        "Text: goal goal goal goal . Topic: _"
    ]


def test_pseudo_documents_take_each_fields_own_words():
    rows = [{"a": "x y", "b": "u"}, {"a": "x x x x", "b": "v w u"}]
    documents = pseudo_documents(rows, ["a", "b"], n=50, seed=1)
    assert documents == pseudo_documents(rows, ["a", "b"], n=50, seed=1)
    assert documents != pseudo_documents(rows, ["a", "b"], n=50, seed=2)
    words = [document["a"].removesuffix(" .").split() for document in documents]
    assert {len(text) for text in words} == {4}
    assert {word for text in words for word in text} == {"x", "y"}
    share = np.mean([word == "x" for text in words for word in text])
    assert 0.7 < share < 0.95  # five of six words are x
    assert {w for d in documents for w in d["b"].split()} == {"u", "v", "w", "."}
    with pytest.raises(InputError, match="no words"):
        pseudo_documents([{"a": ""}], ["a"], n=1, seed=0)


def test_domain_context_sees_the_bias_that_an_empty_text_does_not():
    """The fake model scores a label word by the words of the text; the domain's word is a label."""
    texts = ["goal the goal", "goal so so", "goal a b", "goal c d"]
    y = ["sport", "other", "sport", "other"]
    labels = {"sport": "goal", "other": "zebra"}
    made = {
        name: FewShotClassifier(
            FakeModel(), labels=labels, calibration=name, decoder=ZeroShot(), store=None
        ).fit(texts, y)
        for name in ("contextual", "domain-context")
    }
    assert made["domain-context"].n_queries_ == len(texts) + 20 + 1
    empty, domain = (np.diff(clf.task_.prior[0])[0] for clf in made.values())  # sport - other
    assert domain > empty + 1


@pytest.mark.parametrize("name", sorted(CALIBRATIONS))
def test_every_calibration_in_the_classifier(name, tmp_path):
    space = "logit" if name == "ratio" else "logprob"
    model = FakeModel(space=space)
    texts, y = ["good", "bad day", "so good", "bad bad"], ["pos", "neg", "pos", "neg"]
    options = {"labels": {"neg": "bad", "pos": "good"}, "store": None, "decoder": ZeroShot()}
    try:
        clf = FewShotClassifier(model, calibration=name, **options).fit(texts, y)
    except CalibrationError:
        assert name == "ratio"
        return
    assert clf.n_queries_ == model.queries
    kind = CALIBRATIONS[name]
    assert not kind.reference or "arXiv" in kind.reference
    new = ["good", "what", "bad", "bad and bad"]
    whole, alone = clf.predict_proba(new), clf.predict_proba(new[:1])
    assert np.allclose(whole[:1], alone) == kind.row_independent
    if not kind.row_independent:
        np.testing.assert_allclose(alone, 0.5)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=None, verify=True)
    assert again.task_.calibration == clf.task_.calibration
    np.testing.assert_array_equal(again.predict_proba(new), whole)


def test_the_strength_that_fit_chose_is_saved(tmp_path):
    clf = FewShotClassifier(
        FakeModel(),
        labels={"neg": "bad", "pos": "good"},
        calibration=BatchCalibration(strength="labels"),
        decoder=ZeroShot(),
        store=None,
    ).fit(["good", "bad day", "so good", "bad bad"], ["pos", "neg", "pos", "neg"])
    assert isinstance(clf.task_.calibration.strength, float)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=FakeModel(), store=None)
    assert again.task_.calibration.strength == clf.task_.calibration.strength


def test_a_premise_has_no_field():
    with pytest.raises(InputError, match=r"premise: .*has no field, and '\{text\}' is one"):
        PMICalibration(premise="{text} It was {mask}.")
    assert PMICalibration(premise="{ It } was {mask}.").premise == "{ It } was {mask}."
