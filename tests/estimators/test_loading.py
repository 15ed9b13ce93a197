from __future__ import annotations

import json

import numpy as np
import pytest

import fewfit
from fewfit.errors import ArtifactError
from tests import warm


def test_load_reads_either_kind_in_a_fresh_process(tmp_path):
    texts = ["so good", "quite bad", "good", "bad"]
    one = fewfit.FewShotClassifier("fake", labels={"n": "bad", "y": "good"}, store=None)
    one.fit(texts, ["y", "n", "y", "n"]).save(tmp_path / "one")
    many = fewfit.MultiLabelClassifier("fake", store=None)
    many.fit(texts, [["y"], ["n"], ["y", "n"], []]).save(tmp_path / "many")
    code = (
        "import sys, json, fewfit\n"
        "out = []\n"
        "for folder in sys.argv[1:]:\n"
        "    clf = fewfit.load(folder, store=None, verify=True)\n"
        "    out.append([type(clf).__name__, clf.predict_proba(['so bad']).tolist()])\n"
        "print(json.dumps(out))"
    )
    folders = [str(tmp_path / "one"), str(tmp_path / "many")]
    (a, p), (b, q) = json.loads(warm.run(code, *folders))
    assert (a, b) == ("FewShotClassifier", "MultiLabelClassifier")
    np.testing.assert_allclose(p, one.predict_proba(["so bad"]), atol=1e-6)
    np.testing.assert_allclose(q, many.predict_proba(["so bad"]), atol=1e-6)


def test_load_refuses_a_folder_without_an_artifact(tmp_path):
    with pytest.raises(ArtifactError, match="no artifact at"):
        fewfit.load(tmp_path / "nothing")
