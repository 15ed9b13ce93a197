"""Artifacts to a hub of models and back, on a hub of this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fewfit import FewShotClassifier, MultiLabelClassifier
from fewfit.artifacts.files import CARD
from fewfit.artifacts.schema import MANIFEST, TENSORS
from fewfit.errors import ArtifactError, MissingExtraError, ModelMismatchError
from fewfit.models import FakeModel
from tests.estimators.test_classifier import TEXTS, Y, make
from tests.estimators.test_fitted import edit
from tests.fake_hub import serving

NEW = ["good", "bad", ""]
Y2 = ["yes", "no"]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as served:
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield served


def test_what_is_pushed_comes_back(hub, tmp_path):
    clf = make("fake").fit(TEXTS, Y)
    address = clf.push_to_hub("me/task", private=True)
    assert address.startswith(f"{hub.url}/me/task/commit/")
    held = hub.repositories["me/task"]
    assert sorted(held) == [CARD, TENSORS, MANIFEST]
    assert held[CARD].startswith(b'---\nlibrary_name: "fewfit"\n')
    hub.asked.clear()
    again = FewShotClassifier.from_pretrained("me/task", store=None, verify=True)
    np.testing.assert_array_equal(again.predict_proba(NEW), clf.predict_proba(NEW))
    fetched = {path.rpartition("/")[2] for path in hub.asked}
    assert fetched == {MANIFEST, TENSORS}, "nothing else of a stranger's repository is asked for"
    hub.asked.clear()
    kept = FewShotClassifier.from_pretrained("me/task", local_files_only=True, store=None)
    assert hub.asked == []
    np.testing.assert_array_equal(kept.predict_proba(NEW), clf.predict_proba(NEW))
    # saved and pushed in one call
    folder = tmp_path / "other"
    assert clf.save_pretrained(folder) is None
    assert clf.save_pretrained(folder, push_to_hub=True, keep_example=True) is not None
    assert json.loads(hub.repositories["me/other"][MANIFEST])["example"]["row"]["text"] == TEXTS[0]
    assert FewShotClassifier.from_pretrained(folder, store=None).predict(["good"]) == ["pos"]


def test_what_a_hub_holds_is_checked_and_opens_nothing(hub, tmp_path):
    make("fake").fit(TEXTS, Y).save(tmp_path / "task")

    def held() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "task").iterdir()}

    hub.repositories["a/damaged"] = held() | {TENSORS: held()[TENSORS][:-1] + b"\xff"}
    with pytest.raises(ArtifactError, match="checksum"):
        FewShotClassifier.from_pretrained("a/damaged", store=None)
    hub.repositories["a/half"] = {MANIFEST: held()[MANIFEST]}
    with pytest.raises(ArtifactError, match="could not be fetched"):
        FewShotClassifier.from_pretrained("a/half", store=None)
    hub.repositories["a/other"] = {"config.json": b'{"model": "openai:http://evil.example"}'}
    with pytest.raises(ArtifactError, match=r"holds no manifest.json and no tuning.json"):
        FewShotClassifier.from_pretrained("a/other", store=None)
    hub.repositories["a/config"] = held() | hub.repositories["a/other"]
    assert FewShotClassifier.from_pretrained("a/config", store=None).model == "fake"
    edit(tmp_path / "task", lambda m: m.update(model_spec="vllm:http://evil.example?model=m"))
    hub.repositories["a/server"] = held()
    with pytest.raises(ArtifactError, match="only if you name it"):
        FewShotClassifier.from_pretrained("a/server", store=None)
    assert FewShotClassifier.from_pretrained("a/server", model="fake", store=None)
    with pytest.raises(ModelMismatchError):
        FewShotClassifier.from_pretrained("a/server", model=FakeModel(seed=1), store=None)
    with pytest.raises(ArtifactError, match="which MultiLabelClassifier does not read"):
        MultiLabelClassifier.from_pretrained("a/config", store=None)


def test_a_name_that_leads_nowhere_is_one_error(hub, tmp_path):
    for name in ("a/nothing", "no folder at all", "../task"):
        with pytest.raises(ArtifactError, match="is no folder here, and it could not be fetched"):
            FewShotClassifier.from_pretrained(name, store=None)
    hub.asked.clear()
    with pytest.raises(ArtifactError, match="could not be fetched"):
        FewShotClassifier.from_pretrained("a/task", local_files_only=True, store=None)
    assert hub.asked == []


def test_a_users_file_is_not_lost_on_the_way(tmp_path):
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(ArtifactError, match="other files"):
        make("fake").fit(TEXTS, Y).save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_only_the_hub_needs_the_hubs_library(tmp_path, monkeypatch):
    clf = make("fake").fit(TEXTS, Y)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    clf.save_pretrained(tmp_path / "task")
    assert FewShotClassifier.from_pretrained(tmp_path / "task", store=None).predict(["good"])
    for ask in (lambda: clf.push_to_hub("me/x"), lambda: type(clf).from_pretrained("me/x")):
        with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[hf\]"'):
            ask()


def test_a_tuned_model_comes_from_the_hub_and_is_read_when_it_is_asked(hub):
    pytest.importorskip("torch")
    stored = Path(__file__).parents[1] / "fixtures" / "tuning"
    folder = stored / "t-few"
    hub.repositories["a/tuned"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    options = {"model": f"hf:{stored / 'base'}", "store": None}
    here = FewShotClassifier.load(folder, **options)
    fetched = FewShotClassifier.from_pretrained("a/tuned", **options)
    np.testing.assert_array_equal(fetched.predict_proba(TEXTS), here.predict_proba(TEXTS))


def test_a_model_tuned_for_it_comes_along(hub, tmp_path):
    pytest.importorskip("torch")
    from fewfit.artifacts.schema import MODEL_FILES
    from fewfit.tuning import Trunk, TunedModel, make_method
    from fewfit.tuning.artifact import adapter_files
    from tests.models.local.test_sentences import save

    trunk, method = Trunk.load(f"encoder:{save(tmp_path / 'base')}"), make_method("contrastive")
    files = adapter_files(
        method.build(trunk, 0),
        method=method,
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=method.recipe,
        n_examples=2,
    )
    clf = FewShotClassifier(TunedModel.of(files, trunk=trunk), store=None).fit(["so fun", "x"], Y2)
    clf.push_to_hub("me/tuned")
    held = hub.repositories["me/tuned"]
    assert set(held) == {CARD, TENSORS, MANIFEST, *MODEL_FILES}
    again = FewShotClassifier.from_pretrained("me/tuned", store=None)
    np.testing.assert_allclose(again.predict_proba(NEW), clf.predict_proba(NEW), atol=1e-6)
    hub.repositories["me/less"] = {name: held[name] for name in (TENSORS, MANIFEST)}
    with pytest.raises(ArtifactError, match="could not be fetched"):
        FewShotClassifier.from_pretrained("me/less", store=None)
    hub.repositories["me/odd"] = held | {MANIFEST: b"[]"}
    with pytest.raises(ArtifactError, match="not the manifest"):
        FewShotClassifier.from_pretrained("me/odd", store=None)
