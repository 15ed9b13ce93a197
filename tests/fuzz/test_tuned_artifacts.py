"""What ``fewfit tune`` wrote, damaged and sealed again: loaded, or refused in words."""

from __future__ import annotations

import random
import shutil

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from fewfit import FewShotClassifier, load_model
from fewfit.tuning import IA3, Recipe, Trunk, save_vectors, site_map
from fewfit.tuning.artifact import MANIFEST, TENSORS, TaskEntry
from tests.fuzz import CASES
from tests.fuzz.test_artifacts import _tried, damaged, sealed
from tests.tuning_models import checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    spec = f"hf:{checkpoint(tmp_path_factory.mktemp('base'))}"
    trunk = Trunk.load(spec)
    folder = tmp_path_factory.mktemp("tuned") / "task"
    task = TaskEntry(
        templates=["{text} It was {mask}."], labels=[("neg", ["bad"]), ("pos", ["good"])]
    )
    save_vectors(
        folder,
        IA3(site_map(trunk.network)),
        base_spec=trunk.spec,
        base_identity=trunk.identity,
        recipe=Recipe(steps=1),
        n_examples=2,
        task=task,
    )
    FewShotClassifier.load(folder, store=None).predict_proba(["so good"])
    return folder


def test_a_damaged_artifact_is_read_or_refused(whole, tmp_path, tmp_path_factory):
    """Its network is opened now and then: that the vectors fit it is checked when it is asked."""
    rng = random.Random("tuned artifacts")
    outcomes = {"loaded": 0, "refused": 0}
    folder = tmp_path / "damaged"

    def load():
        clf = FewShotClassifier.load(folder, store=None)
        if rng.random() < 0.05:
            clf.predict_proba(["so good"])
        load_model(f"tuned:{folder}")

    for _ in range(max(CASES // 5, 40)):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        damaged(folder, MANIFEST, TENSORS, rng)
        outcomes[
            _tried(tmp_path_factory.getbasetemp(), load, (folder / MANIFEST).read_bytes()[:3000])
        ] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize(
    "base",
    ["hf:evil/repository", "hf:/proc/self", "hf:\\\\evil.example\\share", "hf://evil.example/x"],
)
def test_its_base_is_a_model_of_this_machine_or_the_user_names_it(whole, tmp_path, base):
    import json

    folder = tmp_path / "task"
    shutil.copytree(whole, folder)
    entries = json.loads((folder / MANIFEST).read_text())
    del entries["checksum"]
    honest, entries["base_spec"] = entries["base_spec"], base
    sealed(folder, MANIFEST, entries)
    ask = lambda **named: FewShotClassifier.load(folder, store=None, **named).predict(["x"])  # noqa: E731
    assert _tried(folder, ask, base.encode()) == "refused"
    assert len(ask(model=honest)) == 1
