from __future__ import annotations

import csv
import json
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from typer.testing import CliRunner

from fewfit import DecT, FewShotClassifier, LinearProbe, ZeroShot
from fewfit.cli import app
from fewfit.compare import DEFAULT_METHODS, Comparison, Experiment, compare, sample_shots
from fewfit.compare.names import default_of, make_methods
from fewfit.compare.report.html import html_report
from fewfit.compare.report.tables import accuracy_table, report
from fewfit.decoders import make_decoder
from fewfit.errors import (
    CalibrationError,
    CapabilityError,
    InputError,
    InputWarning,
    ModelError,
    StoreWarning,
)
from fewfit.models import FakeModel
from fewfit.models.costs import Size
from fewfit.models.paired import PairedModel
from fewfit.observations import unanswered
from tests import warm
from tests.warm import Program

LABELS = {"neg": "bad", "pos": ["good", "fine"]}
WORDS = {"neg": ["bad", "awful", "dull"], "pos": ["good", "fine", "fun"]}


def rows(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of ten words, two of which belong to the label; none comes twice."""
    rng = np.random.default_rng(seed)
    y = ["neg" if i % 3 else "pos" for i in range(n)]
    noise = [" ".join(f"w{w}" for w in rng.integers(50, size=8)) for _ in y]
    return [
        f"{seed}x{i} {rng.choice(WORDS[name])} {rng.choice(WORDS[name])} {text}"
        for i, (name, text) in enumerate(zip(y, noise, strict=True))
    ], y


TRAIN, TEST = rows(60, 1), rows(40, 2)


def make(model=None, **options) -> Experiment:
    options = {"labels": LABELS, "store": None, "shots": [1, 4], "seeds": 3, **options}
    options = {"methods": ["zero-shot", "dect", "tfidf"], **options}
    return Experiment(*TRAIN, *TEST, models=[model or FakeModel()], **options)


def test_only_rows_that_are_drawn_are_asked_each_once():
    model = FakeModel()
    found = make(model).run()
    drawn = {i for n in (1, 4) for s in range(3) for i in sample_shots(TRAIN[1], n, seed=s)}
    assert model.queries == len(drawn) + len(TEST[0]) + 1
    assert found.asked[0].queries == model.queries
    assert len(found.cells) == 3 * 2 * 3


def test_a_method_that_learns_nothing_needs_no_training_row():
    model = FakeModel()
    found = make(model, methods=["zero-shot"]).run()
    assert model.queries == len(TEST[0]) + 1
    assert {cell.ledger.queries for cell in found.cells} == {1}
    texts = FakeModel()
    make(texts, methods=["tfidf"]).run()
    assert texts.queries == 0


@pytest.mark.parametrize("kept", [True, False])
def test_a_pair_asks_nothing_that_its_halves_were_asked(kept, tmp_path):
    said, state = FakeModel(hidden_size=0), FakeModel(seed=1)
    options = {"store": tmp_path / "store" if kept else None, "methods": ["zero-shot", "dect"]}
    models = [said, state, PairedModel(said, state)]
    names = ["said", "state", "both"]
    for model, name in zip(models[:2], names, strict=False):
        model.spec = name
    experiment = Experiment(*TRAIN, *TEST, labels=LABELS, models=models, seeds=1, **options)
    costs = [(cost.queries, cost.prompts) for cost in experiment.cost()]
    prompts = costs[0][1]
    assert costs == [(prompts, prompts), (prompts, prompts), (0, prompts)]
    found = experiment.run()
    assert (said.queries, state.queries) == (prompts, prompts)
    assert [item.queries for item in found.asked] == [prompts, prompts]
    alone = Experiment(*TRAIN, *TEST, labels=LABELS, models=models[2:], seeds=1, **options)
    assert [cost.queries for cost in alone.cost()] == [0 if kept else prompts]
    accuracy = {(c.method, c.shots): c.accuracy for c in found.cells if c.model == "said + state"}
    assert accuracy == {(c.method, c.shots): c.accuracy for c in alone.run().cells}


def test_a_cell_is_what_the_classifier_gives():
    """The same sample through FewShotClassifier: accuracy, queries, tokens, bytes."""
    found = make(methods={"mine": DecT(lam=0.5)}).run()
    sample = sample_shots(TRAIN[1], 4, seed=2)
    texts = [TRAIN[0][i] for i in sample]
    model = FakeModel()
    clf = FewShotClassifier(model, labels=LABELS, decoder=DecT(lam=0.5), store=None)
    clf.fit(texts, [TRAIN[1][i] for i in sample])
    cell = next(cell for cell in found.cells if (cell.shots, cell.seed) == (4, 2))
    assert cell.accuracy == clf.score(*TEST)
    assert cell.ledger.queries == clf.n_queries_ == 9
    words = sum(len(f"{t} This is about .".split()) for t in [*texts, ""])
    assert cell.ledger.tokens == words
    assert cell.ledger.predict_queries == 40
    assert cell.ledger.parameters == 128 * 16 + 2
    assert 4 * (128 * 16 + 2 * 128) < cell.ledger.artifact_bytes < 4 * (128 * 16 + 2 * 128) + 500


def test_flops_and_bytes_follow_from_the_tokens_and_the_size():
    class Sized(FakeModel):
        size = Size(1000, encoder_decoder=False, task_flops=7e6, task_bytes=123)

    found = make(Sized()).run()
    words = {text: len(f"{text} This is about .".split()) for text in [*TRAIN[0], *TEST[0], ""]}
    query = sum(words[text] for text in TEST[0]) / 40
    shown = sum(words[TRAIN[0][i]] for i in sample_shots(TRAIN[1], 4, seed=2))
    cells = {c.method: c.ledger for c in found.cells if (c.shots, c.seed) == (4, 2)}
    # a decoder-only model spends two FLOPs for each parameter and token
    dect, zero = cells["dect"], cells["zero-shot"]
    assert dect.fit_flops == 7e6 + 2000 * (shown + words[""])
    assert zero.fit_flops == 7e6 + 2000 * words[""]
    assert dect.predict_flops == zero.predict_flops == 2000 * query
    assert dect.in_context_flops == pytest.approx(2000 * (shown + query))
    assert dect.in_context_bytes == pytest.approx(4 * shown)
    assert zero.in_context_flops is zero.in_context_bytes is None
    assert dect.artifact_bytes > 4 * (128 * 16 + 2 * 128) + 123
    assert cells["tfidf"].predict_flops is None
    text, page = report(found), html_report(found)
    last = [s.predict_flops for s in found.summaries if s.method == "dect" and s.shots == 4]
    assert f"{last[0]:.1e}" in text
    assert f"{last[0]:.1e}" in page
    unknown = make().run()
    assert {cell.ledger.fit_flops for cell in unknown.cells} == {None}
    assert "in context" not in report(unknown)
    assert "in context" not in html_report(unknown)


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_earlier_schemas_are_read(version, tmp_path):
    now = make(methods=["zero-shot"], shots=[1], seeds=1).run()
    content = json.loads(now.model_dump_json())
    assert content["schema_version"] == 4
    content["schema_version"] = version
    setup = content["setup"]
    [setup["template"]] = setup["template"]
    del setup["method_templates"], setup["search_trials"]
    flops = ("fit_flops", "predict_flops", "in_context_flops", "in_context_bytes")
    for entry in [content["cells"][0]["ledger"], content["summaries"][0]]:
        for name in ("row_queries", *(flops if version == 1 else ())):
            del entry[name]
    (tmp_path / "old.json").write_text(json.dumps(content))
    found = Comparison.read(tmp_path / "old.json")
    assert found.schema_version == version
    assert found.setup == now.setup
    assert found.summaries[0].predict_flops is found.summaries[0].row_queries is None
    assert found.summaries[0].row_tokens == now.summaries[0].row_tokens
    for text in (report(found), html_report(found)):
        assert "zero-shot" in text
    found.write(tmp_path / "again.json")
    assert Comparison.read(tmp_path / "again.json") == found


def test_memory_is_traced_on_the_first_seed_only():
    class Hungry(ZeroShot):
        def _fit(self, X, y, scores):
            np.ones(2**20)

    found = make(methods={"hungry": Hungry(), "zero-shot": ZeroShot()}).run()
    peaks = {(c.method, c.shots, c.seed): c.ledger.peak_memory for c in found.cells}
    assert all((peak is None) == (seed != 0) for (_, _, seed), peak in peaks.items())
    assert 8 * 2**20 < peaks["hungry", 1, 0] < 9 * 2**20
    assert peaks["zero-shot", 1, 0] < 2**20
    item = next(s for s in found.summaries if s.method == "hungry")
    assert item.peak_memory == peaks["hungry", 1, 0]


def test_the_text_peer_is_scikit_learns_pipeline():
    found = make(methods=["tfidf"], shots=[4]).run()
    sample = sample_shots(TRAIN[1], 4, seed=1)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    pipeline = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
    pipeline.fit([TRAIN[0][i] for i in sample], [TRAIN[1][i] for i in sample])
    cell = found.cells[1]
    assert (cell.model, cell.seed) == (None, 1)
    assert cell.accuracy == pipeline.score(*TEST)
    assert cell.ledger.queries == cell.ledger.predict_queries == cell.ledger.tokens == 0
    assert cell.ledger.parameters == len(pipeline[0].vocabulary_) + 1


def test_a_row_in_both_splits_is_refused_before_any_query():
    model = FakeModel()
    train = [*TRAIN[0][:-2], TEST[0][7].upper() + "  ", TEST[0][3]]
    options = {"labels": LABELS, "models": [model], "store": None, "seeds": 2}
    with pytest.raises(InputError, match=r"train row 58 has the text of test row 7, and 2 of 60"):
        Experiment(train, TRAIN[1], *TEST, **options)
    assert model.queries == 0
    found = Experiment(train, TRAIN[1], *TEST, drop_overlap=True, shots=[2], **options).run()
    assert (found.setup.train_rows, found.setup.dropped_train_rows) == (58, 2)
    with pytest.raises(InputError, match="every train row"):
        Experiment(*TEST, *TEST, drop_overlap=True, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"methods": ["magic"]}, InputError, "'magic' is not one of"),
        ({"methods": ["dect", "dect"]}, InputError, "given twice"),
        ({"methods": []}, InputError, "give a list"),
        ({"shots": [50]}, InputError, "fewer than 50 shots"),
        ({"shots": [50]}, InputError, r"up to \d+ per class are possible \(shots=\[\d+\], --shots"),
        ({"shots": [10**400]}, InputError, r"fewer than 10{19}\.\.\. shots"),
        ({"shots": []}, InputError, "shots: give at least one"),
        ({"shots": [0]}, InputError, "shots: at least 1"),
        ({"shots": [1.5]}, InputError, "shots: expected a list of whole numbers"),
        ({"shots": [True]}, InputError, "shots: expected a list of whole numbers"),
        ({"shots": 4}, InputError, "shots: expected a list of whole numbers, got 4"),
        ({"shots": "1,4"}, InputError, "shots: expected a list of whole numbers"),
        ({"seeds": 0}, InputError, "seeds: expected 1 to 100,000 samples, got 0"),
        ({"seeds": -1}, InputError, "got -1"),
        ({"seeds": 10**12}, InputError, "seeds: expected 1 to 100,000 samples"),
        ({"seeds": True}, InputError, "seeds: expected a list of whole numbers, got True"),
        ({"seeds": [-1]}, InputError, "seeds: at least 0"),
        ({"seeds": [2**32]}, InputError, "seeds: below 2"),
        ({"search_trials": 2.5}, InputError, "search_trials: expected a whole number"),
        ({"methods": {"mine": 3}}, InputError, "'mine' is to be a method, a decoder, a name"),
        ({"methods": {"dect": {"lamda": 1}}}, InputError, "no 'lamda'.* did you mean 'lam'"),
        ({"methods": {"a": {"decoder": "dekt"}}}, InputError, "did you mean 'dect'"),
        ({"methods": {"a": DecT(proto_dim=0)}}, InputError, "proto_dim: "),
        ({"methods": ["dectt"]}, InputError, "did you mean 'dect'"),
        ({"seeds": [1, 1]}, InputError, "seeds: give"),
        ({"labels": {"neg": "bad", "no": "good"}}, InputError, "train: class 'pos'"),
        ({"labels": {**LABELS, "odd": "odd"}}, InputError, "'odd' has label words but no"),
        ({"calibration": "ratio"}, CapabilityError, "gives 'logprob'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_query(options, error, message):
    model = FakeModel()
    with pytest.raises(error, match=message):
        make(model, **options)
    assert model.queries == 0


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_a_price_that_is_none_is_refused_before_any_query(price):
    model = FakeModel()
    with pytest.raises(InputError, match="price_per_token: expected a number from 0"):
        make(model).run(price_per_token=price)
    assert model.queries == 0


def test_the_default_decoder_is_the_first_row():
    model = FakeModel()
    found = compare(*TRAIN, *TEST, labels=LABELS, models=[model], shots=[1], seeds=[0], store=None)
    assert [s.method for s in found.summaries][:2] == ["offset-regression", "zero-shot"]
    assert {s.method for s in found.summaries} == set(DEFAULT_METHODS)
    assert type(make_methods(DEFAULT_METHODS)["offset-regression"].decoder) is type(
        make_decoder(None)
    )


def test_options_of_a_method_as_a_file_holds_them():
    options = {
        "a": {"decoder": "dect", "lam": "0.25", "calibration": "none"},
        "dect": {"proto_dim": 8},
        "plain": "zero-shot+batch",
    }
    made = make_methods(options)
    assert (made["a"].decoder.lam, made["a"].calibration.name) == (0.25, "none")
    assert (made["dect"].decoder.proto_dim, made["dect"].calibration) == (8, None)
    assert made["plain"].calibration.name == "batch"


def test_the_default_is_the_default_decoder_without_further_texts():
    pooled = "offset-regression+unlabelled"
    assert default_of(make_methods([pooled, "dect"])) is None
    assert default_of(make_methods([pooled, "offset-regression"])) == "offset-regression"


def test_options_reach_every_kind_of_method():
    given = {
        "dect+batch": {"lam": 0.5},
        "offset-regression+none+unlabelled": {"prior": "frequencies"},
        "zero-shot+unlabelled": {"calibration": "batch"},
        "in-context": {"demonstrations": 8},
        "in-context+batch": {"demonstrations": 2},
        "prompt-search+contextual": {"length": 3},
    }
    made = make_methods(given)
    assert (made["dect+batch"].decoder.lam, made["dect+batch"].calibration.name) == (0.5, "batch")
    pooled = made["offset-regression+none+unlabelled"]
    assert (pooled.decoder.prior, pooled.calibration.name) == ("frequencies", "none")
    assert pooled.unlabelled
    assert made["zero-shot+unlabelled"].unlabelled
    assert made["zero-shot+unlabelled"].calibration.name == "batch"
    assert [made[f"in-context{c}"].demonstrations for c in ("", "+batch")] == [8, 2]
    searcher = made["prompt-search+contextual"]
    assert (searcher.options, searcher.calibration.name) == ({"length": 3}, "contextual")
    for name, option, message in [
        ("tfidf", "C", "tfidf has no 'C'; it has none"),
        ("multi-label", "C", "multi-label has no 'C'; it has none"),
        ("in-context", "n", "in-context has no 'n'; it has calibration, demonstrations"),
        ("prompt-search", "lenght", "did you mean 'length'"),
        ("zero-shot+batch", "calibration", "names its calibration already"),
    ]:
        with pytest.raises(InputError, match=message):
            make_methods({name: {option: 1}})


def test_options_reach_tuning_methods():
    pytest.importorskip("torch")
    assert make_methods({"lora": {"rank": 2}})["lora"].options == {"rank": 2}


def test_a_pool_that_is_the_sample_is_said_and_has_no_sd():
    by_class = [[i for i, name in enumerate(TRAIN[1]) if name == k][:4] for k in ("neg", "pos")]
    pool = [i for rows in by_class for i in rows]
    texts, y = [TRAIN[0][i] for i in pool], [TRAIN[1][i] for i in pool]
    given = {"labels": LABELS, "models": [FakeModel()], "store": None, "seeds": 3}
    with pytest.warns(InputWarning, match="no more than 4 of each class, so that all 3 samples"):
        experiment = Experiment(texts, y, *TEST, methods=["zero-shot"], shots=[1, 4], **given)
    assert given["models"][0].queries == 0  # said before anything is asked
    found = experiment.run()
    assert found.setup.same_samples == [4]
    assert [(s.shots, s.sd is None) for s in found.summaries] == [(1, False), (4, True)]
    for page in (report(found), html_report(found)):
        assert "At 4 shots all samples are the same rows" in page
    assert "all samples are the same" not in report(make().run())


def test_a_model_that_lacks_what_a_method_needs_is_refused():
    with pytest.raises(CapabilityError, match="linear-probe on FakeModel needs 'hidden'"):
        make(FakeModel(hidden_size=0), methods=["zero-shot", "linear-probe"])
    make(FakeModel(hidden_size=0), methods=["zero-shot", "tfidf"]).run()


def test_the_cost_is_exact_and_knows_the_store(tmp_path):
    model, store = FakeModel(), tmp_path / "store.sqlite"
    small = make(model, store=store, shots=[1])
    assert small.cost()[0].queries == small.cost()[0].prompts
    assert not store.exists()
    planned = small.cost()[0].queries
    small.run()
    assert model.queries == planned
    large = make(model, store=store)
    before, planned = model.queries, large.cost()[0]
    assert 0 < planned.queries < planned.prompts
    large.run(tmp_path)
    assert model.queries - before == planned.queries
    assert make(model, store=None).cost(tmp_path)[0].queries == 0


def test_a_failed_run_continues_without_asking_or_fitting_again(tmp_path):
    class Broken(LinearProbe):
        fits = 0

        def _fit(self, X, y, scores):
            Broken.fits += 1
            if Broken.fits == 4:
                raise ModelError("out of luck")
            super()._fit(X, y, scores)

    model, options = FakeModel(), {"methods": {"broken": Broken()}, "store": tmp_path / "s"}
    with pytest.raises(ModelError):
        make(model, **options).run(tmp_path)
    asked = model.queries
    found = make(model, **options).run(tmp_path)
    assert model.queries == asked
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 6 + 1
    Broken.fits = 4
    again = make(model, **options).run(tmp_path)
    assert Broken.fits == 4
    assert again == found


def test_what_was_paid_for_before_a_failure_is_on_the_bill(tmp_path):
    class Down(FakeModel):
        def stream(self, prompts, words):
            for batch in super().stream(prompts, words):
                if self.queries > 20:
                    raise ModelError("the server is down")
                yield batch

    down, model = Down(batch_size=1), FakeModel()
    down.spec = model.spec = "toy"
    with pytest.raises(ModelError, match="down"):
        make(down, store=tmp_path / "s").run(tmp_path)
    found = make(model, store=tmp_path / "s").run(tmp_path)
    assert sum(item.queries for item in found.asked) == 20 + model.queries
    other = FakeModel(seed=1)
    other.spec = "other"
    again = make(other, store=tmp_path / "s").run(tmp_path)
    assert {item.model for item in again.asked} == {"other"}


def test_cells_of_another_question_are_not_taken(tmp_path):
    first = make(FakeModel()).run(tmp_path)
    for change in (
        {"labels": {"neg": "awful", "pos": "fun"}},
        {"template": "{text} {mask}"},
        {"calibration": "none"},
        {"model": FakeModel(seed=1)},
        {"methods": {"dect": DecT(lr=0.1)}},
    ):
        model = change.pop("model", FakeModel())
        make(model, **change).run(tmp_path)
        assert model.queries > 0
    assert make(FakeModel()).run(tmp_path).cells == first.cells


def test_what_was_asked_about_other_data_is_not_counted(tmp_path):
    """A folder that is used again, with the same model, for other rows or another question."""
    first = make(FakeModel(), methods=["dect"]).run(tmp_path)
    other, more = (TEST[0][:5], TEST[1][:5]), {"labels": LABELS, "methods": ["dect"]}
    options = {"models": [FakeModel()], "store": None, "shots": [1], "seeds": 1}
    short = Experiment(*TRAIN, *other, **options, **more).run(tmp_path)
    assert [item.queries for item in short.asked] == [2 + 5 + 1]
    changed = make(FakeModel(), methods=["dect"], template="{text} It was {mask}!").run(tmp_path)
    assert [item.queries for item in changed.asked] == [first.asked[0].queries]
    again = make(FakeModel(), methods=["dect"], seeds=2).run(tmp_path)
    assert again.asked == first.asked, "finished before, and of this comparison"


def test_the_cost_leaves_a_line_that_another_process_writes(tmp_path):
    make(seeds=1).run(tmp_path)
    cells = tmp_path / "cells.jsonl"
    torn = cells.read_bytes() + b'{"key": "half a li'
    cells.write_bytes(torn)
    make(seeds=2).cost(tmp_path)
    assert cells.read_bytes() == torn
    make(seeds=2).run(tmp_path)
    assert all(json.loads(line) for line in cells.read_text().splitlines())


def test_damaged_and_torn_lines_are_computed_again(tmp_path):
    found = make().run(tmp_path)
    path = tmp_path / "cells.jsonl"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace('"accuracy"', '"accuracies"')
    path.write_text("\n".join(lines)[:-30])
    with pytest.warns(StoreWarning, match="1 damaged lines"):
        again = make().run(tmp_path)
    assert [(c.method, c.accuracy) for c in again.cells] == [
        (c.method, c.accuracy) for c in found.cells
    ]
    json.loads(path.read_text().splitlines()[-1])


SCRIPT = """
import sys, time
from fewfit import LinearProbe
from fewfit.models import FakeModel
from tests.compare.test_experiment import make
class Slow(LinearProbe):
    def _fit(self, X, y, scores):
        time.sleep(float(sys.argv[1]))
        super()._fit(X, y, scores)
methods = {"slow": Slow()}
out = sys.argv[2]
make(FakeModel(log=out + "/log"), methods=methods, store=out + "/s", seeds=6).run(out)
"""


def test_a_killed_process_continues(tmp_path):
    cells = tmp_path / "cells.jsonl"
    process = Program(SCRIPT, 0.2, tmp_path)
    while warm.lines_of(cells) < 4:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    kept = cells.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    warm.run(SCRIPT, 0, tmp_path)
    assert cells.read_bytes().startswith(kept)
    assert cells.read_bytes().count(b"\n") == 12 + 1
    log = (tmp_path / "log").read_text().split()
    assert len(log) == len(set(log))  # no prompt was billed twice


def test_json_csv_and_tables(tmp_path):
    found = make().run(price_per_token=0.5)
    found.write(tmp_path / "c.json")
    assert Comparison.read(tmp_path / "c.json") == found
    item = next(s for s in found.summaries if s.method == "dect" and s.shots == 4)
    predict = next(c.ledger.predict_tokens for c in found.cells if c.method == "dect")
    assert item.cost == 0.5 * (item.tokens + predict)
    text = report(found)
    assert f"{item.accuracy:.3f} ± {item.sd:.3f}" in text
    assert "cost" in text
    assert "dect, " not in str(accuracy_table(found.summaries))  # one model is not named
    broken = json.loads((tmp_path / "c.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps({**broken, "extra": 1}))
    with pytest.raises(InputError, match="not a comparison of this schema"):
        Comparison.read(tmp_path / "c.json")


def test_two_models_and_a_text_peer_share_a_table():
    one, two = FakeModel(), FakeModel(seed=1)
    one.spec, two.spec = "one", "two"
    found = compare(
        *TRAIN, *TEST, labels=LABELS, models=[one, two], shots=[2], seeds=2, store=None,
        methods=["dect", "tfidf"],
    )  # fmt: skip
    assert [(s.method, s.model) for s in found.summaries] == [
        ("dect", "one"),
        ("dect", "two"),
        ("tfidf", None),
    ]
    assert "| dect, two " in str(accuracy_table(found.summaries))
    with pytest.raises(InputError, match="'one' is given twice"):
        Experiment(*TRAIN, *TEST, labels=LABELS, models=[one, one], store=None)


def test_objects_of_one_class_are_told_apart_by_their_order(tmp_path):
    models = [FakeModel(seed=n) for n in range(3)]
    for model in models:
        model.spec = None
    given = {"labels": LABELS, "shots": [2], "seeds": 2, "store": None, "methods": ["dect"]}
    found = compare(*TRAIN, *TEST, models=models, output=tmp_path, **given)
    assert [s.model for s in found.summaries] == ["FakeModel", "FakeModel 2", "FakeModel 3"]
    for model, summary in zip(models, found.summaries, strict=True):
        [alone] = compare(*TRAIN, *TEST, models=[model], **given).summaries
        assert alone.log_loss == summary.log_loss
    asked = sum(model.queries for model in models)
    compare(*TRAIN, *TEST, models=models, output=tmp_path, **given)
    assert sum(model.queries for model in models) == asked
    with pytest.raises(InputError, match="'FakeModel' is given twice"):
        Experiment(*TRAIN, *TEST, labels=LABELS, models=[models[0], models[0]], store=None)


class Tags(HTMLParser):
    """Collects the tags, and the attributes that would fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [name for name, _ in attrs if name in ("src", "href", "onload", "onclick")]


def test_the_page_escapes_what_users_write_and_fetches_nothing():
    evil = '<script>alert("x")</script><img src=y onerror=z>'
    train = [f"{i} good" for i in range(4)] + [f"{i} bad" for i in range(4)]
    y = [f"<b>{name}" for name in ("pos",) * 4 + ("neg",) * 4]
    found = compare(
        train, y, [f"good {evil}", "bad"], ["<b>neg", "<b>pos"], store=None, shots=[1, 2], seeds=2,
        labels={"<b>neg": "bad", "<b>pos": "good"}, models=["fake"], template="{text} <i>{mask}",
        methods={"<u>": ZeroShot(), "tf&idf": DecT()},
    )  # fmt: skip
    page = html_report(found, title="<u>title")
    assert "&lt;script&gt;alert" in page
    seen = Tags()
    seen.feed(page)
    assert not set(seen.tags) & {"script", "img", "link", "b" * 2, "u", "i", "iframe"}
    assert seen.links == []
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<svg") == page.count("</svg>") > 6
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_diagnoses_add_up():
    found = make(seeds=3).run()
    assert {d.shots for d in found.diagnoses} == {4}
    for d in found.diagnoses:
        confusion = np.array(d.confusion)
        cells = [c for c in found.cells if (c.method, c.shots) == (d.method, 4)]
        assert confusion.sum() == 3 * 40
        assert np.trace(confusion) / confusion.sum() == pytest.approx(
            np.mean([c.accuracy for c in cells])
        )
        assert confusion.sum(axis=1).tolist() == [3 * TEST[1].count(k) for k in ("neg", "pos")]
        assert sum(b.n for b in d.reliability) == 3 * 40
        assert sum(b.n * b.accuracy for b in d.reliability) == pytest.approx(np.trace(confusion))
        for wrong in d.wrong:
            assert TEST[0][wrong.row] == wrong.text
            assert TEST[1][wrong.row] == wrong.label != wrong.predicted


runner = CliRunner()


@pytest.fixture
def files(tmp_path):
    for name, (texts, y) in (("train", TRAIN), ("test", TEST)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("review", "label"), *zip(texts, y, strict=True)])
    return tmp_path


