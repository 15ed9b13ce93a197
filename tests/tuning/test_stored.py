"""What earlier versions wrote is read for ever: stored artifacts, and what they predicted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

from fewfit import FewShotClassifier

FOLDER = Path(__file__).parents[1] / "fixtures" / "tuning"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_artifact_of_version_0_1_predicts_what_it_did(name):
    known = EXPECTED[name]
    clf = FewShotClassifier.load(FOLDER / name, model=f"hf:{FOLDER / 'base'}", store=None)
    assert clf.classes_.tolist() == ["neg", "pos"]
    assert np.allclose(clf.predict_proba(known["texts"]), known["probabilities"], atol=1e-5)
