"""Every method in a comparison is what the classifier gives, at the price of the classifier."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.spec import MethodEntry
from fewfit import DecT, FewShotClassifier, ZeroShot
from fewfit.calibration import BatchCalibration, DomainContextCalibration, PMICalibration
from fewfit.compare import METHODS, DecoderMethod, TuningRow, compare, measure, sample_shots
from fewfit.compare.report.tables import accuracy_table, report
from fewfit.decoders import DECODERS, KNNPrompting, PromptBoosting
from fewfit.errors import CapabilityError, InputError, InputWarning
from fewfit.models import FakeModel
from fewfit.prompts import InContext, Part, Prompt, make_views
from fewfit.searchers import SEARCHERS
from fewfit.task import DEFAULT_TEMPLATE
from tests.compare.test_experiment import LABELS, TEST, TRAIN, files, make, run  # noqa: F401

PREMISE = "The topic is {mask}."
PARTS = [
    (ZeroShot(), BatchCalibration(), 0, 0),
    (ZeroShot(), BatchCalibration(strength="labels"), 8, 0),
    (ZeroShot(), DomainContextCalibration(n_documents=5), 0, 5),
    (ZeroShot(), PMICalibration(premise=PREMISE), 0, 1),
    (DecT(), BatchCalibration(), 8, 0),
    (DecT(), DomainContextCalibration(n_documents=5), 8, 5),
]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("decoder", "calibration", "sample", "free"), PARTS)
def test_a_calibrated_cell_is_what_the_classifier_gives(decoder, calibration, sample, free, shared):
    """Both as the comparison's calibration and as that of one method beside another."""
    methods = {"mine": decoder if shared else DecoderMethod(decoder, calibration)}
    options = {"calibration": calibration} if shared else {}
    found = make(methods=methods, shots=[4], seeds=[2], **options).run()
    rows = sample_shots(TRAIN[1], 4, seed=2)
    clf = FewShotClassifier(
        FakeModel(), labels=LABELS, decoder=decoder, calibration=calibration, store=None
    ).fit([TRAIN[0][i] for i in rows], [TRAIN[1][i] for i in rows])
    metrics = measure(np.array(TEST[1]), clf.predict_proba(TEST[0]), clf.classes_)
    (cell,) = found.cells
    assert cell.log_loss == pytest.approx(metrics.log_loss, rel=1e-6)
    assert cell.accuracy == metrics.accuracy
    assert cell.ledger.queries == sample + free
    assert clf.n_queries_ == 8 + free + 1  # and what verifies an artifact


def test_a_generator_is_no_key_of_a_cell():
    with pytest.raises(InputError, match=r"random_state of DecT is a generator.*a whole number"):
        DecoderMethod(DecT(random_state=np.random.RandomState(3)))
    with pytest.raises(InputError, match="is a generator"):
        make(methods={"mine": DecT(random_state=np.random.RandomState(3))})
    assert DecoderMethod(DecT(random_state=3)).key() == DecoderMethod(DecT(random_state=3)).key()


def test_equal_pseudo_documents_count_as_often_as_in_the_classifier():
    X, y = ["fun", "bad", "dull", "fun fun", "bad", "fun"] * 2, ["pos", "neg"] * 6
    test = [f"a film {i}" for i in range(6)], ["pos", "neg"] * 3
    calibration = DomainContextCalibration(n_documents=40)
    asked = {"labels": LABELS, "models": [FakeModel()], "store": None, "shots": [6], "seeds": 1}
    methods = {"mine": DecoderMethod(ZeroShot(), calibration)}
    [cell] = compare(X, y, *test, methods=methods, **asked).cells
    rows = sample_shots(y, 6, seed=0)
    clf = FewShotClassifier(
        FakeModel(), labels=LABELS, decoder=ZeroShot(), calibration=calibration, store=None
    ).fit([X[i] for i in rows], [y[i] for i in rows])
    metrics = measure(np.array(test[1]), clf.predict_proba(test[0]), clf.classes_)
    assert cell.log_loss == pytest.approx(metrics.log_loss, rel=1e-6)
    assert asked["models"][0].queries == 6 + cell.ledger.queries
    assert cell.ledger.queries < 40  # each is asked once


