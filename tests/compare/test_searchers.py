"""Searchers in a comparison: what the function gives, at the price that the function names."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from fewfit.calibration import (
    BatchCalibration,
    ContextualCalibration,
    NoCalibration,
    PMICalibration,
)
from fewfit.compare import SearcherMethod, compare, sample_shots
from fewfit.compare.report.html import html_report
from fewfit.compare.report.tables import report
from fewfit.compare.searchers import SEARCHERS, frequent_words
from fewfit.errors import CapabilityError, InputError, MissingExtraError, ModelError
from fewfit.models import FakeModel
from fewfit.models.metered import Bill, MeteredModel
from fewfit.prompts import Conjugate, Part, Prompt, Template, Verbalizer
from fewfit.store import StoredModel
from fewfit.task import DEFAULT_TEMPLATE, Task
from tests.compare.test_experiment import LABELS, TEST, TRAIN, files, make, run  # noqa: F401

NAMES = sorted(SEARCHERS)
WORDS = ["good", "bad", "w1", "so", "fun", "hm"]
TRIALS = 12


class Soft(FakeModel):
    """A toy that reads the whole prompt and takes vectors in front of it, which sway it."""

    known: dict[str, np.ndarray] = {}  # noqa: RUF012

    def __init__(self, vectors=None, front=None, **options):
        super().__init__(**options)
        self.vectors, self.front = vectors, front or self

    @property
    def capabilities(self):
        return replace(super().capabilities, soft_prompts=True)

    @property
    def identity(self):
        shown = "" if self.vectors is None else self.vectors.tobytes().hex()
        return {**super().identity, "vectors": shown}

    def input_embeddings(self):
        return np.random.default_rng(0).normal(size=(30, 16)).astype(np.float32)

    def with_soft_prompt(self, vectors):
        return Soft(np.asarray(vectors, np.float32), self.front)

    def _bill(self, prompt):
        if self.front is self:
            super()._bill(prompt)
        else:
            self.front._bill(prompt)

    def stream(self, prompts, words):
        whole = [Prompt((Part("field", p.text("")), Part("mask", ""))) for p in prompts]
        return super().stream(whole, words)

    def _states(self, batch):
        sway = 0 if self.vectors is None else self.vectors.sum(axis=0)
        return super()._states(batch) + sway

    def _vector(self, word):
        if word not in self.known:
            self.known[word] = super()._vector(word)
        return self.known[word]


def options_of(name):
    if name == "black-box-tuning":
        return {"length": 2, "dimension": 3, "population": 4}
    return {"vocabulary": WORDS, "n_samples": 2}


def searched(model, name, calibration=None, **options):
    methods = {"mine": SearcherMethod(name, calibration, options_of(name))}
    defaults = {"methods": methods, "shots": [4], "seeds": [2], "search_trials": TRIALS}
    return make(model, **{**defaults, **options})


def directly(model, name, calibration, max_queries, rows, seed=2):
    """What the searcher's own function finds, and how often it is right about the test set."""
    texts, y = [{"text": TRAIN[0][i]} for i in rows], [TRAIN[1][i] for i in rows]
    options = {**options_of(name), "max_queries": max_queries, "seed": seed}
    verbalizer, codes = Verbalizer(LABELS), np.array([int(name == "pos") for name in y])
    source, view = f"{{prompt}} {DEFAULT_TEMPLATE}", Template(DEFAULT_TEMPLATE)
    if name == "black-box-tuning":
        found = SEARCHERS[name](model, view, texts, codes, verbalizer, calibration, **options)
        model = found.model
    elif name == "unsupervised-prompts":
        words = options.pop("vocabulary")
        found = SEARCHERS[name](model, source, words, texts, LABELS, start=words[:5], **options)
        view, calibration = found.view, BatchCalibration()
    else:
        words = options.pop("vocabulary")
        found = SEARCHERS[name](
            model, source, words, texts, codes, verbalizer, calibration, **options
        )
        view = Template(found.template)
    asked = [{"text": text} for text in TEST[0]]
    task, answers, _ = Task(model, view, verbalizer, calibration).begin(asked)
    right = np.array(["neg", "pos"])[task.features(answers)[1].argmax(axis=1)] == TEST[1]
    return found.queries, float(right.mean())


