from __future__ import annotations

import codecs
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from fewfit import DecT, FewShotClassifier, ZeroShot
from fewfit.calibration import ContextualCalibration
from fewfit.cli import app
from fewfit.decoders import DECODERS, MPD, PET, KNNPrompting, ParaphraseMean
from fewfit.errors import ArtifactError, CapabilityError, InputError
from fewfit.models import FakeModel
from fewfit.prompts import Conjugate, InContext, Prompt, Template, Views, paraphrased
from tests.estimators.test_classifier import LABELS, TEXTS, Y

ONE, TWO, THREE = "{text} It was {mask}.", "{mask}: {text}", "{text} All in all, {mask}"
NEW = ["good", "bad", "so so", ""]


class Reader(FakeModel):
    """A fake that reads the whole prompt, not the user's text alone, and keeps what it was asked.

    A template then matters, and so does a demonstration.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.asked: list[Prompt] = []
        self.words: set[str] = set()

    def stream(self, prompts, words):
        self.asked += prompts
        self.words |= set(words)
        flat = [
            Prompt((prompt.parts[0]._replace(kind="field", text=prompt.text("_")),))
            for prompt in prompts
        ]
        yield from super().stream(flat, words)


def make(model=None, **options) -> FewShotClassifier:
    return FewShotClassifier(model or Reader(), **{"labels": LABELS, "store": None, **options})


def test_views_cost_one_query_each_and_their_calibration_too():
    for calibration, free in ((ContextualCalibration(("", "N/A")), 2), ("domain-context", 20 + 1)):
        model = Reader()
        clf = make(model, template=[ONE, TWO, THREE], calibration=calibration).fit(TEXTS, Y)
        assert clf.n_queries_ == model.queries == 3 * (len(TEXTS) + free)
        assert clf.task_.prior.shape == (3, 2)
        answers = clf.observe(NEW)
        assert answers.queries == 3 * len(NEW)
        assert clf.decode(answers).shape == (len(NEW), 2)
        np.testing.assert_allclose(clf.decode(answers[3:6]), clf.decode(answers)[1:2], rtol=1e-5)


def test_each_view_has_its_own_prior_and_hidden_states_lie_side_by_side():
    alone = [make(template=t).fit(TEXTS, Y) for t in (ONE, TWO)]
    both = make(template=[ONE, TWO]).fit(TEXTS, Y)
    hidden, scores = both.task_.features(both.observe(NEW))
    for p, clf in enumerate(alone):
        h, s = clf.task_.features(clf.observe(NEW))
        np.testing.assert_allclose(hidden[:, 16 * p : 16 * (p + 1)], h)
        np.testing.assert_allclose(scores[:, p], s)
        np.testing.assert_allclose(both.task_.prior[p], clf.task_.prior[0])


def test_the_zero_shot_decoder_averages_the_views():
    views = [make(template=t, decoder=ZeroShot()).fit(TEXTS, Y) for t in (ONE, TWO)]
    scores = [clf.task_.features(clf.observe(NEW))[1] for clf in views]
    both = make(template=[ONE, TWO], decoder=ZeroShot()).fit(TEXTS, Y).predict_proba(NEW)
    mean = np.exp(np.mean(scores, axis=0))
    np.testing.assert_allclose(both, mean / mean.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_list_of_one_template_is_that_template(tmp_path):
    one, listed = make(template=ONE).fit(TEXTS, Y), make(template=[ONE]).fit(TEXTS, Y)
    np.testing.assert_array_equal(one.predict_proba(NEW), listed.predict_proba(NEW))
    with pytest.raises(InputError, match="empty list"):
        make(template=[]).fit(TEXTS, Y)
    with pytest.raises(InputError, match="exactly one"):
        make(template=[ONE, "{text}"]).fit(TEXTS, Y)


@pytest.mark.parametrize("decoder", [DecT(), MPD(), PET(), ZeroShot(), ParaphraseMean()])
def test_several_views_are_saved(decoder, tmp_path):
    model = Reader()
    clf = make(model, template=[ONE, TWO, THREE], decoder=decoder).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    assert again.get_params()["template"] == [ONE, TWO, THREE]


def test_knn_prompting_asks_for_the_vocabulary_once_per_example(tmp_path):
    model = FakeModel(vocabulary=["good", "bad", "film", "so"])
    store = tmp_path / "store.sqlite"
    clf = make(model, decoder=KNNPrompting(k=1), store=store).fit(TEXTS, Y)
    assert model.queries == clf.n_queries_ == len(TEXTS) + 1
    assert clf.predict(TEXTS).tolist() == Y  # each is its own nearest neighbour
    assert model.queries == len(TEXTS) + 1
    np.testing.assert_allclose(np.exp(clf.decoder_.anchors_).sum(axis=1), 1, atol=1e-6)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=None, verify=True)
    assert again.predict(TEXTS).tolist() == Y
    poor = FakeModel()
    with pytest.raises(CapabilityError, match="'full_vocabulary'"):
        make(poor, decoder=KNNPrompting()).fit(TEXTS, Y)
    assert poor.queries == 0


# in-context learning


def shown(view, text) -> str:
    return view.render({"text": text}).text("_")


def test_no_demonstration_is_zero_shot():
    plain, none = Reader(), Reader()
    one = make(plain, template=ONE).fit(TEXTS, Y)
    two = make(none, template=InContext(ONE, n=0)).fit(TEXTS, Y)
    assert plain.asked == none.asked
    np.testing.assert_array_equal(one.predict_proba(NEW), two.predict_proba(NEW))


@pytest.mark.parametrize("choose", ["balanced", "random", "nearest"])
def test_demonstrations_never_show_the_example_itself(choose):
    model, truth = Reader(), dict(zip(TEXTS, Y, strict=True))
    clf = make(model, template=InContext(ONE, n=3, choose=choose)).fit(TEXTS, Y)
    assert clf.n_queries_ == model.queries == len(TEXTS) + 1
    for text, prompt in zip(TEXTS, model.asked[1:], strict=True):
        whole = prompt.text("_")
        assert whole.endswith(f"{text} It was _.")
        demonstrations = whole.split("\n\n")[:-1]
        assert len(demonstrations) == 3
        assert not [line for line in demonstrations if line.startswith(f"{text} It was")]
        for line in demonstrations:
            example, word = line.removesuffix(".").rsplit(" It was ", 1)
            assert word == {"neg": "bad", "pos": "good"}[truth[example]]
    assert model.asked[0].text("_").endswith("\n\n It was _.")  # content-free, same shots


def test_balanced_takes_the_classes_in_turn():
    rows, words = [{"text": f"t{i}"} for i in range(12)], ["b"] * 9 + ["a"] * 3
    view = InContext(ONE, n=4, seed=3).learn(rows, words)
    assert [word for _, word in view.demonstrations[:4]] == ["a", "b", "a", "b"]
    assert view.demonstrations == InContext(ONE, n=4, seed=3).learn(rows, words).demonstrations
    assert view.demonstrations != InContext(ONE, n=4, seed=4).learn(rows, words).demonstrations


def test_nearest_puts_the_most_similar_last():
    rows = [{"text": t} for t in ("red green", "blue sea", "green tree leaf", "sea")]
    view = InContext(ONE, n=2, choose="nearest").learn(rows, ["a", "b", "a", "b"])
    assert shown(view, "the sea").startswith("blue sea It was b.\n\nsea It was b.\n\nthe sea")
    assert shown(view, "a green leaf").split("\n\n")[1] == "green tree leaf It was a."
    empty = InContext(ONE, n=1, choose="nearest").learn([{"text": ""}], ["a"])
    with pytest.raises(InputError, match="hold no words"):
        shown(empty, "x")


def test_the_budget_drops_whole_demonstrations():
    demonstrations = [({"text": "one two"}, "a"), ({"text": "three four five"}, "b")]
    for max_words, kept in ((None, 2), (11, 2), (10, 1), (5, 1), (4, 0), (0, 0)):
        view = InContext(ONE, demonstrations=demonstrations, max_words=max_words)
        assert shown(view, "x").count("\n\n") == kept, max_words
    assert shown(InContext(ONE, n=1, demonstrations=demonstrations), "x").count("\n\n") == 1


def test_braces_in_a_demonstration_are_text():
    view = InContext(TWO, demonstrations=[({"text": "{mask} {text} {"}, "a")], separator=" | ")
    assert shown(view, "q") == "a: {mask} {text} { | _: q"
    assert [part.kind for part in view.render({"text": "q"}).parts].count("mask") == 1


def test_bad_demonstrations_are_refused():
    for options in ({"choose": "best"}, {"n": -1}, {"max_words": -1}):
        with pytest.raises(InputError):
            InContext(ONE, **options)
    with pytest.raises(InputError, match="fit draws them"):
        shown(InContext(ONE), "x")


@pytest.mark.parametrize("calibration", ["none", "contextual", "domain-context", "batch", "pmi"])
def test_demonstrations_go_with_each_calibration_and_are_saved(calibration, tmp_path):
    model = Reader()
    views = [InContext(ONE, n=2, choose="nearest"), TWO]
    clf = make(model, template=views, calibration=calibration, decoder=ZeroShot()).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    again = FewShotClassifier.load(tmp_path / "task", model=model, store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))


# conjugate prompting


def rot13(text: str) -> str:
    return codecs.encode(text, "rot13")


def test_conjugation_transforms_everything_but_the_slot():
    model = Reader()
    make(model, template=Conjugate(ONE, rot13, rot13)).fit(TEXTS, Y)
    assert model.words == {rot13(word) for word in ("bad", "good", "fine")}
    assert model.asked[1].text("_") == rot13(TEXTS[0]) + rot13(" It was ") + "_."


def test_a_model_that_solves_the_task_in_any_language_gives_the_same_classes():
    class Polyglot(FakeModel):
        """Reads rot13 as it reads English: both have the same vectors."""

        def _vector(self, word):
            return super()._vector(min(word, rot13(word)))

    plain = make(Polyglot(), template=ONE).fit(TEXTS, Y).predict_proba(NEW)
    turned = make(Polyglot(), template=Conjugate(ONE, rot13, rot13)).fit(TEXTS, Y)
    np.testing.assert_allclose(turned.predict_proba(NEW), plain)
    same = make(Polyglot(), template=Conjugate(ONE, str, str)).fit(TEXTS, Y)
    np.testing.assert_array_equal(same.predict_proba(NEW), plain)


def test_a_model_switched_by_the_language_is_recovered():
    class Switched(FakeModel):
        """Answers the opposite where the label words are English."""

        def stream(self, prompts, words):
            for positions, answers in super().stream(prompts, words):
                sign = -1 if "good" in words else 1
                yield positions, replace(answers, scores=sign * answers.scores)

        def _vector(self, word):
            return super()._vector(min(word, rot13(word)))

    options = {"decoder": ZeroShot(), "calibration": "none"}
    english = make(Switched(), template=ONE, **options).fit(TEXTS, Y)
    turned = make(Switched(), template=Conjugate(ONE, rot13, rot13), **options).fit(TEXTS, Y)
    assert turned.score(TEXTS, Y) == 1.0
    assert english.score(TEXTS, Y) < 0.5


def test_views_of_several_languages_are_asked_together(tmp_path):
    model = Reader()
    clf = make(model, template=[ONE, Conjugate(ONE, rot13, rot13)], decoder=PET()).fit(TEXTS, Y)
    assert model.queries == 2 * (len(TEXTS) + 1)
    alone = [
        make(template=t, decoder=ZeroShot()).fit(TEXTS, Y)
        for t in (ONE, Conjugate(ONE, rot13, rot13))
    ]
    scores = clf.task_.features(clf.observe(NEW))[1]
    for p, one in enumerate(alone):
        np.testing.assert_allclose(scores[:, p], one.task_.features(one.observe(NEW))[1])
    with pytest.raises(ArtifactError, match="holds code"):
        clf.save(tmp_path / "task")


def test_a_transform_that_loses_text_is_refused_before_any_query():
    model = FakeModel()
    with pytest.raises(InputError, match="comes back as"):
        make(model, template=Conjugate(ONE, str.lower, str)).fit(["A Film", "bad"], Y[:2])
    assert model.queries == 0


# paraphrases


def test_paraphrases_cost_one_query_each_and_are_written_once():
    written = []

    def generator(text):
        written.append(text)
        return [f"{text} {j}" for j in range(3)]

    model = Reader()
    views = paraphrased(ONE, generator, n=3)
    clf = make(model, template=views, decoder=ParaphraseMean()).fit(TEXTS, Y)
    # the content-free text is its own paraphrase, so all four views ask it with one prompt
    assert model.queries == 4 * len(TEXTS) + 1
    assert sorted(written) == sorted(TEXTS)
    clf.predict(TEXTS)
    assert len(written) == len(TEXTS)
    with pytest.raises(InputError, match="4 are needed, 3 were written"):
        make(template=paraphrased(ONE, generator, n=4)).fit(TEXTS, Y)


def test_paraphrases_that_repeat_the_text_change_nothing():
    plain = make(template=ONE, decoder=ZeroShot()).fit(TEXTS, Y).predict_proba(NEW)
    for n in (0, 1, 5):
        views = paraphrased(ONE, lambda text, n=n: [text] * n, n=n)
        model = Reader()
        clf = make(model, template=views, decoder=ParaphraseMean()).fit(TEXTS, Y)
        assert model.queries == len(TEXTS) + 1  # equal prompts are asked once
        np.testing.assert_allclose(clf.predict_proba(NEW), plain, atol=1e-6)
    with pytest.raises(InputError, match="not negative"):
        paraphrased(ONE, str.split, n=-1)
    with pytest.raises(InputError, match="one field"):
        paraphrased("{a} {b} {mask}", str.split)


def test_views_may_read_different_fields():
    views = Views([Template("{a} {mask}"), Template("{b} {mask}")])
    assert views.fields == ("a", "b")
    rows = [{"a": text, "b": "so"} for text in TEXTS]
    clf = make(template=views).fit(rows, Y)
    assert clf.predict(rows).shape == (6,)
    with pytest.raises(InputError, match="lacks the field 'b'"):
        clf.predict([{"a": "x"}])


def test_decoders_are_told_the_number_of_views():
    """Also where there are no scores to read it from."""
    for decoder in (MPD(), DECODERS["ipet"](), DECODERS["prompt-boosting"]()):
        model = FakeModel(space=None, vocabulary=["good", "bad", "so"])
        more = ["so good", "so bad"] if decoder.needs_unlabelled else None
        clf = make(model, template=[ONE, TWO, THREE], decoder=decoder)
        clf.fit(TEXTS, Y, unlabelled=more)
        assert clf.decoder_.n_views == 3
        assert decoder.n_views is None
    refused = FakeModel()
    with pytest.raises(InputError, match="MPD expects 2 views, the template has 1"):
        make(refused, template=ONE, decoder=MPD(n_views=2)).fit(TEXTS, Y)
    assert refused.queries == 0


def test_several_templates_on_the_command_line(tmp_path):
    train = tmp_path / "train.csv"
    lines = [f"{text},{y}" for text, y in zip(TEXTS, Y, strict=True)]
    train.write_text("\n".join(["text,label", *lines]))
    task = str(tmp_path / "task")
    words = ["--label", "neg=bad", "--label", "pos=good"]
    views = ["--template", ONE, "--template", TWO, "--decoder", "mpd", "--calibration", "batch"]
    fit = ["fit", str(train), "-o", task, "--model", "fake", "--store", "none", *words, *views]
    result = CliRunner().invoke(app, [*fit, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["queries"] == 2 * (len(TEXTS) + 1)
    out = CliRunner().invoke(app, ["predict", task, str(train), "--store", "none"])
    assert out.output.count("\n") == len(TEXTS) + 1


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_every_decoder_takes_several_views(name):
    model = FakeModel(vocabulary=["good", "bad"])
    more = ["so good", "so bad"] if DECODERS[name].needs_unlabelled else None
    clf = make(model, template=[ONE, TWO], decoder=DECODERS[name]())
    clf.fit(TEXTS, Y, unlabelled=more)
    proba = clf.predict_proba(NEW)
    np.testing.assert_allclose(proba.sum(axis=1), 1)


def test_what_demonstrations_hold_can_be_kept(tmp_path):
    rows = [({"text": "u", "other": 5}, "good"), ({"text": "v"}, "bad")]
    view = InContext(ONE, n=np.int64(2), seed=np.int64(3), max_words=np.int32(9))
    given = InContext(ONE, n=np.int64(1), demonstrations=rows)
    for i, template in enumerate((view, given)):
        clf = FewShotClassifier(FakeModel(), template=template, labels=LABELS, store=None)
        clf.fit(TEXTS, Y).save(tmp_path / str(i))
        again = FewShotClassifier.load(tmp_path / str(i), model=FakeModel(), store=None)
        np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    assert given.render({"text": "u"}).text("").count("u It was") == 1, "none demonstrates itself"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Template("\ud800{text} {mask}"),
        lambda: InContext(ONE, separator="\ud800"),
        lambda: InContext(ONE, demonstrations=[({"text": "\udfff"}, "good")]),
        lambda: InContext(ONE, demonstrations=[({"text": "u"}, 3)]),
        lambda: InContext(ONE, demonstrations=[({"body": "u"}, "good")]),
        lambda: InContext(ONE, demonstrations=["good"]),
    ],
)
def test_what_no_file_could_hold_is_refused_at_once(make):
    with pytest.raises(InputError):
        make()


def test_one_text_is_no_list_of_paraphrases():
    views = paraphrased("{text} It was {mask}.", str.upper, n=2)
    with pytest.raises(InputError, match="paraphrases: expected a list of texts for 'fun'"):
        views.views[1].render({"text": "fun"})
