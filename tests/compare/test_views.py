"""Several views in a comparison: what the classifier gives, at the price of the classifier."""

from __future__ import annotations

import codecs
import csv
import json
import warnings
from typing import ClassVar

import numpy as np
import pytest

from fewfit import DecT, FewShotClassifier, LinearProbe, ZeroShot
from fewfit.calibration import BatchCalibration, ContextualCalibration, DomainContextCalibration
from fewfit.compare import (
    DecoderMethod,
    Experiment,
    Method,
    compare,
    measure,
    sample_shots,
)
from fewfit.compare.journal import Journal
from fewfit.compare.names import make_methods
from fewfit.compare.report.html import html_report
from fewfit.compare.report.tables import report
from fewfit.decoders import MPD, PET, OffsetLogisticRegression, ParaphraseMean, PromptBoosting
from fewfit.errors import CapabilityError, InputError, ModelWarning
from fewfit.models import FakeModel
from fewfit.models.costs import Size
from fewfit.prompts import Conjugate, InContext, Template, paraphrased
from tests.compare.test_experiment import (  # noqa: F401
    LABELS,
    TEST,
    TRAIN,
    app,
    files,
    make,
    run,
    runner,
)
from tests.compare.test_methods import Reader as Slow

ONE, TWO, THREE = "{text} It was {mask}.", "{mask}: {text}", "{text} All in all, {mask}"
VIEWS = [ONE, TWO, THREE]


class Reader(Slow):
    """It remembers its words, and so is quick."""

    known: ClassVar[dict[str, np.ndarray]] = {}

    def _vector(self, word):
        if word not in self.known:
            self.known[word] = super()._vector(word)
        return self.known[word]


def cipher(text: str) -> str:
    return codecs.encode(text, "rot13")


def conjugate() -> Conjugate:
    return Conjugate(TWO, cipher, cipher)


def paraphrases(n: int = 2):
    return paraphrased(ONE, lambda text: [f"{text} {word}" for word in ("fun", "dull")], n=n)


class Backwards(Template):
    """The same prompt as the template, with the label words spelled backwards."""

    def spell(self, word):
        return word[::-1]


def one_cell(model, decoder, **options):
    options = {"methods": {"mine": decoder}, "shots": [4], "seeds": [2], **options}
    experiment = make(model, **options)
    planned = sum(cost.queries for cost in experiment.cost())
    (cell,) = experiment.run().cells
    assert model.queries == planned
    return cell


def classified(model, decoder, template, calibration):
    """The log loss of the classifier, the queries of its fit, and those of the test set."""
    rows = sample_shots(TRAIN[1], 4, seed=2)
    clf = FewShotClassifier(
        model, template=template, labels=LABELS, decoder=decoder, calibration=calibration,
        store=None,
    ).fit([TRAIN[0][i] for i in rows], [TRAIN[1][i] for i in rows])  # fmt: skip
    answers = clf.observe(TEST[0])
    found = measure(np.array(TEST[1]), clf.decode(answers), clf.classes_)
    # What verifies an artifact is the empty text, where the calibration asks about it.
    verifying = 0 if clf._probe.row["text"] == "" else 3
    return found.log_loss, clf.n_queries_ - verifying, answers.queries


@pytest.mark.parametrize(
    "decoder", [DecT(), MPD(n_steps=2), PET(), LinearProbe(), OffsetLogisticRegression()]
)
def test_every_view_is_asked_and_counted(decoder):
    cell = one_cell(Reader(), decoder, template=VIEWS)
    loss, fitted, tested = classified(Reader(), decoder, VIEWS, "contextual")
    assert cell.log_loss == pytest.approx(loss, rel=1e-5)
    assert (cell.ledger.queries, cell.ledger.predict_queries) == (fitted, tested)
    assert (fitted, tested, cell.ledger.row_queries) == (3 * 9, 3 * 40, 3.0)