def test_calibrations_share_what_is_asked():
    model, alone = FakeModel(), FakeModel()
    names = ["zero-shot", "zero-shot+batch", "zero-shot+none", "zero-shot+domain-context", "dect"]
    experiment = make(model, methods=names)
    planned = experiment.cost()[0].queries
    found = experiment.run()
    make(alone, methods=["zero-shot", "dect"]).run()
    documents = 20 * 2 * 3  # of the words of each sample
    assert model.queries == planned == found.asked[0].queries == alone.queries + documents
    queries = {s.method: s.queries for s in found.summaries if s.shots == 4}
    assert queries == dict(zip(names, [1, 0, 0, 20, 9], strict=True))


@pytest.mark.parametrize("decoder", [KNNPrompting(k=1), PromptBoosting()])
def test_a_vocabulary_cell_is_what_the_classifier_gives(decoder, tmp_path):
    vocabulary = ["good", "bad", "fun", "dull", "w1", "w2"]
    model, store = FakeModel(vocabulary=vocabulary), tmp_path / "store"
    options = {"shots": [4], "seeds": [2], "store": store}
    experiment = make(model, methods={"mine": decoder, "zero-shot": ZeroShot()}, **options)
    costs = {cost.model: cost.queries for cost in experiment.cost()}
    assert costs == {"FakeModel": 40 + 1, "FakeModel, vocabulary": 8 + 40}
    found = experiment.run(price_per_token=1.0)
    assert model.queries == sum(costs.values()) == sum(item.queries for item in found.asked)
    rows = sample_shots(TRAIN[1], 4, seed=2)
    clf = FewShotClassifier(
        FakeModel(vocabulary=vocabulary), labels=LABELS, decoder=decoder, store=None
    ).fit([TRAIN[0][i] for i in rows], [TRAIN[1][i] for i in rows])
    cell = next(cell for cell in found.cells if cell.method == "mine")
    assert cell.accuracy == clf.score(*TEST)
    assert (cell.ledger.queries, clf.n_queries_) == (8, 8 + 1)
    assert cell.ledger.tokens is None  # a distribution does not say how long its prompt was
    summary = next(item for item in found.summaries if item.method == "mine")
    assert (summary.model, summary.tokens, summary.cost) == ("FakeModel", None, None)
    assert "| mine " in str(accuracy_table(found.summaries))
    assert report(found)
    # All is in the store now: neither kind is asked again.
    make(model, methods={"mine": decoder}, **options).run()
    assert model.queries == sum(costs.values())


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        (["knn-prompting"], CapabilityError, "knn-prompting on FakeModel needs 'full_vocabulary'"),
        (["prompt-boosting"], CapabilityError, "'full_vocabulary'"),
        (["knn-prompting+batch"], InputError, "nothing to calibrate"),
        (["zero-shot+magic"], InputError, "'magic' is not one of"),
        (["tfidf+batch"], InputError, "'tfidf\\+batch' is not one of"),
        (["zero-shot+ratio"], CapabilityError, "gives 'logprob'"),
    ],
)
def test_what_a_model_or_method_cannot_is_refused_before_any_query(methods, error, message):
    model = FakeModel()
    with pytest.raises(error, match=message):
        make(model, methods=["zero-shot", *methods])
    assert model.queries == 0


class Soft(FakeModel):
    """A toy that takes vectors in front of a prompt, and has another taste with each."""

    def __init__(self, taste: float = 0.0) -> None:
        super().__init__(vocabulary=["good", "bad", "fun"])
        self.taste = taste

    @property
    def capabilities(self):
        return replace(super().capabilities, soft_prompts=True)

    def input_embeddings(self):
        return np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)

    def with_soft_prompt(self, vectors):
        return Soft(float(vectors.sum()))

    def _states(self, batch):
        return super()._states(batch) + self.taste * self._vector("good")


ASKING = [name for name in METHODS if name in {*DECODERS, *SEARCHERS, "in-context", "tfidf"}]
"""All but those that need a checkpoint's weights."""


@pytest.mark.parametrize("template", [DEFAULT_TEMPLATE, [DEFAULT_TEMPLATE, "{text} {mask}"]])
def test_every_named_method_runs(template):
    options = {"shots": [2], "seeds": 1, "search_trials": 21, "template": template}
    named = [name for name in ASKING if name != "ipet"]  # it wants texts without labels
    found = make(Soft(), methods=named, **options).run()
    assert {cell.method for cell in found.cells} == set(named)
    rows = {cell.method: cell.ledger.row_queries for cell in found.cells}
    once = {"tfidf": 0, **dict.fromkeys(SEARCHERS, 1)}
    views = len(template) if isinstance(template, list) else 1
    assert rows == {name: once.get(name, views) for name in named}


