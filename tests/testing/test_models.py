"""The checks find what is broken: each of these models breaks one promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fewfit.models import FakeModel
from fewfit.testing import check_frozen_model


class CentresBatches(FakeModel):
    def stream(self, prompts, words):
        for where, answers in super().stream(prompts, words):
            assert answers.hidden is not None
            yield where, replace(answers, hidden=answers.hidden - answers.hidden.mean(axis=0))


class GivesLess(FakeModel):
    def stream(self, prompts, words):
        for where, answers in super().stream(prompts, words):
            yield where, replace(answers, hidden=None)


class AnyNumber(FakeModel):
    def stream(self, prompts, words):
        for where, answers in super().stream(prompts, words):
            yield where, replace(answers, hidden=np.full((len(where), 4), np.nan, np.float32))


class Nameless(FakeModel):
    @property
    def identity(self):
        return {}


def test_a_sound_model_passes():
    check_frozen_model(FakeModel())
    check_frozen_model(FakeModel(space="similarity", hidden_size=0))


@pytest.mark.parametrize("kind", [CentresBatches, GivesLess, AnyNumber, Nameless])
def test_a_broken_one_does_not(kind):
    with pytest.raises(AssertionError):
        check_frozen_model(kind())
