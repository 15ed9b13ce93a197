from __future__ import annotations

import copy

import numpy as np
import pytest
from sklearn.base import clone

from fewfit import DecT, FewShotClassifier, LinearProbe, Template, load_model
from fewfit.compare import DecoderMethod, Experiment
from fewfit.errors import CapabilityError, InputError, ModelError
from fewfit.models import Capabilities, EmbeddedEncoder, FakeModel
from fewfit.observations import ScoreSpace, Status
from tests.conftest import TEMPLATE, prompts

WORDS = ("bad", "great")


@pytest.fixture(params=["fake", "fake-logit", "fake-similarity", "fake-scores-only", "embedded"])
def model(request):
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    options = {
        "fake": {},
        "fake-logit": {"space": "logit"},
        "fake-similarity": {"space": "similarity", "batch_size": 3},
        "fake-scores-only": {"hidden_size": 0},
    }
    return FakeModel(**options[request.param])


TEXTS = ["it was great fun", "", "bad {mask}", "so so, and " * 40, "é" * 300, "日本 \0 🙂", "[SEP]"]


def test_answers_are_what_the_capabilities_promise(model):
    answers = model.observe(prompts(*TEXTS), WORDS)
    given = model.capabilities
    assert answers.space == given.scores
    assert (answers.hidden is not None) == given.hidden
    assert answers.columns == WORDS
    assert len(answers) == len(TEXTS)
    assert np.isfinite(answers.scores).all()
    assert (answers.n_tokens > 0).all()
    assert answers.queries == len(TEXTS)


def test_batched_equals_single_and_order_does_not_matter(model):
    whole = model.observe(prompts(*TEXTS), WORDS)
    backwards = model.observe(prompts(*TEXTS[::-1]), WORDS[::-1])
    np.testing.assert_allclose(backwards.scores[::-1, ::-1], whole.scores, atol=2e-6)
    for i, text in enumerate(TEXTS):
        one = model.observe(prompts(text), WORDS)
        np.testing.assert_allclose(one.scores[0], whole.scores[i], atol=2e-6)
        if whole.hidden is not None:
            np.testing.assert_allclose(one.hidden[0], whole.hidden[i], atol=2e-6)
        assert one.n_tokens[0] == whole.n_tokens[i]


def test_a_repeated_prompt_is_asked_once():
    model = FakeModel()
    answers = model.observe(prompts("a", "b", "a", "a"), WORDS)
    assert model.queries == 2
    assert answers.asked.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(answers.scores[0], answers.scores[3])


def test_progress_counts_every_distinct_prompt(model):
    seen = []
    model.observe(prompts("a", "b", "a", "c"), WORDS, progress=seen.append)
    assert sum(seen) == 3


def test_models_are_never_copied(model):
    assert copy.deepcopy(model) is model
    assert clone(FewShotClassifier(model)).model is model


def test_fake_log_probabilities_are_a_distribution():
    answers = FakeModel().observe(prompts(*TEXTS), WORDS)
    np.testing.assert_allclose(np.exp(answers.scores).sum(axis=1), answers.label_mass, rtol=1e-5)
    assert (answers.label_mass <= 1).all()
    assert answers.label_mass.min() < 0.9


def test_fake_faults_and_log(tmp_path):
    model = FakeModel(faults={2: ModelError("boom")}, log=tmp_path / "log", batch_size=1)
    with pytest.raises(ModelError, match="boom"):
        model.observe(prompts("a", "b", "c", "d"), WORDS)
    assert len((tmp_path / "log").read_text().splitlines()) == 3


def test_capabilities_are_checked_by_name():
    given = Capabilities(scores=None, hidden=True, max_labels=2)
    given.check(frozenset({"hidden"}), who="X", n_words=9)
    with pytest.raises(CapabilityError, match="X needs 'scores'"):
        given.check(frozenset({"scores"}), who="X", n_words=2)
    with pytest.raises(CapabilityError, match="9 label words"):
        Capabilities(scores=ScoreSpace.LOGPROB, hidden=False, max_labels=2).check(
            frozenset(), who="X", n_words=9
        )


def test_models_are_named_by_a_string():
    assert isinstance(load_model("embedded"), EmbeddedEncoder)
    assert load_model("fake").spec == "fake"
    model = FakeModel()
    assert load_model(model) is model
    with pytest.raises(InputError, match="'gpt-9' is not known"):
        load_model("gpt-9")


def test_pairs_of_any_length_come_back_in_order(embedded):
    pair = Template("{a} ? {mask}, {b}")
    rows = [
        {"a": "word " * (i % 7 + 1), "b": "other " * (600 if i == 40 else 1)} for i in range(70)
    ]
    answers = embedded.observe([pair.render(row) for row in rows], WORDS)
    for i in (0, 6, 40, 69):
        alone = embedded.observe([pair.render(rows[i])], WORDS)
        np.testing.assert_allclose(answers.hidden[i], alone.hidden[0], atol=2e-6)
        np.testing.assert_allclose(answers.scores[i], alone.scores[0], atol=2e-6)
    assert np.flatnonzero(answers.status == Status.TRUNCATED).tolist() == [40]


def test_views_of_one_and_of_two_fields_do_not_go_together(embedded):
    clf = FewShotClassifier(
        embedded, template=["{a} {mask}, {b}", "{a} {mask}"], labels={0: "no", 1: "yes"}, store=None
    )
    with pytest.raises(InputError, match="give every template two fields"):
        clf.fit([{"a": "x", "b": "y"}] * 2, [0, 1])
    rows = [{"a": str(i), "b": "y"} for i in range(4)]
    with pytest.raises(InputError, match="give every template two fields"):
        Experiment(
            rows[:2],
            [0, 1],
            rows[2:],
            [0, 1],
            template="{a} {mask}, {b}",
            labels={0: "no", 1: "yes"},
            models=[embedded],
            methods={"one": DecoderMethod(LinearProbe(), template="{a} {mask}"), "two": DecT()},
            shots=[1],
            seeds=1,
        )


def test_embedded_answers_several_templates_in_one_call(embedded):
    other = Template("{text} The topic is {mask}.")
    mixed = [TEMPLATE.render({"text": "x"}), other.render({"text": "x"})]
    both = embedded.observe(mixed, WORDS)
    for i, prompt in enumerate(mixed):
        np.testing.assert_allclose(
            both.scores[i], embedded.observe([prompt], WORDS).scores[0], atol=2e-6
        )
    assert abs(both.scores[0] - both.scores[1]).max() > 0.01