PLAIN = [(name, None) for name in NAMES]
CALIBRATED = [(name, ContextualCalibration(("", "N/A"))) for name in NAMES[:3]]


@pytest.mark.parametrize(("name", "calibration"), [*PLAIN, *CALIBRATED])
def test_a_cell_is_what_the_searcher_gives(name, calibration):
    model, free = Soft(), 0 if calibration is None else 2
    experiment = searched(model, name, calibration)
    (cost,) = experiment.cost()
    assert cost[:3] == ("Soft", 0, 0)
    budget = TRIALS * (8 + free)
    assert cost.search_queries == budget + 40
    found = experiment.run(price_per_token=1.0)
    (cell,) = found.cells
    rows = sample_shots(TRAIN[1], 4, seed=2)
    queries, accuracy = directly(Soft(), name, calibration or NoCalibration(), budget - free, rows)
    assert cell.accuracy == accuracy
    assert cell.ledger.queries == queries + free  # the prior of the prompt that was found
    assert budget - 20 < cell.ledger.queries <= budget
    assert (cell.ledger.predict_queries, cell.ledger.row_queries) == (40, 1.0)
    assert model.queries == found.asked[0].queries == cell.ledger.queries + 40
    assert cell.ledger.tokens > 8 * cell.ledger.queries
    assert cell.ledger.peak_memory is None
    assert found.summaries[0].cost == cell.ledger.tokens + cell.ledger.predict_tokens


def test_searchers_stand_beside_decoders():
    model = Soft()
    methods = ["zero-shot", "dect", "tfidf", "prompt-search", "policy-network"]
    experiment = make(model, methods=methods, seeds=2, search_trials=16)
    (cost,) = experiment.cost()
    found = experiment.run()
    assert {s.method for s in found.summaries} == set(methods)
    searching = [c for c in found.cells if c.method in methods[3:]]
    assert model.queries <= cost.queries + cost.search_queries
    assert sum(c.ledger.queries + 40 for c in searching) == model.queries - cost.queries
    assert cost.search_queries == 2 * 2 * (16 * 2 + 40 + 16 * 8 + 40)
    # Decoders are what they are without searchers.
    alone = make(Soft(), methods=methods[:3], seeds=2).run()
    losses = {(c.method, c.shots, c.seed): c.log_loss for c in found.cells}
    assert all(losses[c.method, c.shots, c.seed] == c.log_loss for c in alone.cells)
    assert found.setup.search_trials == 16
    assert alone.setup.search_trials is None
    page = html_report(found)
    assert "16 times the examples" in page
    assert f"Soft: {model.queries:,}" in page
    assert "prompt-search" in report(found)


def test_what_a_store_has_is_free_and_still_counted(tmp_path):
    for name in NAMES:
        model, store = Soft(), tmp_path / name
        first = searched(model, name, store=store).run()
        asked, free = model.queries, searched(Soft(), name).run()
        again = searched(model, name, store=store).run()
        assert model.queries == asked
        assert again.asked == []
        cells = [run.cells[0] for run in (first, free, again)]
        for value in ("queries", "tokens", "predict_queries", "predict_tokens"):
            assert len({getattr(cell.ledger, value) for cell in cells}) == 1
        assert len({cell.log_loss for cell in cells}) == 1