@pytest.mark.parametrize(
    "calibration",
    [
        ContextualCalibration(("", "N/A")),
        DomainContextCalibration(n_documents=5),
        BatchCalibration(),
        BatchCalibration(strength="labels"),
    ],
)
@pytest.mark.parametrize("decoder", [ParaphraseMean(), PET()])
def test_each_view_has_its_own_prior(decoder, calibration):
    cell = one_cell(Reader(), DecoderMethod(decoder, calibration), template=VIEWS)
    loss, fitted, _ = classified(Reader(), decoder, VIEWS, calibration)
    assert cell.log_loss == pytest.approx(loss, rel=1e-5)
    sample = 3 * 8 if isinstance(decoder, PET) or calibration.learns else 0
    assert cell.ledger.queries == fitted - 3 * 8 + sample


@pytest.mark.parametrize(
    "template",
    [
        [ONE, conjugate()],
        paraphrases(),
        [ONE, *paraphrases(1).views, conjugate()],
        [Template(ONE), Backwards(ONE)],
        InContext(ONE, n=3, seed=7),
        [InContext(ONE, n=3), InContext(TWO, n=1), THREE],
    ],
    ids=["conjugate", "paraphrases", "both", "spelling", "in-context", "mixed"],
)
@pytest.mark.parametrize("decoder", [MPD(n_steps=2), PET()])
def test_any_view_runs(decoder, template):
    cell = one_cell(Reader(), decoder, template=template)
    loss, fitted, tested = classified(Reader(), decoder, template, "contextual")
    assert cell.log_loss == pytest.approx(loss, rel=1e-5)
    assert (cell.ledger.queries, cell.ledger.predict_queries) == (fitted, tested)


def test_words_that_are_spelled_differently_are_queries_of_their_own():
    """Two views with one prompt and two spellings are two queries, two of one spelling are one."""
    one = one_cell(FakeModel(), ZeroShot(), template=[ONE, Template(ONE)])
    two = one_cell(FakeModel(), ZeroShot(), template=[ONE, Backwards(ONE)])
    queries = [
        (c.ledger.queries, c.ledger.predict_queries, c.ledger.row_queries) for c in (one, two)
    ]
    assert queries == [(1, 40, 1.0), (2, 80, 2.0)]


def test_views_of_the_vocabulary():
    model = FakeModel(vocabulary=["good", "bad", "fun", "dull", "w1", "w2"])
    cell = one_cell(model, PromptBoosting(), template=VIEWS)
    again = FakeModel(vocabulary=model.vocabulary)
    loss, fitted, tested = classified(again, PromptBoosting(), VIEWS, "contextual")
    assert cell.log_loss == pytest.approx(loss, rel=1e-5)
    assert (cell.ledger.queries, cell.ledger.predict_queries) == (fitted, tested) == (24, 120)


class Sized(Reader):
    size = Size(1000, encoder_decoder=False)


def told(cell) -> dict:
    """All of a cell but its clocks and what is traced."""
    content = cell.model_dump()
    for name in ("fit_seconds", "predict_seconds", "peak_memory"):
        del content["ledger"][name]
    return content


@pytest.mark.parametrize(
    ("decoder", "copies"),
    [
        (ZeroShot(), 3),
        (PET(), 3),
        (ParaphraseMean(), 2),
        (DecT(), 1),
        (MPD(), 1),
        (DecoderMethod(ZeroShot(), demonstrations=3), 2),
    ],
)
def test_copies_of_one_template_are_that_template(decoder, copies):
    one = one_cell(Sized(), decoder, template=ONE)
    more = one_cell(Sized(), decoder, template=[ONE] * copies)
    expected, found = told(one), told(more)
    if isinstance(decoder, PET):  # it keeps a weight for each
        assert found["ledger"].pop("parameters") == copies
        expected["ledger"].pop("parameters")
        assert found["ledger"].pop("artifact_bytes") > expected["ledger"].pop("artifact_bytes")
    assert found.pop("ledger") == expected.pop("ledger")
    for metric in ("accuracy", "macro_f1", "log_loss", "ece"):
        assert found.pop(metric) == pytest.approx(expected.pop(metric), rel=1e-6 * (copies > 1))
    assert found == expected


