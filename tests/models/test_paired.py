"""Label scores from one frozen model, hidden states from another."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from fewfit import FewShotClassifier, Template, load_model
from fewfit.artifacts import schema
from fewfit.cli import app
from fewfit.errors import (
    ArtifactError,
    BudgetExceededError,
    InputError,
    ModelMismatchError,
    ModelWarning,
)
from fewfit.estimators.opening import open_model
from fewfit.models import FakeModel
from fewfit.models.paired import PairedModel
from fewfit.observations import Status
from fewfit.testing import check_frozen_model
from tests.fake_server import FakeServer, Reply

WORDS = ("good", "bad")
TEXTS = ["so good", "a bad one", "good again", "quite bad", "good good", "bad luck"]
Y = ["pos", "neg"] * 3
LABELS = {"pos": "good", "neg": "bad"}
TEMPLATE = "{text} It was {mask}."
PROMPTS = [Template(TEMPLATE).render({"text": text}) for text in TEXTS]


def test_a_pair_is_a_frozen_model():
    check_frozen_model(PairedModel(FakeModel(hidden_size=0), FakeModel(seed=1, space=None)))


def test_each_half_gives_what_it_is_there_for():
    said, state = FakeModel(seed=3), FakeModel(seed=4, hidden_size=5, space="similarity")
    both = PairedModel(said, state).observe(PROMPTS, WORDS)
    one, other = FakeModel(seed=3).observe(PROMPTS, WORDS), state.observe(PROMPTS, WORDS)
    assert_array_equal(both.scores, one.scores)
    assert_array_equal(both.hidden, other.hidden)
    assert_array_equal(both.label_mass, one.label_mass)
    assert_array_equal(both.n_tokens, one.n_tokens + other.n_tokens)
    assert both.space is one.space
    assert both.queries == 6


def test_what_a_half_cannot_give_is_refused():
    with pytest.raises(InputError, match="gives no label scores"):
        PairedModel(FakeModel(space=None), FakeModel())
    with pytest.raises(InputError, match="gives no hidden states"):
        PairedModel(FakeModel(), FakeModel(hidden_size=0))
    with pytest.raises(InputError, match="two models already"):
        load_model("fake + fake + embedded")
    with pytest.raises(InputError, match=r"hidden: .* is two models already"):
        FewShotClassifier("fake", hidden="fake + embedded").fit(TEXTS, Y)


def test_halves_have_identities_of_their_own():
    models = [FakeModel(), FakeModel(seed=1)]
    pairs = [dict(PairedModel(a, b).identity) for a in models for b in models]
    assert all(pairs.count(identity) == 1 for identity in pairs)


def test_a_store_stands_in_front_of_each_half(tmp_path):
    store = tmp_path / "store.db"
    said, state = FakeModel(hidden_size=0), FakeModel(seed=1)
    open_model(said, store).observe(PROMPTS[:2], WORDS)
    open_model(state, store).observe(PROMPTS[1:4], WORDS)
    both = open_model(PairedModel(said, state), store)
    assert_array_equal(both.stored(PROMPTS, WORDS), [False, True, False, False, False, False])
    answers = both.observe(PROMPTS, WORDS)
    assert (said.queries, state.queries) == (6, 6)
    assert_array_equal(answers.asked, [True, False, True, True, True, True])
    assert both.observe(PROMPTS, WORDS).queries == 0


def test_budgets_are_of_each_half_and_what_was_paid_is_kept(tmp_path):
    said, state = FakeModel(hidden_size=0), FakeModel(seed=1)
    clf = FewShotClassifier(said, hidden=state, store=tmp_path / "s.db", max_queries=4)
    clf.set_params(template=TEMPLATE, labels=LABELS)
    with pytest.raises(BudgetExceededError):
        clf.fit(TEXTS, Y)
    clf.set_params(max_queries=7).fit(TEXTS, Y)
    assert (said.queries, state.queries) == (7, 7)  # the empty input is one
    with pytest.raises(InputError, match="asked apart"):
        clf.set_params(store=None).fit(TEXTS, Y, unlabelled=["x"])


def failing(model, where):
    """A model that fails, or cuts, some prompts."""
    stream = model.stream

    def some(prompts, words):
        for positions, batch in stream(prompts, words):
            lost = np.array([where in prompts[i].user_text for i in positions])
            yield positions, batch.failing(lost, f"no {where}")

    model.stream = some
    return model


def test_a_failed_half_fails_the_row_and_is_not_asked_of_the_other():
    said = failing(FakeModel(hidden_size=0), "again")
    answers = PairedModel(said, failing(FakeModel(seed=1), "luck")).observe(PROMPTS, WORDS)
    assert answers.status.tolist() == [0, 0, 2, 0, 0, 2]
    assert answers.reason.tolist() == ["", "", "no again", "", "", "no luck"]
    assert np.isnan(answers.scores[[2, 5]]).all()
    assert np.isnan(answers.hidden[[2, 5]]).all()
    assert np.isfinite(answers.scores[[0, 1, 3, 4]]).all()
    assert said.queries == 5
    assert answers.queries == 6


def test_all_rows_may_fail_in_either_half():
    lost = PairedModel(FakeModel(), failing(FakeModel(seed=1), "")).observe(PROMPTS, WORDS)
    assert (lost.status == Status.FAILED).all()
    lost = PairedModel(failing(FakeModel(), ""), FakeModel(seed=1)).observe(PROMPTS, WORDS)
    assert (lost.status == Status.FAILED).all()


def test_a_text_that_one_half_cuts_is_cut():
    cut = PairedModel(FakeModel(), FakeModel(seed=1, max_words=2)).observe(PROMPTS, WORDS)
    assert cut.status.tolist() == [0, 1, 0, 0, 0, 0]


def test_saved_loaded_and_pickled(tmp_path):
    clf = FewShotClassifier("fake", hidden="embedded", labels=LABELS, store=None).fit(TEXTS, Y)
    clf.save(tmp_path / "task")
    alone = FewShotClassifier("fake", labels=LABELS, store=None).fit(TEXTS, Y)
    assert clf.decoder_.coef_.shape == (2, 384)
    right = clf.predict_proba(["good?"])
    assert not np.allclose(right, alone.predict_proba(["good?"]))
    for given in ({}, {"model": "fake"}, {"hidden": "embedded"}, {"model": "fake + embedded"}):
        again = FewShotClassifier.load(tmp_path / "task", store=None, verify=True, **given)
        assert again.model == "fake + embedded"
        assert_array_equal(again.predict_proba(["good?"]), right)
    assert_array_equal(pickle.loads(pickle.dumps(clf)).predict_proba(["good?"]), right)
    with pytest.raises(ModelMismatchError, match="hidden: "):
        FewShotClassifier.load(tmp_path / "task", store=None, hidden="fake")


@pytest.mark.filterwarnings("ignore::fewfit.errors.ModelWarning")
def test_a_file_leads_to_no_server_that_the_user_did_not_name(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret-secret")
    with FakeServer() as server:
        chat = f"openai-chat:{server.url}?model=toy&top_k=100&backoff=0"
        vectors = f"embeddings:{server.url}?model=toy&key_env=MY_KEY"
        clf = FewShotClassifier(chat, hidden=vectors, template=TEMPLATE, labels=LABELS, store=None)
        clf.fit(TEXTS, Y).save(tmp_path / "task")
        right = clf.predict_proba(["x"])
        manifest, arrays = schema.read(tmp_path / "task")
        spec, asked = manifest.model_spec, len(server.requests)
        assert "MY_KEY" not in spec

        def refused(forged, match):
            own = manifest.model_copy(update={"model_spec": forged})
            schema.write(tmp_path / "forged", own, arrays)
            with pytest.raises(ArtifactError, match=match):
                FewShotClassifier.load(tmp_path / "forged", store=None)

        for half in spec.split(" + "):
            moved = half.replace("127.0.0.1", "gpu-box.example")
            refused(spec.replace(half, moved), "behind the server http://gpu-box.example")
            refused(spec.replace(half, half + "&key_env=HOME"), "environment variable")
        assert len(server.requests) == asked
        again = FewShotClassifier.load(tmp_path / "task", store=None)
        assert_array_equal(again.predict_proba(["x"]), right)


def test_one_server_failing_is_told_row_by_row():
    def script(request, before):
        return Reply(status=422, body={"error": "no"}) if "bad" in request.text else None

    with FakeServer(script) as server:
        vectors = load_model(f"embeddings:{server.url}?model=toy&retries=0")
        both = PairedModel(FakeModel(hidden_size=0), vectors)
        prompts = [Template("{text} {mask}").render({"text": text}) for text in ("one", "bad one")]
        with pytest.warns(ModelWarning, match="1 of 2"):
            answers = both.observe(prompts, ("yes", "no"))
    assert answers.status.tolist() == [0, 2]


def test_on_the_command_line(tmp_path):
    rows = "\n".join(f"{text},{label}" for text, label in zip(TEXTS, Y, strict=True))
    (tmp_path / "train.csv").write_text(f"text,label\n{rows}\n")
    (tmp_path / "test.csv").write_text("text,label\nvery good,pos\nvery bad,neg\n")
    store, train, test = (
        ["--store", str(tmp_path / "s.db")],
        *map(str, (tmp_path / "train.csv", tmp_path / "test.csv")),
    )
    words = ["--label", "pos=good", "--label", "neg=bad"]
    out = str(tmp_path / "task")
    run, both = CliRunner().invoke, ["--hidden", "embedded"]
    few = ["--methods", "offset-regression", "--shots", "2", "--seeds", "1"]
    found = run(
        app,
        ["fit", train, "-o", out, "--model", "fake", *both, "--doctor", *words, *store],
    )
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "task/manifest.json").read_text())["model_spec"] == (
        "fake + embedded"
    )
    found = run(app, ["predict", out, test, "--hidden", "embedded", *store])
    assert found.exit_code == 0, found.output
    found = run(
        app,
        ["compare", train, test, "--model", "fake", *both, *few, "--json", *words, *store],
    )
    assert found.exit_code == 0, found.output
    assert [row["model"] for row in json.loads(found.output)["summaries"]] == [
        "fake",
        "embedded",
        "fake + embedded",
    ]
    refused = run(app, ["fit", train, "-o", out, "--multi-label", "--hidden", "embedded"])
    assert "--hidden" in refused.output
    assert refused.exit_code == 2