def test_finished_searches_are_kept(tmp_path):
    class Broken(Soft):
        spec, left = "toy", 150

        def _bill(self, prompt):
            Broken.left -= 1
            if Broken.left == 0:
                raise ModelError("out of luck")
            super()._bill(prompt)

    options = {"seeds": 3, "shots": [4]}
    with pytest.raises(ModelError):
        searched(Broken(), "prompt-search", **options).run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert ["asked" in line for line in lines] == [True, False, True]
    assert lines[2]["asked"]["queries"] > 0, "of the search that failed"
    model = Soft()
    model.spec = "toy"
    experiment = searched(model, "prompt-search", **options)
    assert experiment.cost(tmp_path)[0].search_queries == 2 * (TRIALS * 8 + 40)
    found = experiment.run(tmp_path)
    assert found.cells[0].model_dump() == lines[1]["cell"]
    assert model.queries == sum(c.ledger.queries + 40 for c in found.cells[1:])
    again = Soft()
    again.spec = "toy"
    assert searched(again, "prompt-search", **options).run(tmp_path) == found
    assert again.queries == 0
    # Another budget and other options are another cell.
    searched(again, "prompt-search", **options, search_trials=TRIALS + 1).run(tmp_path)
    assert again.queries > 0


def test_the_seconds_of_asking_are_not_those_of_the_searcher():
    start = time.perf_counter()
    found = searched(Soft(seconds=0.01, batch_size=4), "policy-network").run()
    wall = time.perf_counter() - start
    ledger, (asked,) = found.cells[0].ledger, found.asked
    assert asked.seconds >= 0.01 * (ledger.queries + ledger.predict_queries) / 4
    assert ledger.fit_seconds + ledger.predict_seconds + asked.seconds < wall
    pace = asked.seconds / asked.queries
    assert found.summaries[0].seconds == pytest.approx(ledger.fit_seconds + pace * ledger.queries)


def test_a_searcher_starts_from_the_first_template():
    one = searched(Soft(), "prompt-search").run()
    two = searched(Soft(), "prompt-search", template=[DEFAULT_TEMPLATE, "{text} {mask}"]).run()
    assert two.cells[0].log_loss == one.cells[0].log_loss
    assert two.cells[0].ledger.queries == one.cells[0].ledger.queries
    three = searched(Soft(), "prompt-search", template=["{text} {mask}", DEFAULT_TEMPLATE]).run()
    assert three.cells[0].log_loss != one.cells[0].log_loss


def test_words_are_those_of_the_sample_if_none_are_given():
    rows = sample_shots(TRAIN[1], 4, seed=2)
    given = {"vocabulary": frequent_words([TRAIN[0][i] for i in rows], 200)}
    options = {"shots": [4], "seeds": [2], "search_trials": 16}
    method = {"mine": SearcherMethod("policy-network", options=given)}
    own = make(Soft(), methods=method, **options).run()
    left_out = make(Soft(), methods=["policy-network"], **options).run()
    assert own.cells[0].log_loss == left_out.cells[0].log_loss
    assert frequent_words(["Über die Brücke, die", "die 2 x"], 2) == ["die", "brücke"]