def test_cells_of_another_calibration_are_not_taken(tmp_path):
    options = {"shots": [1], "seeds": 1}
    one = make(methods={"mine": DecoderMethod(ZeroShot())}, **options).run(tmp_path)
    own = {"mine": DecoderMethod(ZeroShot(), BatchCalibration())}
    two = make(methods=own, **options).run(tmp_path)
    assert one.cells[0].log_loss != two.cells[0].log_loss
    model = FakeModel()
    assert make(model, methods=own, **options).run(tmp_path).cells == two.cells
    assert model.queries == 0


def test_a_row_of_an_experiment_is_a_tuning_method_with_options():
    pytest.importorskip("torch")
    options = {"rank": 8, "steps": 300}
    for entry, name in (
        (MethodEntry(options=options), "lora"),
        (MethodEntry(tuner="lora", options=options), "LoRA, rank 8"),
    ):
        entry.check(name)
        assert entry.make(name, "{x} {mask}") == TuningRow("lora", options)
    assert MethodEntry().make("t-few", "{x} {mask}") == TuningRow("t-few")
    for entry, message in (
        (MethodEntry(options={"rnk": 8}), "did you mean 'rank'"),
        (MethodEntry(tuner="lorra"), "did you mean 'lora'"),
        (MethodEntry(tuner="lora", decoder="dect"), "none of a decoder's"),
    ):
        with pytest.raises(ValueError, match=message):
            entry.check("lora")


def test_a_row_of_an_experiment_has_a_calibration_of_its_own():
    made = MethodEntry(decoder="zero-shot", calibration="batch").make("batch calibration", "{x}")
    assert isinstance(made, DecoderMethod)
    assert (type(made.decoder), made.calibration) == (ZeroShot, BatchCalibration())
    table = {"name": "batch", "strength": "labels"}
    made = MethodEntry(decoder="dect", calibration=table).make("x", "{x}")
    assert made.calibration == BatchCalibration(strength="labels")  # pyright: ignore
    asked = [f"{{text}} {word} {{mask}}" for word in ("one", "two", "three")]
    for given, expected in ((asked, asked[:2]), (asked[0], asked[:1])):
        made = MethodEntry(decoder="dect", views=2).make("x", given)
        assert make_views(made.template).views == make_views(expected).views  # pyright: ignore
    assert MethodEntry(decoder="dect").make("x", asked).template is None  # pyright: ignore
    for entry, message in [
        (MethodEntry(calibration="batch"), "name the decoder"),
        (MethodEntry(decoder="dect", calibration="magic"), "'magic' is not one of"),
        (MethodEntry(decoder="dect", calibration={"name": "pmi", "x": 1}), "has no 'x'"),
        (MethodEntry(peer="setfit", calibration="batch"), "a peer has"),
        (MethodEntry(peer="setfit", views=1), "a peer has"),
    ]:
        with pytest.raises(ValueError, match=message):
            entry.check("row")


def test_the_command_takes_calibrations_and_a_premise(files):  # noqa: F811
    options = ["--shots", "1", "--seeds", "1", "--json"]
    methods = ["--methods", "zero-shot,zero-shot+pmi,zero-shot+batch"]
    found = json.loads(run(files, *options, *methods, "--premise", PREMISE).stdout)
    expected = compare(
        *TRAIN, *TEST, labels=LABELS, models=["fake"], shots=[1], seeds=1, store=None,
        methods={"pmi": DecoderMethod(ZeroShot(), PMICalibration(premise=PREMISE))},
    )  # fmt: skip
    assert found["cells"][1]["log_loss"] == pytest.approx(expected.cells[0].log_loss)
    assert [cell["ledger"]["queries"] for cell in found["cells"]] == [1, 1, 0]
    alone = run(files, *options, "--methods", "dect", "--premise", PREMISE, code=2)
    assert "no method is calibrated with 'pmi'" in alone.stderr
    shared = run(
        files, *options, "--methods", "zero-shot", "--calibration", "pmi", "--premise", PREMISE
    )
    assert json.loads(shared.stdout)["cells"][0]["log_loss"] == found["cells"][1]["log_loss"]


class Reader(FakeModel):
    """A toy that reads the whole prompt, not the user's text alone."""

    def stream(self, prompts, words):
        whole = [Prompt((Part("field", p.text("")), Part("mask", ""))) for p in prompts]
        return super().stream(whole, words)