def test_flops_and_tokens_are_those_of_all_views():
    def words(texts) -> int:
        return sum(
            len(Template(v).render({"text": t}).text("").split()) for t in texts for v in VIEWS
        )

    model = Sized()
    found = make(model, methods=["pet", "tfidf"], template=VIEWS, shots=[4], seeds=[2]).run()
    sample = [TRAIN[0][i] for i in sample_shots(TRAIN[1], 4, seed=2)]
    ledger = found.cells[0].ledger
    assert ledger.tokens == words([*sample, ""])
    assert ledger.predict_tokens == words(TEST[0])
    assert ledger.fit_flops == 2000 * words([*sample, ""])
    assert ledger.predict_flops == pytest.approx(2000 * words(TEST[0]) / 40)
    assert ledger.in_context_flops == pytest.approx(2000 * (words(sample) + words(TEST[0]) / 40))
    assert ledger.in_context_bytes == pytest.approx(4 * words(sample))
    pet, tfidf = found.summaries
    assert (pet.row_queries, pet.row_tokens) == (3.0, words(TEST[0]) / 40)
    assert (tfidf.row_queries, tfidf.row_tokens) == (0.0, None)


def test_demonstrations_stand_in_front_of_each_template():
    cell = one_cell(Reader(), DecoderMethod(DecT(), demonstrations=3), template=[ONE, TWO])
    views = [InContext(view, n=3, seed=2) for view in (ONE, TWO)]
    loss, fitted, tested = classified(Reader(), DecT(), views, "contextual")
    assert cell.log_loss == pytest.approx(loss, rel=1e-5)
    assert (cell.ledger.queries, cell.ledger.predict_queries) == (fitted, tested) == (18, 80)
    model = Reader()
    with pytest.raises(InputError, match=r"in front of a template, and Conjugate\('.*'\) is none"):
        make(model, methods=["in-context"], template=[ONE, conjugate()])
    assert model.queries == 0


def test_a_method_with_a_template_of_its_own_shares_what_it_can():
    model, alone = Reader(), Reader()
    methods = {
        "one": DecoderMethod(DecT(), template=ONE),
        "all": DecT(),
        "other": DecoderMethod(DecT(), template=[ONE, "{text} {mask}"]),
    }
    found = make(model, methods=methods, template=VIEWS, shots=[4], seeds=[2]).run()
    one, every, other = found.cells
    single = one_cell(alone, DecT(), template=ONE)
    assert told(one) == {**told(single), "method": "one"}
    assert [c.ledger.row_queries for c in found.cells] == [1.0, 3.0, 2.0]
    assert model.queries == 4 * (8 + 1 + 40)  # three views, and one that is new
    assert every.log_loss != one.log_loss != other.log_loss
    assert found.setup.template == VIEWS
    assert found.setup.method_templates == {"one": [ONE], "other": [ONE, "{text} {mask}"]}
    page = html_report(found)
    assert "template of one" in page
    assert "{mask}: {text}" in page
    assert "queries per row" in report(found)


def test_cells_are_taken_again_only_if_every_view_is_the_same(tmp_path):
    options = {"methods": ["pet"], "shots": [2], "seeds": 2}

    def asked(template, **other) -> int:
        model = Reader()
        make(model, template=template, **{**options, **other}).run(tmp_path)
        return model.queries

    assert asked([ONE, TWO]) > 0
    assert asked([ONE, TWO]) == 0
    assert asked([TWO, ONE]) > 0
    assert asked([ONE, conjugate()]) > 0
    assert asked([ONE, conjugate()]) == 0
    same = Conjugate(TWO, lambda s: s.swapcase(), lambda s: s.swapcase())
    assert asked([ONE, same]) > 0  # another transform of the same template
    assert asked(paraphrases()) > 0
    assert asked(paraphrases()) == 0
    assert asked([ONE, InContext(TWO, n=2)]) > 0
    assert asked([ONE, InContext(TWO, n=2)]) == 0
    assert asked([ONE, InContext(TWO, n=1)]) > 0
    # A seed more: the cells of the others are taken, and its rows alone are asked beside the test.
    seeds = [sample_shots(TRAIN[1], 2, seed=2)]
    assert asked([ONE, TWO], seeds=3) == 2 * (len(set(seeds[0])) + 1 + 40)


