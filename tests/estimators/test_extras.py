"""What is not installed is said by the first call, in one error."""

from __future__ import annotations

import sys
import traceback

import pytest

from fewfit import FewShotClassifier
from fewfit.errors import MissingExtraError


def test_a_missing_extra_is_one_error_near_the_call(monkeypatch, tmp_path):
    pytest.importorskip("torch")
    from tests.hf_checkpoints import build

    checkpoint = build("bert", tmp_path / "bert")
    for name in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    for model, extra in [("embedded-en-float32", "minilm"), (f"hf:{checkpoint}", "hf")]:
        store = tmp_path / "store.sqlite"
        with pytest.raises(MissingExtraError, match=rf'pip install "fewfit\[{extra}\]"') as error:
            FewShotClassifier(model, store=store).fit(["x", "y"], ["a", "b"])
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__
        assert len(traceback.extract_tb(error.value.__traceback__)) <= 6
        assert not store.exists()