def run(folder, *args: str, code: int = 0):
    words = ["--label", "neg=bad", "--label", "pos=good,fine", "--text-column", "review"]
    command = ["compare", str(folder / "train.csv"), str(folder / "test.csv"), "--models", "fake"]
    result = runner.invoke(app, [*command, *words, *args])
    assert result.exit_code == code, result.output + str(result.exception)
    return result


def test_the_command(files):
    options = ["--shots", "1,4", "--seeds", "2", "--methods", "zero-shot,dect,tfidf"]
    out = files / "out"
    dry = json.loads(run(files, *options, "--dry-run", "--json").stdout)
    assert "queries to ask" in run(files, *options, "--dry-run").stdout
    text = run(files, *options, "--output", str(out)).stdout
    assert "| dect " in text
    found = Comparison.read(out / "comparison.json")
    assert [item.queries for item in found.asked] == [dry[0]["queries"]]
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    with (out / "cells.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert len(table) == len(found.cells) == 12
    assert float(table[0]["accuracy"]) == found.cells[0].accuracy
    again = run(files, *options, "--output", str(out), "--json").stdout
    assert Comparison.model_validate_json(again) == found


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--shots", "1,x"], "--shots: 'x' is not a whole number"),
        (["--methods", "magic"], "'magic' is not one of"),
        (["--models", "gpt-9"], "'gpt-9' is not known"),
        (["--text-column", "nope"], "no column 'nope'"),
    ],
)
def test_bad_arguments_are_one_line(files, args, message):
    result = run(files, *args, code=2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_left_out_shots_are_what_the_pool_has():
    with pytest.warns(InputWarning, match="samples of 1, 4, 5 per class"):
        experiment = Experiment(
            *[own[:15] for own in TRAIN], *TEST, labels=LABELS, models=[FakeModel()], store=None
        )
    assert experiment.shots == [1, 4, 5]
    assert {sample.shots for sample in experiment.data.samples} == {1, 4, 5}


def test_boolean_classes_are_called_the_same_everywhere():
    (X, y), (X_test, y_test) = TRAIN, TEST
    labels = {True: "good", False: "bad"}
    yes, yes_test = ([name == "pos" for name in some] for some in (y, y_test))
    found = compare(X, yes, X_test, yes_test, labels=labels, models=[FakeModel()], shots=[1])
    assert [name for name, _ in found.setup.labels] == [False, True]
    assert all(type(name) is bool for name, _ in found.setup.labels)
    again = Comparison.model_validate_json(found.model_dump_json())
    assert again.setup == found.setup
    assert all(type(name) is bool for name, _ in again.setup.labels)
    page = html_report(found)
    assert "False: bad; True: good" in page


class Silent(FakeModel):
    """It has no answer to prompts that hold a text."""

    def __init__(self, text: str) -> None:
        super().__init__(batch_size=1)
        self.text = text

    def stream(self, prompts, words):
        for where, batch in super().stream(prompts, words):
            if self.text in prompts[where[0]].text(""):
                batch = replace(unanswered(words, 1, ["a filter"]), asked=batch.asked)
            yield where, batch


@pytest.mark.parametrize("methods", [["zero-shot"], ["in-context"], ["dect"]])
def test_a_row_without_an_answer_is_named_and_no_option_advised_that_is_not_there(methods):
    with pytest.raises(ModelError, match="a filter") as found:
        make(Silent(TEST[0][7]), methods=methods).run()
    assert f"first test row 7 ('{TEST[0][7][:20]}" in str(found.value)
    assert "leave the rows out" in str(found.value)
    assert "errors=" not in str(found.value)


def test_a_training_row_without_an_answer_has_the_number_that_it_was_given_with():
    texts, y = [TEST[0][0], *TRAIN[0][:5]], [TEST[1][0], *TRAIN[1][:5]]
    given = {"labels": LABELS, "models": [Silent(texts[4])], "store": None, "drop_overlap": True}
    experiment = Experiment(texts, y, *TEST, methods=["dect"], shots=[1], seeds=20, **given)
    with pytest.raises(ModelError, match=r"of \d+ prompts, first train row 4 \("):
        experiment.run()


@pytest.mark.parametrize("method", ["zero-shot+ratio", "prompt-search+ratio"])
def test_a_calibration_that_is_undefined_is_named_with_its_cell(method):
    with pytest.raises(CalibrationError, match="not safely positive") as found:
        make(FakeModel(space="logit"), methods=["tfidf", method], shots=[4], seeds=1).run()
    assert str(found.value).startswith(f"{method}, 4 shots, seed 0: ")
    assert "goes on from the cells" in str(found.value)


def test_a_searcher_advises_no_option_either():
    with pytest.raises(ModelError, match="a filter") as found:
        make(Silent(TEST[0][7]), methods=["prompt-search"], shots=[4], seeds=1).run()
    assert "errors=" not in str(found.value)
    assert "prompt-search, 4 shots, seed 0: " in str(found.value)  # also where the test set fails