@pytest.mark.parametrize(("decoder", "fitted"), [(ZeroShot(), 0), (DecT(), 8)])
def test_in_context_learning_is_what_the_classifier_gives(decoder, fitted):
    model = Reader()
    methods = {"mine": DecoderMethod(decoder, demonstrations=3), "plain": ZeroShot()}
    experiment = make(model, methods=methods, shots=[4], seeds=[2])
    planned = experiment.cost()[0].queries
    found = experiment.run()
    rows = sample_shots(TRAIN[1], 4, seed=2)
    view = InContext(DEFAULT_TEMPLATE, n=3, seed=2)
    clf = FewShotClassifier(
        Reader(), template=view, labels=LABELS, decoder=decoder, store=None
    ).fit([TRAIN[0][i] for i in rows], [TRAIN[1][i] for i in rows])
    metrics = measure(np.array(TEST[1]), clf.predict_proba(TEST[0]), clf.classes_)
    mine, plain = (cell for cell in found.cells)
    assert mine.log_loss == pytest.approx(metrics.log_loss, rel=1e-6)
    assert mine.log_loss != plain.log_loss
    assert mine.ledger.queries == fitted + 1  # the empty text behind the demonstrations
    tokens = [cell.ledger.predict_tokens or 0 for cell in (mine, plain)]
    assert tokens[0] > 3 * tokens[1] > 0
    shown = {s.method: s.row_tokens for s in found.summaries}
    assert shown["mine"] == tokens[0] / len(set(TEST[0]))
    assert model.queries == planned == fitted + 1 + len(set(TEST[0])) + 1 + len(set(TEST[0]))


def test_demonstrations_are_drawn_anew_for_each_sample():
    names = ["in-context", "zero-shot"]
    found = make(Reader(), methods=names, shots=[4], seeds=[0, 1]).run()
    losses = {(c.method, c.seed): c.log_loss for c in found.cells}
    assert losses["in-context", 0] != losses["in-context", 1]
    assert losses["zero-shot", 0] == losses["zero-shot", 1]


def test_no_demonstrations_is_the_template():
    methods = {"none": DecoderMethod(DecT(), demonstrations=0), "plain": DecT()}
    none, plain = make(methods=methods, shots=[4], seeds=[0]).run().cells
    assert none.model_copy(update={"method": ""}).log_loss == plain.log_loss


def test_a_sentence_encoder_reads_no_demonstrations():
    with pytest.raises(CapabilityError, match="in-context puts examples"):
        make("embedded", methods=["in-context"])
    with pytest.raises(InputError, match="at least 0"):
        DecoderMethod(DecT(), demonstrations=-1)


def test_tfidf_learns_from_one_text_of_each_of_many_classes_without_a_warning():
    texts, y = [f"word{k} here" for k in range(25)], [f"class {k}" for k in range(25)]
    test = [f"there is word{k}" for k in range(25)]
    asked = {"methods": ["tfidf"], "models": ["fake"], "shots": [1], "seeds": 1, "store": None}
    [cell] = compare(texts, y, test, y, **asked).cells
    assert cell.accuracy == 1.0


def test_classes_of_any_size_are_compared_as_others_are():
    rows = ["x good", "y bad", "v good", "w bad", "q good", "r bad"]
    vocabulary = ("knn-prompting", "prompt-boosting")
    names = [*(n for n in DECODERS if n not in vocabulary), "tfidf", "multi-label", "in-context"]

    def found(first, second):
        labels = {first: "bad", second: "good"}
        train, test = (rows, [second, first] * 3), (["so good", "so bad"], [second, first])
        options = {"shots": [1, 2], "seeds": 2, "models": [FakeModel()], "store": None}
        return compare(*train, *test, labels=labels, methods=names, **options)

    small, large = found(1, 2), found(1, 10**30)
    assert [name for name, _ in large.setup.labels] == [1, 10**30]
    for one, other in zip(small.cells, large.cells, strict=True):
        assert one.method == other.method
        assert one.log_loss == pytest.approx(other.log_loss)


def test_tfidf_says_that_a_sample_holds_no_words():
    with pytest.raises(InputError, match="tfidf: a sample holds no words"):
        compare(
            ["", " ", "x"], ["a", "b", "b"], ["y"], ["a"], shots=[1], seeds=4, methods=["tfidf"]
        )


def test_a_calibration_that_no_method_takes_is_said():
    data = ["x good", "y bad"], ["a", "b"], ["z good"], ["a"]
    asked = {"models": [FakeModel()], "shots": [1], "seeds": 1, "store": None, "search_trials": 10}
    with pytest.warns(InputWarning, match="no method takes 'contextual'"):
        compare(*data, methods=["prompt-search", "tfidf"], calibration="contextual", **asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        compare(*data, methods=["prompt-search", "dect"], calibration="contextual", **asked)
