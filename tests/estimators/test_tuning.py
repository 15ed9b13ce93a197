"""Frozen or tuned: decided on the labelled rows, and said."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import safetensors.torch
import torch
from typer.testing import CliRunner

from fewfit import FewShotClassifier, load
from fewfit.cli import app
from fewfit.errors import InputError, MissingExtraError
from fewfit.estimators import tuning
from fewfit.estimators.temperature import find_temperature
from fewfit.estimators.tuning import ALPHAS, Tuner
from fewfit.prompts import InContext
from tests.models.local.test_sentences import save

GOOD = ["so fun", "a great film", "really great fun", "so so fun", "a a great film"]
GOOD += ["really really great fun", "so fun so", "great fun"]
BAD = ["so dull", "a bad movie", "really bad and sad", "so so dull", "a a bad movie"]
BAD += ["really so bad and sad", "so dull so", "bad and sad"]
X = [*GOOD, *BAD]
Y = ["yes"] * 8 + ["no"] * 8
LABELS = {"yes": "great", "no": "bad"}
FILES = ["README.md", "adapter.safetensors", "decoder.safetensors", "manifest.json"]
FILES += ["tuning.json"]
NEW = ["great fun", "a sad film", "the movie was so bad"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return f"encoder:{save(tmp_path_factory.mktemp('encoder') / 'base')}"


def classifier(model, **options):
    return FewShotClassifier(model, labels=LABELS, tune="auto", store=None, **options)


def same(one, other):
    return np.allclose(one.predict_proba(NEW), other.predict_proba(NEW), atol=1e-5)


def test_tuned_where_held_out_rows_speak_for_it(encoder, tmp_path):
    clf = classifier(encoder).fit(X, Y)
    told = clf.tuning_
    assert (told.chosen, told.n_trainings, told.steps) == ("tuned", 3, 3 * 6)
    assert told.gain > 0.05
    assert told.alpha in (0.5, 1)
    assert told.temperature >= 1
    assert told.values == 2 * (32 + 32 + 48)
    # Rows in both folds, for each alpha: kept ones, the empty text, and held ones.
    assert told.queries == 2 * 2 * (16 + 1)
    assert clf.n_queries_ == 2 * (16 + 1) + told.queries
    assert clf.get_params()["model"] == encoder
    expected = clf.expected_accuracy()
    assert (expected.accuracy, expected.n_folds) == (told.tuned, 2)
    frozen = FewShotClassifier(encoder, labels=LABELS, store=None).fit(X, Y)
    assert np.abs(frozen.predict_proba(NEW) - clf.predict_proba(NEW)).max() > 0.01
    clf.save(tmp_path / "task")
    names = sorted(path.name for path in (tmp_path / "task").iterdir())
    assert names == [
        "README.md",
        "adapter.safetensors",
        "decoder.safetensors",
        "manifest.json",
        "tuning.json",
    ]
    card = (tmp_path / "task" / "README.md").read_text()
    base = f"{encoder}?dtype=float32"
    assert f"| frozen model | `{base}` |\n| tuned by | `contrastive` `adapter='ia3'," in card
    assert f'name it, `model="{base}"`' in card
    loaded = load(tmp_path / "task", store=None, verify=True)
    assert same(loaded, clf)
    assert same(load(tmp_path / "task", store=None, model=base), clf)
    pool = [*NEW, "so really fun", "a movie so sad"]
    # What it was fitted on is known to it as the tuned model reads it.
    assert list(clf.suggest(pool, 5)) == list(loaded.suggest(pool, 5, labelled=(X, Y)))
    assert same(pickle.loads(pickle.dumps(clf)), clf)


def test_a_bar_of_its_own_shows_the_steps(encoder, capsys):
    clf = classifier(encoder)
    asked = []
    clf.fit(X, Y, progress=asked.append)
    assert sum(asked) == 16 + 1  # a function is told of prompts, and of nothing else
    capsys.readouterr()
    clf.fit(X, Y, progress=True)
    said = capsys.readouterr().err
    assert "asking: 100%" in said
    assert "tuning: 100%" in said
    assert "18/18" in said


def test_what_is_held_against_the_frozen_model_lies_half_the_way_and_at_the_end(encoder):
    clf = FewShotClassifier(encoder, labels=LABELS, store=None).fit(X, Y)
    tuner = Tuner(encoder, clf._training, clf.task_, clf.decoder_)
    half, whole = (
        safetensors.torch.load(m.carried["adapter.safetensors"]) for m in tuner.models(ALPHAS)
    )
    assert ALPHAS == (0.5, 1.0)
    assert any((t - 1).abs().max() > 0.01 for t in whole.values())
    for name, tensor in whole.items():
        assert torch.allclose(half[name], (1 + tensor) / 2)


def test_many_examples_are_trained_on_for_longer(encoder):
    x = [f"{text} {n}" for n in range(4) for text in X]
    assert classifier(encoder).fit(x[:63], (Y * 4)[:63]).tuning_.steps in (2 * 6, 3 * 6)
    assert classifier(encoder).fit(x, Y * 4).tuning_.steps in (2 * 10, 3 * 10)
    assert classifier(encoder).fit(X * 4, Y * 4).tuning_.steps in (2 * 6, 3 * 6)  # copies
    clf = classifier(encoder).set_params(tune=None).fit(X, Y)
    given = clf._training, clf.task_, clf.decoder_
    assert [Tuner(spec, *given)._recipe.steps for spec in (encoder, "hf:any")] == [6, 10]


def test_the_last_training_goes_on_from_the_mean_of_those_on_parts(encoder, monkeypatch):
    clf = FewShotClassifier(encoder, labels=LABELS, store=None).fit(X, Y)
    tuner, ends = Tuner(encoder, clf._training, clf.task_, clf.decoder_), []
    train = Tuner._train

    def kept(*args):
        ends.append(train(*args))
        return ends[-1]

    monkeypatch.setattr(Tuner, "_train", kept)
    for folds in (np.arange(len(X)) % 4 // 2, np.arange(len(X)) % 2):
        ends.clear()  # and none of an earlier call
        tuner.held_out(folds)
    monkeypatch.setattr(tuning, "_SHORT", (6, 1e-9))  # it ends where it begins
    tuner.models(ALPHAS)
    one, other, last = ends
    for name, tensor in last.items():
        assert (one[name] - other[name]).abs().max() > 1e-3
        assert torch.allclose(tensor, (one[name] + other[name]) / 2, atol=1e-6)


def test_held_out_rows_take_confidence_away(encoder, monkeypatch):
    codes = np.unique(Y, return_inverse=True)[1]
    proba = np.full((3, len(Y), 2), 0.5)
    own = np.where(np.arange(len(Y)) % 5, 0.95, 0.05)
    proba[2, np.arange(len(Y)), codes] = own
    proba[2, np.arange(len(Y)), 1 - codes] = 1 - own
    monkeypatch.setattr(Tuner, "held_out", lambda self, folds: proba)
    clf = classifier(encoder).fit(X, Y)
    T = clf.tuning_.temperature
    assert clf.tuning_.alpha == 1
    assert pytest.approx(find_temperature(proba[2], codes)) == T
    assert T > 1.3
    plain = FewShotClassifier(clf.task_.model, labels=LABELS, store=None).fit(X, Y)
    cooler = copy.deepcopy(plain.decoder_)
    cooler.temper(T)
    H, scores = clf.task_.features(clf.observe(NEW))
    expected = cooler.predict_proba(H, scores=scores)
    np.testing.assert_allclose(clf.decoder_.predict_proba(H, scores=scores), expected, atol=1e-5)
    assert classifier(encoder, decoder="dect").fit(X, Y).tuning_.temperature == 1
    monkeypatch.undo()
    clf.set_params(tune=None).fit(X, Y)  # and nothing is left of it
    frozen = FewShotClassifier(encoder, labels=LABELS, store=None).fit(X, Y)
    assert same(clf, frozen)


@pytest.mark.parametrize(
    ("likely", "chosen"),
    [
        ((0.50, 0.50, 0.50), 0.0),
        ((0.50, 0.49, 0.48), 0.0),
        ((0.50, 0.49, 0.51), 1.0),
        ((0.50, 0.53, 0.51), 0.5),
    ],
)
def test_what_is_chosen_gives_held_out_rows_their_class_most_probably(
    encoder, likely, chosen, monkeypatch
):
    codes = np.unique(Y, return_inverse=True)[1]
    proba = np.zeros((3, len(Y), len(np.unique(Y))))
    for candidate, p in enumerate(likely):
        proba[candidate] = (1 - p) / (proba.shape[2] - 1)
        proba[candidate, np.arange(len(Y)), codes] = p
    monkeypatch.setattr(Tuner, "held_out", lambda self, folds: proba)
    clf = classifier(encoder).fit(X, Y)
    assert clf.tuning_.alpha == chosen
    assert clf.tuning_.gain == pytest.approx(max(likely[1:]) - likely[0])


def test_frozen_where_nothing_can_be_held_out(encoder):
    clf = classifier(encoder).fit(X[7:9], Y[7:9])
    assert (clf.tuning_.chosen, clf.tuning_.n_trainings) == ("frozen", 0)
    assert "no two different examples" in clf.tuning_.reason
    pairs = [{"a": x, "b": x} for x in X]
    clf = classifier(encoder, template="{a} ? {mask} {b}").fit(pairs, Y)
    assert clf.tuning_.chosen == "frozen"
    assert "two fields one by one" in clf.tuning_.reason


def test_frozen_where_there_are_too_few_examples(encoder):
    clf = classifier(encoder).fit(X[4:11], Y[4:11])
    assert (clf.tuning_.chosen, clf.tuning_.n_trainings, clf.tuning_.queries) == ("frozen", 0, 0)
    assert clf.tuning_.reason.startswith("7 different examples are too few to tell")
    assert FewShotClassifier(**clf.get_params()).fit(X[4:12], Y[4:12]).tuning_.frozen is not None
    clf.fit(X[4:11] + X[4:6], Y[4:11] + Y[4:6])  # copies tell nothing
    assert clf.tuning_.reason.startswith("7 different examples")
    assert clf.set_params(decoder="zero-shot").fit([], []).tuning_.chosen == "frozen"


def test_what_was_given_is_warned_of_once(encoder):
    clf = FewShotClassifier(encoder, labels={**LABELS, "none": "movie"}, tune="auto", store=None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        clf.fit([*X, "so dull " * 400, "really dull"], [*Y, "no", "no"])
    assert clf.tuning_.chosen == "tuned"
    assert sum("no example in y" in str(w.message) for w in said) == 1
    cut = [str(w.message) for w in said if "longer than the model reads" in str(w.message)]
    assert [text[:9] for text in cut] == [
        "1 of 19 t",
        "1 of 19 t",
    ]  # one of the frozen, one of the tuned


def test_frozen_where_the_labels_say_nothing(encoder):
    clf = classifier(encoder).fit(X, ["yes", "no"] * 8)
    frozen = FewShotClassifier(encoder, labels=LABELS, store=None)
    frozen.fit(X, ["yes", "no"] * 8)
    assert clf.tuning_.gain <= 0
    assert (clf.tuning_.chosen, clf.tuning_.alpha, clf.tuning_.values) == ("frozen", 0, 0)
    assert clf.tuning_.temperature == 1
    assert same(clf, frozen)


def test_frozen_where_a_training_diverges(encoder, monkeypatch):
    monkeypatch.setattr("fewfit.estimators.tuning._SHORT", (6, 1e30))
    clf = classifier(encoder).fit(X, Y)
    told = clf.tuning_
    assert (told.chosen, told.alpha, told.values, told.n_trainings) == ("frozen", 0, 0, 0)
    assert told.reason.startswith("it cannot be tuned so: training: the loss is nan")
    assert same(clf, FewShotClassifier(encoder, labels=LABELS, store=None).fit(X, Y))


def test_what_cannot_be_tuned_is_refused_before_anything_is_asked(encoder, monkeypatch):
    with pytest.raises(InputError, match="has none of fake"):
        classifier("fake").fit(X, Y)
    for option, said in (("space=logprob", "space"), ("chat=true", "chat")):
        with pytest.raises(InputError, match=f"without '{said}'"):
            classifier(f"hf:nowhere?{option}").fit(X, Y)
    for pair in ({"model": encoder, "hidden": "fake"}, {"model": "hf:any?chat=true + embedded"}):
        with pytest.raises(InputError, match="names a second"):
            FewShotClassifier(**pair, labels=LABELS, tune="auto", store=None).fit(X, Y)
    with pytest.raises(InputError, match="leave out max_queries"):
        classifier(encoder, max_queries=9).fit(X, Y)
    with pytest.raises(InputError, match="without examples in them"):
        classifier(encoder, template=InContext("{text} {mask}")).fit(X, Y)
    with pytest.raises(InputError, match="tune"):
        FewShotClassifier(encoder, tune="always").fit(X, Y)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "fewfit.estimators.tuning.find_spec",
        lambda name: None if name == "accelerate" else found(name),
    )
    with pytest.raises(MissingExtraError, match=r"needs accelerate: .*fewfit\[tune\]"):
        classifier(encoder).fit(X, Y)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"needs torch: .*fewfit\[tune\]"):
        classifier(encoder).fit(X, Y)


def test_from_the_command_line(encoder, tmp_path):
    lines = ["text,label", *(f"{x},{y}" for x, y in zip(X, Y, strict=True))]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")

    def run(*more, code=0):
        command = ["fit", str(tmp_path / "train.csv"), "-o", str(tmp_path / "task"), *more]
        result = CliRunner().invoke(app, [*command, "--store", "none"])
        assert result.exit_code == code, result.output
        return result.output

    how = ["--model", encoder, "--label", "yes=great", "--label", "no=bad", "--tune"]
    told = json.loads(run(*how, "auto", "--json").splitlines()[-1])
    assert told["tuning"]["chosen"] == "tuned"
    assert told["expected_accuracy"]["accuracy"] == told["tuning"]["tuned"]
    assert "is not one of" in run(*how, "always", code=2)
    assert "--tune: has no use" in run("--tune", "auto", "--multi-label", code=2)
    (tmp_path / "train.csv").write_text("text,label\nso fun,yes\nso dull,no\n")
    assert "model: frozen, since class" in run(*how, "auto")
    assert (tmp_path / "task" / "tuning.json").exists() is False
