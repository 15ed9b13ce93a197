"""The checks find what is broken: each of these decoders breaks one promise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from fewfit import FewShotClassifier
from fewfit.decoders import Decoder
from fewfit.errors import InputError
from fewfit.models import FakeModel
from fewfit.testing import check_decoder


class Sound(Decoder):
    """Mean of each class, negative squared distance."""

    requires: ClassVar = frozenset({"hidden"})
    fitted_arrays: ClassVar = {"mean_": ("K", "H")}

    def _fit(self, X, y, scores):
        self.mean_ = np.stack([X[y == k].mean(axis=0) for k in range(len(self.classes_))])

    def _log_odds(self, X, scores):
        return -((X[:, None] - self.mean_) ** 2).sum(axis=2)


class LooksAround(Sound):
    def _log_odds(self, X, scores):
        return super()._log_odds(X - X.mean(axis=0), scores)


class FirstRowsOnly(Sound):
    def _fit(self, X, y, scores):
        self.mean_ = np.stack([X[y == k][0] for k in range(len(self.classes_))])


class ForgetsOnSaving(Sound):
    def _fit(self, X, y, scores):
        super()._fit(X, y, scores)
        self.scale = 2.0

    def _log_odds(self, X, scores):
        return self.scale * super()._log_odds(X, scores)


class BelievesTheOrigin(Sound):
    requires: ClassVar = frozenset({"hidden", "scores"})

    def _log_odds(self, X, scores):
        return super()._log_odds(X, scores) * (1 if scores is None else np.abs(scores))


def test_a_sound_decoder_passes():
    check_decoder(Sound())


@pytest.mark.parametrize("kind", [LooksAround, FirstRowsOnly, ForgetsOnSaving, BelievesTheOrigin])
def test_a_broken_one_does_not(kind):
    with pytest.raises((AssertionError, AttributeError)):
        check_decoder(kind())


class DividesByNothing(Sound):
    def _log_odds(self, X, scores):
        odds = super()._log_odds(X, scores)
        odds[1:3, 0] = np.nan
        return odds


def test_a_number_that_is_none_is_its_decoder_s_and_no_row_without_an_answer():
    texts, y = ["good fun", "bad taste", "quite good", "so bad"], ["pos", "neg", "pos", "neg"]
    fitted = DividesByNothing().fit(np.eye(4), y)
    with pytest.raises(InputError, match=r"DividesByNothing: .* 2 of 4 rows, row 1 the first"):
        fitted.predict_proba(np.eye(4))
    labels = {"pos": "good", "neg": "bad"}
    classifier = FewShotClassifier(FakeModel(), labels=labels, decoder=DividesByNothing())
    classifier.fit(texts, y)
    for asked in (classifier.predict, classifier.predict_proba):
        with pytest.raises(InputError, match="DividesByNothing"):
            asked(texts)