def plain(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        (["black-box-tuning"], {"model": FakeModel()}, CapabilityError, "needs 'soft_prompts'"),
        (["prompt-search"], {"model": Soft(space=None)}, CapabilityError, "needs 'scores'"),
        (["policy-network+ratio"], {}, CapabilityError, "gives 'logprob'"),
        (["prompt-search"], {"search_trials": 1}, InputError, "at least 2, not 1"),
        (["prompt-search"], {"search_trials": 9}, InputError, "prompt-search needs at least 10"),
        (["policy-network"], {"search_trials": 15}, InputError, "needs at least 16 with these"),
        (["black-box-tuning"], {"search_trials": 20}, InputError, "needs at least 21 with these"),
        (["unsupervised-prompts"], {"search_trials": 11}, InputError, "needs at least 12 with"),
        (["policy-network+contextual"], {"search_trials": 16}, InputError, "needs at least 17"),
        (["prompt-search"], {"template": Conjugate("{text} {mask}", plain, plain)}, InputError,
         "starts from a template"),
        (["unsupervised-prompts+pmi"], {}, InputError, "calibrates by the batch"),
        (["prompt-search+magic"], {}, InputError, "'magic' is not one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_any_query(methods, options, error, message):
    model = options.pop("model", None) or Soft()
    with pytest.raises(error, match=message):
        make(model, methods=["zero-shot", *methods], **options)
    assert model.queries == 0


def test_options_are_checked(monkeypatch):
    with pytest.raises(InputError, match="'magic' is not one of"):
        SearcherMethod("magic")
    for wrong in ("lenght", "seed", "rows", "max_queries"):
        with pytest.raises(InputError, match=f"black-box-tuning has no '{wrong}'; it has"):
            SearcherMethod("black-box-tuning", options={wrong: 1})
    for name, options in {
        "black-box-tuning": [{"population": 1}, {"sigma": 0}, {"dimension": 1}, {"length": True}],
        "policy-network": [{"n_samples": 1}, {"lr": float("nan")}, {"width": 0}, {"lr": "0.1"}],
        "prompt-search": [{"n_samples": 2.0}, {"batch_size": 0}, {"lr": -1}, {"length": None}],
        "unsupervised-prompts": [{"quantile": 1}, {"n_demonstrations": 0}, {"lr": float("inf")}],
    }.items():
        for wrong in options:
            with pytest.raises(InputError, match=f"{next(iter(wrong))}: .*{name}"):
                SearcherMethod(name, options=wrong)
    with pytest.raises(InputError, match="learns from labels"):
        SearcherMethod("prompt-search", BatchCalibration(strength="labels"))
    rows = [{"prompt": text} for text in TRAIN[0]], TRAIN[1], [{"prompt": "a"}], ["pos"]
    given = {"labels": LABELS, "models": [Soft()], "store": None, "methods": ["prompt-search"]}
    with pytest.raises(InputError, match="rename the field"):
        compare(*rows, template="{prompt} It was {mask}.", **given)
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingExtraError, match=r"fewfit\[search\]"):
        make(Soft(), methods=["black-box-tuning"])


def test_a_sentence_encoder_reads_no_demonstrations_of_a_searcher():
    with pytest.raises(CapabilityError, match="unsupervised-prompts puts examples"):
        make("embedded", methods=["unsupervised-prompts"])


def test_a_meter_counts_what_is_asked_not_what_is_paid(tmp_path):
    model = Soft()
    meter = MeteredModel(StoredModel(model, tmp_path / "store"))
    prompts = [Template("{text} {mask}").render({"text": text}) for text in ("a b", "c", "a b")]
    expected = model.observe(prompts, WORDS)
    found = meter.observe(prompts, WORDS)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert replace(meter.bill, seconds=0) == Bill(queries=2, tokens=3, paid=2)
    before = replace(meter.bill)
    swayed = meter.with_soft_prompt(np.ones((2, 16)))
    swayed.observe(prompts, WORDS)
    meter.observe(prompts[:1], WORDS)
    assert replace(meter.bill.since(before), seconds=0) == Bill(queries=3, tokens=5, paid=2)
    assert meter.bill.seconds > before.seconds
    assert (meter.identity, meter.capabilities) == (model.identity, model.capabilities)
    assert swayed.identity != model.identity


def test_the_command_searches(files):  # noqa: F811
    options = ["--shots", "2", "--seeds", "1", "--methods", "zero-shot,prompt-search+pmi"]
    options += ["--search-trials", "11", "--premise", "The topic is {mask}."]
    dry = run(files, *options, "--dry-run").stdout
    assert "41 queries to ask (41 prompts, 0 in the store), and at most 95 by searchers" in dry
    (cost,) = json.loads(run(files, *options, "--dry-run", "--json").stdout)
    assert cost == {"model": "fake", "prompts": 41, "queries": 41, "search_queries": 95}
    found = json.loads(run(files, *options, "--json").stdout)
    premise = PMICalibration(premise="The topic is {mask}.")
    expected = compare(
        *TRAIN, *TEST, labels=LABELS, models=["fake"], shots=[2], seeds=1, store=None,
        methods={"it": SearcherMethod("prompt-search", premise)}, search_trials=11,
    )  # fmt: skip
    assert found["cells"][1]["log_loss"] == pytest.approx(expected.cells[0].log_loss)
    assert found["setup"]["search_trials"] == 11
    assert "--search-trials" in run(files, "--search-trials", "1", code=2).stderr
