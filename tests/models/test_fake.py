"""The toy model: a distribution, faults on demand, a log."""

from __future__ import annotations

import numpy as np
import pytest

from fewfit.errors import ModelError
from fewfit.models import FakeModel
from tests.conftest import prompts
from tests.models.test_base import TEXTS, WORDS


@pytest.fixture(params=["fake", "fake-logit", "fake-similarity", "fake-scores-only", "embedded"])
def model(request):
    if request.param == "embedded":
        return request.getfixturevalue("embedded")
    options = {
        "fake": {},
        "fake-logit": {"space": "logit"},
        "fake-similarity": {"space": "similarity", "batch_size": 3},
        "fake-scores-only": {"hidden_size": 0},
    }
    return FakeModel(**options[request.param])


def test_fake_log_probabilities_are_a_distribution():
    answers = FakeModel().observe(prompts(*TEXTS), WORDS)
    np.testing.assert_allclose(np.exp(answers.scores).sum(axis=1), answers.label_mass, rtol=1e-5)
    assert (answers.label_mass <= 1).all()
    assert answers.label_mass.min() < 0.9


def test_fake_faults_and_log(tmp_path):
    model = FakeModel(faults={2: ModelError("boom")}, log=tmp_path / "log", batch_size=1)
    with pytest.raises(ModelError, match="boom"):
        model.observe(prompts("a", "b", "c", "d"), WORDS)
    assert len((tmp_path / "log").read_text().splitlines()) == 3
