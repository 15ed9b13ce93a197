"""Whatever is fitted pickles in kilobytes, and opens its model again where it is read."""

from __future__ import annotations

import copy
import json
import pickle
import threading

import joblib
import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from fewfit import FewShotClassifier, MultiLabelClassifier, load_model
from fewfit.errors import ModelMismatchError
from fewfit.estimators.opening import open_model
from fewfit.models import EmbeddedEncoder, FakeModel
from fewfit.models.budget import BudgetedModel
from fewfit.models.metered import MeteredModel
from fewfit.models.vocabulary import VocabularyModel
from fewfit.store import StoredModel
from tests import warm

LABELS = {"neg": "bad", "pos": "good"}
TEXTS = ["a good film", "bad bad", "fine and good", "truly bad stuff", "good", "bad it was"]
Y = ["pos", "neg"] * 3
NEW = ["good thing", "quite bad", ""]


class Locked(FakeModel):
    """One of a user's own, with what no pickle holds."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Other(EmbeddedEncoder):
    """A subclass is not what its inherited spec names."""


def fitted(model="fake", **options) -> FewShotClassifier:
    options = {"labels": LABELS, "store": None, **options}
    return FewShotClassifier(model, **options).fit(TEXTS, Y)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    return build("bert", tmp_path_factory.mktemp("bert"))


def test_a_fitted_classifier_goes_to_a_fresh_process(tmp_path, checkpoint):
    paths, expected = [], []
    for name, model in [("fake", "fake"), ("hf", f"hf:{checkpoint}")]:
        clf = fitted(model, store=tmp_path / "store.sqlite", max_queries=50, decoder="dect")
        paths.append(tmp_path / f"{name}.joblib")
        joblib.dump(clf, paths[-1])
        assert paths[-1].stat().st_size < 30_000
        expected.append(clf.predict_proba(NEW))
    code = (
        "import sys, joblib, json; "
        f"told = [joblib.load(path).predict_proba({NEW!r}) for path in sys.argv[1:]]; "
        "print(json.dumps([p.tolist() for p in told]))"
    )
    np.testing.assert_allclose(json.loads(warm.run(code, *paths)), expected, atol=1e-6)


def test_weights_stay_out_of_a_pickle(checkpoint, embedded):
    for model in (load_model(f"hf:{checkpoint}"), embedded):
        clf = fitted(model)
        data = pickle.dumps(clf)
        assert len(data) < 30_000
        again = pickle.loads(data)
        assert again.model is not model
        np.testing.assert_allclose(again.predict_proba(NEW), clf.predict_proba(NEW), atol=1e-6)


def test_workers_get_fitted_classifiers_and_models():
    clf = fitted(load_model("fake"))
    alone = cross_val_score(clf, TEXTS, Y, cv=3)
    np.testing.assert_array_equal(cross_val_score(clf, TEXTS, Y, cv=3, n_jobs=2), alone)


def test_what_stands_in_front_of_a_model_stays_there(tmp_path):
    model = open_model("fake", tmp_path / "store.sqlite", 7)
    list(model.stream([fitted().task_.template.render({"text": "x"})], ["a", "b"]))
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again, StoredModel)
    assert again.path == model.path
    assert isinstance(again.model, BudgetedModel)
    assert (again.model.max_queries, again.model.left, again.model.keeps) == (7, 6, True)
    toy = FakeModel(vocabulary=["a", "b"], seed=3)
    for front in (VocabularyModel(toy), MeteredModel(toy)):
        again = pickle.loads(pickle.dumps(front))
        assert type(again) is type(front)
        assert again.identity == front.identity


def test_a_model_that_code_made_is_pickled_as_it_is_or_says_why_not():
    clf = fitted(FakeModel(seed=3))
    again = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    with pytest.raises(pickle.PicklingError, match=r"^Locked: only code can make this model.*lock"):
        pickle.dumps(fitted(Locked()))
    assert type(pickle.loads(pickle.dumps(Other()))) is Other
    model = load_model("fake")
    assert copy.copy(model) is copy.deepcopy(model) is model


def test_soft_prompts_and_tuned_models_are_made_again(checkpoint, tmp_path):
    base = load_model(f"hf:{checkpoint}")
    soft = base.with_soft_prompt(np.full((2, base.input_embeddings().shape[1]), 0.1))
    again = pickle.loads(pickle.dumps(StoredModel(soft, tmp_path / "store.sqlite")))
    assert again.identity == soft.identity


def test_a_pickle_knows_the_model_that_it_was_fitted_on(checkpoint):
    clf = fitted(f"hf:{checkpoint}")
    data = pickle.dumps(clf)
    config = checkpoint / "config.json"
    before = config.read_text()
    try:
        config.write_text(before.replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
        assert config.read_text() != before
        again = pickle.loads(data)
        with pytest.raises(ModelMismatchError, match="pickled classifier was fitted on another"):
            again.predict(NEW)
        again.fit(TEXTS, Y).predict(NEW)
    finally:
        config.write_text(before)


def test_several_labels_too():
    clf = MultiLabelClassifier("fake", store=None).fit(TEXTS, [["a"], ["b"], ["a", "b"]] * 2)
    again = pickle.loads(pickle.dumps(clf))
    assert again.predict(NEW) == clf.predict(NEW)