def test_the_number_of_views_of_a_decoder_is_checked_before_any_query():
    model = FakeModel()
    for methods in ({"mpd": MPD(n_views=2)}, {"x": DecoderMethod(MPD(n_views=1), template=VIEWS)}):
        with pytest.raises(InputError, match="the template has 3; leave n_views out"):
            make(model, methods=methods, template=VIEWS)
    assert model.queries == 0


def rest_of(sample):
    rows = [i for i in range(len(TRAIN[0])) if i not in set(sample.tolist())]
    return [TRAIN[0][i] for i in rows]


@pytest.mark.parametrize("name", ["offset-regression", "ipet", "zero-shot"])
def test_a_pooled_method_is_given_the_rest_of_the_training_pool_and_pays_for_it(name):
    method = {"mine": {"decoder": name, "unlabelled": True}}
    options = {"methods": method, "template": ONE, "shots": [4], "seeds": [2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelWarning)
        model = Reader()
        experiment = make(model, **options)
        planned = sum(cost.queries for cost in experiment.cost())
        (cell,) = experiment.run().cells
        sample = sample_shots(TRAIN[1], 4, seed=2)
        rows = [] if name == "zero-shot" else sample
        clf = FewShotClassifier(
            Reader(), template=ONE, labels=LABELS, decoder=name, store=None
        ).fit([TRAIN[0][i] for i in rows], [TRAIN[1][i] for i in rows], unlabelled=rest_of(sample))
    found = measure(np.array(TEST[1]), clf.predict_proba(TEST[0]), clf.classes_)
    assert cell.log_loss == pytest.approx(found.log_loss, rel=1e-4)
    assert cell.ledger.queries == clf.n_queries_
    assert model.queries == planned
    assert cell.ledger.queries > len(rest_of(sample))


def test_a_pool_that_is_not_there_and_methods_without_use_for_one_are_refused():
    for methods, said in (
        (["dect+unlabelled"], "DecT does not learn"),
        (["tfidf+unlabelled"], "tfidf does not learn"),
        ({"x": {"decoder": "dect", "unlabelled": "yes"}}, "expected true or false"),
    ):
        with pytest.raises(InputError, match=said):
            make(Reader(), methods=methods)
    blind = FakeModel(hidden_size=0)
    with pytest.raises(CapabilityError, match=r"zero-shot\+unlabelled on .* needs 'hidden'"):
        make(blind, methods=["zero-shot", "zero-shot+unlabelled"], template=ONE, shots=[4]).run()
    assert blind.queries == 0
    few = ["good fun", "bad fun"], ["pos", "neg"]
    with pytest.raises(InputError, match="1 per class leaves none of the pool"):
        compare(
            *few, *TEST, labels=LABELS, models=[Reader()], shots=[1], seeds=1,
            methods=["offset-regression+unlabelled"], store=None,
        )  # fmt: skip


def columns(texts):
    """Texts with a paraphrase in a column of its own."""
    return [{"text": text, "again": f"{text} fun"} for text in texts]


SAYS_AGAIN = [ONE, ONE.replace("text", "again")]


def test_paraphrases_may_be_columns():
    options = {"labels": LABELS, "methods": ["paraphrase-mean", "tfidf"], "shots": [2], "seeds": 2}
    options |= {"models": [Reader()], "store": None}
    train, test = (columns(TRAIN[0]), TRAIN[1]), (columns(TEST[0]), TEST[1])
    found = compare(*train, *test, template=SAYS_AGAIN, **options)
    expected = compare(*TRAIN, *TEST, template=paraphrases(1), **options)
    pairs = zip(found.cells, expected.cells, strict=True)
    assert [a.log_loss == b.log_loss for a, b in pairs] == [True, True, False, False]
    leak = columns(TEST[0])
    leak[3]["again"] = "another paraphrase"
    with pytest.raises(InputError, match="train row 0 has the text of test row 3"):
        compare(leak[3:], TEST[1][3:], *test, template=SAYS_AGAIN, **options)


def test_the_text_of_a_row_is_the_users():
    class Says(Method):
        seen: set[str] = set()  # noqa: RUF012

        def key(self):
            return "says"

        def fit(self, sample, classes):
            Says.seen |= set(sample.texts)

        def predict_proba(self, fitted, test):
            return np.tile([1.0, 0.0], (len(test.y), 1))

        def arrays(self, fitted):
            return {}

        def parameters(self, fitted):
            return 0

    found = make(methods={"says": Says()}, template=[conjugate(), ONE], shots=[2], seeds=1).run()
    assert Says.seen <= set(TRAIN[0])
    assert found.diagnoses[0].wrong[0].text in TEST[0]


def test_the_command_takes_several_templates(files):  # noqa: F811
    options = ["--shots", "2", "--seeds", "1", "--methods", "pet,zero-shot"]
    templates = [word for view in VIEWS for word in ("--template", view)]
    dry = json.loads(run(files, *options, *templates, "--dry-run", "--json").stdout)
    assert dry[0]["queries"] == 3 * (4 + 1 + 40)
    found = json.loads(run(files, *options, *templates, "--json").stdout)
    assert found["setup"]["template"] == VIEWS
    assert [cell["ledger"]["queries"] for cell in found["cells"]] == [15, 3]
    bad = run(files, *options, "--template", ONE, "--template", "{text}", code=2)
    assert "exactly one {mask}" in bad.stderr


def test_the_command_takes_paraphrases_from_columns(files):  # noqa: F811
    for name, (texts, y) in (("train", TRAIN), ("test", TEST)):
        rows = [
            (row["text"], row["again"], label) for row, label in zip(columns(texts), y, strict=True)
        ]
        with (files / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "again", "label"), *rows])
    words = ["--label", "neg=bad", "--label", "pos=good,fine", "--store", "none", "--json"]
    templates = [word for view in SAYS_AGAIN for word in ("--template", view)]
    command = ["compare", str(files / "train.csv"), str(files / "test.csv"), "--models", "fake"]
    options = ["--methods", "paraphrase-mean", "--shots", "2", "--seeds", "1"]
    result = runner.invoke(app, [*command, *words, *templates, *options])
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(result.stdout)["cells"]
    expected = compare(
        *TRAIN, *TEST, labels=LABELS, models=["fake"], template=paraphrases(1), store=None,
        methods=["paraphrase-mean"], shots=[2], seeds=1,
    )  # fmt: skip
    assert cell["log_loss"] == pytest.approx(expected.cells[0].log_loss)


