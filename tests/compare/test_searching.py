"""What a searcher finds is a classifier, which is saved and loaded as any other."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fewfit import FewShotClassifier
from fewfit.compare.searching import search
from fewfit.decoders import LinearProbe
from fewfit.errors import CapabilityError, InputError
from fewfit.models import FakeModel
from fewfit.models.metered import MeteredModel
from fewfit.prompts import InContext, Template
from fewfit.searchers import SEARCHERS
from tests.cli.helpers import run

TEXTS = ["good fun", "bad taste", "quite good", "so bad", "fine good", "bad bad"]
Y = ["pos", "neg", "pos", "neg", "pos", "neg"]
LABELS = {"pos": "good", "neg": "bad"}
NEW = ["good thing", "bad thing"]


@pytest.mark.parametrize("name", sorted(set(SEARCHERS) - {"black-box-tuning"}))
def test_what_is_found_is_kept(name, tmp_path):
    model = MeteredModel(FakeModel())
    y = None if name == "unsupervised-prompts" else Y
    options = {"n_samples": 2, "vocabulary": ["so", "hm", "good"]}
    found = search(
        *(name, TEXTS, y), model=model, labels=LABELS, options=options, max_queries=60, store=None
    )
    [view] = found.classifier.task_.template.views
    assert isinstance(view, InContext if y is None else Template)
    source = view.template if isinstance(view, InContext) else view.source
    assert set(source.split()[: -len(["{text}", "This", "is", "about", "{mask}."])]) <= {
        *options["vocabulary"]
    }
    assert source != "{text} This is about {mask}."
    assert found.shown.count("{mask}") == 1
    found.classifier.save(tmp_path / "a")
    again = FewShotClassifier.load(tmp_path / "a", model=FakeModel(), store=None, verify=True)
    expected = found.classifier.predict_proba(NEW)
    np.testing.assert_array_equal(again.predict_proba(NEW), expected)
    plain = FewShotClassifier(FakeModel(), labels=LABELS, decoder="zero-shot", store=None)
    assert not np.allclose(plain.fit(TEXTS, Y).predict_proba(NEW), expected)


def test_vectors_are_kept_with_the_name_of_their_model(tmp_path):
    pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    pytest.importorskip("cma")
    folder = build("bert", tmp_path / "bert")
    options = {"length": 2, "dimension": 3, "population": 4}
    found = search(
        *("black-box-tuning", TEXTS, Y),
        model=f"hf:{folder}",
        template="{text} in summary , it was {mask} .",
        labels={"pos": "great", "neg": "bad"},
        options=options,
        max_queries=60,
        store=tmp_path / "s.sqlite",
    )
    assert found.shown.startswith("2 vectors, and good fun")
    assert 30 < found.queries <= 60
    found.classifier.save(tmp_path / "a")
    expected = found.classifier.predict_proba(NEW)
    again = FewShotClassifier.load(tmp_path / "a", store=None, verify=True)
    np.testing.assert_allclose(again.predict_proba(NEW), expected, atol=1e-5)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["model_spec"].startswith(f"hf:{folder}")
    assert manifest["model_identity"]["soft_prompt"].startswith("2 vectors")
    budgeted = FewShotClassifier.load(tmp_path / "a", store=None, max_queries=1)
    assert budgeted.predict_proba(NEW[:1]).shape == (1, 2)


def test_what_cannot_be_searched_is_refused_before_any_query():
    model = MeteredModel(FakeModel())
    for name, more, said in (
        ("unsupervised-prompts", {"y": None}, "name them, labels="),
        ("prompt-search", {"y": None, "labels": LABELS}, "give them"),
        ("prompt-search", {"options": {"nothing": 1}}, "has no 'nothing'"),
        ("magic", {}, "not one of"),
        ("prompt-search", {"max_queries": 3}, "at least"),
        ("prompt-search", {"options": {"vocabulary": 5}}, "vocabulary"),
        ("policy-network", {"options": {"vocabulary": [5]}}, "vocabulary: expected a list of word"),
        ("unsupervised-prompts", {"options": {"start": 5}, "labels": LABELS}, "start"),
        ("prompt-search", {"decoder": "ipet"}, "IPET learns from texts without labels"),
        ("prompt-search", {"decoder": "magic"}, "magic"),
        (
            "prompt-search",
            {"decoder": "dect", "labels": {**LABELS, "odd": "strange"}},
            "'odd' has label words but no example",
        ),
    ):
        with pytest.raises(InputError, match=said):
            search(name, TEXTS, **{"y": Y, "model": model, "store": None, **more})
    with pytest.raises(CapabilityError, match="soft"):
        search("black-box-tuning", TEXTS, Y, model=model, labels=LABELS, store=None)
    assert model.bill.queries == 0
    bare = MeteredModel(FakeModel(hidden_size=0))
    with pytest.raises(CapabilityError, match="hidden"):
        search(
            *("prompt-search", TEXTS, Y),
            model=bare,
            labels=LABELS,
            decoder=LinearProbe(),
            store=None,
        )
    assert bare.bill.queries == 0


@pytest.mark.parametrize("name", sorted(set(SEARCHERS) - {"black-box-tuning"}))
@pytest.mark.parametrize("calibration", [None, "contextual"])
def test_the_budget_holds_for_all_that_is_asked(name, calibration):
    unsupervised = name == "unsupervised-prompts"
    if unsupervised and calibration:
        pytest.skip("calibrates by the batch")
    options = {"n_samples": 2, "vocabulary": ["so", "hm", "good"]}
    for allowed in (60, 61, 75):
        model = FakeModel()
        found = search(
            *(name, TEXTS, None if unsupervised else Y),
            model=model,
            labels=LABELS,
            calibration=calibration,
            options=options,
            max_queries=allowed,
            store=None,
        )
        assert found.max_queries == allowed
        assert found.queries == model.queries
        assert allowed - 30 < model.queries <= allowed
    with pytest.raises(InputError, match=r"need at least (\d+), and 5 are") as refused:
        search(*(name, TEXTS, Y), model=model, labels=LABELS, options=options, max_queries=5)
    least = int(str(refused.value).partition("at least ")[2].partition(",")[0])
    model = FakeModel()
    given = {"labels": LABELS, "options": options, "max_queries": least, "store": None}
    search(*(name, TEXTS, Y), model=model, **given)
    assert model.queries <= least


def test_one_word_is_a_list_of_one(tmp_path):
    options = {"n_samples": 2, "length": 2, "vocabulary": "good"}
    found = search(
        *("prompt-search", TEXTS, Y),
        model=FakeModel(),
        labels=LABELS,
        options=options,
        max_queries=40,
        store=None,
    )
    assert found.shown.startswith("good good good fun")


def test_from_the_command_line(tmp_path):
    table = tmp_path / "t.csv"
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, Y, strict=True))
    table.write_text("text,label\n" + rows)
    words = ("--label", "pos=good", "--label", "neg=bad", "--model", "fake")
    command = ("search", table, "-o", tmp_path / "a", *words, "--option", "n_samples=2")
    kept = ("--max-queries", 60, "--store", tmp_path / "s.db", "--json")
    told = json.loads(run(*command, *kept).stdout)
    assert told["max_queries"] == 60
    assert 30 < told["queries"] <= 60
    assert json.loads(run(*command, *kept).stdout)["queries"] == 0
    assert told["classes"] == ["neg", "pos"]
    assert "accuracy" in run("evaluate", tmp_path / "a", table, "--store", "none").output.lower()
    shown = run(*command, "--method", "unsupervised-prompts", "--store", "none").output
    assert " queries, of 300 allowed\n" in shown
    bare = ("search", table, "-o", tmp_path / "a", "--model", "fake")
    assert "name the classes" in run(*bare, "--method", "unsupervised-prompts", code=2).output
    run(*command, "--method", "magic", code=2)
