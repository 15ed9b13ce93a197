"""An artifact that version 0.1 wrote on its embedded model, all-MiniLM-L6-v2 in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fewfit import FewShotClassifier
from fewfit.errors import MissingExtraError, ModelMismatchError

FOLDER = Path(__file__).parents[1] / "fixtures" / "minilm-0.1"


def test_it_is_found_by_identity_and_says_the_same(minilm):
    clf = FewShotClassifier.load(FOLDER, store=None, verify=True)
    assert clf.task_.model.spec == "embedded-en-float32"
    found = clf.predict_proba(["a great evening"])
    np.testing.assert_allclose(found, [[0.21355142, 0.78644854]], atol=1e-4)


def test_the_name_that_it_had_still_opens_it():
    clf = FewShotClassifier.load(FOLDER, model="embedded", store=None)
    assert clf.task_.model.spec == "embedded-en-float32"


def test_without_torch_it_says_which_extra(monkeypatch):
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    clf = FewShotClassifier.load(FOLDER, store=None)
    with pytest.raises(MissingExtraError, match=r'pip install "fewfit\[minilm\]"'):
        clf.predict(["a great evening"])


def test_what_was_fitted_on_another_is_not_taken_for_it(embedded, tmp_path):
    clf = FewShotClassifier(embedded, store=None).fit(["good", "bad"], ["a", "b"])
    clf.save(tmp_path / "new")
    assert FewShotClassifier.load(tmp_path / "new", store=None).task_.model.spec == "embedded"
    with pytest.raises(ModelMismatchError, match="another frozen model"):
        FewShotClassifier.load(FOLDER, model="embedded-en", store=None)