def test_what_another_method_asks_about_is_told_to_no_other(tmp_path):
    """Columns that only one method's template names change nothing of the others, key included."""
    train = [{"text": f"w{chr(97 + i)}", "note": "fun" if i % 2 else "dull"} for i in range(12)]
    test = [{"text": f"v{chr(97 + i)}", "note": "fun" if i % 2 else "dull"} for i in range(20)]
    y = ["neg", "pos"] * 10
    given = {"labels": LABELS, "store": None, "shots": [4], "seeds": 2, "search_trials": 10}
    given["models"] = [FakeModel()]
    made = make_methods(["tfidf", "dect", "prompt-search"])
    own = {"mine": DecoderMethod(DecT(), template="{text} {note} It was {mask}")}

    def cells(methods, *, template="{text} It was {mask}", output=None):
        rows = train, y[:12], test, y
        experiment = Experiment(*rows, template=template, methods=methods, **given)
        return experiment, experiment.run(output).cells

    _, alone = cells(made, output=tmp_path)
    beside, both = cells({**made, **own})
    assert {job.key for job in beside.plan.jobs} >= set(Journal(tmp_path / "cells.jsonl").cells)
    assert [c.accuracy for c in both if c.method != "mine"] == [c.accuracy for c in alone]
    assert {c.accuracy for c in alone if c.method == "tfidf"} == {0.5}
    _, asked = cells(["tfidf"], template="{text} {note} It was {mask}")
    assert {c.accuracy for c in asked} == {1.0}
    texts = {job.name: job.data.test[1] for job in beside.plan.jobs}
    assert texts["mine"] == test[1]
    assert texts["prompt-search"] == {"text": "vb"}
